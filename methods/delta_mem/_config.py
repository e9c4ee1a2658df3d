"""The adapter's configuration, in PEFT's form. Field by field: specification 2."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from methods.delta_mem._peft import DELTA_MEM


@dataclass
class DeltaMemConfig(PeftConfig):
    """A δ-mem adapter. Defaults are the released training's; the three variants are presets of it.

    TSW: one state, token writes. SSW: one state, message writes. MSW: four states, token writes.
    """

    r: int = field(default=8, metadata={"help": "Rank: a state is r x r."})
    alpha: float = field(default=16.0, metadata={"help": "Corrections are scaled by alpha / r."})
    num_state_heads: int = field(default=1, metadata={"help": "N, independent states a layer."})
    memory_write_granularity: str = field(default="token", metadata={"help": "token, message_mean or sentence_mean."})
    delta_heads: list[str] = field(default_factory=lambda: ["q", "o"], metadata={"help": "Projections corrected."})
    target_modules: list[str] = field(default_factory=lambda: ["self_attn"], metadata={"help": "Attribute names."})
    layers_to_transform: list[int] | None = field(default=None, metadata={"help": "Layer indices; None is all."})
    rankwise_gates: bool = field(default=True, metadata={"help": "A gate a row of S, or one a state."})
    couple_lambda: bool = field(default=True, metadata={"help": "Keep gate = 1 - write gate."})
    normalize_qk: bool = field(default=True, metadata={"help": "tanh and unit norm of q and k."})
    state_update_mode: str = field(default="standard", metadata={"help": "standard, lambda_outside, no_lambda."})
    beta_bias_init: float = field(default=-1.5, metadata={"help": "Write gate at start: sigmoid of it."})
    output_init: str = field(
        default="base_slice_fixed", metadata={"help": "zero, random, base_slice, base_slice_fixed."}
    )
    base_slice_ref_width: int = field(default=8, metadata={"help": "Columns copied by base_slice_fixed."})
    online_gain: float = field(default=0.05, metadata={"help": "Scale of the copied or drawn columns."})
    delta_o_rmsnorm: bool = field(default=False, metadata={"help": "RMSNorm of the output correction."})
    delta_o_rmsnorm_eps: float = field(default=1e-6, metadata={"help": "Its epsilon."})
    trainable_delta_scale: bool = field(default=False, metadata={"help": "A learned factor on corrections."})
    delta_scale_init: float = field(default=1.0, metadata={"help": "Its value at start; below the maximum."})
    delta_scale_max: float = field(default=2.0, metadata={"help": "Its upper bound."})
    delta_scale_granularity: str = field(default="layer", metadata={"help": "layer or head."})
    state_dtype: str = field(default="float32", metadata={"help": "How S is stored between calls."})
    seed: int = field(default=42, metadata={"help": "Seed of the initial parameters."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = DELTA_MEM
        choices = {
            "memory_write_granularity": ("token", "message_mean", "sentence_mean"),
            "state_dtype": ("float32", "bfloat16"),
            "state_update_mode": ("standard", "lambda_outside", "no_lambda"),
            "output_init": ("zero", "random", "base_slice", "base_slice_fixed"),
            "delta_scale_granularity": ("layer", "head"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not '{getattr(self, name)}'")
        self.delta_heads = [h for h in ("q", "k", "v", "o") if h in self.delta_heads]
        if not self.delta_heads:
            raise ValueError("delta_heads must name at least one of q, k, v, o")
        if self.trainable_delta_scale and not self.delta_scale_init < self.delta_scale_max:
            raise ValueError("delta_scale_init must be below delta_scale_max")

    @property
    def width(self) -> int:
        """R = N · r, entries of a read vector."""
        return self.num_state_heads * self.r
