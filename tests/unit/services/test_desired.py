from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.services.app import Companion, Plan
from controller.services.desired import Book
from controller.services.service import TRANSITIONS, Service, ServiceState, promised
from controller.southbound.device import CrossConnect, FlowRule, Item
from controller.store.sqlite import Conflict, Store
from tests.unit.services.scripted import delivered, foreign_rule, relay
from tests.unit.services.scripted import rule as flow

DEVICES = ["A", "B"]
NAMES = st.sampled_from(["s1", "s2", "s3"])
ITEM = st.builds(CrossConnect, st.integers(1, 2), st.integers(3, 4)) | st.builds(flow, NAMES, st.integers(1, 2)) | st.builds(relay, NAMES)
PLANS = st.dictionaries(st.sampled_from(DEVICES), st.lists(ITEM, max_size=3, unique=True).map(tuple))
WRITTEN: tuple[ServiceState, ...] = ("PLANNED", "PROGRAMMING", "ACTIVE", "DEGRADED", "REPAIRING", "REMOVING", "FAILED")


class Books(RuleBasedStateMachine):
    """The book against what it stands for: which service wants what where, and what was wanted once and not yet read to be gone."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "store.db")
        self.book = Book(self.store)
        self.wanted: dict[str, dict[str, set[Item]]] = {}
        self.ever: dict[str, set[Item]] = {device: set() for device in DEVICES}
        """Wanted at some time and since then not read to be gone."""

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(changes=st.dictionaries(NAMES, st.tuples(PLANS, st.sampled_from(WRITTEN)), min_size=1), gone=st.sets(NAMES))
    def commit(self, changes: dict[str, tuple[dict[str, tuple[Item, ...]], ServiceState]], gone: set[str]) -> None:
        gone -= changes.keys()
        before = {device: self.book.lend(device) for device in DEVICES}
        copies = {device: each.copy() for device, each in before.items()}
        concerned = self.book.commit([delivered(name, plan, state=state) for name, (plan, state) in changes.items()], gone)
        for name, (plan, state) in changes.items():
            live = state in ("PROGRAMMING", "ACTIVE", "DEGRADED", "REPAIRING")
            self.wanted[name] = {device: set(items) for device, items in plan.items()} if live else {}
        for name in gone:
            self.wanted.pop(name, None)
        for device in DEVICES:
            self.ever[device] |= self.present(device)
        assert concerned == {device for device in DEVICES if self.book.of(device) != before[device]}
        assert copies == before, "what was lent stays"
        assert set(self.book.services) == set(self.wanted)

    @rule(held=st.dictionaries(st.sampled_from(DEVICES), st.frozensets(ITEM, max_size=3)))
    def devices_were_read(self, held: dict[str, frozenset[Item]]) -> None:
        for device, items in held.items():
            self.book.forget_absent(device, items | {foreign_rule(1)})
            self.ever[device] &= items | self.present(device)

    @precondition(lambda self: self.wanted)
    @rule()
    def restart(self) -> None:
        services, desired, revision = self.book.services, self.book.desired, self.book.revision
        self.store.close()
        self.store = Store(Path(self.folder.name) / "store.db")
        self.book = Book(self.store)
        assert (self.book.services, self.book.desired, self.book.revision) == (services, desired, revision)

    def present(self, device: str) -> set[Item]:
        return {item for plan in self.wanted.values() for item in plan.get(device, ())}

    @invariant()
    def the_ledger_is_what_the_services_reserve(self) -> None:
        if hasattr(self, "book"):
            services = self.book.services.items()
            assert self.book.ledger.entries == {
                name: promised(each.plan, each.interval_s) for name, each in services if each.plan is not None and each.state != "FAILED"
            }
            assert self.book.leaving == {device for device, each in self.book.desired.items() if each.absent}

    @invariant()
    def the_book_is_the_model(self) -> None:
        for device in DEVICES if hasattr(self, "book") else ():
            assert self.book.of(device).items() == self.present(device)
            assert set(self.book.of(device).absent) == self.ever[device] - self.present(device)
            assert len(set(self.book.of(device).absent)) == len(self.book.of(device).absent)
            assert all(item.ours or isinstance(item, CrossConnect) for item in self.book.of(device).absent), "nothing foreign"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=30, stateful_step_count=12)


def test_a_second_book_on_the_store_cannot_overwrite_what_it_has_not_read(store: Store) -> None:
    first, second = Book(store), Book(store)
    first.commit([delivered("s", {"A": (relay("s"),)})])
    with pytest.raises(Conflict, match="expected 0"):
        second.commit([delivered("s", {"B": (relay("s"),)})])
    assert second.services == {}
    assert second.of("B").items() == frozenset()
    assert Book(store).services == first.services
    assert Book(store).of("B").items() == frozenset()


def test_a_plan_survives_the_store_whole(store: Store) -> None:
    items: tuple[Item, ...] = (
        FlowRule(
            7, (("eth_src", "02:00:00:00:00:01/ff:ff:ff:ff:ff:00"), ("in_port", 2)), (("output", 3),), 0xBE11 << 48 | (1 << 48) - 1, 1, 3
        ),
        CrossConnect(1, 17),
        relay("s", "left")._replace(rate_bps=0.1 + 0.2),
    )
    plan = Plan(
        desired={"A": items},
        touches=frozenset({"a", "fibre:a--b"}),
        route={"hops": [{"link": None}], "loss_db": 4.2},
        reservations={"port:o:1": 1.0, "key:q": 0.5},
        companions=(Companion("lightpath", {"ends": ["a/q", "b/q"]}),),
        expected_power_dbm={"o": {9: -23.25}},
        explanation=("one", "two"),
        network_revision=4,
        ledger_revision=2,
    )
    service = delivered("s", {}, plan=plan, companions=("s.lightpath-1",), end_s=12.5)
    Book(store).commit([service])
    again = Book(store)
    assert again.services == {"s": service}
    assert again.services["s"].plan == plan
    assert [item.hop for item in again.of("A").items() if isinstance(item, FlowRule)] == [3], "the stages need it after a restart"


@given(st.sampled_from(sorted(TRANSITIONS)), st.sampled_from(sorted(TRANSITIONS)))
def test_a_service_goes_only_where_the_transitions_lead(here: ServiceState, there: ServiceState) -> None:
    service = Service(id="s", kind="key", request={}, state=here, reason="old", served=here == "ACTIVE")
    if here == there or there in TRANSITIONS[here]:
        moved = service.moved(there, "why", priority=3)
        assert (moved.state, moved.reason, moved.priority, moved.served) == (there, "why", 3, "ACTIVE" in (here, there))
    else:
        with pytest.raises(ValueError, match=f"service s cannot go from {here} to {there}"):
            service.moved(there)


def test_every_state_can_be_left_for_removal_and_only_removal_is_the_end() -> None:
    assert [state for state, after in TRANSITIONS.items() if not after] == ["REMOVING"]
    assert all("REMOVING" in after for state, after in TRANSITIONS.items() if state != "REMOVING")
