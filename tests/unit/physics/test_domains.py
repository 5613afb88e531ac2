"""The edge of every formula: whatever floats come in, what comes out is a number, or a ValueError that names the figure at fault.

Functions and classes are found by their signatures, so that a new one is held to it too. The kernels below `chains` are left out: they take
what `chains` has looked at.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import math
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller import physics
from controller.physics import swap_asap, swap_trees, two_links
from controller.physics.bell_diagonal import BellDiagonal, werner
from controller.physics.chains import Link, Node, deliver
from controller.physics.coexistence import clicks_per_gate, raman_forward_w
from controller.physics.decoy import BasisCounts, FiniteKeyBb84
from controller.physics.fibre import transmittance
from controller.physics.generation import SingleClickArm, single_click
from controller.physics.key_rates import DecoyBb84, bound_bps, bound_warning
from controller.physics.memory import Memory
from controller.physics.twin_field import TwinField

KERNELS = {"swap_asap", "swap_trees", "two_links", "simulation", "tree_simulation", "domain"}
MODULES = [
    importlib.import_module(f"controller.physics.{each.name}")
    for each in pkgutil.iter_modules(physics.__path__)
    if each.name not in KERNELS
]
RESULTS = {"Delivery", "Purified", "RamanNoise"}
MAY_BE_INFINITE = {"block_s", "plob", "plob_with_station", "bound_bps", "Memory", "Node"}
"""Without clicks a block is never full, no loss bounds nothing, and a memory may be perfect."""

EDGES = [0.0, -0.0, 5e-324, 1e-300, 1e-16, 0.25, 0.5, 1.0, 1 + 1e-9, 2.0, 1550.0, 1e16, 1e300, 1.7e308, -1.0, math.nan, math.inf, -math.inf]
HUGE = [10**9, 10**400, 10**5000]
anything = st.sampled_from(EDGES) | st.sampled_from(HUGE) | st.floats(0, 1) | st.floats(0, 100) | st.floats()
sensible = st.floats(0.01, 0.24)
states = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda w: sum(w) > 0.1).map(lambda w: BellDiagonal(*(each / sum(w) for each in w)))


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in MODULES:
        for name, each in vars(module).items():
            if name.startswith("_") or getattr(each, "__module__", "") != module.__name__ or not callable(each):
                continue
            if inspect.isclass(each) and (not is_dataclass(each) or issubclass(each, ValueError)):
                continue
            yield name, each
            if inspect.isclass(each):
                for method, function in vars(each).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{name}.{method}", function


PUBLIC = {name: each for name, each in public() if name not in {"deliver", *RESULTS}}
NAMES = {name for each in (*PUBLIC.values(), deliver) for name in inspect.signature(each).parameters} | {"loss_db", "emission_s"}


def given_for(hint: Any, floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """What may stand where `hint` is annotated."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is float:
        return floats
    if hint is int:
        return st.integers(-1, 300) | st.sampled_from(HUGE)
    if hint in (str, bool, types.NoneType):
        return {str: st.just("sheet"), bool: st.booleans(), types.NoneType: st.none()}[hint]
    if hint is BellDiagonal:
        return states
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and Ellipsis not in inner:
        return st.tuples(*(given_for(each, floats) for each in inner))
    if origin in (tuple, list, collections.abc.Sequence, collections.abc.Iterable):
        return st.lists(given_for(inner[0], floats), max_size=3)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(given_for(each, floats) for each in inner))
    assert is_dataclass(hint), hint
    return objects(hint)


@st.composite
def objects(draw: st.DrawFn, kind: Any) -> Any:
    """One that its class takes: most figures as they are by default, else between 0.01 and 0.24."""
    hints = get_type_hints(kind)
    figures = {
        field.name: draw(given_for(hints[field.name], sensible))
        for field in fields(kind)
        if field.default is MISSING or (hints[field.name] is float and draw(st.integers(0, 3)) == 0)
    }
    if "errors" in figures:
        figures["detections"] = draw(st.tuples(*[st.floats(1, 1e9)] * 3))
    try:
        return kind(**figures)
    except ValueError:
        figures = {field.name: figures[field.name] for field in fields(kind) if field.default is MISSING}
        if kind.__name__ == "DataChannel":
            figures["wavelength_nm"] = 1540.0
        return kind(**figures)


def numbers(result: Any) -> Iterator[float]:
    if isinstance(result, float):
        yield result
    elif isinstance(result, (tuple, list)):
        for each in result:
            yield from numbers(each)
    elif is_dataclass(result):
        for field in fields(result):
            yield from numbers(getattr(result, field.name))


def holds(name: str, call: Callable[[], Any]) -> None:
    try:
        result = call()
    except ValueError as refused:
        assert any(re.search(rf"\b{re.escape(each)}\b", str(refused)) for each in NAMES), f"{name}: {refused} names no figure"
        return
    for number in numbers(result):
        assert not math.isnan(number), name
        assert math.isfinite(number) or name.split(".")[-1] in MAY_BE_INFINITE, f"{name}: {number}"


@pytest.mark.parametrize("name", PUBLIC)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_number_comes_out_or_the_figure_at_fault_is_named(name: str, data: st.DataObject) -> None:
    function = PUBLIC[name]
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    arguments = {
        parameter: data.draw(objects(getattr(importlib.import_module(function.__module__), name.split(".")[0])))
        if parameter == "self"
        else data.draw(given_for(hints[parameter], anything), label=parameter)
        for parameter in inspect.signature(function).parameters
    }
    holds(name, lambda: function(**arguments))


wide = st.sampled_from([5e-324, 1e-300, 1e-100, 1e-9, 1.0, 1e9, 1e100, 1e300]) | st.floats(1e-6, 1e6)


@settings(max_examples=150)
@given(st.data())
def test_chains_of_extreme_figures(data: st.DataObject) -> None:
    draw = data.draw
    count = draw(st.integers(1, 3))

    def call() -> Any:
        links = [Link(draw(wide), draw(states), draw(st.just(0.0) | wide)) for _ in range(count)]
        nodes = [
            Node(Memory(t1, min(2 * t1, draw(wide))), draw(st.floats(1e-3, 1)), draw(st.floats(0.25, 1)))
            for t1 in draw(st.lists(wide, min_size=count + 1, max_size=count + 1))
        ]
        delays = [draw(st.just(0.0) | wide) for _ in range(count)]
        return deliver(links, nodes, delays, draw(st.just(math.inf) | wide), standard_error=0.1)

    holds("Memory", call)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("clock_hz", lambda: bound_bps(1e9, 1e308, 1000, "none")),
        ("clock_hz", lambda: bound_bps(10.0, 1e308, 1000, "none")),
        ("clock_hz", lambda: bound_warning(1.0, 1e9, 1e308, 1000)),
        ("middle", lambda: bound_bps(10.0, 1e6, 1, "typo")),
        ("middle", lambda: bound_warning(1.0, 10.0, 1e6, 1, "typo")),
        ("left", lambda: TwinField().yield_of(10**6, 10**9, 20.0)),
        ("right", lambda: TwinField().yield_of(0, 501, 20.0)),
        ("probabilities", lambda: FiniteKeyBb84(DecoyBb84(), probabilities=(0.5, 0.5))),
        ("intensities", lambda: FiniteKeyBb84(DecoyBb84(), intensities=(0.5, 0.1))),
        ("detections", lambda: BasisCounts((1.0, 2.0), (0.0, 0.0, 0.0))),
        ("errors", lambda: BasisCounts((1.0, 2.0, 3.0), (0.0, 0.0))),
        ("detections", lambda: FiniteKeyBb84(DecoyBb84()).least_vacuum_and_single((1.0,))),
        ("loss_db", lambda: transmittance(10**400)),
        ("loss_db", lambda: transmittance(10**5000)),
        ("modes", lambda: bound_bps(10.0, 1e6, 10**5000, "none")),
        ("error_correction_efficiency", lambda: DecoyBb84(error_correction_efficiency=10**400)),
        ("attempt_s", lambda: Link(1.0, werner(1.0), 5e-324)),
        ("attempt_s", lambda: Link(1e-30, werner(1.0), 1e-308)),
        ("swap_success", lambda: deliver([Link(0.5, werner(1.0), 1.0)] * 3, [Node(swap_success=1e-200)] * 4, [], 5.0)),
    ],
)
def test_what_is_outside_a_domain_is_named(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}(\[\d\])? must "):
        call()


@pytest.mark.parametrize("bad", [math.nan, -1.0, 0.0, 2.0])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("arrivals", lambda bad: two_links.mean_delivery((bad, 0.5), 1.0, 3.0, 0.5, 0.0, ())),
        ("arrivals", lambda bad: swap_asap.Rates((0.5, bad), (0.5,), (0.0, 0.0), 1.0)),
        ("arrivals", lambda bad: swap_trees.Nested((bad,) * 2, (0.5,), ())),
        ("swap_success", lambda bad: two_links.mean_delivery((0.5, 0.5), 1.0, 3.0, bad, 0.0, ())),
        ("swap_success", lambda bad: two_links.mean_delivery_of_unlike((0.5, 0.5), (1.0, 0.5), 3.0, bad, 0.0, ())),
        ("success", lambda bad: swap_asap.Rates((0.5, 0.5), (bad,), (0.0, 0.0), 0.0)),
        ("success", lambda bad: swap_trees.Nested((0.5,) * 2, (bad,), ())),
    ],
)
def test_chances_outside_their_domain_are_named_by_the_kernels_too(name: str, call: Callable[[float], Any], bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        call(bad)


def test_the_noise_of_a_fibre_is_the_same_from_either_loss() -> None:
    one, other = raman_forward_w(1e-3, 1e-9, 0.5, 50.0, 0.2, 0.4), raman_forward_w(1e-3, 1e-9, 0.5, 50.0, 0.4, 0.2)
    a_c, a_q = 0.2 * math.log(10) / 10, 0.4 * math.log(10) / 10
    assert one == pytest.approx(other) == pytest.approx(1e-3 * 1e-9 * 0.5 * (math.exp(-a_q * 50) - math.exp(-a_c * 50)) / (a_c - a_q))
    assert 0 <= raman_forward_w(1e-3, 1e-9, 0.5, 20_000.0, 0.2, 0.4) < 1e-100


def test_no_noise_is_so_much_that_a_blind_detector_clicks() -> None:
    assert clicks_per_gate(1e308, 10.0, 0.0) == 0
    assert clicks_per_gate(1e308, 10.0, 1e-300) == 1


@pytest.mark.parametrize("population", [1e-162, 1e-200, 1e-300, 1e-9])
def test_the_state_of_a_click_does_not_depend_on_how_seldom_it_is(population: float) -> None:
    _, state = single_click(SingleClickArm(population, 1.0), SingleClickArm(population, 1.0), 0.9)
    assert state.coefficients == pytest.approx((0.95, 0.0, 0.0, 0.05), abs=1e-8)
