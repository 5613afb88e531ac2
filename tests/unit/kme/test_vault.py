"""The vault: no pool byte and no key is handed out twice, whatever the order of events."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.kme.pad import Span, halves, split_shares
from apps.kme.vault import FRAGMENT_BYTES, Missing, NotTheSlave, Vault, key_encryption_key

KEK = bytes(range(32))
PLENTY = 1 << 20


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    opened = Vault(tmp_path / "store.db", KEK, "alice", PLENTY)
    yield opened
    opened.close()


def key(seed: int, size: int = 32) -> bytearray:
    return bytearray((seed + i) % 256 for i in range(size))


class TwoPools(RuleBasedStateMachine):
    """Alice's and Bob's pools against a model that remembers every byte ever spent."""

    @initialize()
    def start(self) -> None:
        self.directory = TemporaryDirectory()
        self.pools = {name: self.open(name) for name in ("alice", "bob")}
        self.blocks: dict[str, bytearray] = {}
        self.spent: set[tuple[str, int]] = set()
        self.in_flight: list[tuple[str, tuple[Span, ...], bytes]] = []

    def open(self, name: str) -> Vault:
        return Vault(Path(self.directory.name) / f"{name}.db", KEK, name, 3 * FRAGMENT_BYTES)

    def teardown(self) -> None:
        for pool in self.pools.values():
            pool.close()
        self.directory.cleanup()

    def other(self, name: str) -> str:
        return "bob" if name == "alice" else "alice"

    @rule(size=st.integers(2, 2 * FRAGMENT_BYTES + 5), only=st.sampled_from(["alice", "bob", None]))
    def block(self, size: int, only: str | None) -> None:
        name = f"block{len(self.blocks)}"
        self.blocks[name] = bytearray(os.urandom(size))
        for end in ("alice", "bob"):
            if only in (None, end):
                assert self.pools[end].add_block(self.other(end), name, self.blocks[name][:])

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), end=st.sampled_from(["alice", "bob"]))
    def module_repeats_a_block(self, data: st.DataObject, end: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.blocks)))
        self.pools[end].add_block(self.other(end), name, self.blocks[name][:])

    @rule(end=st.sampled_from(["alice", "bob"]))
    def agree(self, end: str) -> None:
        mine, theirs = self.pools[end], self.pools[self.other(end)]
        mine.confirm(self.other(end), theirs.confirm(end, mine.unconfirmed(self.other(end))))

    @rule(end=st.sampled_from(["alice", "bob"]), count=st.integers(1, 6000))
    def spend(self, end: str, count: int) -> None:
        before = self.pools[end].spendable(self.other(end))
        try:
            spans, taken = self.pools[end].spend(self.other(end), count)
        except Missing:
            assert before < count
            assert self.pools[end].spendable(self.other(end)) == before
            return
        assert before >= count
        places = [(span.block, span.offset + i) for span in spans for i in range(span.length)]
        assert bytes(taken) == bytes(self.blocks[block][i] for block, i in places)
        assert len(set(places)) == len(places) == count
        assert not self.spent & set(places), "a pool byte was spent twice"
        assert all(i in halves(end, self.other(end), len(self.blocks[block]))[0] for block, i in places)
        self.spent |= set(places)
        self.in_flight.append((end, spans, bytes(taken)))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        sender, spans, taken = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        receiver = self.pools[self.other(sender)]
        try:
            assert bytes(receiver.spent_by_peer(sender, spans)) == taken
        except Missing:
            return  # fell out of a full pool meanwhile
        with pytest.raises(Missing):
            receiver.spent_by_peer(sender, spans)

    @rule(end=st.sampled_from(["alice", "bob"]))
    def restart(self, end: str) -> None:
        self.pools[end].close()
        self.pools[end] = self.open(end)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "pools"):
            for end, pool in self.pools.items():
                assert pool.levels().get(self.other(end), 0) <= 3 * FRAGMENT_BYTES


TestTwoPools = TwoPools.TestCase
TestTwoPools.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_block_is_spendable_only_once_both_ends_have_it(vault: Vault) -> None:
    vault.add_block("bob", "b1", key(0, 100))
    assert vault.spendable("bob") == 0
    assert vault.unconfirmed("bob") == ["b1"]
    assert vault.confirm("bob", ["b1", "unknown"]) == ["b1"]
    assert (vault.spendable("bob"), vault.levels()) == (50, {"bob": 100})


def test_keys_are_delivered_whole_or_not_and_once(vault: Vault) -> None:
    vault.store_keys("master", "svc", "a", "b", [("k1", key(1)), ("k2", key(2))])
    with pytest.raises(Missing):
        vault.deliver_new("a", "b", 256, 3)
    assert vault.ready("svc", "master") == 2
    assert vault.deliver_new("a", "b", 256, 2) == [("k1", key(1)), ("k2", key(2))]
    with pytest.raises(Missing):
        vault.deliver_new("a", "b", 256, 1)
    with pytest.raises(Missing, match="in use"):
        vault.store_keys("master", "svc", "a", "b", [("k3", key(3)), ("k1", key(1))])
    assert vault.ready("svc", "master") == 0


def test_named_keys_are_for_their_slave_and_master_only(vault: Vault) -> None:
    vault.store_keys("slave", "svc", "a", "b", [("k1", key(1)), ("k2", key(2))])
    with pytest.raises(NotTheSlave):
        vault.deliver_named("a", "x", ["k1"])
    for master, wanted in (("x", ["k1"]), ("a", ["k1", "none"])):
        with pytest.raises(Missing):
            vault.deliver_named(master, "b", wanted)
    assert vault.deliver_named("a", "b", ["k2", "k1"]) == [("k2", key(2)), ("k1", key(1))]
    with pytest.raises(Missing):
        vault.deliver_named("a", "b", ["k1"])


def test_shares_make_a_key_when_the_last_has_come(vault: Vault) -> None:
    parts = split_shares(key(7), 3)
    for share in (2, 0):
        vault.store_shares("svc", "a", "b", share, 3, [("k", parts[share])])
        assert vault.stock() == {}
    with pytest.raises(Missing):
        vault.store_shares("svc", "a", "b", 0, 3, [("k", parts[0])])
    vault.store_shares("svc", "a", "b", 1, 3, [("k", parts[1])])
    assert vault.deliver_named("a", "b", ["k"]) == [("k", key(7))]


def test_no_key_lies_in_the_files_in_clear_and_none_stays_after_delivery(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "store.db", KEK, "alice", PLENTY)
    vault.add_block("bob", "b1", bytearray(b"POOLBYTES" * 20))
    vault.store_keys("master", "svc", "a", "b", [("k1", bytearray(b"KEYBYTES" * 4))])
    for path in tmp_path.iterdir():
        assert b"BYTES" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    vault.deliver_new("a", "b", 256, 1)
    vault.close()
    with sqlite3.connect(tmp_path / "store.db") as db:
        assert db.execute("SELECT state, wrapped FROM keys").fetchall() == [("delivered", None)]
    db.close()


def test_what_waits_too_long_expires_first_for_the_master(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.store_keys("master", "svc", "a", "b", [("k1", key(1))])
    vault.store_keys("slave", "svc", "b", "a", [("k2", key(2))])
    now = time.time()
    for later_s, stock in ((5, {"master": 1, "slave": 1}), (15, {"master": 0, "slave": 1}), (25, None)):
        monkeypatch.setattr("apps.kme.vault.time.time", lambda later_s=later_s: now + later_s)
        vault.expire(10)
        assert vault.stock().get("svc") == stock


def test_keys_waiting_for_a_master_go_with_their_service(vault: Vault) -> None:
    entry = '{"saes": ["a", "b"], "key_bits": 256}'
    vault.change_relays([], [("svc", 0, entry)])
    vault.store_keys("master", "svc", "a", "b", [("k1", key(1))])
    vault.store_keys("slave", "svc", "b", "a", [("k2", key(2))])
    vault.change_relays([], [("svc", 0, entry)])
    assert vault.ready("svc", "master") == 1
    vault.change_relays([], [("svc", 0, entry.replace("256", "512"))])
    assert (vault.ready("svc", "master"), vault.ready("svc", "slave")) == (0, 1)


def test_another_key_encryption_key_is_met_on_start(tmp_path: Path) -> None:
    kek = key_encryption_key(tmp_path / "kek")
    assert key_encryption_key(tmp_path / "kek") == kek
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600
    Vault(tmp_path / "store.db", kek, "alice", PLENTY).close()
    with pytest.raises(ValueError, match="does not open"):
        Vault(tmp_path / "store.db", KEK, "alice", PLENTY)
    (tmp_path / "kek").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        key_encryption_key(tmp_path / "kek")


def test_a_block_larger_than_the_pool_is_refused(vault: Vault) -> None:
    with pytest.raises(ValueError, match="smaller blocks"):
        vault.add_block("bob", "huge", bytearray(PLENTY + 1))
