"""What is in the cache is as it was put there, or is not used; what is not there comes by digest from where it is."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from harness import backbones, cache, config, seals, shelf, sources, trained
from harness.cli import _common
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec

CPU = RunSpec(device="cpu")
FLIPS = 200


@pytest.fixture
def package(tiny, tmp_path, monkeypatch):
    """The specification of an installed package with a GGUF, converted in a moment, and an empty cache."""
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "carries_weights").mkdir()
    (tmp_path / "carries_weights" / "__init__.py").touch()
    (tmp_path / "carries_weights" / "tiny.gguf").write_bytes(b"weights")
    made, conversions = tiny(), []
    made.model.save_pretrained(tmp_path / "made")
    made.tokenizer.save_pretrained(tmp_path / "made")

    def convert(file: Path, target: Path) -> None:
        conversions.append(file)
        shutil.copytree(tmp_path / "made", target, dirs_exist_ok=True)

    monkeypatch.setattr(sources, "_convert", convert)
    spec = BackboneSpec(gguf="carries-weights")
    return spec, conversions


def flip(file: Path, bit: int) -> None:
    found = bytearray(file.read_bytes())
    found[bit // 8] ^= 1 << bit % 8
    file.write_bytes(found)


def test_a_conversion_is_made_once_and_known_by_its_gguf(package):
    spec, conversions = package
    where, _ = sources.locate(spec)
    assert sources.locate(spec) == (where, "main")
    assert len(conversions) == 1
    opened = backbones.open_backbone(spec, CPU)
    assert opened.digest == hashlib.sha256(b"weights").hexdigest()
    conversions[0].write_bytes(b"WEIGHTS")  # as large, and another backbone
    assert sources.locate(spec)[0] != where
    assert len(conversions) == 2


def test_every_changed_bit_of_a_conversion_is_found_and_it_is_made_again(package):
    spec, conversions = package
    where = Path(sources.locate(spec)[0])
    whole = {file.name: file.read_bytes() for file in where.iterdir()}
    assert set(whole) >= {"digest.json", "config.json", "model.safetensors", "tokenizer.json"}
    rng = random.Random(0)
    for count in range(1, FLIPS + 1):
        name = rng.choice(sorted(whole))
        flip(where / name, rng.randrange(8 * len(whole[name])))
        assert sources.locate(spec)[0] == str(where)
        assert {file.name: file.read_bytes() for file in where.iterdir()} == whole
        assert len(conversions) == 1 + count, name


@pytest.mark.parametrize("name", ["model.safetensors", "digest.json", "config.json"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "lost"])
def test_a_file_that_is_not_whole_is_made_again(name, harm, package):
    spec, conversions = package
    where = Path(sources.locate(spec)[0])
    whole = (where / name).read_bytes()
    (where / name).unlink() if harm == "lost" else (where / name).write_bytes(whole[:-1] if harm == "cut" else b"")
    sources.locate(spec)
    assert (where / name).read_bytes() == whole
    assert len(conversions) == 2


def test_a_conversion_that_is_cut_off_leaves_nothing(package, monkeypatch):
    spec, _ = package

    def break_off(file: Path, target: Path) -> None:
        (target / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(sources, "_convert", break_off)
        with pytest.raises(KeyboardInterrupt):
            sources.locate(spec)
    assert not list(cache.folder().glob("backbones/[!.]*"))
    sources.locate(spec)


def test_a_folder_that_was_a_caches_is_refused_once_it_changed(package):
    spec, _ = package
    where = sources.locate(spec)[0]
    folder = BackboneSpec(folder=where)
    assert backbones.open_backbone(folder, CPU).digest == backbones.open_backbone(spec, CPU).digest
    weights = Path(where, "model.safetensors")
    flip(weights, 8 * weights.stat().st_size - 1)
    with pytest.raises(HarnessError, match="is not as it was put into its cache; delete it"):
        backbones.open_backbone(folder, CPU)


def test_weights_that_came_with_the_repository_are_refused_once_they_changed(tmp_path, monkeypatch):
    kept = trained.stored("recall")
    assert kept is not None
    monkeypatch.setattr(trained, "REFERENCE", tmp_path)
    changed = shutil.copytree(kept, tmp_path / kept.name)
    assert trained.stored("recall") == changed
    for bit in (9, 8 * 100_000):  # of the header, and of a weight
        flip(changed / "model.safetensors", bit)
        with pytest.raises(HarnessError, match="is not as it came with the repository; restore it"):
            trained.folder("recall")
        flip(changed / "model.safetensors", bit)
    assert trained.folder("recall") == changed


# --- a hub's model ---


@pytest.fixture
def hub(tiny, tmp_path):
    """A model as the hub's library leaves it: blobs by the digests that the hub gave them, and links to them."""
    repository = tmp_path / "models--some--model"
    snapshot = repository / "snapshots" / ("c" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    tiny().model.save_pretrained(snapshot)
    for file in sorted(snapshot.iterdir()):
        content = file.read_bytes()
        small = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        blob = repository / "blobs" / (seals.sha256(file) if file.suffix == ".safetensors" else small)
        file.rename(blob)
        file.symlink_to(blob)
    model = type("Model", (), {"config": type("Config", (), {"_commit_hash": "c" * 40})})
    return snapshot, lambda: sources.check_hub("some/model", model, str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_hub_that_changed_since_it_came_is_refused(name, hub):
    snapshot, check = hub
    check()
    blob = (snapshot / name).resolve()
    blob.chmod(0o644)
    flip(blob, 77)
    with pytest.raises(
        HarnessError, match=rf"{name} of 'some/model' has changed since it was downloaded; delete .*{blob.name}"
    ):
        check()


# --- another machine ---


class Wire:
    """A shelf in this process that counts what is asked, and does to each part what is wanted."""

    def __init__(self, held, harm=lambda file, start, part: part):
        self.held, self.harm, self.parts = held, harm, 0

    def offer(self, spec):
        return self.held.offer(spec)

    def part(self, digest, file, start):
        self.parts += 1
        return self.harm(file, start, self.held.part(digest, file, start))


@pytest.fixture
def far(package, tmp_path, monkeypatch):
    """The specification and a shelf of a machine that holds the backbone; this one has neither cache nor package."""
    spec, _ = package
    held = shelf.HeldHere()
    held.offer(spec.model_dump_json())
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "another machine's cache"))
    monkeypatch.setattr(sources, "_converted", lambda package: pytest.fail("converted where it could be fetched"))
    monkeypatch.setattr(cache, "PART", 50_000)
    return spec, held


def test_a_worker_without_the_cache_pulls_the_backbone_by_its_digest_once(far):
    spec, held = far
    wire = Wire(held)
    opened = backbones.open_backbone(spec, CPU, wire)
    assert opened.digest == hashlib.sha256(b"weights").hexdigest()
    assert wire.parts > len(held.offer(spec.model_dump_json()).files) * 2
    own = Path(sources.locate(spec, wire)[0])
    assert own.parent == cache.folder() / "backbones"
    asked = wire.parts
    again = backbones.open_backbone(spec, CPU, wire)
    assert wire.parts == asked
    assert torch.equal(again.model(torch.arange(9)[None]).logits, opened.model(torch.arange(9)[None]).logits)
    flip(own / "model.safetensors", 4000)
    sources.locate(spec, wire)
    assert cache.whole(own)
    assert wire.parts > asked


@pytest.mark.parametrize(
    "harm",
    [
        lambda file, start, part: part if file != "config.json" else part.replace(b"64", b"65"),
        lambda file, start, part: part if start == 0 else b"",
    ],
    ids=["a changed byte", "a cut file"],
)
def test_what_arrives_otherwise_than_offered_is_not_kept(harm, far):
    spec, held = far
    with pytest.raises(HarnessError, match="arrived with other bytes than were offered"):
        sources.locate(spec, Wire(held, harm))
    assert not list(cache.folder().glob("backbones/[!.]*"))


def test_a_name_that_leaves_the_folder_is_refused(far):
    spec, held = far
    wire = Wire(held)
    wire.offer = lambda spec: cache.Offer("evil", "0" * 64, {"../config.json": "0" * 64})
    with pytest.raises(HarnessError, match="no plain file name"):
        sources.locate(spec, wire)


def test_a_folder_of_the_other_machine_is_pulled_and_one_of_this_machine_is_not(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there"
    tiny().model.save_pretrained(there)
    tiny().tokenizer.save_pretrained(there)
    (there / "pytorch_model.bin").write_bytes(b"a pickle")
    spec, held = BackboneSpec(folder=str(there)), shelf.HeldHere()
    known_by = backbones.open_backbone(spec, CPU).digest
    held.offer(spec.model_dump_json())
    assert sources.locate(spec, Wire(held))[0] == str(there)
    moved = there.rename(tmp_path / "moved")
    held._folders = dict.fromkeys(held._folders, moved)  # where it is on the other machine
    assert backbones.open_backbone(spec, CPU, Wire(held)).digest == known_by
    pulled = Path(sources.locate(spec, Wire(held))[0])
    assert not (pulled / "pytorch_model.bin").exists()
    assert json.loads((pulled / "digest.json").read_text())["source"] == known_by


def test_what_came_with_the_repository_does_not_travel(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTA_MEM_CACHE", str(tmp_path))
    wire = Wire(shelf.HeldHere())
    assert sources.locate(BackboneSpec(trained="recall"), wire)[0] == str(trained.stored("recall"))
    assert wire.parts == 0


# --- a run and its backbone ---


def prepared(results):
    """A run that was prepared on its backbone: its experiment, and the file that says so."""
    experiment = config.load("smoke", ["run.executor=inline"])
    _common.hand_in("prepare", experiment, "tiny_llama", "", 0, results, False)
    return experiment, results / "smoke" / "tiny_llama" / "backbone.json"


def test_a_run_goes_on_with_the_backbone_that_it_was_prepared_with_or_not_at_all(tmp_path):
    experiment, file = prepared(tmp_path)
    facts = seals.read(file)
    go_on = lambda: _common.hand_in("evaluate", experiment, "tiny_llama", "frozen", 42, tmp_path, False)  # noqa: E731
    other = {**facts, "digest": "0" * 64}
    file.write_text(seals.sealed(json.dumps(other, indent=1)))
    with pytest.raises(HarnessError, match=rf"is {facts['digest'][:12]} here and was 000000000000 when .*{file}"):
        go_on()
    file.write_text(json.dumps(facts))  # as older runs wrote it
    assert go_on()["answered"]


def test_every_changed_bit_of_backbone_json_is_refused(tmp_path):
    _, file = prepared(tmp_path)
    whole = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), FLIPS):
        flip(file, bit)
        with pytest.raises(HarnessError, match=r"backbone\.json is not as it was written .*; delete it and run again"):
            seals.read(file)
        file.write_bytes(whole)
