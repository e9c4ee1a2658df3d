"""Where real data may be, and the shapes that the tests of the readers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NAMED = os.environ.get("DELTA_MEM_DATA")
BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads real data unless it says so."""
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, no_data: None) -> Path:
    """The folder of real data, named in the environment."""
    root = Path(NAMED) if NAMED else BESIDE
    if not root.is_dir():
        pytest.skip("there is no folder of real data")
    monkeypatch.setenv("DELTA_MEM_DATA", str(root))
    return root
