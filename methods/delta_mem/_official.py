"""The authors' adapter format: ``delta_mem_config.json`` beside ``delta_mem_adapter.pt`` (specification 2).

A key that a file leaves out has the *class default* of the format, which is not everywhere that of
:class:`DeltaMemConfig`: without ``delta_heads`` all four heads correct, without ``output_init`` they start at zero.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from harness.errors import HarnessError
from methods.delta_mem._adapter import Adapter, appearing_whole, attention_modules, shapes
from methods.delta_mem._model import DeltaMemConfig

CONFIG, TENSORS = "delta_mem_config.json", "delta_mem_adapter.pt"

Head = Literal["q", "k", "v", "o"]


class Options(BaseModel):
    """The keys that have an effect, with the format's defaults."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    rank: int = Field(8, ge=1)
    alpha: float = 16.0
    beta_bias_init: float = -1.5
    normalize_qk: bool = True
    couple_lambda: bool = True
    rankwise_gates: bool = True
    state_update_mode: Literal["standard", "lambda_outside", "no_lambda"] = "standard"
    output_init: Literal["zero", "random", "base_slice", "base_slice_fixed"] = "zero"
    base_slice_ref_width: int = Field(8, ge=1)
    online_gain: float = 0.05
    num_state_heads: int = Field(1, ge=1)
    memory_write_granularity: Literal["token", "message_mean", "sentence_mean"] = "token"
    target_modules: list[str] = Field(["self_attn"], min_length=1)
    target_layers: list[Annotated[int, Field(ge=0)]] = []
    delta_heads: list[Head] = Field(["q", "k", "v", "o"], min_length=1)
    delta_o_rmsnorm: bool = False
    delta_o_rmsnorm_eps: float = 1e-6
    trainable_delta_scale: bool = False
    delta_scale_init: float = 1.0
    delta_scale_max: float = 2.0
    delta_scale_granularity: Literal["layer", "head"] = "layer"
    delta_scale_parameterization: Literal["alpha_over_rank"] = "alpha_over_rank"

    @model_validator(mode="after")
    def _below_its_maximum(self) -> Self:
        if not self.delta_scale_init < self.delta_scale_max:
            raise ValueError(f"delta_scale_init {self.delta_scale_init} is not below delta_scale_max")
        return self


FIXED: Mapping[str, Any] = {
    "num_memory_partitions": 1,
    "num_global_memory_partitions": 0,
    "memory_partition_routing": "soft",
    "memory_partition_basis": "shared",
    "tie_memory_partition_read_write": False,
    "memory_partition_read_mode": "softmax",
    "slot_read_top_k": 0,
    "global_memory_mode": "shared_rw",
    "global_memory_read_top_k": 0,
    "global_memory_merge_mode": "gated_residual",
    "memory_reader_layers": [],
    "memory_readout_mode": "delta",
    "memory_write_source": "learned_hidden",
    "memory_write_proposals_per_message": 2,
    "synthetic_memory_slots": 1,
    "latent_memory_layers": [],
}
"""Keys without effect that the authors' class takes at these values only."""

STORED: Mapping[str, Any] = {
    "memory_partition_sigmoid_gate_bias_init": -2.0,
    "global_memory_gate_bias_init": -2.0,
    "global_memory_read_logit_bias": 0.0,
    "memory_reader_hidden_size": 1024,
    "memory_reader_residual_scale": 0.1,
    "memory_reader_read_only": True,
    "latent_memory_hidden_size": 1024,
    "latent_memory_residual_scale": 0.1,
    "latent_memory_slots": 4,
    "latent_memory_init_std": 0.002,
    "latent_gate_init": 0.01,
}
"""Keys without effect that may have any value of their type; read and not kept, written at these values."""

NAMES = {name: name for name in Options.model_fields if name != "delta_scale_parameterization"} | {
    "rank": "r",
    "target_layers": "layers_to_transform",
}
"""The field of :class:`DeltaMemConfig` that each key is; a scale is alpha / rank in both and needs none."""


def options(values: Any, file: Path) -> Options:
    """Check the content of a configuration file.

    Raises:
        HarnessError: a key is unknown or has a value that it cannot have, or one without effect is not its default.
    """
    if not isinstance(values, dict):
        raise HarnessError(f"{file} holds no JSON object; get the adapter again")
    live = {}
    for key, value in values.items():
        if key in FIXED:
            if (type(value), value) != (type(FIXED[key]), FIXED[key]):
                raise HarnessError(
                    f"{file} sets {key} to {_short(value)}, but the option has no effect and must be "
                    f"{FIXED[key]!r}; set it to that or leave it out"
                )
        elif key in STORED:
            if not _is_like(value, STORED[key]):
                raise HarnessError(
                    f"{file} sets {key} to {_short(value)}, which should be a number like {STORED[key]!r}; "
                    "correct it or leave it out"
                )
        else:
            live[key] = value
    try:
        return Options(**live)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = first["loc"][0]
            raise HarnessError(
                f"{file} sets {key} to {_short(live[key])}, a key that the format does not know; correct or remove it"
            ) from error
        reason = first["msg"].removeprefix("Value error, ")
        where = f" sets {first['loc'][0]} to {_short(live[first['loc'][0]])}" if first["loc"] else ""
        raise HarnessError(f"{file}{where}: {reason[0].lower()}{reason[1:]}; correct it") from error


def to_native(options: Options) -> DeltaMemConfig:
    """Our configuration of the same adapter."""
    values = {native: getattr(options, key) for key, native in NAMES.items()}
    return DeltaMemConfig(**{**values, "layers_to_transform": options.target_layers or None})


def to_official(config: DeltaMemConfig) -> dict[str, Any]:
    """All 49 keys of the format.

    Raises:
        HarnessError: the format has no value for one of ours.
    """
    values = {key: getattr(config, native) for key, native in NAMES.items()}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    values["target_layers"] = list(config.layers_to_transform or ())
    return {**options(values, Path(CONFIG)).model_dump(), **FIXED, **STORED}


def beside(config: DeltaMemConfig) -> list[str]:
    """Our fields that the format has no key for and that are not at their default."""
    own = {f.name for f in dataclasses.fields(DeltaMemConfig)} - {f.name for f in dataclasses.fields(_peft_fields())}
    default = DeltaMemConfig()
    return sorted(n for n in own - set(NAMES.values()) if getattr(config, n) != getattr(default, n))


def _peft_fields() -> type:
    return DeltaMemConfig.__mro__[1]


def read(folder: Path) -> Adapter:
    """Read an adapter of the authors.

    Raises:
        HarnessError: a file is torn or holds what the format does not know. Nothing in it is executed.
    """
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"{folder / CONFIG} cannot be read as JSON ({error}); get the adapter again") from error
    found = options(values, folder / CONFIG)
    missing = [key for key in (*Options.model_fields, *FIXED, *STORED) if key not in values]
    return Adapter(folder, "official", to_native(found), _tensors(folder / TENSORS), tuple(missing))


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn archive raises one of many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HarnessError(f"{file} cannot be read as tensors alone ({reason}); get the adapter again") from error
    if not isinstance(stored, dict):
        raise HarnessError(f"{file} holds a {type(stored).__name__} instead of named tensors; get the adapter again")
    for name, tensor in stored.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point()):
            raise HarnessError(f"{file} holds {name!r}, which is no tensor of numbers; get the adapter again")
    return {name: tensor.contiguous() for name, tensor in stored.items()}


def write(adapter: Adapter, folder: Path, model: nn.Module | None = None) -> None:
    """Write the authors' two files.

    Args:
        model: The backbone, on any device, meta included. With it, tensors of inactive heads are written as zeros,
            as the release does; without, their width is not known and they are left out, which its loader accepts.
    """
    values = to_official(adapter.config)
    tensors = {name: tensor for name, tensor in adapter.tensors.items() if not adapter.inactive(name)}
    dtype = next(iter(tensors.values())).dtype
    for path, attention in (attention_modules(model, adapter.config) if model else {}).items():
        for short, shape in shapes(adapter.config, attention).items():
            tensors.setdefault(f"{path}.{short}", torch.zeros(shape, dtype=dtype))
    with appearing_whole(folder) as work:
        (work / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        torch.save({name: tensor.clone() for name, tensor in tensors.items()}, work / TENSORS)


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
