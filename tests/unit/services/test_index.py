"""The index and the ledger of the book against looking through all services."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.services.app import Plan
from controller.services.index import Index, likeness
from controller.services.service import TRANSITIONS, Service

SERVICES = st.builds(
    lambda name, state, touches, devices, companions, request, end_s, reason, lit, planned: Service(
        id=name,
        kind="key",
        request={"ends": request},
        state=state,
        reason=reason,
        companions=tuple(companions),
        end_s=end_s,
        plan=Plan(dict.fromkeys(devices, ()), touches, {"cross_connects": [{"switch": "o"}]} if lit else {}) if planned else None,
    ),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(sorted(TRANSITIONS)),
    st.frozensets(st.sampled_from(["n", "m", "link"])),
    st.frozensets(st.sampled_from(["n", "m"])),
    st.lists(st.sampled_from(["a", "b", "gone"]), max_size=3),
    st.sampled_from(["x", "y"]),
    st.none() | st.just(5.0),
    st.sampled_from(["", "why"]),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(SERVICES | st.sampled_from(["a", "b", "c"]), max_size=20))
def test_the_index_finds_what_looking_through_all_finds(steps: list[Service | str]) -> None:
    index, book = Index(), dict[str, Service]()
    for step in steps:
        name, after = (step, None) if isinstance(step, str) else (step.id, step)
        before = book.pop(name, None)
        if before is not None and after is not None and before.request == after.request:
            after = after.model_copy(update={"request": before.request})  # as a service that moved on has it
        index.replace(before, after)
        if after is not None:
            book[name] = after
        every = book.values()
        for subject in ("n", "m", "link"):
            assert set(index.touching.of(subject)) == {each.id for each in every if each.plan and subject in each.plan.touches}
        for device in ("n", "m"):
            assert set(index.on.of(device)) == {each.id for each in every if each.plan and device in each.plan.desired}
        for companion in ("a", "b", "gone"):
            assert set(index.needing.of(companion)) == {each.id for each in every if companion in each.companions}
        for state in TRANSITIONS:
            assert index.states(state) == {each.id for each in every if each.state == state}
        for request in ({"ends": "x"}, {"ends": "y"}):
            assert set(index.alike.of(likeness("key", request))) == {each.id for each in every if each.request == request}
        assert index.timed == {each.id for each in every if each.end_s is not None}
        settled = {each.id for each in every if each.state in ("REQUESTED", "PLANNED", "FAILED") or (each.state == "ACTIVE" and not each.reason)}
        assert index.unsettled == {each.id for each in every} - settled
        assert all(index.touching.values()), "nothing is kept of what is gone"


def test_a_service_is_found_at_the_devices_it_moves_to_along_the_same_way() -> None:
    index = Index()
    before = Service(id="a", kind="key", request={}, plan=Plan({"n": ()}, frozenset({"link"}), {}))
    after = before.model_copy(update={"plan": Plan({"m": ()}, frozenset({"link"}), {})})
    index.replace(None, before)
    index.replace(before, after)
    assert (index.on, index.touching) == ({"m": {"a"}}, {"link": {"a"}})
