"""The tables in README.md: taken from what is published, and current."""

import pytest

from harness.config import load
from harness.errors import HarnessError
from harness.reporting import readme, tables

PUBLISHED = sorted(f.parents[1].name for f in readme.REFERENCE.glob("*/tables/main.md"))
TEXT = "before\n<!-- table:mine -->\nold\n<!-- /table -->\nafter\n"


@pytest.fixture
def reference(tmp_path):
    folder = tmp_path / "mine" / "tables"
    folder.mkdir(parents=True)
    table, notes = "| row |\n|---|\n| a |", "- **Memory**: none\n- **Code**: c0ffee"
    (folder / "main.md").write_text(f"# A title\n\n{table}\n\n{notes}\n\n## More\n\n| b |\n")
    return tmp_path


def test_a_block_takes_title_table_and_notes(reference):
    text = readme.filled(TEXT, reference)
    assert text.startswith(
        "before\n<!-- table:mine -->\n**A title**\n\n| row |\n|---|\n| a |\n\n- **Memory**: none\n\n"
    )
    assert "</summary>\n\n- **Code**: c0ffee\n\n</details>" in text
    assert text.endswith("main.md)\n<!-- /table -->\nafter\n")
    assert "More" not in text
    assert "old" not in text
    assert readme.filled(text, reference) == text


def test_a_block_without_a_published_table_stays(tmp_path):
    assert readme.filled(TEXT, tmp_path) == TEXT


def test_an_open_marker_is_refused(reference):
    with pytest.raises(HarnessError, match="without its '<!-- /table -->'"):
        readme.filled("<!-- table:mine -->\nold\n", reference)


def test_only_a_changed_file_is_rewritten(reference, monkeypatch, tmp_path):
    file = tmp_path / "README.md"
    file.write_text(TEXT)
    monkeypatch.setattr(readme, "README", file)
    monkeypatch.setattr(readme, "filled", lambda text: readme._BLOCK.sub("table", text))
    readme.main()
    assert file.read_text() == "before\ntable\nafter\n"
    before = file.stat().st_mtime_ns
    readme.main()
    assert file.stat().st_mtime_ns == before


def test_the_tables_in_the_readme_are_current():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text) == text
    assert {"embedded", "official", "local"} == {block["name"] for block in readme._BLOCK.finditer(text)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_is_what_its_records_say(name, tmp_path):
    tables.write(load(name), readme.REFERENCE, tmp_path)
    for file in (readme.REFERENCE / name / "tables").glob("main.*"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
