"""Tools for adapter files, behind ``harness adapter``: look at one, convert it, verify it, trace what it does."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness import parameters
from harness.errors import HarnessError
from harness.experiment import BackboneSpec
from harness.gates import SHARP, relative
from harness.sources import locate
from methods.delta_mem import _adapter, _official, _plain
from methods.delta_mem._adapter import Adapter, Format, attach, check, layer_of, memory_layers
from methods.delta_mem._model import DeltaMemModel

TOKENS, MESSAGES = 48, 4
"""Size of the probe that an adapter is verified on."""


@dataclass(frozen=True)
class Check:
    """One line of a verification."""

    name: str
    figure: str
    failure: str = ""
    """What is wrong and the mend; empty where it holds."""


def read(folder: Path) -> Adapter:
    """Read an adapter in the format that its folder is in.

    Raises:
        HarnessError: the folder holds none, or both.
    """
    native, official = (folder / _adapter.CONFIG).is_file(), (folder / _official.CONFIG).is_file()
    if native == official:
        raise HarnessError(
            f"{folder} holds {'both' if native else 'neither'} {_adapter.CONFIG} {'and' if native else 'nor'} "
            f"{_official.CONFIG}; name a folder with one δ-mem adapter"
        )
    return _adapter.read_native(folder) if native else _official.read(folder)


def inspect(folder: Path) -> list[tuple[str, str]]:
    """What an adapter is, without a backbone: (fact, value) pairs."""
    adapter = read(folder)
    check(adapter)
    config, tensors = adapter.config, adapter.tensors
    layers = sorted(layer_of(path) for path in adapter.modules)
    active = {name: t for name, t in tensors.items() if not adapter.inactive(name)}
    bias = torch.cat([t.float() for name, t in tensors.items() if name.endswith(".beta_bias")])
    dtypes = Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())
    idle = sorted({name.split("delta_")[1][0] for name in tensors.keys() - active.keys()})
    return [
        ("format", "PEFT" if adapter.form == "native" else "the authors'"),
        ("variant", _variant(config)),
        ("rank r", str(config.r)),
        ("states N", str(config.num_state_heads)),
        ("alpha", f"{config.alpha:g}"),
        ("corrected heads", " ".join(config.delta_heads)),
        ("inactive heads in the file", " ".join(idle) or "none"),
        ("layers", f"{len(layers)}: {_ranges(layers)}"),
        ("gates", f"{'one a row' if config.rankwise_gates else 'one a state'}, {_keep_gate(config)}"),
        ("update", config.state_update_mode),
        ("q and k", "tanh, unit norm" if config.normalize_qk else "as projected"),
        ("learned scale", config.delta_scale_granularity if config.trainable_delta_scale else "none"),
        ("norm of the output correction", "RMS" if config.delta_o_rmsnorm else "none"),
        ("tensors", str(len(tensors))),
        ("parameters", f"{sum(t.numel() for t in active.values()):,}"),
        ("parameters with inactive heads", f"{sum(t.numel() for t in tensors.values()):,}"),
        ("dtype", ", ".join(f"{dtype} ({count})" for dtype, count in sorted(dtypes.items()))),
        ("numbers not finite", str(_not_finite(adapter))),
        ("write gate bias", f"min {bias.min():.4f}, mean {bias.mean():.4f}, max {bias.max():.4f}"),
        ("write gate at x = 0", f"mean {bias.sigmoid().mean():.4f}"),
        ("keys not in the file", _defaulted(adapter.defaulted)),
        *[("note", note) for note in adapter.notes],
    ]


def convert(source: Path, target: Path, to: Format, backbone: str | None = None, keep_dtype: bool = False) -> list[str]:
    """Write an adapter in the other format.

    Args:
        backbone: Anything that :func:`harness.parameters.named` knows; its shape alone is used, to check the tensors
            and to write those of inactive heads.
        keep_dtype: Leave the tensors in their dtype instead of bf16, in which the release and our fits are.

    Returns:
        What a reader should know, a sentence each.

    Raises:
        HarnessError: the target exists, or the source is torn, or does not fit the backbone.
    """
    adapter = read(source)
    if adapter.form == to:
        raise HarnessError(f"{source} is in the format '{to}' already; convert it to the other, or copy the folder")
    model = None if backbone is None else parameters.outline(_spec(backbone)).model
    check(adapter, model)
    notes = list(adapter.notes)
    if not keep_dtype:
        narrow = {name: t.to(torch.bfloat16) for name, t in adapter.tensors.items()}
        changed = sum(not torch.equal(narrow[name].to(t), t) for name, t in adapter.tensors.items())
        if changed:
            notes.append(f"{changed} tensors were rounded to bfloat16; --keep-dtype leaves them as they are")
        adapter = replace(adapter, tensors=narrow)
    if to == "native":
        _adapter.write_native(adapter, target)
        return notes
    _official.write(adapter, target, model)
    notes += [f"{name} has no place in the format and was left out" for name in _official.beside(adapter.config)]
    if model is None and len(adapter.config.delta_heads) < 4:
        notes.append("tensors of inactive heads were left out; --backbone writes them as zeros, as the release does")
    return notes


def verify(folder: Path, backbone: str, other: Path | None = None) -> list[Check]:
    """Load an adapter onto a backbone and check what can be checked, in fp32; one that fails ends the list.

    Raises:
        HarnessError: it does not load.
    """
    model = _model(backbone)
    checks: list[Check] = []
    mine = _probe(model, read(folder), checks)
    if other is not None and not checks[-1].failure:
        theirs = _probe(model, read(other), [])
        same = mine.keys() == theirs.keys() and all(mine[n].shape == theirs[n].shape for n in mine)
        apart = max(relative(mine[n], theirs[n]) for n in mine) if same else float("inf")
        failure = f"{other} gives other states or logits than {folder}; convert it anew"
        checks.append(Check("other", f"{apart:.1e} apart, at most {SHARP:.0e}", "" if apart <= SHARP else failure))
    return checks


@torch.no_grad()
def trace(backbone: str, folder: Path, inputs: Path, out: Path) -> list[str]:
    """Write tokens, then read others from the state alone, and keep what happened, in fp32 with eager attention.

    ``inputs`` holds ``write_ids`` and ``read_ids``, int64 [B, T], and, if wanted, ``write_mask``, ``read_mask``,
    ``write_message_ids``, ``write_sentence_ids``. ``out`` gets ``write.logits`` and ``read.logits``,
    [B, T, vocabulary], and ``state.<layer>``, [B, N, r, r], after the write.

    Segments are written as the release does (specification 1.7): where an adapter writes means and the ids are not
    given, are of another shape or leave no token active, the whole call writes token by token.

    Returns:
        What a reader should know, a sentence each.

    Raises:
        HarnessError: an input is missing or of another shape.
    """
    given = _inputs(inputs)
    adapter = read(folder)
    model = _model(backbone)
    size = model.get_input_embeddings().num_embeddings
    for name in ("write_ids", "read_ids"):
        if given[name].numel() and not 0 <= int(given[name].min()) <= int(given[name].max()) < size:
            raise HarnessError(f"{inputs} has {name} outside of the backbone's vocabulary of {size}; correct them")
    memory = attach(adapter, model)
    notes = [*adapter.notes, *[f"{inputs} holds {n}, which is not used" for n in sorted(given.keys() - INPUTS)]]
    found = segments(adapter.config.memory_write_granularity, given)
    if found is None and adapter.config.memory_write_granularity != "token":
        notes.append("no segment ids apply to write_ids, so tokens were written, as the release does")
    written, states = _write(memory, given["write_ids"], given.get("write_mask"), found)
    kept = {"write.logits": written, "read.logits": _read(memory, states, given["read_ids"], given.get("read_mask"))}
    for path, layer in memory_layers(memory).items():
        kept[f"state.{layer_of(path)}"] = states[layer.index]
    _save(kept, out)
    return notes


INPUTS = {"write_ids", "read_ids", "write_mask", "read_mask", "write_message_ids", "write_sentence_ids"}


def segments(granularity: str, given: dict[str, Tensor]) -> Tensor | None:
    """The segment of each written token as consecutive numbers [B, T], -1 for none; None writes token by token."""
    names = {"token": (), "message_mean": ("message",), "sentence_mean": ("message", "sentence")}[granularity]
    ids = [given.get(f"write_{name}_ids") for name in names]
    tokens = given["write_ids"]
    if not ids or any(i is None or i.shape != tokens.shape for i in ids):
        return None
    active = given.get("write_mask", torch.ones_like(tokens)).bool()
    for one in ids:
        active = active & (one >= 0)
    if not active.any():
        return None
    found = torch.full_like(tokens, -1)
    found[active] = torch.unique(ids[-1][active], return_inverse=True)[1]
    return found


def _inputs(file: Path) -> dict[str, Tensor]:
    try:
        given = load_file(file)
    except (OSError, SafetensorError) as error:
        raise HarnessError(f"{file} cannot be read as safetensors ({error}); write it again") from error
    for name in ("write_ids", "read_ids"):
        if name not in given or given[name].dim() != 2 or given[name].dtype != torch.int64:
            raise HarnessError(f"{file} needs {name}, int64 [batch, tokens]; add it")
        mask = given.get(name.replace("_ids", "_mask"))
        if mask is not None and mask.shape != given[name].shape:
            raise HarnessError(f"{file} has a mask {list(mask.shape)} for {name} {list(given[name].shape)}; mend it")
    if len(given["write_ids"]) != len(given["read_ids"]):
        raise HarnessError(f"{file} has another number of rows in write_ids than in read_ids; make them equal")
    return given


def _save(tensors: dict[str, Tensor], out: Path) -> None:
    work = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work)
        os.replace(work, out)
    except (OSError, SafetensorError) as error:
        raise HarnessError(f"{out} cannot be written ({error}); name another file") from error
    finally:
        work.unlink(missing_ok=True)


def _spec(backbone: str) -> BackboneSpec:
    if backbone.startswith(("/", ".")) or Path(backbone).is_dir():  # a folder is meant, be it there or not
        return BackboneSpec(folder=backbone)
    return parameters.named(backbone)


def _model(backbone: str) -> Any:
    """A frozen causal LM in fp32 with eager attention, without a tokenizer."""
    spec = _spec(backbone)
    if spec.random:
        raise HarnessError(f"'{backbone}' is a shape without weights; name a model folder, or EXPERIMENT/BACKBONE")
    source, revision = locate(spec)
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    try:
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HarnessError(f"backbone '{source}' cannot be opened ({reason}); name a whole model folder") from error
    return model.requires_grad_(False).eval()


def _write(
    memory: DeltaMemModel, ids: Tensor, mask: Tensor | None, found: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Logits of the tokens written, and the states [B, N, r, r] after them."""
    zero = [s.float() for s in memory.zero_states(len(ids))]
    cache = memory.memory_cache(zero, keep_kv=False)
    if found is not None:
        cache.announce(found)
    logits = memory.model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits
    memory.commit(cache)
    return logits, cache.states


def _read(memory: DeltaMemModel, states: list[Tensor], ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of tokens read at fresh positions from states, writes off."""
    cache = memory.memory_cache(states, writes=False, keep_kv=False)
    return memory.model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits


@torch.no_grad()
def _probe(model: Any, adapter: Adapter, checks: list[Check]) -> dict[str, Tensor]:
    """States and logits on fixed tokens; the model is the frozen one again afterwards."""
    folder = adapter.folder
    broken = _not_finite(adapter)
    memory = attach(adapter, model)
    try:
        checks.append(Check("tensors", f"{len(adapter.tensors)}, each of the backbone's shape"))
        failure = f"{folder} holds {broken} numbers that are not finite; get the adapter again"
        checks.append(Check("numbers not finite", str(broken), failure if broken else ""))
        if broken:
            return {}
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.get_input_embeddings().num_embeddings, (1, TOKENS), generator=generator)
        owner = torch.arange(TOKENS)[None] * MESSAGES // TOKENS
        written, states = _write(memory, ids, None, owner)
        layers = list(memory_layers(memory).values())
        with contextlib.ExitStack() as stack:
            seen = [stack.enter_context(_plain.watched(layer)) for layer in layers]
            read = _read(memory, states, ids)
        memory.disable_adapter_layers()
        frozen = model(input_ids=ids).logits
        memory.enable_adapter_layers()
        nothing = float((_read(memory, [torch.zeros_like(s) for s in states], ids) - frozen).abs().max())
        moved = min(float(s.norm()) for s in states)
        steered = min(float(delta.norm()) for one in seen for delta in one[0][1].values())
        failure = f"{folder} differs from the frozen backbone at a zero state by {nothing:.1e}; report this"
        checks.append(Check("zero state against frozen", f"{nothing:.1e}", "" if nothing == 0 else failure))
        failure = f"{folder} leaves the state of a layer at zero; train it, or get the adapter again"
        checks.append(Check("smallest state norm", f"{moved:.1e}", "" if moved > 0 else failure))
        failure = f"{folder} corrects nothing at a head of a layer; train it, or get the adapter again"
        checks.append(Check("smallest correction norm", f"{steered:.1e}", "" if steered > 0 else failure))
        checks.append(Check("effect on logits", f"{relative(read, frozen):.1e} relative"))
        return {"written": written, "read": read} | {f"state.{n}": s for n, s in enumerate(states)}
    finally:
        memory.unload()


def _not_finite(adapter: Adapter) -> int:
    return sum(int((~t.isfinite()).sum()) for t in adapter.tensors.values())


def _variant(config: Any) -> str:
    N, what = config.num_state_heads, config.memory_write_granularity
    named = {("token", False): "TSW", ("message_mean", False): "SSW", ("token", True): "MSW"}.get((what, N > 1))
    wording = {"token": "tokens", "message_mean": "message means", "sentence_mean": "sentence means"}[what]
    return f"{named + ': ' if named else ''}{wording} into {N} state{'s' if N > 1 else ''}"


def _defaulted(keys: Sequence[str]) -> str:
    """The keys that the format gave their default, those with an effect by name."""
    live = [key for key in keys if key in _official.Options.model_fields]
    others = f"{len(keys) - len(live)} without effect" if len(keys) > len(live) else ""
    return "; ".join(filter(None, [", ".join(live), others])) or "none"


def _keep_gate(config: Any) -> str:
    if config.state_update_mode == "no_lambda":
        return "λ = 1"
    return "λ = 1 - β" if config.couple_lambda else "λ of its own"


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as 0-3, 7."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
