"""Frozen language models with their tokenizers, wherever they come from (:mod:`harness.sources`).

Chat template, padding and end-of-sequence are handled here, once.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    dynamic_module_utils,
)
from transformers.utils import logging as transformers_logging

from harness import cache, random_weights, sources
from harness.encoding import Encoder, Segment
from harness.episodes import Message, digest
from harness.errors import HarnessError, nearest
from harness.experiment import BackboneSpec, RunSpec
from harness.method import Unit
from harness.progress import Progress
from harness.random_weights import CHATML

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # a model that brings code is refused, and nobody is asked to let it run

REMOTE_CODE = (
    "backbone '{}' brings Python code of its own, which is not run; take a model that transformers knows, or read that "
    "code and give the backbone 'remote_code: true'"
)
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
"""4-bit weights as QLoRA has them (Dettmers et al. 2023): normal-float, the scales quantised too."""


@dataclass
class Backbone:
    """A frozen causal LM and all that is true of it for every method."""

    spec: BackboneSpec
    model: Any
    tokenizer: Any
    digest: str
    """sha256 of weights, configuration and tokenizer; for random weights of shape and seed."""
    parameters: int = 0
    """Of the bare model, counted when it is opened: what is attached later is not of the backbone."""
    adapters: dict[str, Any] = field(default_factory=dict)
    """PEFT models attached now, by name; all are off except inside :meth:`active`."""

    @property
    def device(self) -> torch.device:
        """Where inputs go; of weights that are brought in when they are wanted, where they are brought to."""
        return place_of(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def window(self) -> int:
        """Positions the model was made for."""
        return int(self.model.config.max_position_embeddings)

    @cached_property
    def eos_token_ids(self) -> list[int]:
        """Every token that ends an answer: the generation config's, the tokenizer's, the template's turn end."""
        found = self.model.generation_config.eos_token_id
        ids = set(found if isinstance(found, list) else [found])
        return sorted(i for i in ids | {self.tokenizer.eos_token_id, self.turn_end_id} if i is not None)

    @property
    def turn_end_id(self) -> int:
        """The token that ends an assistant's turn."""
        found = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        return int(self.tokenizer.eos_token_id if found in (None, self.tokenizer.unk_token_id) else found)

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.eos_token_ids[0] if pad is None else pad)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        answer_next: bool = False,
        unit: Segment = "message",
    ) -> tuple[list[int], list[int]]:
        """Token ids of a conversation in the backbone's chat template, and the message or sentence each belongs to.

        Messages count from 0; the system message and the opening of the answer are -1 (specification 1.7). A token
        belongs to the message in whose part of the rendered text it starts. Sentences count on from message to
        message; only a message's content is in them, not what the template puts around it. Messages of one frame are
        one chat message, and to a memory they are one; ``part`` tells them apart, and then what is of none is -1.

        Args:
            messages: What is said, without the system message.
            system: The instruction; empty for none (some templates then put one of their own).
            answer_next: End with the opening of an assistant turn.
            unit: Whose number is given for each token.
        """
        return self._encoder.encode(messages, system=system, answer_next=answer_next, unit=unit)

    def asked(
        self,
        messages: Sequence[Message],
        question: str,
        *,
        system: str = "",
        unit: Unit = "message",
        frame: str | None = None,
    ) -> tuple[Sequence[int], Sequence[int]]:
        """As :meth:`encode` of a history, a question and the opening of the answer, the history's part held once."""
        return self._encoder.asked(messages, question, system=system, unit=unit, frame=frame)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a bare text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # --- adapters ---

    def attach(self, config: Any, name: str) -> Any:
        """Put a PEFT adapter on the model, switched off, and return the PEFT model."""
        from peft import get_peft_model

        if self.adapters:
            raise HarnessError(f"adapter '{next(iter(self.adapters))}' is still attached; close its method first")
        with _stand_ins(self.model):
            adapter = get_peft_model(self.model, config).eval()
        if _in_layers(adapter):
            adapter.base_model.disable_adapter_layers()
        # For "auto", PEFT would ask the hub at every checkpoint whether the vocabulary has changed.
        adapter.save_pretrained = partial(adapter.save_pretrained, save_embedding_layers=False)
        self.adapters[name] = adapter
        return adapter

    def detach(self, name: str) -> None:
        """Take an adapter off; the model is then the frozen one, bit for bit."""
        adapter = self.adapters.pop(name)
        self.model = adapter.unload().eval() if _in_layers(adapter) else adapter.get_base_model()

    def save_adapter(self, name: str, directory: Path) -> None:
        """PEFT's layout, in bf16: what is saved is what a fit is, so the adapter attached is rounded too."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        adapter = self.adapters[name]
        learned = get_peft_model_state_dict(adapter, save_embedding_layers=False)
        tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in learned.items()}
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        config = copy.copy(adapter.peft_config[adapter.active_adapter])
        config.base_model_name_or_path = self.spec.name  # not the folder where this machine keeps it
        config.save_pretrained(str(directory))
        self.load_adapter(name, directory)

    def load_adapter(self, name: str, directory: Path) -> None:
        """Fill an attached adapter with the parameters that :meth:`save_adapter` wrote.

        Raises:
            HarnessError: the file is missing, or its tensors are not this adapter's.
        """
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        file = directory / "adapter_model.safetensors"
        if not file.is_file():
            raise HarnessError(f"{directory} holds no adapter_model.safetensors; fit the method again")
        try:
            result: Any = set_peft_model_state_dict(self.adapters[name], load_file(file))
        except (RuntimeError, KeyError) as error:
            raise HarnessError(f"{file} is an adapter of another shape; fit the method again") from error
        own = {"prompt_embeddings"}  # which PEFT loads besides, and then calls unexpected
        strange = sorted({*result.unexpected_keys} - own) + [
            k for k in result.missing_keys if "delta_mem_" in k or "lora_" in k
        ]
        if strange:
            raise HarnessError(f"{file} does not fit the adapter (first: {strange[0]}); fit the method again")

    @contextlib.contextmanager
    def active(self, name: str | None) -> Iterator[None]:
        """The adapter ``name`` steers inside this block, and only there; None leaves the model frozen."""
        if name is None or not _in_layers(self.adapters[name]):
            yield
            return
        layers = self.adapters[name].base_model
        layers.enable_adapter_layers()
        try:
            yield
        finally:
            layers.disable_adapter_layers()

    def describe(self) -> dict[str, Any]:
        """What a record says of the backbone."""
        template = self.tokenizer.chat_template or ""
        placed = [str(device) for device in getattr(self.model, "hf_device_map", {}).values()]
        return {
            "spec": self.spec.model_dump(exclude_none=True),
            "revision": getattr(self.model.config, "_commit_hash", None) or self.spec.revision,
            "digest": self.digest,
            "pinned": self.spec.hub is None or self.spec.revision is not None,
            "parameters": self.parameters,
            "tokenizer_hash": digest(sorted(self.tokenizer.get_vocab().items())),
            "chat_template_hash": hashlib.sha256(str(template).encode()).hexdigest(),
            **({"placed": dict(sorted(Counter(placed).items()))} if self.spec.device_map else {}),
        }


def _in_layers(adapter: Any) -> bool:
    """Whether an adapter is in the model's layers; prompt learning is not, it acts through the cache it makes."""
    return not adapter.active_peft_config.is_prompt_learning


@contextlib.contextmanager
def _stand_ins(model: torch.nn.Module) -> Iterator[None]:
    """PEFT puts what it adds to a layer where the layer's weights lie.

    Those that are brought in for each forward lie nowhere, so inside the block others stand in for them that take no
    room and lie where the layer computes.
    """
    away = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.is_meta and place_of(module).type != "meta"
    ]
    for module, name, weight in away:
        stand_in = torch.zeros((), dtype=weight.dtype, device=place_of(module)).expand(weight.shape)
        module.register_parameter(name, torch.nn.Parameter(stand_in, requires_grad=False))
    try:
        yield
    finally:
        for module, name, weight in away:
            module.register_parameter(name, weight)


def place_of(module: torch.nn.Module) -> torch.device:
    """Where a module computes, which is where what it is given and what is put beside it belongs.

    Of a module whose weights accelerate brings in for each forward, not where they lie meanwhile.
    """
    hook = getattr(module, "_hf_hook", None)
    places = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
    found = next((place for place in places if place is not None), None)
    return next(module.parameters()).device if found is None else torch.device(found)


def weight_of(linear: Any) -> torch.Tensor:
    """A frozen linear layer's weights as numbers, [out, in], wherever and in however many bits they are kept."""
    from accelerate.utils import align_module_device

    with align_module_device(linear):
        weight = linear.weight
        packed = getattr(weight, "quant_state", None)
        if packed is None:
            return weight.detach()
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.detach(), packed)


def open_backbone(spec: BackboneSpec, run: RunSpec | None = None, shelf: cache.Shelf | None = None) -> Backbone:
    """Load a backbone, frozen and in evaluation mode.

    Weights of the run's dtype are mapped from their file, not copied: workers of one machine share their pages.

    Args:
        shelf: What the pipeline's machine holds, where this is another one.

    Raises:
        HarnessError: the source is not to be had, with what to do about it.
    """
    run = run or RunSpec()
    device = _device(run)
    options = {"dtype": getattr(torch, run.dtype), "attn_implementation": run.attention}
    if spec.random:
        model, tokenizer, identity = random_weights.draw(spec.random, options)
    else:
        where, revision = sources.locate(spec, shelf)
        model, tokenizer = _read(spec, where, revision, options | _placed(spec, device, options["dtype"]))
        identity = sources.identity(spec, where, revision, model)
    # How answers are decoded is the harness's to say: of what a checkpoint wants (a repetition penalty, beams) only its
    # ends of turn stay, for not every method decodes by `generate`.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    model.requires_grad_(False).eval()
    if not (spec.device_map or spec.quantization):
        model.to(device)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHATML
    tokenizer.padding_side = "left"
    if spec.quantization:
        identity = digest([identity, spec.quantization, NF4])
        for module in model.modules():
            # Some CPUs have a kernel that computes in bf16, whatever the run's dtype, and has no gradient.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return Backbone(spec, model, tokenizer, identity, model.num_parameters())


def _read(spec: BackboneSpec, where: str, revision: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder or a hub."""
    source = {"revision": revision, "trust_remote_code": spec.remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **source)
        model = AutoModelForCausalLM.from_pretrained(where, use_safetensors=True, **source, **options)
    except (OSError, ValueError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise HarnessError(REMOTE_CODE.format(where)) from error
        reason = str(error).strip().splitlines()[0]
        raise HarnessError(
            f"backbone '{where}' cannot be opened ({reason}); name a folder that holds it, or run where its hub "
            "can be reached"
        ) from error
    if spec.hub:
        sources.check_hub(where, model)
    if isinstance(spec.device_map, dict):
        modules = dict(model.named_modules())
        if unknown := next((name for name in spec.device_map if name not in modules), None):
            raise HarnessError(f"device_map names '{unknown}', which '{where}' has not; {nearest(unknown, modules)}")
    return model, tokenizer


def _placed(spec: BackboneSpec, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Options of ``from_pretrained`` that say where weights go, and in how many bits."""
    options: dict[str, Any] = {"device_map": spec.device_map} if spec.device_map else {}
    if spec.quantization:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise HarnessError(
                f"backbone '{spec.name}' is to have 4-bit weights and the package bitsandbytes is not installed; "
                "pip install -e '.[quantized]', or leave 'quantization' out"
            )
        options["quantization_config"] = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype)
        options.setdefault("device_map", {"": device})
    return options


def prepare(spec: BackboneSpec, progress: Progress | None = None, shelf: cache.Shelf | None = None) -> str:
    """Make a backbone ready to be opened quickly: convert a packaged GGUF, train, fetch, or make anew what changed."""
    if spec.random:
        random_weights.shape(spec.random)
        return spec.random
    return sources.locate(spec, shelf, progress)[0]


def _device(run: RunSpec) -> str:
    if run.device == "cuda" and not torch.cuda.is_available():
        raise HarnessError("the experiment asks for device cuda but none is visible; set run.device to auto or cpu")
    return run.device if run.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def threads(cpus: float) -> None:
    """Use as many threads as CPUs are reserved (rounded up)."""
    torch.set_num_threads(max(1, math.ceil(cpus)))
