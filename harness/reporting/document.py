"""The documentation of a record, from the field descriptions that also check it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from harness import efficiency_records
from harness.records import SAMPLE_COLUMNS, Certificate, Costs, Failure, GateOutcome, Provenance, Record, Score
from harness.reporting.render import markdown

LM_EVAL = (
    "results",
    "group_subtasks",
    "configs",
    "versions",
    "n_shot",
    "higher_is_better",
    "n_samples",
    "date",
    "git_hash",
)
HEAD = """# The record of a cell

A cell leaves two files under `results/<experiment>/<backbone>/<row>/seed<N>/<task>/<condition>/<arm>/`: `record.json`
and `samples.parquet`. Both appear only when whole, the samples first. The record's first member, `seal`, is the digest
of its text without it ([provenance.md](provenance.md)). This page is written by
`python -m harness.reporting.document > docs/records.md` from the types in `harness/records.py`.
"""
EFFICIENCY = """# The record of a measurement

A row whose speed and memory are measured leaves `results/<experiment>/<backbone>/<row>/efficiency.json`
([efficiency.md](efficiency.md)). Its types are in `harness/efficiency_records.py`.
"""


def document() -> str:
    """The text of ``docs/records.md``."""
    parts = [HEAD]
    parts += [_section(model) for model in (Record, Score, Failure, GateOutcome, Certificate, Costs, Provenance)]
    columns = "\n".join(f"| `{name}` | {markdown(text)} |" for name, text in SAMPLE_COLUMNS.items())
    parts.append(f"## samples.parquet\n\nOne row a question and draw.\n\n| column | holds |\n|---|---|\n{columns}\n")
    measured = ("EfficiencyRecord", "Point", "Side", "Figures", "Run", "Peaks")
    parts += [EFFICIENCY, *(_section(getattr(efficiency_records, name)) for name in measured)]
    return "\n".join(parts)


def _section(model: type[BaseModel]) -> str:
    about = (model.__doc__ or "").strip()
    return f"## {model.__name__}\n\n{about}\n\n| field | type | holds |\n|---|---|---|\n{''.join(_fields(model))}"


def _fields(model: type[BaseModel]) -> Iterator[str]:
    properties = model.model_json_schema(by_alias=True)["properties"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        text = field.description or ("lm-eval's own field" if model is Record and name in LM_EVAL else "")
        yield f"| `{key}` | {markdown(_type(properties[key]))} | {markdown(text)} |\n"


def _type(schema: dict) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    print(document(), end="")
