"""δ-mem, measured: a benchmark and reproduction harness for memory beside a frozen language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.session import Session

__all__ = ["Session", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``Session``, imported when it is first asked for: importing the package imports no torch."""
    if name != "Session":
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    from harness.session import Session

    return Session
