"""Planning many services at once: the same plans as one after the other, whatever the worker has or has lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.network.document import load
from controller.network.events import AdminChanged, LinkMeasured, LinkStateChanged
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services import planner as planner_module
from controller.services import planning as planning_module
from controller.services.app import Plan
from controller.services.desired import Book
from controller.services.ledger import Entry, Ledger
from controller.services.planner import Planner, Wanted, apps, checked, plan_in_order, put_back
from controller.services.planning import Planning
from controller.services.service import Service, promised
from tests.unit.services.sandbox import H1_H3, KEY, LIGHT, OVER_LIGHT, SANDBOX, Running

NETWORK = load(SANDBOX)
REQUESTS = st.sampled_from(
    [
        ("key", {**KEY, "rate_bps": 900.0}),
        ("key", {**KEY, "rate_bps": 1500.0, "shares": 2}),
        ("key", OVER_LIGHT),
        ("key", {"ends": ["relay1", "relay3"], "rate_bps": 400.0}),
        ("lightpath", LIGHT),
        ("lightpath", {"ends": ["ocs1:1", "ocs1:9"]}),
        ("connectivity", H1_H3),
        ("connectivity", {"ends": ["h2", "h4"]}),
        ("connectivity", {"ends": ["h2", "nobody"]}),
    ]
)
INTERVALS = st.sampled_from([(None, None), (None, None), (10.0, 20.0), (15.0, None), (None, 12.0)])


def service(number: int, kind: str, request: Mapping[str, Any], start_s: float | None = None, end_s: float | None = None) -> Service:
    return Service(id=f"s{number}", kind=kind, request=checked(kind, dict(request)), start_s=start_s, end_s=end_s)


def told(answer: Plan | Exception) -> object:
    return answer if isinstance(answer, Plan) else (type(answer), str(answer))


def taken_in(ledger: Ledger, services: Sequence[Service], answers: Sequence[Plan | Exception]) -> None:
    for each, answer in zip(services, answers, strict=False):
        if isinstance(answer, Plan):
            ledger.put(each.id, promised(answer, each.interval_s))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(REQUESTS, INTERVALS), min_size=1, max_size=7), st.integers(1, 5), st.sets(st.integers(0, 6), max_size=3))
def test_a_batch_gives_the_plans_of_one_after_the_other(
    asked: list[tuple[tuple[str, dict[str, Any]], tuple[float | None, float | None]]], size: int, standing: set[int]
) -> None:
    services = [service(number, kind, request, *interval) for number, ((kind, request), interval) in enumerate(asked)]
    held = {f"s{number}": Entry({"key:qkd:relay1--relay2": 700.0, "port:ocs1:1": 1.0}) for number in standing}
    one_by_one, together = Ledger(held), Ledger(held)
    alone: list[Plan | Exception] = []
    for each in services:
        undo: dict[str, Entry | None] = {}
        alone += plan_in_order(NETWORK, one_by_one, [Wanted.of(each)], {}, 0.0, 0, undo)
        put_back(one_by_one, undo)
        taken_in(one_by_one, [each], alone[-1:])
    in_batches: list[Plan | Exception] = []
    while len(in_batches) < len(services):
        left = services[len(in_batches) :][:size]
        before = dict(together.entries), together.reserved()
        answers = plan_in_order(NETWORK, together, [Wanted.of(each) for each in left], {}, 0.0, 0, undo)
        put_back(together, undo)
        assert (dict(together.entries), together.reserved(), undo) == (*before, {}), "the ledger is as it was"
        assert 1 <= len(answers) <= len(left)
        taken_in(together, left, answers)
        in_batches += answers
    assert [told(each) for each in in_batches] == [told(each) for each in alone]


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def fresh() -> Topology:
    return load(SANDBOX)


async def test_a_worker_that_lost_its_copies_or_serves_two_gives_the_same_plans(worker: ThreadPoolExecutor) -> None:
    topology, ledger, planner = fresh(), Ledger(), Planner(worker)
    other_topology, other = fresh(), Planner(worker)
    other_topology.apply(LinkStateChanged("qkd:relay1--relay2", up=False))
    *asked, last = [service(number, "key", {**KEY, "rate_bps": 300.0, "prefer": "widest"}) for number in range(4)]

    async def as_anew() -> None:
        for services in (asked, [last]):  # of what was planned first nothing is kept
            found = await planner.plans(services, topology, ledger, 0.0)
            direct = plan_in_order(topology, Ledger(ledger.entries), [Wanted.of(each) for each in services], {}, 0.0, ledger.revision, {})
            assert found == direct

    await as_anew()
    ledger.put("x", Entry({"key:qkd:relay1--relay2": 2000.0}))
    topology.apply(AdminChanged("node", "relay3", "draining"))
    await as_anew()
    planner_module._replicas.clear()
    ledger.put("y", Entry({"key:qkd:alice--relay1": 100.0}))
    await as_anew()
    await other.plans(asked, other_topology, Ledger(), 0.0)  # now the worker has somebody else's network of the same name
    ledger.put("x", None)
    topology.apply(AdminChanged("node", "relay3", "enabled"))
    await as_anew()
    planner._has = planner._has._replace(network=topology.revision + 5, ledger=ledger.revision + 5)  # it is told to have what it has not
    await as_anew()


async def test_the_worker_is_sent_what_changed_and_no_more(worker: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    topology, planner = fresh(), Planner(worker)
    ledger = Ledger({f"x{number}": Entry({"key:qkd:relay1--relay2": 1.0}) for number in range(250)})
    sent: list[Any] = []
    job = planner_module._job
    monkeypatch.setattr(planner_module, "_job", lambda news, *work: (sent.append(news), job(news, *work))[1])
    await planner.plans([service(0, "key", KEY)], topology, ledger, 0.0)
    assert sent[-1].whole is not None
    assert len(sent[-1].entries) == 3, "in parts of a hundred"
    ledger.put("x7", None)
    topology.apply(AdminChanged("node", "relay3", "draining"))
    await planner.plans([service(0, "key", KEY)], topology, ledger, 0.0)
    assert (len(sent), sent[-1].whole, len(sent[-1].events), len(sent[-1].entries)) == (2, None, 1, 1)
    await planner.plans([service(0, "key", KEY)], topology, ledger, 0.0)
    assert (sent[-1].events, sent[-1].entries) == ((), ())


def test_an_error_that_cannot_be_sent_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = apps()

    class Wordy(Exception):
        """Cannot be sent to another process: it is known here only, and cannot be made of its own text."""

        def __init__(self, what: str, why: str) -> None:
            super().__init__(f"{what}: {why}")

    def wordy(*arguments: object) -> Any:
        raise Wordy("a bug", "of this app")

    monkeypatch.setattr(planner_module, "apps", lambda: {**installed, "connectivity": replace(installed["connectivity"], plan=wordy)})
    asked = [service(0, "key", KEY), service(1, "connectivity", H1_H3), service(2, "key", KEY)]
    first, second, third = plan_in_order(NETWORK, Ledger(), [Wanted.of(each) for each in asked], {}, 0.0, 0, {})
    assert isinstance(first, Plan)
    assert isinstance(third, Plan)
    assert isinstance(second, RuntimeError)
    assert "a bug: of this app" in str(second)


async def test_one_without_a_way_leaves_the_others_of_its_batch_planned(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "d"):
        await net.desk.create("key", KEY, name=name)
    planned = Planner.plans
    batches: list[list[str]] = []

    async def refusing(
        self: Planner, services: Sequence[Service], topology: Topology, ledger: Ledger, now_s: float, **options: Any
    ) -> list[Plan | Exception]:
        batches.append([each.id for each in services])
        answers = await planned(self, services, topology, ledger, now_s, **options)
        return [NoRoute("none for b", "test", None) if each.id == "b" else answer for each, answer in zip(services, answers, strict=True)]

    monkeypatch.setattr(Planner, "plans", refusing)
    store_before = net.store.revision
    moved, stuck = await net.desk.administer("node", "relay1", "disabled")
    assert (moved, stuck) == (["a", "c", "d"], {"b": "none for b"})
    assert batches == [["a", "b", "c", "d"]]
    assert net.store.revision == store_before + 2, "one for the node, one for the batch"
    assert net.book.services["b"].state == "DEGRADED"
    assert all("relay1" not in net.book.services[name].plan.touches for name in moved)  # type: ignore[union-attr]


async def test_one_that_comes_to_need_a_companion_is_planned_with_it_and_those_after_it_too(net: Running) -> None:
    for number in range(3):
        await net.desk.create("key", KEY, name=f"k{number}")
        assert net.book.services[f"k{number}"].companions == ()
    for link in ("qkd:relay1--relay2", "qkd:relay3--bob"):
        net.topology.apply(LinkStateChanged(link, up=False))
    moved, stuck = await net.desk.administer("node", "relay1", "draining")
    assert (moved, stuck) == (["k0", "k1", "k2"], {})
    assert {net.book.services[name].companions for name in moved} == {("k0.lightpath-1",)}


async def test_what_follows_is_planned_while_what_was_planned_is_kept_and_as_if_after_it(
    net: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning_module, "BATCH", 2)
    monkeypatch.setattr(planning_module, "CHUNK", 1)
    await net.desk.create("lightpath", {"ends": ["ocs1:1", "ocs1:9"]}, name="in-the-way")  # of the switched link
    for number in range(7):
        await net.desk.create("key", {**KEY, "rate_bps": 20.0}, name=f"k{number}", priority=number)
    story: list[str] = []
    planned, kept = Planner.plans, Book.commit

    async def plans(self: Planner, services: Sequence[Service], *rest: Any, **options: Any) -> list[Plan | Exception]:
        story.append(f"plan {' '.join(each.id for each in services)}")
        return await planned(self, services, *rest, **options)

    def commit(self: Book, changed: Iterable[Service], gone: Iterable[str] = ()) -> frozenset[str]:
        changed = list(changed)
        story.append(f"keep {' '.join(each.id for each in changed)}")
        return kept(self, changed, gone)

    monkeypatch.setattr(Planner, "plans", plans)
    monkeypatch.setattr(Book, "commit", commit)
    one_by_one = Ledger(net.book.ledger.entries)
    net.topology.apply(LinkMeasured(min(each for each in net.links_of("k6") if each[0] == "q"), "rate_bps", 70.0))  # for three
    expected: dict[str, Plan | Exception] = {}
    for name in (f"k{number}" for number in reversed(range(7))):
        undo: dict[str, Entry | None] = {}
        (expected[name],) = plan_in_order(net.topology, one_by_one, [Wanted.of(net.book.services[name])], {}, 0.0, 0, undo)
        put_back(one_by_one, undo)
        taken_in(one_by_one, [net.book.services[name]], [expected[name]])
    moved, stuck = await net.desk._plans.replan(expected)
    assert {name for name, plan in expected.items() if isinstance(plan, Exception)} == stuck.keys()
    for name, plan in expected.items():
        if isinstance(plan, Plan):
            assert net.book.services[name].plan.desired == plan.desired, name  # type: ignore[union-attr]
    assert moved
    assert story[:3] == ["plan k6 k5", "plan k4 k3", "plan k2 k1"]
    assert story.index("keep k6") < story.index("keep k5") < story.index("plan k0") < story.index("keep k3"), story


async def test_when_a_plan_is_not_kept_those_that_counted_on_it_are_planned_again(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning_module, "BATCH", 1)
    for number in range(3):
        await net.desk.create("connectivity", {"ends": ["h1", f"h{number + 2}"]}, name=f"c{number}")
    asked: list[tuple[str, bool]] = []
    planned, kept = Planner.plans, Planning._keep

    async def plans(self: Planner, services: Sequence[Service], *rest: Any, going_on: bool = False) -> list[Plan | Exception]:
        asked.append((" ".join(each.id for each in services), going_on))
        return await planned(self, services, *rest, going_on=going_on)

    async def leaves(self: Planning, outcomes: Mapping[str, Any]) -> tuple[list[str], bool]:
        if "c0" in outcomes:
            net.book.commit([], ["c0"])
        return await kept(self, outcomes)

    monkeypatch.setattr(Planner, "plans", plans)
    monkeypatch.setattr(Planning, "_keep", leaves)
    await net.desk._plans.replan(["c0", "c1", "c2"])
    assert asked == [("c0", False), ("c1", True), ("c2", True), ("c1", False), ("c2", True)]


async def test_what_is_planned_again_keeps_its_order(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first comes to need a companion, so that nothing of what was begun with it can be kept."""
    monkeypatch.setattr(planning_module, "BATCH", 2)
    for number in range(6):
        await net.desk.create("key", {**KEY, "rate_bps": 20.0}, name=f"k{number}", priority=6 - number)
    for number in range(6):
        net.book.commit([net.book.services[f"k{number}"].model_copy(update={"companions": ()})])
    asked: list[str] = []
    planned = Planner.plans

    async def plans(self: Planner, services: Sequence[Service], *rest: Any, **options: Any) -> list[Plan | Exception]:
        asked.append(" ".join(each.id for each in services))
        return await planned(self, services, *rest, **options)

    monkeypatch.setattr(Planner, "plans", plans)
    await net.desk._plans.replan([f"k{number}" for number in range(6)])
    again = [each for each in asked[asked.index("k0") :] if each.startswith("k") and "." not in each]
    assert [name for each in again for name in each.split()][:3] == ["k0", "k1", "k2"], asked


async def test_services_that_left_meanwhile_are_not_planned_again(net: Running) -> None:
    """Neither at the end of many nor where there is nothing else."""
    for name in ("left", "gone"):
        await net.desk.create("key", KEY, name=name)
        net.desk._plans.commit([net.book.services[name].moved("REMOVING")])
    net.desk._plans.commit([], ["gone"])
    assert await net.desk._plans.replan(["left"]) == ([], {})
    await net.desk.create("key", KEY, name="k", priority=1)
    assert await net.desk._plans.replan(["k", "left", "gone"]) == ([], {})
    assert (await net.desk._plans.replan(["left", "gone", "nobody"])) == ([], {})


async def test_what_was_told_to_a_job_that_planned_nothing_counts_for_the_next(worker: ThreadPoolExecutor) -> None:
    topology, ledger, planner = fresh(), Ledger(), Planner(worker)
    first, second = (service(number, "key", {**KEY, "rate_bps": 700.0, "prefer": "widest"}) for number in range(2))
    (one,) = await planner.plans([first], topology, ledger, 0.0)
    assert isinstance(one, Plan)
    full = {link.id for link in topology.links("qkd")} & one.touches
    ledger.put("other", Entry({f"key:{link}": 1e9 for link in full}))
    assert await planner.compute(topology, name_of) == topology.name
    (two,) = await planner.plans([second], topology, ledger, 0.0, going_on=True)
    assert isinstance(two, Exception) or full.isdisjoint(two.touches)


def name_of(topology: Topology) -> str:
    return topology.name


async def test_calls_that_count_on_the_one_before_give_the_plans_of_one_call(worker: ThreadPoolExecutor) -> None:
    topology, ledger, planner = fresh(), Ledger({"x": Entry({"key:qkd:relay1--relay2": 700.0})}), Planner(worker)
    asked = [service(number, "key", {**KEY, "rate_bps": 700.0, "prefer": "widest"}) for number in range(6)]
    whole = plan_in_order(topology, Ledger(ledger.entries), [Wanted.of(each) for each in asked], {}, 0.0, ledger.revision, {})
    assert len({str(each) for each in whole}) > 2, "they get into each other's way"
    for _ in range(2):
        parts = await asyncio.gather(
            planner.plans(asked[:2], topology, ledger, 0.0),
            planner.plans(asked[2:3], topology, ledger, 0.0, going_on=True),
            planner.plans(asked[3:], topology, ledger, 0.0, going_on=True),
        )
        assert [told(each) for part in parts for each in part] == [told(each) for each in whole]
    planner_module._replicas.clear()
    assert await planner.plans(asked[3:], topology, ledger, 0.0, going_on=True) == [], "the worker does not know of the call before"


async def test_what_changed_elsewhere_counts_for_calls_that_go_on(worker: ThreadPoolExecutor) -> None:
    topology, ledger, planner = fresh(), Ledger(), Planner(worker)
    first, second = (service(number, "key", {**KEY, "rate_bps": 700.0, "prefer": "widest"}) for number in range(2))
    (one,) = await planner.plans([first], topology, ledger, 0.0)
    assert isinstance(one, Plan)
    ledger.put(first.id, Entry({}))  # not what was planned: the plans of this call count nevertheless
    full = {link.id for link in topology.links("qkd")} & one.touches
    ledger.put("other", Entry({f"key:{link}": 1e9 for link in full}))
    (two,) = await planner.plans([second], topology, ledger, 0.0, going_on=True)
    direct = Ledger(ledger.entries).with_entry(first.id, promised(one, first.interval_s))
    (expected,) = plan_in_order(topology, direct, [Wanted.of(second)], {}, 0.0, ledger.revision, {})
    assert told(two) == told(expected)
    assert isinstance(two, Exception) or full.isdisjoint(two.touches)


async def test_a_plan_that_comes_out_as_it_was_is_not_kept_anew(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", KEY, name="k")
        await net.until(lambda: net.book.services["k"].state == "ACTIVE" and not net.book.services["k"].reason)
        await net.store.durable()
        plan, revision = net.book.services["k"].plan, net.store.revision
        net.topology.apply(LinkMeasured("qkd:relay3--bob", "qber", 0.01))
        assert await net.desk._plans.replan(["k"]) == ([], {})
        assert (net.book.services["k"].plan, net.store.revision) == (plan, revision)


async def test_a_service_without_a_name_gets_the_next_free_number(net: Running) -> None:
    first = [(await net.desk.create("key", KEY, name=name)).id for name in (None, "key-2", None, None)]
    assert first == ["key-1", "key-2", "key-3", "key-4"]
    net.book.commit([], ["key-1", "key-4"])
    assert (await net.desk.create("key", KEY)).id == "key-4", "what was counted past is not counted again"


def test_a_worker_that_is_started_loads_what_the_first_entangled_route_would_wait_for() -> None:
    """In a process of its own: here others may have loaded it."""
    script = """
from controller.services import planner
planner._warm_up()
from controller.physics import simulation
from controller.routing.entangled import buffered, searches
print(*(len(kernel.nopython_signatures) for kernel in (simulation._play, searches.explore, searches.widest, buffered._purified)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.split() == ["1"] * 4


def test_a_planner_that_is_started_has_its_worker_before_its_first_job() -> None:
    planner = Planner()
    try:
        before = set(multiprocessing.active_children())
        planner.start()
        assert len(set(multiprocessing.active_children()) - before) == 1
        assert planner.jobs == 0
    finally:
        planner.close()


def test_an_executor_that_was_given_is_left_to_its_giver(worker: ThreadPoolExecutor) -> None:
    Planner(worker).close()
    assert worker.submit(int).result() == 0


async def test_a_worker_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    never = Future[Any]()
    monkeypatch.setattr(planner_module, "LATE_S", 0.01)
    planner = Planner(SimpleNamespace(submit=lambda *job: never))  # type: ignore[arg-type]
    asked = asyncio.create_task(planner.plan(service(0, "key", KEY), fresh(), Ledger(), 0.0))
    while not planner.late:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.002)
    assert "has not answered for 0.01 s" in caplog.text
    never.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await asked
    assert not planner.late


def test_what_a_ledger_has_ahead_is_undone_to_what_it_had_at_first() -> None:
    first, second, third = (Entry({"key:l": amount}) for amount in (1.0, 2.0, 3.0))
    ledger = Ledger({"a": first, "b": first})
    before: dict[str, Entry | None] = {}
    put_back(ledger, before, {"a": second})
    put_back(ledger, before, {"a": third, "b": second, "c": first})
    assert ledger.entries == {"a": third, "b": second, "c": first}
    put_back(ledger, before, {"b": third})
    assert ledger.entries == {"a": first, "b": third}
    put_back(ledger, before)
    assert ledger.entries == {"a": first, "b": first} and not before
