"""A KME's memory: pool bytes, keys and relay entries in SQLite, every change durable before the call returns.

Key bytes are stored under AES-256-GCM with the key-encryption key; the associated data ties each to its place, so a row copied
elsewhere does not open. A key goes from stored to delivered, expired or destroyed and keeps its bytes only while stored. The vault
blocks: call it from one thread of its own.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.kme.pad import Span, halves, join_shares, wipe

Role = Literal["master", "slave"]
Key = tuple[str, bytearray]
"""A key's ID and its bytes."""

FRAGMENT_BYTES = 4096
"""Blocks are kept in pieces of this size: using some bytes rewraps at most one piece."""
NONCE_BYTES = 12
GCM_TAG_BYTES = 16

SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    peer TEXT, block TEXT, confirmed INTEGER NOT NULL DEFAULT 0, arrived_s REAL NOT NULL, PRIMARY KEY (peer, block)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fragments (
    id INTEGER PRIMARY KEY, peer TEXT NOT NULL, block TEXT NOT NULL, mine INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
    wrapped BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS fragments_by_block ON fragments (peer, block, mine, start);
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, service TEXT NOT NULL, role TEXT NOT NULL, master TEXT NOT NULL, slave TEXT NOT NULL, bits INTEGER NOT NULL,
    state TEXT NOT NULL, wrapped BLOB, created_s REAL NOT NULL, changed_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_ready ON keys (master, slave, role, bits, created_s) WHERE state = 'stored';
CREATE INDEX IF NOT EXISTS keys_by_service ON keys (service, role) WHERE state = 'stored';
CREATE TABLE IF NOT EXISTS shares (
    key_id TEXT, share INTEGER, service TEXT NOT NULL, wrapped BLOB NOT NULL, created_s REAL NOT NULL,
    PRIMARY KEY (key_id, share)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seal (wrapped BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS relays (service TEXT, share INTEGER, entry TEXT NOT NULL, PRIMARY KEY (service, share)) WITHOUT ROWID;
"""


class Missing(Exception):
    """Not enough pool bytes or keys, or not those that were named. Nothing was taken."""


class NotTheSlave(Exception):
    """A key was asked for by an SAE that it is not for. Nothing was taken."""


def key_encryption_key(path: Path) -> bytes:
    """The 32 bytes in `path`, made when there is none, readable by the owner only."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    key = path.read_bytes()
    if len(key) != 32:
        raise ValueError(f"{path} must hold 32 bytes and holds {len(key)}; put the key-encryption key of this store back")
    return key


class Vault:
    """The store of KME `kme` at `path`. `pool_max_bytes` bounds the pool bytes kept per neighbour."""

    def __init__(self, path: Path, kek: bytes, kme: str, pool_max_bytes: int) -> None:
        self._kme = kme
        self._pool_max_bytes = pool_max_bytes
        self._aead = AESGCM(kek)
        path.touch(mode=0o600)  # SQLite gives its journals the mode of the file
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        self._check_kek(path)

    def _check_kek(self, path: Path) -> None:
        """Meet a wrong key-encryption key on start, not at the first delivery."""
        row = self._db.execute("SELECT wrapped FROM seal").fetchone()
        if row is None:
            with self._change() as db:
                db.execute("INSERT INTO seal VALUES (?)", (self._wrap(b"bellhop", "seal"),))
            return
        try:
            self._unwrap(row[0], "seal")
        except InvalidTag:
            self.close()
            raise ValueError(
                f"the key-encryption key does not open {path}; put back the one it was made with, or start with a new store"
            ) from None

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _wrap(self, plain: bytes | bytearray, place: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place.encode())

    def _unwrap(self, wrapped: bytes, place: str) -> bytearray:
        plain = bytearray(len(wrapped) - NONCE_BYTES - GCM_TAG_BYTES)
        self._aead.decrypt_into(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], place.encode(), plain)
        return plain

    # Pools

    def add_block(self, peer: str, block: str, key: bytearray) -> bool:
        """Put a block from a QKD module into the pool shared with `peer`; False when the block was there before.

        A block's name is remembered after its bytes are spent: a module that repeats itself brings no byte back. When the pool is full
        the oldest blocks are destroyed; a block larger than the pool is refused with `ValueError`.
        """
        if len(key) > self._pool_max_bytes:
            raise ValueError(f"a block of {len(key)} bytes does not fit the pool of {self._pool_max_bytes} bytes; send smaller blocks")
        with self._change() as db:
            if db.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?, 0, ?)", (peer, block, time.time())).rowcount == 0:
                return False
            for mine, half in zip((1, 0), halves(self._kme, peer, len(key)), strict=True):
                for start in range(half.start, half.stop, FRAGMENT_BYTES):
                    self._put_fragment(peer, block, mine, start, key[start : min(start + FRAGMENT_BYTES, half.stop)])
            while self._level(peer) > self._pool_max_bytes:
                query = "SELECT block FROM fragments JOIN blocks USING (peer, block) WHERE peer = ? ORDER BY arrived_s LIMIT 1"
                db.execute("DELETE FROM fragments WHERE peer = ? AND block = ?", (peer, db.execute(query, (peer,)).fetchone()[0]))
        return True

    def _put_fragment(self, peer: str, block: str, mine: int, start: int, key: bytearray) -> None:
        wrapped = self._wrap(key, f"pool|{peer}|{block}|{mine}|{start}")
        self._db.execute(
            "INSERT INTO fragments (peer, block, mine, start, size, wrapped) VALUES (?, ?, ?, ?, ?, ?)",
            (peer, block, mine, start, len(key), wrapped),
        )

    def _level(self, peer: str) -> int:
        return int(self._db.execute("SELECT COALESCE(SUM(size), 0) FROM fragments WHERE peer = ?", (peer,)).fetchone()[0])

    def unconfirmed(self, peer: str) -> list[str]:
        """Blocks that `peer` has not yet confirmed to hold; at most 256, the newest."""
        rows = self._db.execute(
            "SELECT DISTINCT block, arrived_s FROM fragments JOIN blocks USING (peer, block) WHERE peer = ? AND confirmed = 0 "
            "ORDER BY arrived_s DESC LIMIT 256",
            (peer,),
        )
        return [block for block, _ in rows]

    def confirm(self, peer: str, blocks: Iterable[str]) -> list[str]:
        """Mark those of `blocks` that are here as held by both ends, and say which they are."""
        with self._change() as db:
            held = [
                block
                for block in blocks
                if db.execute("SELECT 1 FROM fragments WHERE peer = ? AND block = ? LIMIT 1", (peer, block)).fetchone()
            ]
            db.executemany("UPDATE blocks SET confirmed = 1 WHERE peer = ? AND block = ?", [(peer, block) for block in held])
        return held

    def levels(self) -> dict[str, int]:
        """Unspent bytes per neighbour in blocks that both ends hold, both halves."""
        return dict(
            self._db.execute("SELECT peer, SUM(size) FROM fragments JOIN blocks USING (peer, block) WHERE confirmed = 1 GROUP BY peer")
        )

    def spendable(self, peer: str) -> int:
        """Bytes that this KME may spend towards `peer` now."""
        query = "SELECT COALESCE(SUM(size), 0) FROM fragments JOIN blocks USING (peer, block) WHERE peer = ? AND mine = 1 AND confirmed = 1"
        return int(self._db.execute(query, (peer,)).fetchone()[0])

    def spend(self, peer: str, count: int) -> tuple[tuple[Span, ...], bytearray]:
        """Take `count` bytes of this KME's half, for good; `Missing` when there are not as many.

        The newest come first: the oldest may just be falling out of a full pool at the other end.
        """
        spans: list[Span] = []
        taken = bytearray()
        with self._change() as db:
            rows = db.execute(
                "SELECT id, block, start, size FROM fragments JOIN blocks USING (peer, block) "
                "WHERE peer = ? AND mine = 1 AND confirmed = 1 ORDER BY arrived_s DESC, start",
                (peer,),
            )
            for fragment, block, start, size in rows.fetchall():
                if len(taken) == count:
                    break
                span = Span(block=block, offset=start, length=min(size, count - len(taken)))
                taken += self._cut(fragment, peer, 1, span)
                spans.append(span)
            if len(taken) < count:
                raise Missing(f"the pool shared with {peer} has {len(taken)} bytes to spend, {count} are needed")
        return tuple(spans), taken

    def spent_by_peer(self, peer: str, spans: Sequence[Span]) -> bytearray:
        """Take the bytes of `peer`'s half that it says it has spent; `Missing` when one of them is not here or was taken before."""
        taken = bytearray()
        with self._change() as db:
            for span in spans:
                row = db.execute(
                    "SELECT id FROM fragments WHERE peer = ? AND block = ? AND mine = 0 AND start <= ? AND start + size >= ?",
                    (peer, span.block, span.offset, span.offset + span.length),
                ).fetchone()
                if row is None:
                    raise Missing(f"{span.length} bytes from {span.offset} of block {span.block} are not here, or were used before")
                taken += self._cut(row[0], peer, 0, span)
        return taken

    def _cut(self, fragment: int, peer: str, mine: int, span: Span) -> bytearray:
        """Take a span out of the fragment that holds it; what lies before and after stays, in fragments of its own."""
        start, wrapped = self._db.execute("SELECT start, wrapped FROM fragments WHERE id = ?", (fragment,)).fetchone()
        whole = self._unwrap(wrapped, f"pool|{peer}|{span.block}|{mine}|{start}")
        first, last = span.offset - start, span.offset - start + span.length
        self._db.execute("DELETE FROM fragments WHERE id = ?", (fragment,))
        if first > 0:
            self._put_fragment(peer, span.block, mine, start, whole[:first])
        if last < len(whole):
            self._put_fragment(peer, span.block, mine, start + last, whole[last:])
        taken = whole[first:last]
        wipe(whole)
        return taken

    # Keys

    def store_keys(self, role: Role, service: str, master: str, slave: str, keys: Sequence[Key]) -> None:
        """Keep keys until their SAE fetches them; `Missing`, and none kept, when an ID is in use."""
        with self._change():
            for key_id, key in keys:
                self._store_key(role, service, master, slave, key_id, key)

    def _store_key(self, role: Role, service: str, master: str, slave: str, key_id: str, key: bytearray) -> None:
        now = time.time()
        try:
            self._db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, 'stored', ?, ?, ?)",
                (key_id, service, role, master, slave, len(key) * 8, self._wrap(key, f"key|{key_id}|{role}"), now, now),
            )
        except sqlite3.IntegrityError:
            raise Missing(f"key ID {key_id} is in use") from None

    def store_shares(self, service: str, master: str, slave: str, share: int, shares: int, parts: Sequence[Key]) -> None:
        """Keep one XOR share of each key for the slave SAE; a key becomes available when its last share has come."""
        with self._change() as db:
            for key_id, part in parts:
                rows = db.execute("SELECT share, wrapped FROM shares WHERE key_id = ? AND service = ?", (key_id, service)).fetchall()
                if any(number == share for number, _ in rows):
                    raise Missing(f"share {share} of key {key_id} came before")
                if len(rows) + 1 < shares:
                    wrapped = self._wrap(part, f"share|{key_id}|{share}")
                    db.execute("INSERT INTO shares VALUES (?, ?, ?, ?, ?)", (key_id, share, service, wrapped, time.time()))
                    continue
                others = [self._unwrap(wrapped, f"share|{key_id}|{number}") for number, wrapped in rows]
                db.execute("DELETE FROM shares WHERE key_id = ?", (key_id,))
                key = join_shares([part, *others])
                self._store_key("slave", service, master, slave, key_id, key)
                wipe(key, *others)

    def ready(self, service: str, role: Role) -> int:
        query = "SELECT COUNT(*) FROM keys WHERE service = ? AND role = ? AND state = 'stored'"
        return int(self._db.execute(query, (service, role)).fetchone()[0])

    def stock(self) -> dict[str, dict[Role, int]]:
        """Keys that can be fetched here, per service and by the role of the SAE that may fetch them."""
        counts: dict[str, dict[Role, int]] = {}
        rows = self._db.execute("SELECT service, role, COUNT(*) FROM keys WHERE state = 'stored' GROUP BY service, role")
        for service, role, count in rows:
            counts.setdefault(service, {"master": 0, "slave": 0})[role] = count
        return counts

    def deliver_new(self, master: str, slave: str, bits: int, number: int) -> list[Key]:
        """Hand `number` keys to their master SAE, the oldest first; `Missing` when there are fewer."""
        with self._change() as db:
            rows = db.execute(
                "SELECT id, wrapped FROM keys WHERE master = ? AND slave = ? AND role = 'master' AND bits = ? AND state = 'stored' "
                "ORDER BY created_s LIMIT ?",
                (master, slave, bits, number),
            ).fetchall()
            if len(rows) < number:
                raise Missing(f"{number} keys asked for, {len(rows)} ready")
            return self._deliver("master", rows)

    def deliver_named(self, master: str, slave: str, key_ids: Sequence[str]) -> list[Key]:
        """Hand the named keys to their slave SAE.

        `Missing` when one is unknown, was delivered or has expired; `NotTheSlave` when one is for another SAE.
        """
        rows: list[tuple[str, bytes]] = []
        with self._change() as db:
            for key_id in key_ids:
                row = db.execute("SELECT master, slave, state, wrapped FROM keys WHERE id = ? AND role = 'slave'", (key_id,)).fetchone()
                if row is not None and row[1] != slave:
                    raise NotTheSlave(key_id)
                if row is None or row[0] != master or row[2] != "stored":
                    raise Missing(key_id)
                rows.append((key_id, row[3]))
            return self._deliver("slave", rows)

    def _deliver(self, role: Role, rows: Sequence[tuple[str, bytes]]) -> list[Key]:
        keys = [(key_id, self._unwrap(wrapped, f"key|{key_id}|{role}")) for key_id, wrapped in rows]
        self._db.executemany(
            "UPDATE keys SET state = 'delivered', wrapped = NULL, changed_s = ? WHERE id = ?", [(time.time(), key_id) for key_id, _ in rows]
        )
        return keys

    def expire(self, lifetime_s: float) -> None:
        """Destroy what waited too long: keys for their master after `lifetime_s`, keys and shares for their slave after twice that.

        What is left of a spent key or block, its name, is forgotten after four lifetimes.
        """
        now = time.time()
        with self._change() as db:
            for role, age_s in (("master", lifetime_s), ("slave", 2 * lifetime_s)):
                db.execute(
                    "UPDATE keys SET state = 'expired', wrapped = NULL, changed_s = ? "
                    "WHERE role = ? AND state = 'stored' AND created_s < ?",
                    (now, role, now - age_s),
                )
            db.execute("DELETE FROM shares WHERE created_s < ?", (now - 2 * lifetime_s,))
            db.execute("DELETE FROM keys WHERE state != 'stored' AND changed_s < ?", (now - 4 * lifetime_s,))
            db.execute(
                "DELETE FROM blocks WHERE arrived_s < ? AND NOT EXISTS "
                "(SELECT 1 FROM fragments WHERE fragments.peer = blocks.peer AND fragments.block = blocks.block)",
                (now - 4 * lifetime_s,),
            )

    # Relay entries

    def relays(self) -> list[str]:
        return [entry for (entry,) in self._db.execute("SELECT entry FROM relays ORDER BY service, share")]

    def change_relays(self, remove: Iterable[tuple[str, int]], add: Iterable[tuple[str, int, str]]) -> None:
        """Replace relay entries in one step. Keys waiting for a master SAE that no entry serves any more are destroyed.

        Keys for a slave SAE stay until they expire: its master may have fetched them already.
        """
        with self._change() as db:
            db.executemany("DELETE FROM relays WHERE service = ? AND share = ?", remove)
            db.executemany("INSERT OR REPLACE INTO relays VALUES (?, ?, ?)", add)
            db.execute(
                "UPDATE keys SET state = 'destroyed', wrapped = NULL, changed_s = ? WHERE role = 'master' AND state = 'stored' "
                "AND NOT EXISTS (SELECT 1 FROM relays WHERE relays.service = keys.service AND json_extract(entry, '$.key_bits') = bits "
                "AND json_extract(entry, '$.saes[0]') IN (master, slave) AND json_extract(entry, '$.saes[1]') IN (master, slave))",
                (time.time(),),
            )
