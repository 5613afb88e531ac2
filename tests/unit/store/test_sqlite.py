from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store.sqlite import ROWS, Conflict, Entry, Store, StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store.db"


def test_a_commit_is_all_or_nothing_and_only_on_the_revisions_expected(path: Path) -> None:
    store = Store(path)
    first = store.commit({"a": 1, "b": {"x": [1.5, None]}}, {"a": 0})
    assert store.read() == {"a": Entry(1, first), "b": Entry({"x": [1.5, None]}, first)}
    with pytest.raises(Conflict, match=f"a is at revision {first}, expected 0"):
        store.commit({"b": 2, "c": 3}, {"b": first, "a": 0})
    assert store.read() == {"a": Entry(1, first), "b": Entry({"x": [1.5, None]}, first)}
    assert store.revision == first
    second = store.commit({"a": None, "c": 3}, {"a": first, "c": 0})
    assert store.read() == {"b": Entry({"x": [1.5, None]}, first), "c": Entry(3, second)}
    with pytest.raises(Conflict):
        store.commit({"a": 1}, {"a": first})
    store.close()


def test_a_value_that_is_no_json_leaves_the_store_as_it_was_and_usable(path: Path) -> None:
    store = Store(path)
    with pytest.raises(TypeError):
        store.commit({"a": 1, "b": object()})
    assert (store.read(), store.revision) == ({}, 0)
    assert store.commit({"a": 1}) == 1
    store.close()


def test_a_commit_may_be_larger_than_a_statement(path: Path) -> None:
    store = Store(path)
    store.commit({f"k{number:04}": number for number in range(2 * ROWS + 1)})
    store.flush()
    store.commit({f"k{number:04}": None if number % 3 else -number for number in range(2 * ROWS + 1)})
    assert store.read() == {f"k{number:04}": Entry(-number, 2) for number in range(0, 2 * ROWS + 1, 3)}
    store.close()


async def test_a_commit_does_not_wait_for_the_disk_and_durable_does(path: Path) -> None:
    store, gate = Store(path), threading.Event()
    store._writer.submit(gate.wait)
    assert (store.commit({"a": 1}), store.commit({"a": b'{"x":2}', "b": 3}), store.commit({"b": None})) == (1, 2, 3)
    waiting = asyncio.create_task(store.durable())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    gate.set()
    await waiting
    assert store.read() == {"a": Entry({"x": 2}, 2)}
    await store.durable()
    store.close()


async def test_when_the_disk_fails_nothing_is_built_upon_what_was_lost(path: Path) -> None:
    store = Store(path)
    store.commit({"a": 1})
    store.flush()
    store._db.execute("PRAGMA query_only=ON")
    store.commit({"a": 2})
    with pytest.raises(StoreError, match=r"store.db cannot be written: .*readonly.*see that its disk works"):
        await store.durable()
    store._db.execute("PRAGMA query_only=OFF")
    with pytest.raises(StoreError, match="cannot be written"):
        store.commit({"b": 1})
    with pytest.raises(StoreError, match="cannot be written"):
        store.flush()
    store.close()
    assert Store(path).read() == {"a": Entry(1, 1)}


KEYS = st.sampled_from(["a", "ab", "b", "%", "a_"])
CHANGES = st.dictionaries(KEYS, st.none() | st.integers() | st.lists(st.floats(allow_nan=False), max_size=2), min_size=1)


@settings(max_examples=20)
@given(st.lists(CHANGES, max_size=8), KEYS)
def test_it_holds_what_a_dictionary_would_also_when_opened_again(tmp_path_factory: Any, commits: list[dict[str, Any]], prefix: str) -> None:
    path = tmp_path_factory.mktemp("store") / "s.db"
    store, model = Store(path), dict[str, Entry]()
    for number, changes in enumerate(commits, 1):
        assert store.commit(changes) == number
        model |= {key: Entry(value, number) for key, value in changes.items()}
        model = {key: entry for key, entry in model.items() if entry.value is not None}
    for _ in range(2):
        assert store.read() == model
        assert store.read(prefix) == {key: entry for key, entry in model.items() if key.startswith(prefix)}
        assert store.revision == len(commits)
        store.close()
        store = Store(path)
    store.close()


def test_a_store_of_another_schema_is_refused_and_left_alone(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    raw.close()
    for _ in range(2):  # the refused one keeps no lock
        with pytest.raises(StoreError, match=r"has schema version 99, this Bellhop reads 3; use the Bellhop that wrote it"):
            Store(path)


def test_what_is_no_store_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"cannot be used as a store.*move it away"):
        Store(path)
    with pytest.raises(StoreError, match="cannot be opened as a store"):
        Store(path.parent)


def test_a_second_process_is_told_that_the_store_is_in_use(path: Path) -> None:
    store = Store(path)
    second = subprocess.run(
        [sys.executable, "-c", "import sys, pathlib; from controller.store.sqlite import Store; Store(pathlib.Path(sys.argv[1]))", path],
        capture_output=True,
        text=True,
        check=False,
    )
    store.commit({"still": "mine"})
    store.close()
    assert second.returncode != 0
    assert "is in use by another controller; stop it, or give this one a store of its own" in second.stderr.splitlines()[-1]


WRITER = """
import pathlib, sys
from controller.store.sqlite import Store
store = Store(pathlib.Path(sys.argv[1]))
number = store.read()["x"].value if store.read() else 0
while True:
    number += 1
    store.commit({key: number for key in "xyz"} | {"padding": "p" * (number % 7) * 3000})
    store.flush()
    print(number, flush=True)
"""


def test_a_process_killed_while_it_commits_leaves_whole_revisions(path: Path) -> None:
    for delay_s in (0.0, 0.003, 0.011, 0.02):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        confirmed = int(writer.stdout.readline())
        time.sleep(delay_s)
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = max([confirmed, *map(int, writer.stdout.read().split())])
        writer.wait()
        writer.stdout.close()
        store = Store(path)
        held = store.read()
        numbers = {held[key].value for key in "xyz"}
        assert len(numbers) == 1, f"torn: {json.dumps({key: held[key] for key in 'xyz'})}"
        assert confirmed <= numbers.pop() <= confirmed + 1
        assert len(held["padding"].value) == held["x"].value % 7 * 3000
        store.close()
