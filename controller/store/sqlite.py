"""The embedded store: keys to JSON values in one SQLite file, changed by compare-and-set, one revision per change.

Writers wait for the disk (synchronous=FULL): when `commit` returns, the change survives a power cut.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_VERSION = 1


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
    """One SQLite file. Methods block for a disk write at most; one process writes at a time, a second one is refused at opening."""

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
        except StoreError:
            self._db.close()
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(f"{path} is in use by another controller; stop it, or give this one a store of its own") from None
            raise StoreError(f"{path} cannot be used as a store: {error}; move it away to start anew") from None

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
        self._db.close()

    @property
    def revision(self) -> int:
        """The number of the last change."""
        return int(self._db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])

    def read(self, prefix: str = "") -> dict[str, Entry]:
        """Every entry whose key starts so, by key."""
        rows = self._db.execute("SELECT key, value, revision FROM entry WHERE substr(key, 1, ?) = ? ORDER BY key", (len(prefix), prefix))
        return {key: Entry(json.loads(value), revision) for key, value, revision in rows}

    def commit(self, changes: Mapping[str, Any], expected: Mapping[str, int] | None = None) -> int:
        """Put all `changes` (None deletes) or none, if every key in `expected` is still at that revision (0: absent).

        Returns the new revision; raises Conflict when a key has moved on.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for key, revision in (expected or {}).items():
                found = self._db.execute("SELECT revision FROM entry WHERE key = ?", (key,)).fetchone()
                if (found[0] if found else 0) != revision:
                    raise Conflict(key, revision, found[0] if found else 0)
            self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'revision'")
            new = self.revision
            for key, value in changes.items():
                if value is None:
                    self._db.execute("DELETE FROM entry WHERE key = ?", (key,))
                else:
                    row = (key, json.dumps(value, separators=(",", ":")), new)
                    self._db.execute(
                        "INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value, revision=excluded.revision",
                        row,
                    )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return new
