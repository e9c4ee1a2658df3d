"""Batches for training: what the loss sees, and what it does not."""

from __future__ import annotations

import time

import pytest
import torch

from harness import training
from harness.episodes import Message
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.progress import Progress


def rows(backbone, answers):
    return [training.answer_ids(backbone, [Message("Which one?")], "Be brief.", a) for a in answers]


def test_labels_are_the_answer_and_the_end_of_its_turn(tiny):
    backbone = tiny()
    batch = training.reads(backbone, rows(backbone, ["red", "a long answer"]), 512)
    for labels, mask, answer in zip(batch.labels, batch.mask, ("red", "a long answer"), strict=True):
        kept = labels[labels != training.IGNORED].tolist()
        assert kept[-1] == backbone.turn_end_id
        assert backbone.tokenizer.decode(kept[:-1]) == answer
        assert not (labels[mask == 0] != training.IGNORED).any()
    assert torch.equal(batch.ids[batch.labels != training.IGNORED], batch.labels[batch.labels != training.IGNORED])


def test_longer_rows_keep_their_end_and_every_label(tiny):
    backbone = tiny()
    whole = training.reads(backbone, rows(backbone, ["red", "no"]), 512)
    cut = training.reads(backbone, rows(backbone, ["red", "no"]), 20)
    assert cut.ids.shape == (2, 20)
    assert int((cut.labels != training.IGNORED).sum()) == int((whole.labels != training.IGNORED).sum())
    ids, _ = rows(backbone, ["red"])[0]
    assert cut.ids[0].tolist() == ids[-20:]


def test_an_answer_longer_than_the_limit_is_all_label(tiny):
    backbone = tiny()
    cut = training.reads(backbone, rows(backbone, ["x" * 50]), 8)
    assert torch.equal(cut.ids, cut.labels)


class Plain:
    """A model as the loss takes it, without an adapter."""

    def __init__(self, model):
        self.get_base_model = lambda: model


def test_the_loss_is_the_mean_over_answer_tokens_alone(tiny):
    backbone = tiny()
    batch = training.reads(backbone, rows(backbone, ["red", "a long answer"]), 512)
    with torch.no_grad():
        found = float(training.answer_loss(Plain(backbone.model), batch))
        scores = []
        for ids, start in rows(backbone, ["red", "a long answer"]):  # unpadded, one by one
            logits = backbone.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            scores += [-float(logits[t - 1, ids[t]]) for t in range(start, len(ids))]
    assert found == pytest.approx(sum(scores) / len(scores), rel=1e-5)
    batch.ids[:, 0] = 7  # a token of the prompt is no target, though it is read
    assert batch.labels[0, 0] == training.IGNORED


def fitted(backbone, episodes, folder, *, steps, loss, progress=None):
    """A fit of one number, whose loss is given."""
    model = torch.nn.Linear(1, 1, bias=False)
    return training.fit(
        model,
        episodes,
        list,
        lambda model, batch: (model.weight.sum() * loss(), 10),
        backbone=backbone,
        budget=Budget(steps=steps, batch_size=1, accumulation=1, save_every=2),
        seed=1,
        workdir=folder,
        progress=progress or Progress(None),
    )


def test_a_loss_that_is_no_number_ends_the_fit(tiny, episodes, tmp_path):
    seen = iter([1.0, 1.0, float("nan"), 1.0])
    with pytest.raises(HarnessError, match="loss is nan after 2 steps; lower the learning rate"):
        fitted(tiny(), episodes, tmp_path, steps=4, loss=lambda: next(seen))


def test_a_checkpoint_that_is_not_whole_costs_its_steps_and_is_told(tiny, episodes, tmp_path):
    seen, progress = iter([1, 2, 3, 4]), Progress(tmp_path / "said.jsonl")
    whole = fitted(tiny(), episodes, tmp_path / "fit", steps=4, loss=lambda: next(seen))
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    file = tmp_path / "fit" / "checkpoint-4" / "optimizer.pt"
    content = file.read_bytes()
    file.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    seen = iter([3, 4])
    again = fitted(tiny(), episodes, tmp_path / "fit", steps=4, loss=lambda: next(seen), progress=progress)
    assert again.losses == whole.losses
    assert f"{file.parent} was not whole" in progress.path.read_text()


def test_a_resumed_fit_tells_the_seconds_of_all_its_steps(tiny, episodes, tmp_path):
    def slow():
        time.sleep(0.05)
        return 1.0

    first = fitted(tiny(), episodes, tmp_path, steps=4, loss=slow)
    again = fitted(tiny(), episodes, tmp_path, steps=4, loss=slow)  # from its last checkpoint: nothing is left to do
    assert (again.steps, again.tokens) == (first.steps, first.tokens) == (4, 40)
    assert again.seconds == first.seconds >= 0.2
