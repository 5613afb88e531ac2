"""Operators and nature at once: services come and go while links fail, devices fall silent and lose what they held; then it is calm.

Nothing is known of what the end should look like but this: nobody's task has ended, the devices hold what the services' plans want and no
more, the ledger has what the plans reserve, and a controller that starts from the store has it all as this one does.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from controller.routing.refusal import NoRoute
from controller.services import desk, planning, reconciler
from controller.services.desired import Book
from controller.services.desk import UnknownService
from controller.services.planning import NameTaken
from controller.services.service import promised
from controller.store.sqlite import Store
from tests.unit.services.sandbox import H1_H3, KEY, LIGHT, OVER_LIGHT, Running
from tests.unit.services.scripted import foreign_rule

ASKED = [
    ("connectivity", H1_H3),
    ("connectivity", {"ends": ["h1", "h2"], "protection": "fast-failover"}),
    ("key", KEY),
    ("key", {**KEY, "rate_bps": 100.0}),
    ("key", {**KEY, "shares": 2}),
    ("key", OVER_LIGHT),
    ("lightpath", LIGHT),
    ("lightpath", {"ends": ["ocs1:1", "ocs1:9"]}),
]
OPERATORS, DEEDS = 3, 12
THEIRS = foreign_rule(99)


async def an_operator(net: Running, chance: random.Random) -> None:
    for _ in range(DEEDS):
        try:
            if net.book.services and chance.random() < 0.45:
                await net.desk.remove(chance.choice(sorted(net.book.services)))
            else:
                kind, request = chance.choice(ASKED)
                await net.desk.create(kind, request, priority=chance.randrange(3))
        except (NoRoute, NameTaken, UnknownService):
            pass
        await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))


async def nature(net: Running, chance: random.Random, down: set[str]) -> None:
    links = [link.id for link in net.topology.links() if link.kind in ("ethernet", "qkd")]
    for _ in range(2 * DEEDS):
        deed = chance.randrange(4)
        device = net.devices[chance.choice(sorted(net.devices))]
        if deed == 0:
            link = chance.choice(links)
            down ^= {link}
            net.link(link, up=link not in down)
        elif deed == 1:
            device.up = not device.up
        elif ours := sorted(device.items - {THEIRS}, key=repr):
            device.items.discard(chance.choice(ours))
        net.reconciler.mark([device.name])
        await asyncio.sleep(chance.choice([0, 0.001, 0.01]))


def odd(net: Running) -> list[object]:
    """What is not as it should be when all is calm."""
    book, found = net.book, list[object]()
    found += [(name, each.state, each.reason) for name, each in book.services.items() if each.state not in ("ACTIVE", "DEGRADED", "FAILED")]
    for name, device in net.devices.items():
        if device.items - {THEIRS} != book.of(name).items() or book.of(name).absent:
            found.append((name, "holds", device.items - {THEIRS}, "and not", book.of(name)))
    plans = {name: promised(each.plan, each.interval_s) for name, each in book.services.items() if each.plan and each.state != "FAILED"}
    if net.desk.ledger().entries != plans:
        found.append(("ledger", book.ledger.entries, "and not", plans))
    needed = {name for each in book.services.values() if each.state != "FAILED" for name in each.companions}
    found += [("left over", name) for name, each in book.services.items() if each.parent is not None and name not in needed]
    found += [("missing", each) for each in book.services.values() if not each.reason and not book.services.keys() >= set(each.companions)]
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_after_churn_all_is_as_the_plans_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    await churned(tmp_path, monkeypatch, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_after_churn_all_is_as_the_plans_have_it_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(100, 300):
        (directory := tmp_path / str(seed)).mkdir()
        await churned(directory, monkeypatch, seed)


async def churned(directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    for module, name, value in ((desk, "TICK_S", 0.01), (desk, "SETTLING_S", 0.05), (reconciler, "RETRY_S", 0.01), (planning, "BATCH", 2)):
        monkeypatch.setattr(module, name, value)
    chance = random.Random(seed)
    store = Store(directory / "store.db")
    net, down = Running(store), set[str]()
    try:
        async with net.running():
            await asyncio.gather(
                *(an_operator(net, random.Random(chance.random())) for _ in range(OPERATORS)), nature(net, random.Random(chance.random()), down)
            )
            for device in net.devices.values():
                device.up = True
            for link in down:
                net.link(link, up=True)
            net.reconciler.mark(net.devices)
            try:
                await net.until(lambda: not odd(net))
            except AssertionError:
                raise AssertionError(seed, odd(net)) from None
            again = Book(store)
            assert (again.services, again.ledger.entries) == (net.book.services, net.book.ledger.entries)
            assert {name: each.items() for name, each in again.desired.items()} == {name: each.items() for name, each in net.book.desired.items()}
            for name in list(net.book.services):
                if name in net.book.services:
                    await net.desk.remove(name)
            await net.until(lambda: not net.book.services and not net.held())
            assert not net.book.desired and not net.book.ledger.entries and not net.store.read("service/")
    finally:
        store.close()
