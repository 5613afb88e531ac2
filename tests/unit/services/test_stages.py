from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.services.light_order import LightOrder
from controller.services.light_safety import Part
from controller.services.stages import Stage, stages
from controller.southbound.device import (
    GROUP_NUMBERS,
    METER_NUMBERS,
    CrossConnect,
    Diff,
    FlowRule,
    Group,
    Item,
    KeyRelay,
    MediaChannel,
    Meter,
    diff,
)

PORTS = st.integers(1, 4)
CROSS = st.builds(CrossConnect, PORTS, PORTS.map(lambda port: port + 4))
FLOWS = st.builds(
    FlowRule,
    priority=st.sampled_from([1, 2]),
    match=st.builds(lambda port: (("in_port", port),), PORTS),
    actions=st.builds(lambda port: (("output", port),), PORTS),
    cookie=st.sampled_from([0xBE11 << 48 | 1, 0xBE11 << 48 | 2, 7]),
    hop=st.integers(0, 4),
)
NEIGHBOURS = st.sampled_from([None, "k1", "k2"])
RELAYS = st.builds(KeyRelay, st.sampled_from(["a", "b"]), st.just(("l", "r")), NEIGHBOURS, NEIGHBOURS, st.just(10.0))
GROUPS = st.builds(Group, st.sampled_from([1, GROUP_NUMBERS.start, GROUP_NUMBERS.stop - 1]), st.sampled_from([0, 2]))
METERS = st.builds(Meter, st.sampled_from([1, METER_NUMBERS.start, METER_NUMBERS.stop - 1]), st.sampled_from([1, 2]))
ITEMS = st.frozensets(CROSS | FLOWS | GROUPS | METERS | RELAYS, max_size=8)


@st.composite
def disjoint(draw: st.DrawFn, device: str) -> Diff:
    """Hops are no part of a rule's identity, so a rule is either added or removed, never both."""
    add = draw(ITEMS)
    return Diff(device, add=tuple(add), remove=tuple(draw(ITEMS) - add), foreign=(FlowRule(1, (), (), 7),))


DIFFS = st.sets(st.sampled_from("ABC"), min_size=1).flatmap(lambda names: st.tuples(*(disjoint(name) for name in sorted(names))))
PARTS: st.SearchStrategy[Part] = st.tuples(st.sampled_from("ABC"), CROSS)
RANKS = st.dictionaries(PARTS, st.integers(0, 5))
ORDERS = st.builds(LightOrder, removals=RANKS, additions=RANKS, early=st.frozensets(PARTS))


def places(cut: list[Stage]) -> dict[tuple[str, str, Item], int]:
    """In which stage each part is, by device, `add` or `remove`, and item."""
    found: dict[tuple[str, str, Item], int] = {}
    for number, stage in enumerate(cut):
        for device, each in stage.items():
            assert each.device == device
            found |= {(device, "add", item): number for item in each.add} | {(device, "remove", item): number for item in each.remove}
    return found


@given(DIFFS, ORDERS)
def test_every_item_is_in_exactly_one_stage_and_none_is_empty(diffs: tuple[Diff, ...], light: LightOrder) -> None:
    def parts(diffs: list[Diff]) -> Counter[tuple[str, bool, Item]]:
        return Counter([(d.device, True, i) for d in diffs for i in d.add] + [(d.device, False, i) for d in diffs for i in d.remove])

    cut = stages(diffs, light)
    assert parts([each for stage in cut for each in stage.values()]) == parts(list(diffs))
    assert all(not each.empty for stage in cut for each in stage.values())


@given(DIFFS, ORDERS)
def test_the_order_of_light_keys_and_packets(diffs: tuple[Diff, ...], light: LightOrder) -> None:
    found = places(stages(diffs, light))
    hops = {(d.device, i): i.hop for d in diffs for i in (*d.add, *d.remove) if isinstance(i, FlowRule)}
    for (device, change, item), stage in found.items():
        for (other_device, other_change, other), other_stage in found.items():
            match item, change, other, other_change:
                case CrossConnect(), "remove", CrossConnect(), "add":
                    early = (other_device, other) in light.early
                    assert other_stage < stage if early else stage < other_stage, "break before make: a port carries one beam"
                case CrossConnect(), "remove", CrossConnect(), "remove":
                    here, there = light.removals.get((device, item), 0), light.removals.get((other_device, other), 0)
                    assert (here < there) == (stage < other_stage), "from the source's side to the receiver's"
                case CrossConnect(), "add", CrossConnect(), "add":
                    here, there = (
                        -1 if part in light.early else light.additions.get(part, 0) for part in ((device, item), (other_device, other))
                    )
                    assert (here < there) == (stage < other_stage), "from the receiver's side to the source's"
                case CrossConnect(), "add", KeyRelay(), "add":
                    assert stage < other_stage, "keys are relayed when the light is there"
                case KeyRelay(), "add", KeyRelay(), "add" if item.left and item.right and not (other.left and other.right):
                    assert stage < other_stage, "the middle answers before the ends ask"
                case KeyRelay(), "remove", KeyRelay(), "remove" if item.left and item.right and not (other.left and other.right):
                    assert stage > other_stage, "the ends stop asking before the middle stops answering"
                case FlowRule(), "add", FlowRule(), "add" if hops[device, item] > hops[other_device, other]:
                    assert stage < other_stage, "packets never meet a missing rule: the ingress is last"
                case FlowRule(), "add", FlowRule(), "remove":
                    assert stage < other_stage, "make before break"
                case Group() | Meter(), "add", FlowRule(), "add":
                    assert stage < other_stage, "a rule finds the groups and meters that it uses"
                case FlowRule(), "remove", Group() | Meter(), "remove":
                    assert stage < other_stage, "a group takes no rule along"


@given(ITEMS, ITEMS, ITEMS)
def test_a_diff_makes_of_a_device_what_is_wanted_and_leaves_the_rest(
    actual: frozenset[Item], wanted: frozenset[Item], once_wanted: frozenset[Item]
) -> None:
    present = frozenset({item.key: item for item in sorted(wanted, key=repr)}.values())  # one item per key can be wanted
    actual = frozenset({item.key: item for item in sorted(actual, key=repr)}.values())  # and one per key be held
    change = diff("A", actual, present, once_wanted - present)

    added = {item.key for item in change.add}
    after = {item for item in actual - set(change.remove) if item.key not in added} | set(change.add)

    assert present <= after
    assert after.isdisjoint(once_wanted - present)
    assert after - present == {item for item in actual - present if not item.ours and item not in once_wanted and item.key not in added}
    assert added.isdisjoint(item.key for item in change.remove), "what is replaced is not removed as well"
    assert all(not item.ours and item not in once_wanted for item in change.foreign)
    assert diff("A", frozenset(after), present, once_wanted - present).empty, "the second diff finds nothing to do"


def test_a_media_channel_closes_with_the_first_cross_connects_and_opens_when_the_way_behind_it_is_built() -> None:
    old, new = MediaChannel(1, "1", "2", 10, 20), MediaChannel(1, "1", "3", 30, 40)
    built, lit = CrossConnect(1, 5), CrossConnect(2, 6)
    light = LightOrder(additions={("wss", new): 1, ("near", lit): 1})
    cut = stages([Diff("wss", add=(new,), remove=(old,)), Diff("far", add=(built,)), Diff("near", add=(lit,))], light)
    assert [sorted(stage) for stage in cut] == [["wss"], ["far"], ["near", "wss"]]
    assert (cut[0]["wss"].remove, cut[2]["wss"].add) == ((old,), (new,))
