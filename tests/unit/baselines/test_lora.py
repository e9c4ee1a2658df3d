"""LoRA: what it is trained on."""

from __future__ import annotations

from harness import training
from harness.experiment import Budget
from harness.progress import Progress
from harness.registry import resolve


def test_it_is_trained_with_the_history_in_the_prompt(tiny, episodes, tmp_path, monkeypatch):
    cls, config = resolve("lora")
    method = cls(config, tiny(), 1)
    seen, plain = [], training.answer_loss

    def watch(model, batch, **options):
        seen.append(batch)
        return plain(model, batch, **options)

    monkeypatch.setattr(training, "answer_loss", watch)
    method.fit(episodes[:1], Budget(steps=1, batch_size=1, accumulation=1), tmp_path, Progress(None))
    decode = method.backbone.tokenizer.decode
    for row, labels, asked in zip(seen[0].ids, seen[0].labels, episodes[0].questions, strict=True):
        text = decode(row)
        assert all(m.content in text for m in episodes[0].history.messages)
        assert asked.text in text
        assert decode(labels[labels != training.IGNORED]) == f"{asked.answers[0]}<|im_end|>"
