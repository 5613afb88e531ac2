from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.services import desk, reconciler
from controller.store.sqlite import Store
from tests.unit.services.sandbox import Running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def net(store: Store, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(desk, "TICK_S", 0.01)
    monkeypatch.setattr(desk, "SETTLING_S", 0.05)
    monkeypatch.setattr(reconciler, "RETRY_S", 0.01)
    return Running(store)
