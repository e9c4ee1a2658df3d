"""This project's tasks for lm-eval's own command and models: ``lm_eval --include_path harness/tasks --tasks locomo``.

The YAML files below ``harness/tasks/lm_eval`` name :class:`OutsideTask`; its documents are the same as in an
experiment, and a plain model gets instruction, history and question as one text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from lm_eval.api.instance import Instance
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import HarnessError
from harness.experiment import DataSpec, TaskSpec
from harness.lm import EpisodeTask
from harness.tasks import select, task

Chat = Callable[..., str]


class Asked(BaseModel):
    """What ``--metadata`` may say of a task; lm-eval puts the model's arguments there too, which are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: Literal["auto", "official", "generated"] = "auto"
    data_seed: int = 0
    questions: int | None = Field(None, ge=1, description="Drawn from all, as an experiment's `limit` draws.")
    episodes: int | None = Field(None, ge=1)
    settings: dict[str, Any] = {}
    removed: bool = False
    """Ask without the history."""
    max_new_tokens: int | None = Field(None, ge=1)


class OutsideTask(EpisodeTask):
    """A task that lm-eval builds from its YAML file.

    Args:
        config: ``task``, and under ``metadata`` the fields of :class:`Asked`.

    Raises:
        HarnessError: a field is wrong, or the data cannot be had.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        name = config["task"]
        try:
            asked = Asked.model_validate(config.get("metadata") or {})
        except ValidationError as error:
            first = error.errors()[0]
            where = f"--metadata of task '{name}': '{'.'.join(map(str, first['loc']))}'"
            raise HarnessError(f"{where} is wrong ({first['msg']}); give another value") from error
        found = task(name)
        spec = TaskSpec(task=name, limit=asked.questions, episodes=asked.episodes, settings=asked.settings)
        data = found.load(DataSpec(source=asked.source, seed=asked.data_seed), "test", asked.settings, asked.episodes)
        episodes = select(data, spec, asked.data_seed)
        cap = asked.max_new_tokens or found.max_new_tokens
        super().__init__(found, episodes, removed=asked.removed, max_new_tokens=cap)
        self.config.num_fewshot = 0
        self.config.metadata = {"version": self.VERSION, "data": data.file, "source": data.source, "hash": data.hash}

    def fewshot_context(self, doc: dict, *args: Any, chat_template: Chat | None = None, **kwargs: Any) -> str:
        """The flat text or, with ``--apply_chat_template``, its instruction and the rest as a conversation."""
        if chat_template is None:
            return self.doc_to_text(doc)
        system, text = self.query(doc).system, self.flat_text(doc)
        said = [{"role": "system", "content": system}] if system else []
        return chat_template([*said, {"role": "user", "content": text}])

    def construct_requests(self, doc: dict, ctx: str, **kwargs: Any) -> Instance:
        """Without the seed of a sampled answer: plain models take none."""
        request = super().construct_requests(doc, ctx, **kwargs)
        text, how = request.arguments
        request.arguments = text, {key: value for key, value in how.items() if key != "seed"}
        return request
