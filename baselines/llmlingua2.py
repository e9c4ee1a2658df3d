"""LLMLingua-2: an encoder trained to tell which words of a text can go; the others stand in the prompt.

State: the text that is left. Read: all of it, whatever the question. The encoder is a token classifier that the user
names; none is packaged and none is downloaded, and without one the method is skipped. The rule that turns its
probabilities into words is Pan et al.'s (ACL Findings 2024), as their package has it (specification of baselines 3.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from baselines._compression import Compressed, Compression, Span, cut, join, overlapping
from harness.episodes import Message
from harness.errors import HarnessError, SkippedError
from harness.method import MethodConfig

KEEP = 1
"""The class of tokens that stay."""
BATCH = 8
"""Pieces a forward pass."""


class Settings(MethodConfig):
    """The classifier and the rule; the δ-mem paper does not say its rate."""

    classifier: str | None = Field(
        None,
        description="Folder of a transformers token classifier with the classes drop (0) and keep (1). "
        "Official: llmlingua-2-xlm-roberta-large-meetingbank.",
    )
    rate: float = Field(0.5, gt=0, le=1, description="Share of the tokens that stays. Official: 0.5; MeetingBank 0.33.")
    budget_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens kept at most, dates among them, in place of the rate (target_token). Official: 2000.",
    )
    word: Literal["mean", "max"] = Field("mean", description="A word's probability, of its tokens'. Official: mean.")
    force_tokens: tuple[str, ...] = Field(
        ("\n", "?", "!", ".", ","), description="Texts that always stay, each a word of its own. Official: these."
    )
    force_reserve_digit: bool = Field(False, description="Tokens with a digit have probability 1. Official: off.")
    drop_consecutive: bool = Field(True, description="Of equal forced texts with nothing kept between, one stays.")
    piece_tokens: int = Field(
        510, ge=8, description="The classifier's tokens in one piece. Official: 510 and two ends."
    )


@dataclass
class Word:
    """A word of a message, with the whitespace before it, and what is known of it."""

    message: int
    span: Span
    text: str
    """Without whitespace at its ends, but for a forced line break."""
    tokens: list[int]
    """Numbers of the classifier's tokens that share a character with it, counted through all messages."""
    weight: int
    """Tokens of the backbone's that it has, alone."""
    forced: bool
    ends: bool
    """A piece may end after it: at a full stop, a line break or the end of a message."""
    keep: float = 0.0
    """Its probability of staying."""


class Classifier:
    """A token classifier and its tokenizer, from a folder."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        if not Path(folder, "config.json").is_file():
            raise SkippedError(
                f"the token classifier '{folder}' is not here (no config.json); name the folder that holds it"
            )
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model, found = AutoModelForTokenClassification.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HarnessError(f"'{folder}' is no token classifier ({reason}); name a folder of one") from error
        missing = sorted({*found["missing_keys"], *map(str, found["mismatched_keys"])})
        if missing:
            raise HarnessError(
                f"'{folder}' lacks {len(missing)} parameters of a token classifier ({missing[0]}), which would be "
                "drawn at random; name a folder of a trained one"
            )
        self.model.eval()
        if self.model.config.num_labels != 2 or not self.tokenizer.is_fast:
            raise HarnessError(
                f"'{folder}' has {self.model.config.num_labels} classes and a tokenizer that does "
                f"{'' if self.tokenizer.is_fast else 'not '}tell offsets; name a classifier of two classes, drop and "
                "keep, with a fast tokenizer"
            )
        self.model.requires_grad_(False)

    def encode(self, texts: Sequence[str]) -> Any:
        """Ids, offsets and words of texts, uncut and without end tokens."""
        return self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)

    def keep(self, pieces: Sequence[Sequence[int]]) -> Iterator[list[float]]:
        """The probability that each token of a piece stays, its two end tokens added and taken off again."""
        import torch

        first, last, pad = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, self.tokenizer.pad_token_id
        for at in range(0, len(pieces), BATCH):
            batch = [[first, *piece, last] for piece in pieces[at : at + BATCH]]
            width = max(map(len, batch))
            device = self.model.device
            ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in batch], device=device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=device)
            with torch.no_grad():
                found: Any = self.model(input_ids=ids, attention_mask=mask).logits
            for row, probabilities in zip(batch, found.float().softmax(-1)[..., KEEP].tolist(), strict=True):
                yield probabilities[1 : len(row) - 1]


classifier = lru_cache(maxsize=2)(Classifier)
"""The classifier of that folder, loaded once a process."""


class LLMLingua2(Compression):
    """Compression by a trained token classifier."""

    name = "llmlingua2"
    summary = "the words of the history that a trained classifier keeps; needs its folder"
    Config = Settings

    config: Settings

    @cached_property
    def classifier(self) -> Classifier:
        """The encoder.

        Raises:
            SkippedError: none is named, or it is not on this machine.
            HarnessError: the folder holds something else.
        """
        if self.config.classifier is None:
            raise SkippedError(
                "llmlingua2 needs a token classifier; set 'classifier' to a folder with "
                "llmlingua-2-xlm-roberta-large-meetingbank or another of two classes"
            )
        found = classifier(self.config.classifier)
        room = found.model.config.max_position_embeddings - 2
        if found.model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            room -= found.model.config.pad_token_id + 1  # their positions begin behind the padding's
        if self.config.piece_tokens > room:
            raise HarnessError(
                f"pieces of {self.config.piece_tokens} tokens are beyond the classifier's {room}; lower piece_tokens"
            )
        found.model.to(self.backbone.device)
        return found

    def extra_parameters(self) -> int:
        """The classifier's; none where none is named."""
        if self.config.classifier is None:
            return 0
        return sum(p.numel() for p in self.classifier.model.parameters())

    def compress(self, messages: Sequence[Message]) -> Compressed:
        texts = [m.content for m in messages]
        encoded = self.classifier.encode(texts)
        words = self._words(texts, encoded)
        pieces = split(words, self.config.piece_tokens)
        self._judge(texts, encoded, pieces)
        units: list[list[Span]] = [[] for _ in messages]
        for word in words:
            units[word.message].append(word.span)

        def build(percent: int) -> Compressed:
            kept = [stays for p in pieces for stays in rule(p, percent, self.config.drop_consecutive)]
            return join(messages, units, kept)

        if self.config.budget_tokens is not None:
            return self.within(self.config.budget_tokens, 101, lambda n: build(101 - n))
        # rounded first: in floating point 100 (1 - 0.9) + 1 is a little less than 11
        return build(min(100, int(round(100 * (1 - self.config.rate), 6)) + 1) if self.config.rate < 1 else 0)

    def _words(self, texts: Sequence[str], encoded: Any) -> list[Word]:
        """The words of all texts, not yet judged.

        A word is what the classifier's tokenizer takes for one before it looks for tokens, found by its offsets: cut
        at whitespace for XLM-RoBERTa, at marks too for BERT. A forced text is a word of its own.
        """
        forced = self._forced()
        words: list[Word] = []
        seen = 0
        for n, text in enumerate(texts):
            spans = encoded["offset_mapping"][n]
            starts = _starts(text, spans, encoded.word_ids(n), forced, self.config.piece_tokens)
            units = cut(text, starts)
            for (a, b), inside in zip(units, overlapping(units, spans), strict=True):
                match = forced.match(text, a, b)
                match = None if match and text[match.end() : b].strip() else match
                told = match["forced"] if match else text[a:b].strip()
                ends = b == len(text) or told.endswith((".", "\n")) or re.match(r"\s*\n", text[b:]) is not None
                words.append(Word(n, (a, b), told, [seen + i for i in inside], 1, bool(match), ends))
            seen += len(spans)
        alone = self.backbone.tokenizer([w.text for w in words], add_special_tokens=False)["input_ids"] if words else []
        for word, ids in zip(words, alone, strict=True):
            word.weight = max(1, len(ids))
        return words

    def _forced(self) -> re.Pattern[str]:
        """Matches a forced text, and the blanks before it."""
        texts = "|".join(re.escape(t) for t in sorted(self.config.force_tokens, key=len, reverse=True) if t)
        return re.compile(rf"[^\S\n]*(?P<forced>{texts or r'(?!)'})")

    def _judge(self, texts: Sequence[str], encoded: Any, pieces: Sequence[Sequence[Word]]) -> None:
        """Give every word the mean, or the greatest, of its tokens' probabilities; a forced one 1."""
        ids = [i for row in encoded["input_ids"] for i in row]
        told = [text[a:b] for text, spans in zip(texts, encoded["offset_mapping"], strict=True) for a, b in spans]
        read = [sorted({t for word in piece for t in word.tokens}) for piece in pieces]
        for piece, numbers, found in zip(
            pieces, read, self.classifier.keep([[ids[t] for t in numbers] for numbers in read]), strict=True
        ):
            sure = self.config.force_reserve_digit
            of = {t: 1.0 if sure and re.search(r"\d", told[t]) else p for t, p in zip(numbers, found, strict=True)}
            for word in piece:
                values = [1.0] if word.forced else [of[t] for t in word.tokens] or [0.0]
                word.keep = max(values) if self.config.word == "max" else sum(values) / len(values)


def split(words: Sequence[Word], size: int) -> list[list[Word]]:
    """Pieces of at most ``size`` of the classifier's tokens, each as long as can be and, where it can, ending at a
    full stop, a line break or the end of a message.
    """
    pieces, at = [], 0
    while at < len(words):
        end, read = at + 1, set(words[at].tokens)
        while end < len(words) and len(read) + len(set(words[end].tokens) - read) <= size:
            read.update(words[end].tokens)
            end += 1
        if end < len(words):
            end = next((n + 1 for n in range(end - 1, at - 1, -1) if words[n].ends), end)
        pieces.append(list(words[at:end]))
        at = end
    return pieces


def rule(piece: Sequence[Word], percent: int, drop_consecutive: bool) -> list[bool]:
    """Which words of a piece stay: those strictly above a percentile of the probabilities, each counted as often as
    the word has tokens, and those of probability 1; all of them at percent 0, none above 100.
    """
    import numpy as np

    if not 0 < percent <= 100:
        return [not percent] * len(piece)
    keep = _without_repeats(piece, percent - 1) if drop_consecutive else [w.keep for w in piece]
    least = np.percentile(np.repeat(keep, [w.weight for w in piece]), percent)
    kept, last = [], None
    for word, p in zip(piece, keep, strict=True):
        stays = bool(p > least or p == least == 1)
        stays = stays and not (drop_consecutive and word.forced and word.text == last)
        last = word.text if stays else last
        kept.append(stays)
    return kept


def _without_repeats(piece: Sequence[Word], percent: int) -> list[float]:
    """The probabilities, 0 for a forced word that repeats the one before it with no word between that lies above a
    percentile of the words' probabilities.
    """
    import numpy as np

    found = [w.keep for w in piece]
    least, last, between = np.percentile(found, percent), None, False
    for n, word in enumerate(piece):
        if not word.forced:
            between |= bool(word.keep > least)
            continue
        if word.text == last and not between:
            found[n] = 0.0
        last, between = word.text, False
    return found


def _starts(
    text: str, spans: Sequence[Span], words: Sequence[int | None], forced: re.Pattern[str], size: int
) -> list[int]:
    """Where words begin, the first at 0: at the end of the word before, so that whitespace is the next one's.

    A word of more than ``size`` tokens is cut, as in languages that are written without spaces.
    """
    if not text.strip():
        return []
    found = {0, *(at for m in forced.finditer(text) for at in m.span())}
    end, last, run = 0, None, 0
    for span, word in zip(spans, words, strict=True):
        run += 1
        if word != last or run > size:
            found.add(end)
            run = 1
        end, last = span[1], word
    # blanks at the end are the last word's
    return sorted(at for at in found if text[at:].strip() or forced.match(text, at))
