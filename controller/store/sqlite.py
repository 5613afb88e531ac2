"""The embedded store: keys to JSON values in one SQLite file, changed by compare-and-set, one revision per change.

`commit` decides at once and does not wait: a thread writes what was committed, in its order; what comes while it writes goes into one
transaction. What was committed before `durable` was called survives a power cut when that returns (synchronous=FULL). A crash loses the
latest revisions at most, and never a part of one.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_VERSION = 3


class Conflict(Exception):
    """A key changed since it was read; read again and decide anew."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key} is at revision {found}, expected {expected}")
        self.key = key


class StoreError(Exception):
    """The store cannot be used; the text says why and what to do."""


class Entry(NamedTuple):
    value: Any
    revision: int


class Store:
    """One SQLite file. One process has it open, a second one is refused; one thread of that process calls these methods.

    When a write fails, what was committed since the last one is lost: `durable`, `flush` and every `commit` raise StoreError from then on.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} cannot be opened as a store: {error}") from None
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            self._prepare()
            self._db.execute("COMMIT")
            self.revision = int(self._db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])
            """The number of the last change."""
            self._revisions: dict[str, int] = dict(self._db.execute("SELECT key, revision FROM entry").fetchall())
        except StoreError:
            self._db.close()
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(f"{path} is in use by another controller; stop it, or give this one a store of its own") from None
            raise StoreError(f"{path} cannot be used as a store: {error}; move it away to start anew") from None
        self._lock = threading.Lock()
        self._pending: dict[str, str | None] = {}
        """What is to be written next, by key; the last value of each."""
        self._failure: StoreError | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._written: Future[None] = Future()
        """Done when all that was committed is on the disk."""
        self._written.set_result(None)

    def _prepare(self) -> None:
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT")
        found = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if found is None:
            self._db.execute("INSERT INTO meta VALUES ('schema', ?), ('revision', 0)", (SCHEMA_VERSION,))
            self._db.execute("CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) STRICT")
        elif found[0] != SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} has schema version {found[0]}, this Bellhop reads {SCHEMA_VERSION}; use the Bellhop that wrote it"
            )

    def close(self) -> None:
        """Write what is left to be written, then close the file."""
        self._writer.shutdown(wait=True)
        self._db.close()

    def read(self, prefix: str = "") -> dict[str, Entry]:
        """Every entry whose key starts so, by key. Blocks until all that was committed is written."""
        self.flush()
        rows = self._db.execute("SELECT key, value, revision FROM entry WHERE substr(key, 1, ?) = ? ORDER BY key", (len(prefix), prefix))
        return {key: Entry(json.loads(value), revision) for key, value, revision in rows}

    def commit(self, changes: Mapping[str, Any], expected: Mapping[str, int] | None = None) -> int:
        """Put all `changes` or none, if every key in `expected` is still at that revision (0: absent). None deletes; bytes are JSON already.

        Returns the new revision without waiting for the disk; raises Conflict when a key has moved on.
        """
        self.check(expected or {})
        texts = {key: None if value is None else _json(value) for key, value in changes.items()}
        with self._lock:
            if self._failure is not None:
                raise self._failure
            waiting = bool(self._pending)
            self._pending |= texts
            self.revision += 1
            for key, text in texts.items():
                if text is None:
                    self._revisions.pop(key, None)
                else:
                    self._revisions[key] = self.revision
        if not waiting:
            self._written = self._writer.submit(self._write)
        return self.revision

    def check(self, expected: Mapping[str, int]) -> None:
        """Raises Conflict when a key is not at the revision expected (0: absent)."""
        for key, revision in expected.items():
            if (found := self._revisions.get(key, 0)) != revision:
                raise Conflict(key, revision, found)

    async def durable(self) -> None:
        """Returns when all that is committed now is on the disk."""
        if self._written.done():
            self._written.result()
        else:
            await asyncio.to_thread(self._written.result)

    def flush(self) -> None:
        """Block until all that is committed is on the disk."""
        self._written.result()

    def _write(self) -> None:
        """Runs in the writer's thread."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            rows, self._pending = self._pending, {}
            revisions = {key: self._revisions.get(key, 0) for key in rows}
            revision = self.revision
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
            # many rows a statement: between statements the writer waits for the interpreter, which the event loop wants, too
            for some in _portions([key for key, text in rows.items() if text is None]):
                self._db.execute(f"DELETE FROM entry WHERE key IN ({_places('?', some)})", some)
            for some in _portions([key for key, text in rows.items() if text is not None]):
                self._db.execute(
                    f"INSERT INTO entry VALUES {_places('(?, ?, ?)', some)}"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
                    [value for key in some for value in (key, rows[key], revisions[key])],
                )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            failure = StoreError(f"{self._path} cannot be written: {error}; see that its disk works and has room, then start again")
            with self._lock:
                self._failure = failure
            raise failure from None


ROWS = 300
"""Written by one statement; SQLite before 3.32 takes 999 values at most."""


def _portions(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + ROWS] for start in range(0, len(keys), ROWS))


def _places(place: str, keys: Sequence[str]) -> str:
    return ", ".join([place] * len(keys))


def _json(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else json.dumps(value, separators=(",", ":"))
