"""Supervised fine-tuning on episodes, by transformers.Trainer: the same loop for every trained method.

A method supplies what a batch is and what its loss is; seeds, optimiser, schedule, checkpoints, resuming and
progress are the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

from harness import checkpoints, ranks
from harness.backbones import Backbone
from harness.episodes import Episode, Message
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.progress import Progress

IGNORED = -100
"""Label of a token that the loss leaves out."""


@dataclass
class FitReport:
    """What a fit did: enough to plot its curve and to replay its beginning."""

    steps: int
    losses: list[float] = field(default_factory=list)
    """Mean loss of each step, nats a token of the answer."""
    seconds: float = 0.0
    tokens: int = 0
    """Tokens fed, history and question, all steps."""
    episodes: int = 0
    ranks: int = 1
    """Processes that shared the forward passes of each step."""
    collectives: str = ""
    """What carried their sums: gloo or nccl; empty for one."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Reads:
    """Questions with their answers, ready for a forward pass. All [Q, T], padded on the right."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    """The answer's tokens and the end of its turn; ``IGNORED`` elsewhere."""


def answer_ids(
    backbone: Backbone, messages: Sequence[Message], system: str, answer: str, *, header: bool = False
) -> tuple[list[int], int]:
    """Tokens of a conversation that ends with ``answer``, and where the answer, or its turn's header, begins."""
    prompt, _ = backbone.encode(messages, system=system, answer_next=True)
    ids = prompt + backbone.tokenizer(answer, add_special_tokens=False)["input_ids"] + [backbone.turn_end_id]
    return ids, len(backbone.encode(messages, system=system)[0]) if header else len(prompt)


def reads(backbone: Backbone, rows: Sequence[tuple[list[int], int]], limit: int) -> Reads:
    """Batch (token ids, where the answer begins); of longer rows the last ``limit`` tokens are kept."""
    width = min(limit, max(len(ids) for ids, _ in rows))
    ids = torch.full((len(rows), width), backbone.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for n, (row, start) in enumerate(rows):
        cut = max(0, len(row) - width)
        kept = torch.tensor(row[cut:])
        ids[n, : len(kept)], mask[n, : len(kept)] = kept, 1
        begin = max(0, start - cut)
        labels[n, begin : len(kept)] = kept[begin:]
    return Reads(ids.to(backbone.device), mask.to(backbone.device), labels.to(backbone.device))


def replayed(backbone: Backbone, episodes: Sequence[Episode], limit: int) -> Reads:
    """The questions of episodes, each after its history; of longer prompts the last ``limit`` tokens are kept."""
    rows = [
        answer_ids(backbone, [*e.history.messages, Message(q.text)], e.history.system, q.answers[0])
        for e in episodes
        for q in e.questions
    ]
    return reads(backbone, rows, limit)


def answer_loss(model: Any, batch: Reads, **options: Any) -> Tensor:
    """Cross-entropy a token, on the answer only. Vocabulary logits are made for the answer's positions alone."""
    target = batch.labels[:, 1:]
    at = target != IGNORED
    hidden = (
        model.get_base_model()
        .get_decoder()(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **options)
        .last_hidden_state[:, :-1]
    )
    logits = model.get_base_model().get_output_embeddings()(hidden[at])
    return torch.nn.functional.cross_entropy(logits.float(), target[at])


class _Episodes(Dataset):
    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, n: int) -> Episode:
        return self.episodes[n]


class _Watch(TrainerCallback):
    """Feeds the progress line, from which its reader works out tokens a second and the time left."""

    def __init__(self, progress: Progress, trainer: EpisodeTrainer) -> None:
        self.progress, self.trainer = progress, trainer

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            loss, tokens = round(logs["loss"], 4), self.trainer.tokens_fed
            self.progress.update("fit", state.global_step, state.max_steps, tokens=tokens, loss=loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.kept()


class EpisodeTrainer(Trainer):
    """transformers.Trainer over episodes, with a method's own loss, and this rank's share of the forward passes."""

    def __init__(
        self,
        *,
        collate: Callable[[list[Any]], Any],
        loss: Callable[[Any, Any], tuple[Tensor, int]],
        shared: int,
        **options: Any,
    ) -> None:
        self.collate = collate
        self.loss = loss
        self.shared = shared
        """Ranks that share the forward passes of a step."""
        self.turn = 0
        """Forward passes of this step so far, of all ranks."""
        self.share = 0.0
        """This rank's part of the step's mean loss."""
        self.tokens_fed = self.tokens_summed = 0
        self.tokens_logged = 0
        self.clock = time.monotonic()
        super().__init__(**options)
        # The loss below is a mean a batch; without this the Trainer would not divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """A forward pass, or another rank's turn at it; with a step's last one, gradients are summed over the ranks.

        Not by DDP, which sees to gradients behind its own forward only: the loss of a memory calls parts of a model
        past that door, and would leave each rank with its own.
        """
        if self.shared == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        turn, self.turn = self.turn, self.turn + 1
        if turn % self.shared == ranks.index():
            self.share += float(super().training_step(model, inputs, num_items_in_batch))
        loss = 0.0  # the Trainer adds a step's forward passes up
        if self.accelerator.sync_gradients:
            learned = [p for p in model.parameters() if p.requires_grad]
            loss, tokens = ranks.summed(learned, self.share, self.tokens_fed - self.tokens_summed)
            self.tokens_fed = self.tokens_summed = self.tokens_summed + int(tokens)
            self.turn, self.share = 0, 0.0
        return torch.tensor(loss, device=self.args.device)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, tokens = self.loss(model, self.collate(inputs["batch"]))
        if not torch.isfinite(loss):
            raise HarnessError(
                f"the training loss is {loss.item()} after {self.state.global_step} steps; lower the learning rate"
            )
        self.tokens_fed += tokens
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Keep a step's tokens and seconds beside its loss: the history outlives a cut, this object does not."""
        fresh, self.tokens_logged = self.tokens_fed - self.tokens_logged, self.tokens_fed
        before, self.clock = self.clock, time.monotonic()
        super().log({**logs, "tokens": fresh, "seconds": self.clock - before}, *args, **options)


def fit(
    model: Any,
    episodes: Sequence[Episode],
    collate: Callable[[list[Episode]], Any],
    loss: Callable[[Any, Any], tuple[Tensor, int]],
    *,
    backbone: Backbone,
    budget: Budget,
    seed: int,
    workdir: Path,
    progress: Progress,
    alone: bool = False,
) -> FitReport:
    """Train the adapter of a PEFT model.

    Args:
        model: The PEFT model; only its adapter has gradients.
        collate: Makes a batch of episodes; runs in this process, for the batches that are this rank's.
        loss: Gives a batch's loss (mean a token of the answers) and the tokens it fed.
        workdir: Checkpoints; a fit that was cut off goes on from the last one, with as many ranks as there are now.
        alone: Leave the other ranks out of it, for what each of them needs for itself.
    """
    shared = 1 if alone else ranks.count()
    set_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(workdir),
        per_device_train_batch_size=budget.batch_size,
        gradient_accumulation_steps=budget.accumulation,
        max_steps=budget.steps or -1,
        num_train_epochs=budget.epochs,
        learning_rate=budget.learning_rate,
        adam_beta1=budget.betas[0],
        adam_beta2=budget.betas[1],
        adam_epsilon=budget.eps,
        weight_decay=budget.weight_decay,
        max_grad_norm=budget.max_grad_norm,
        lr_scheduler_type=budget.schedule,
        warmup_steps=budget.warmup_ratio,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if shared == 1 or ranks.leads() else "no",
        save_steps=budget.save_every,
        save_total_limit=2,  # while one is written, the one before it is the last whole one
        seed=seed,
        data_seed=seed,
        use_cpu=backbone.device.type == "cpu",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = EpisodeTrainer(
        model=model,
        args=arguments,
        train_dataset=_Episodes(episodes),
        data_collator=lambda batch: {"batch": batch},
        collate=collate,
        loss=loss,
        shared=shared,
    )
    trainer.add_callback(_Watch(progress, trainer))
    trainer.add_callback(checkpoints.Sealing())
    for printer in ("PrinterCallback", "ProgressCallback"):
        for callback in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == printer]:
            trainer.remove_callback(callback)
    model.train()
    trainer.clock = time.monotonic()
    last = checkpoints.last(workdir, progress) if shared == 1 or ranks.leads() else None
    last = last if shared == 1 else ranks.told(last)
    before = TrainerState.load_from_json(str(last / "trainer_state.json")) if last else None
    if last and before and before.global_step >= before.max_steps:  # the Trainer would make one step more
        trainer._load_from_checkpoint(str(last))
        trainer.state = before
    else:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    model.eval()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return FitReport(
        steps=trainer.state.global_step,
        losses=[round(entry["loss"], 6) for entry in steps],
        seconds=round(sum(entry.get("seconds", 0.0) for entry in steps), 1),
        tokens=int(sum(entry.get("tokens", 0.0) for entry in steps)),
        episodes=len(episodes),
        ranks=shared,
        collectives=ranks.collectives() if shared > 1 else "",
    )
