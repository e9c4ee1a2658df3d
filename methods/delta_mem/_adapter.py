"""An adapter as a value: a configuration and named tensors, apart from the format that they are stored in."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.errors import HarnessError
from methods.delta_mem._layer import HEADS, DeltaMemLayer, DeltaMemory
from methods.delta_mem._model import DeltaMemConfig, DeltaMemModel

Format = Literal["native", "official"]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, HOLDER = "base_model.model.", ".delta_mem_memory."
MODULE = re.compile(r".*?\.(\d+)\.(?:.*\.)?([^.]+)")
"""Path of an attention module: the first number in it is its layer, the last part its attribute name."""


@dataclass(frozen=True)
class Adapter:
    """What a folder holds, in either format."""

    folder: Path
    form: Format
    config: DeltaMemConfig
    tensors: dict[str, Tensor]
    """By ``<module path>.<tensor>``, as ``model.layers.0.self_attn.memory_q_proj``."""
    defaulted: tuple[str, ...] = ()
    """Keys of the configuration that the folder does not name."""
    modules: dict[str, dict[str, Tensor]] = field(init=False)
    """The same tensors by module path, then by tensor."""

    def __post_init__(self) -> None:
        modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            path, _, short = name.rpartition(".")
            modules.setdefault(path, {})[short] = tensor
        object.__setattr__(self, "modules", modules)

    def inactive(self, name: str) -> bool:
        """The tensor belongs to a head that corrects nothing: it is carried and has no effect."""
        return name.rpartition(".")[2] in {f"delta_{h}_proj" for h in HEADS if h not in self.config.delta_heads}

    @property
    def notes(self) -> list[str]:
        """What is odd and has no effect."""
        odd = [name for name, tensor in self.tensors.items() if self.inactive(name) and tensor.any()]
        if not odd:
            return []
        heads = ", ".join(self.config.delta_heads)
        return [f"{len(odd)} tensors of inactive heads are not zero (first: {odd[0]}); only {heads} have an effect"]


def check(adapter: Adapter, model: nn.Module | None = None) -> None:
    """Hold every name and shape against the configuration and, with a model, against its attention modules.

    Tensors of inactive heads may be there or not. Nothing else may be missing: at its initialisation it would steer
    the model without a word.

    Raises:
        HarnessError: the first thing that does not fit.
    """
    attention = attention_modules(model, adapter.config) if model is not None else None
    for path in adapter.modules:
        if attention is not None and path not in attention:
            raise HarnessError(
                f"{adapter.folder} has tensors for '{path}', where this backbone and configuration have no memory; "
                "name the backbone that the adapter was made for"
            )
    layers = [layer_of(path) for path in adapter.modules]
    chosen = adapter.config.layers_to_transform
    if not layers or (chosen and set(layers) != set(chosen)):
        raise HarnessError(
            f"{adapter.folder} has tensors for the layers {sorted(set(layers))} and a configuration for "
            f"{'all' if not chosen else sorted(chosen)}; get the adapter again"
        )
    for path in attention or adapter.modules:
        _check_module(adapter, path, attention[path] if attention else None)


def _check_module(adapter: Adapter, path: str, attention: nn.Module | None) -> None:
    stored = adapter.modules.get(path, {})
    wanted = shapes(adapter.config, attention or _outline(stored))
    for name, shape in wanted.items():
        if name in stored and tuple(stored[name].shape) != shape:
            raise HarnessError(
                f"{adapter.folder} holds {path}.{name} as {list(stored[name].shape)} and its configuration"
                f"{' on this backbone' if attention else ''} makes it {list(shape)}; name the backbone that the "
                "adapter was made for, or correct the configuration"
            )
        if name not in stored and not adapter.inactive(name):
            raise HarnessError(f"{adapter.folder} lacks the tensor {path}.{name}; get the adapter again")
    unknown = sorted(stored.keys() - wanted.keys())
    if unknown:
        raise HarnessError(
            f"{adapter.folder} holds {path}.{unknown[0]}, which its configuration has no use for; "
            "correct the configuration"
        )


def shapes(config: DeltaMemConfig, attention: Any) -> dict[str, tuple[int, ...]]:
    """Every tensor of one memory, those of inactive heads included (specification 1.2)."""
    everything = copy.copy(config)
    everything.delta_heads = list(HEADS)
    with torch.device("meta"):
        memory = DeltaMemory(everything, attention)
    return {name: tuple(p.shape) for name, p in memory.named_parameters()}


def _outline(stored: Mapping[str, Tensor]) -> Any:
    """The widths of an attention module, as far as the tensors themselves tell; 0 where they do not."""
    width = lambda name, axis: dict(enumerate(stored[name].shape)).get(axis, 0) if name in stored else 0  # noqa: E731
    return SimpleNamespace(
        **{
            f"{h}_proj": SimpleNamespace(
                in_features=width("memory_q_proj", 1), out_features=width(f"delta_{h}_proj", 0)
            )
            for h in HEADS
        }
    )


def attention_modules(model: nn.Module, config: DeltaMemConfig) -> dict[str, nn.Module]:
    """The modules that get a memory, by path.

    Raises:
        HarnessError: there is none, or the configuration names a layer that the model does not have.
    """
    found = {}
    for path, module in model.named_modules():
        match = MODULE.fullmatch(path)
        if match and match[2] in config.target_modules:
            found[path] = module
    absent = set(config.layers_to_transform or ()) - {layer_of(path) for path in found}
    if absent or not found:
        raise HarnessError(
            f"the backbone has no module {' or '.join(config.target_modules)}"
            f"{f' in layer {min(absent)}' if absent else ''}; name the backbone that the adapter was made for"
        )
    chosen = config.layers_to_transform or {layer_of(path) for path in found}
    return {path: module for path, module in found.items() if layer_of(path) in chosen}


def layer_of(path: str) -> int:
    """The backbone's index of a module's layer; -1 where the path tells none."""
    match = MODULE.fullmatch(path)
    return int(match[1]) if match else -1


def attach(adapter: Adapter, model: nn.Module) -> DeltaMemModel:
    """Put the adapter on a model, every parameter exactly as stored (widened to fp32, in which all of bf16 is exact).

    Raises:
        HarnessError: it does not fit (:func:`check`).
    """
    check(adapter, model)
    memory = DeltaMemModel(model, copy.copy(adapter.config), "default").eval()
    for path, layer in memory_layers(memory).items():
        stored = adapter.modules[path]
        layer.memory.load_state_dict({name: stored[name] for name in layer.memory.state_dict()})
    return memory.requires_grad_(False)


def memory_layers(memory: DeltaMemModel) -> dict[str, DeltaMemLayer]:
    """The attached memories by module path, in the order of their states."""
    return {path: m for path, m in memory.model.named_modules() if isinstance(m, DeltaMemLayer)}


# --- native: PEFT's ---


def read_native(folder: Path) -> Adapter:
    """Read what PEFT's ``save_pretrained`` wrote.

    Raises:
        HarnessError: it is no δ-mem adapter, or torn.
    """
    try:
        config = DeltaMemConfig.from_pretrained(str(folder))
        stored = load_file(folder / TENSORS)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HarnessError(f"{folder} cannot be read as a δ-mem adapter ({reason}); get the adapter again") from error
    strange = [n for n in stored if not (n.startswith(PREFIX) and HOLDER in n)]
    if strange:
        raise HarnessError(
            f"{folder / TENSORS} holds '{strange[0]}', no tensor of a δ-mem adapter; name another folder"
        )
    tensors = {name.removeprefix(PREFIX).replace(HOLDER, "."): tensor for name, tensor in stored.items()}
    return Adapter(folder, "native", config, tensors)


def write_native(adapter: Adapter, folder: Path) -> None:
    """Write PEFT's layout; tensors of inactive heads have no place in it."""
    config = copy.copy(adapter.config)
    config.inference_mode = True
    tensors = {}
    for name, tensor in adapter.tensors.items():
        if not adapter.inactive(name):
            path, _, short = name.rpartition(".")
            tensors[f"{PREFIX}{path}{HOLDER}{short}"] = tensor.contiguous()
    with appearing_whole(folder) as work:
        config.save_pretrained(str(work))
        save_file(tensors, work / TENSORS, metadata={"format": "pt"})


@contextmanager
def appearing_whole(folder: Path) -> Iterator[Path]:
    """A work folder that gets the name ``folder`` when the block ends well, and else is gone.

    Raises:
        HarnessError: the name is taken.
    """
    if folder.exists():
        raise HarnessError(f"{folder} is there already and would be overwritten; name a folder that does not exist")
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        work.mkdir(parents=True)
        yield work
        os.rename(work, folder)
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
