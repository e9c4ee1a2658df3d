"""No test of a task reads real data."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DELTA_MEM_DATA", raising=False)
