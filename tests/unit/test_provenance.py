"""What a number was made with."""

from __future__ import annotations

import re

import torch

from harness import provenance


def test_versions_name_every_package():
    found = provenance.versions()
    assert found.keys() - {provenance.QUANTISER} == {"python", *provenance.PACKAGES}
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__


def test_code_is_a_commit_or_unknown(monkeypatch):
    commit, dirty = provenance.code()
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", commit)
    assert isinstance(dirty, bool)
    monkeypatch.setenv("PATH", "")
    assert provenance.code() == ("unknown", True)


def test_the_machine_has_a_name_and_a_peak():
    cpu = torch.device("cpu")
    assert provenance.device_name(cpu)
    about = provenance.machine(cpu)
    assert about.keys() == {"cpu", "system", "torch_build"}
    assert all(about.values())
    before = provenance.peak_bytes(cpu)
    block = torch.ones(2_000_000)
    assert provenance.peak_bytes(cpu) >= max(before, block.nbytes)
