"""Fits: what their address depends on, and that a stored one is itself or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness import fits, seals
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.progress import Progress
from harness.records import write_json
from harness.registry import resolve

BUDGET = Budget(steps=1, batch_size=2, accumulation=1)


@pytest.fixture
def method(tiny):
    cls, config = resolve("lora")
    return cls(config, tiny(), 1)


def weights(method):
    return [p.detach().clone() for n, p in method.peft.named_parameters() if "lora_" in n]


def obtain(method, episodes, results, **options):
    return fits.obtain(method, method.backbone, episodes, BUDGET, results, Progress(None), **options)


def test_every_ingredient_changes_the_address(method, episodes, monkeypatch):
    def address(some=method, backbone=method.backbone, asked=episodes, budget=BUDGET):
        return fits.address(some, backbone, asked, budget)

    other = resolve("lora", {"rank": 4})[1]
    twin = lambda **changes: type("Twin", (), {**vars(method), "name": "lora", "FIT_VERSION": 1, **changes})()  # noqa: E731
    found = [
        address(),
        address(backbone=replace(method.backbone, digest="another")),
        address(asked=episodes[:-1]),
        address(asked=episodes[::-1]),
        address(twin(seed=2)),
        address(twin(config=other)),
        address(twin(name="another")),
        address(twin(FIT_VERSION=2)),
    ]
    changes = {
        "steps": 2,
        "epochs": 2.0,
        "batch_size": 3,
        "accumulation": 2,
        "learning_rate": 1e-3,
        "betas": (0.8, 0.9),
        "eps": 1e-6,
        "weight_decay": 0.1,
        "max_grad_norm": 2.0,
        "schedule": "linear",
        "warmup_ratio": 0.2,
        "max_write_tokens": 64,
        "max_read_tokens": 64,
    }
    assert {*changes, "save_every"} == set(Budget.model_fields)  # a new field must be thought of here
    found += [address(budget=BUDGET.model_copy(update={k: v})) for k, v in changes.items()]
    assert len(set(found)) == len(found)
    assert address(budget=BUDGET.model_copy(update={"save_every": 7})) == found[0]
    assert address() == found[0]
    method.backbone.model.bfloat16()
    assert address() not in found


def test_a_fit_is_learned_once_and_restored_ever_after(method, episodes, tmp_path):
    first = obtain(method, episodes, tmp_path)
    learned = weights(method)
    assert first.facts()["address"] == first.address
    assert [p.name for p in (tmp_path / "fits").iterdir()] == [first.address[:16]]
    with torch.no_grad():
        for n, p in method.peft.named_parameters():
            if "lora_" in n:
                p.zero_()
    before = first.folder.stat().st_mtime_ns
    assert obtain(method, episodes, tmp_path).address == first.address
    assert first.folder.stat().st_mtime_ns == before
    assert all(torch.equal(a, b) for a, b in zip(weights(method), learned, strict=True))


def test_a_reference_is_restored_unless_it_is_to_be_learned_again(method, episodes, tmp_path):
    first = obtain(method, episodes, tmp_path)
    (tmp_path / "reference").mkdir()
    (tmp_path / "fits").rename(tmp_path / "reference" / "fits")
    again = obtain(method, episodes, tmp_path)
    assert again.restored
    assert again.folder.parent == tmp_path / "reference" / "fits"
    fresh = obtain(method, episodes, tmp_path, retrain=True)
    assert not fresh.restored
    assert fresh.facts()["adapter_hash"] == first.facts()["adapter_hash"] == again.facts()["adapter_hash"]


@pytest.mark.parametrize("place", [0, 100, -1])
def test_changed_bytes_are_refused(place, method, episodes, tmp_path):
    fit = obtain(method, episodes, tmp_path)
    file = fit.folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(HarnessError, match=r"adapter_model.safetensors has changed since it was stored"):
        obtain(method, episodes, tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "fit.json"])
def test_a_changed_bit_beside_the_parameters_is_refused(name, method, episodes, tmp_path):
    file = obtain(method, episodes, tmp_path).folder / name
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(HarnessError, match=f"{name} (has changed since it was stored|is not as it was written)"):
        obtain(method, episodes, tmp_path)


def test_a_report_that_is_older_than_digests_of_files_is_read(method, episodes, tmp_path):
    first = obtain(method, episodes, tmp_path)
    report = {name: value for name, value in seals.read(first.folder / "fit.json").items() if name != "files"}
    write_json(first.folder / "fit.json", report)
    again = obtain(method, episodes, tmp_path)
    assert again.facts() == first.facts()
    assert "files" not in again.facts()


def test_what_a_kill_left_of_saving_is_not_in_the_fit(method, episodes, tmp_path):
    name = fits.address(method, method.backbone, episodes, BUDGET)
    left = tmp_path / "fits" / f".{name[:16]}.work" / "whole" / "half"
    left.parent.mkdir(parents=True)
    left.write_text("of an earlier process")
    fit = obtain(method, episodes, tmp_path)
    assert {path.name for path in fit.folder.iterdir()} == {"adapter_config.json", fits.PARAMETERS, "fit.json"}


def test_the_fit_of_another_address_is_refused(method, episodes, tmp_path):
    fit = obtain(method, episodes, tmp_path)
    with pytest.raises(HarnessError, match="another address"):
        fits.restore(method, fit.folder, "0" * 64)


def test_a_fit_that_breaks_leaves_nothing_under_its_name(method, episodes, tmp_path, monkeypatch):
    def broken(directory):
        directory.mkdir(parents=True)
        (directory / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(method, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        obtain(method, episodes, tmp_path)
    name = fits.address(method, method.backbone, episodes, BUDGET)
    assert fits.find(tmp_path, name) is None
    monkeypatch.undo()
    assert obtain(method, episodes, tmp_path).folder.is_dir()
    assert [p.name for p in (tmp_path / "fits").iterdir()] == [name[:16]]


def test_an_adapter_of_another_shape_or_kind_is_refused(method, episodes, tmp_path, tiny):
    folder = obtain(method, episodes, tmp_path).folder
    for row, settings, why in (("lora", {"rank": 2}, "another shape"), ("delta_mem_tsw", {}, "does not fit")):
        cls, config = resolve(row, settings)
        with pytest.raises(HarnessError, match=why):
            cls(config, tiny(), 1).load(folder)
    with pytest.raises(HarnessError, match="fit the method again"):
        method.load(tmp_path)
