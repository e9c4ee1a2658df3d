"""The page about records is what the types say."""

from pathlib import Path

from harness.records import SAMPLE_COLUMNS, Provenance, Record
from harness.reporting.document import document

PAGE = Path(__file__).parents[3] / "docs" / "records.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == document(), "run: python -m harness.reporting.document > docs/records.md"


def test_every_field_is_named():
    text = document()
    for field in (*Record.model_fields, *Provenance.model_fields):
        alias = field.replace("n_", "n-") if field in ("n_shot", "n_samples") else field
        assert f"| `{alias}` |" in text
    assert all(f"| `{column}` |" in text for column in SAMPLE_COLUMNS)
