"""δ-mem, measured: a benchmark and reproduction harness for memory beside a frozen language model."""

__version__ = "0.1.0"
