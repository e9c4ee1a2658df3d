"""What a number was made with: code, versions, machine (docs/provenance.md)."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "lm_eval",
    "ray",
    "snakemake",
    "accelerate",
    "datasets",
    "tokenizers",
    "bm25s",
    "numpy",
    "scipy",
)
QUANTISER = "bitsandbytes"
"""Optional, for 4-bit weights."""


@cache
def versions() -> dict[str, str]:
    """Python and the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = metadata.version(package)
    with contextlib.suppress(metadata.PackageNotFoundError):
        found[QUANTISER] = metadata.version(QUANTISER)
    return found


def code() -> tuple[str, bool]:
    """Commit of this repository and whether its tracked files differ from it; ('unknown', True) outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return commit, dirty


def _git(root: Path, *words: str) -> str:
    return subprocess.run(("git", *words), cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """GPU name, or the CPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def machine(device: torch.device) -> dict[str, str]:
    """The processor, the GPU where there is one in use, the operating system, and what torch was built for."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    build = f"cuda {torch.version.cuda}" if torch.version.cuda else "cpu"
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": _cpu_name(), **gpu, "system": system, "torch_build": build}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of the device on CUDA, else the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
