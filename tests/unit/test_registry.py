"""Finding methods: by scanning, under one name each, with their settings checked."""

from __future__ import annotations

import importlib
import sys

import pytest

from harness import registry
from harness.errors import HarnessError


def test_presets_stand_for_a_method_with_settings():
    rows = registry.row_names()
    assert {"frozen", "question_only", "bm25_rag", "lora", "delta_mem"} <= rows.keys()
    for row, expected in (
        ("delta_mem_tsw", {}),
        ("delta_mem_ssw", {"writes": "message_mean"}),
        ("delta_mem_msw", {"states": 4}),
    ):
        cls, config = registry.resolve(row)
        assert cls.name == "delta_mem"
        assert config.model_dump(exclude_defaults=True) == expected
    assert registry.resolve("delta_mem_msw", {"states": 2})[1].states == 2


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ("delta_mem_tws", {}, "unknown method 'delta_mem_tws'; did you mean 'delta_mem_tsw'"),
        ("lora", {"rnk": 4}, "wrong setting 'rnk'; did you mean 'rank'"),
        ("lora", {"rank": 0}, "wrong setting 'rank'; .*greater than or equal to 1"),
        ("frozen", {"k": 1}, "wrong setting 'k'"),
        ("delta_mem", {"heads": ["x"]}, r"wrong setting 'heads\.0'"),
    ],
)
def test_a_wrong_name_or_setting_is_refused(row, settings, message):
    with pytest.raises(HarnessError, match=message):
        registry.resolve(row, settings)


METHOD = """
from harness.method import Capabilities, MemoryMethod, Steering

class {cls}(MemoryMethod):
    name = "{name}"
    summary = "a memory made for a test"
    capabilities = Capabilities(family="reference", arms={{"removed": ("own",)}})

    def write(self, history, state=None):
        return None

    def steer(self, state, query, *, writes=False):
        return Steering()
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A room of methods of its own, scanned beside no other."""
    folder = tmp_path / "spare_room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "ROOMS", ("spare_room",))
    forget()
    yield folder
    forget()


def forget():
    """As if nothing had been scanned."""
    for name in [n for n in sys.modules if n.split(".")[0] == "spare_room"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    registry.methods.cache_clear()
    registry.row_names.cache_clear()


def test_a_file_is_a_method_and_an_underscore_hides(room):
    (room / "mine.py").write_text(METHOD.format(cls="Mine", name="mine"))
    (room / "_hidden.py").write_text("raise RuntimeError('scanned')")
    assert registry.methods().keys() == {"mine"}
    assert registry.source_file("mine") == room / "mine.py"


def test_a_name_taken_twice_is_refused(room):
    (room / "one.py").write_text(METHOD.format(cls="One", name="same"))
    (room / "two.py").write_text(METHOD.format(cls="Two", name="same"))
    with pytest.raises(HarnessError, match=r"'same' is taken by spare_room\.one and by spare_room\.two"):
        registry.methods()


def test_a_module_that_does_not_import_is_named(room):
    (room / "broken.py").write_text("import no_such_module_anywhere")
    with pytest.raises(HarnessError, match="spare_room/broken does not import"):
        registry.methods()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A file outside of the tree that defines a method; forgotten afterwards."""
    monkeypatch.setattr(registry, "_plugged", {})
    known = set(sys.modules)
    file = tmp_path / "elsewhere.py"
    file.write_text(METHOD.format(cls="Elsewhere", name="elsewhere"))
    yield file
    for name in {n for n in sys.modules if n.startswith("plugin_")} - known:
        del sys.modules[name]
    forget()


def test_a_plugin_lies_anywhere(elsewhere):
    assert "elsewhere" not in registry.methods()
    registry.plug([elsewhere, elsewhere])
    registry.plug([elsewhere])
    assert registry.resolve("elsewhere")[0].name == "elsewhere"
    assert registry.source_file("elsewhere") == elsewhere
    assert "frozen" in registry.methods()


def test_a_plugin_may_be_a_package(elsewhere):
    folder = elsewhere.with_suffix("")
    folder.mkdir()
    (folder / "_part.py").write_text(elsewhere.read_text())
    (folder / "__init__.py").write_text("from plugin_elsewhere._part import Elsewhere")
    registry.plug([folder])
    assert "elsewhere" in registry.methods()


def test_a_wrong_plugin_is_refused(elsewhere, tmp_path):
    broken, twin = tmp_path / "broken.py", tmp_path / "other" / "elsewhere.py"
    broken.write_text("import no_such_module_anywhere")
    twin.parent.mkdir()
    twin.write_text("")
    for file, message in (
        (tmp_path / "none.py", "there is no plugin"),
        (tmp_path, "there is no plugin"),
        (broken, "does not import"),
    ):
        with pytest.raises(HarnessError, match=message):
            registry.plug([file])
    registry.plug([elsewhere])
    with pytest.raises(HarnessError, match="has the name of"):
        registry.plug([twin])
    taken = tmp_path / "taken.py"
    taken.write_text(METHOD.format(cls="Taken", name="frozen"))
    registry.plug([taken])
    with pytest.raises(HarnessError, match="'frozen' is taken"):
        registry.methods()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("    def steer", "    def stear"), "class Half.* has no steer|Half in .* has no steer"),
        (('    name = "half"\n', ""), "Half in .* has no name"),
        (('name = "half"', 'name = "../half"'), "a row named '../half'"),
        (('"removed"', '"removd"'), "'removd' .*did you mean 'removed'"),
        (
            ('    summary = "', '    presets = {"p": {"no": 1}}\n    summary = "'),
            "preset 'p' with a wrong setting 'no'",
        ),
    ],
)
def test_a_half_written_method_is_told_in_one_sentence(change, message, elsewhere, tmp_path):
    file = tmp_path / "half.py"
    text = METHOD.format(cls="Half", name="half")
    assert change[0] in text
    file.write_text(text.replace(*change))
    registry.plug([file])
    with pytest.raises(HarnessError, match=message):
        registry.methods()


def test_a_plugin_that_exits_is_told(tmp_path):
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)")
    with pytest.raises(HarnessError, match="does not import"):
        registry.plug([tmp_path / "leaves.py"])


def test_an_installed_package_offers_a_method(elsewhere, monkeypatch):
    from importlib.metadata import EntryPoint

    monkeypatch.syspath_prepend(elsewhere.parent)
    offered = [EntryPoint("mine", "elsewhere", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry, "entry_points", lambda group: offered if group == registry.ENTRY_POINTS else [])
    forget()
    assert "elsewhere" in registry.methods()
    offered[:] = [EntryPoint("gone", "no_such_module_anywhere", registry.ENTRY_POINTS)]
    forget()
    with pytest.raises(HarnessError, match="entry point gone"):
        registry.methods()


def test_the_command_line_and_a_job_take_a_plugin(elsewhere, tmp_path):
    from typer.testing import CliRunner

    from harness import cli, config, jobs

    said = CliRunner().invoke(cli.app, ["--plugin", str(elsewhere), "plan", "smoke", "--set", "methods+=elsewhere"])
    assert said.exit_code == 0, said.output
    assert "elsewhere" in said.output
    experiment = config.load("smoke", [f"plugins+={elsewhere}", "methods+=elsewhere", "run.device=cpu"])
    assert experiment.plugins == (str(elsewhere),)
    backbone = next(iter(experiment.backbones))
    registry._plugged.clear()
    del sys.modules["plugin_elsewhere"]
    forget()
    spec = experiment.model_dump(mode="json", by_alias=True)
    request = {"kind": "evaluate", "experiment": spec, "backbone": backbone, "row": "elsewhere", "seed": 42}
    assert jobs.run({**request, "results": str(tmp_path)})["answered"] >= 1
    cli.PLUGINS.clear()
