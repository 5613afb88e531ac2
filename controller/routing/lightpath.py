"""Lightpaths: ports, cross-connects and wavelengths over fibre, switches and passive devices, one at a time or for many requests at once."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from controller.network.topology import Topology
from controller.routing.light.coexisting import FILTER_NM, neighbours, noise, noise_told, passages
from controller.routing.light.joint import Assignment, assign
from controller.routing.light.light_route import (
    MAX_WAVELENGTH_DIFFERENCE_NM,
    CrossConnection,
    LightRoute,
    MediaChannel,
    Terminal,
    facing,
    render,
    sends_classical,
    shine,
    takes_quantum,
    terminals,
    transmitter,
)
from controller.routing.light.plant import Hop, Plant, build, mhz_of
from controller.routing.light.strands import Bundle, Strand
from controller.routing.light.ways import GUARD_GHZ, TooManyPaths, Way, ways
from controller.routing.refusal import NoRoute

__all__ = ["Assignment", "Bundle", "CrossConnection", "LightRoute", "MediaChannel", "Strand", "assign", "light"]

_GUARD_MHZ = round(GUARD_GHZ * 1000)


@dataclass(frozen=True, slots=True)
class _Found:
    """The way of least loss between two terminals."""

    near: Terminal
    far: Terminal
    way: Way
    hops: tuple[Hop, ...]
    budget_db: float | None

    @property
    def fits(self) -> bool:
        return self.budget_db is None or self.way.loss_db <= self.budget_db


def light(
    topology: Topology,
    src: str,
    dst: str,
    *,
    max_loss_db: float | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
    plant: Plant | None = None,
) -> LightRoute:
    """The lightpath of least loss between two ends, each `node`, `node:port` or `node/module`, using no port in `taken` (node, port).

    A node with modules offers its modules, and the ends must fit (transmitter and receiver of one signal, technology, wavelength within
    1 nm); a node without offers the ports where its fibres end. The budget is the least of `max_loss_db` and the two modules' maximum.
    `plant` is `plant.build(topology, avoid)`, for callers who avoid something. Light of a module also crosses wavelength switches, in a
    media channel, and keeps 50 GHz to the channels others have lit. Losses of connectors and dispersion are left out.
    Raises NoRoute (`reachability`, `ports` when all ways are taken, `power` when classical light would reach a quantum receiver,
    `loss_db` with the least loss), UnknownName, and ValueError for a `max_loss_db` that is no loss.
    """
    if max_loss_db is not None and not 0 <= max_loss_db < math.inf:
        raise ValueError(f"max_loss_db must be at least 0 and finite, got {max_loss_db!r}")
    plant = build(topology) if plant is None else plant
    near, far = terminals(topology, plant, src), terminals(topology, plant, dst)
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")
    pairs = [(a, b) for a in near for b in far if _compatible(a, b)]
    if not pairs:
        raise _mismatch(src, dst, near, far)
    try:
        found, blinded = _candidates(plant, pairs, max_loss_db, taken)
        fitting = [each for each in found if each.fits]
        if fitting:
            return _route(topology, plant, min(fitting, key=lambda each: (each.way.loss_db, len(each.hops))))
        if not found and not blinded and taken and _candidates(plant, pairs, max_loss_db, ())[0]:
            raise NoRoute(f"every lightpath from {src} to {dst} needs a port that is in use", "ports")
    except TooManyPaths:
        raise NoRoute(f"the fibres between {src} and {dst} make too many loops to search; name the ports", "reachability") from None
    if not found and blinded:
        raise NoRoute(f"every lightpath from {src} to {dst} sends classical light into the quantum receiver {blinded}", "power")
    if not found:
        raise NoRoute(f"no usable fibres and cross-connects join {src} and {dst}", "reachability")
    least = min(found, key=lambda each: each.way.loss_db)
    raise NoRoute(
        f"every lightpath from {src} to {dst} loses more than the budget of {least.budget_db:g} dB;"
        f" the least loss is {least.way.loss_db:.6g} dB",
        "loss_db",
        least.way.loss_db,
    )


def _compatible(a: Terminal, b: Terminal) -> bool:
    if a.module is None or b.module is None:
        return True
    return facing(a.module, b.module) and abs(a.module.wavelength_nm - b.module.wavelength_nm) <= MAX_WAVELENGTH_DIFFERENCE_NM


def _mismatch(src: str, dst: str, near: list[Terminal], far: list[Terminal]) -> NoRoute:
    ends = [(a.module, b.module) for a in near for b in far if a.module and b.module]
    if ends and all((sends_classical(a) and takes_quantum(b)) or (sends_classical(b) and takes_quantum(a)) for a, b in ends):
        return NoRoute(f"{src} and {dst} are a classical transmitter and a quantum receiver, which its light would blind", "power")
    have = "no fibre or module in use" if not near or not far else "no transmitter and receiver of one technology and wavelength"
    return NoRoute(f"{src} and {dst} have {have} between them", "reachability")


def _candidates(
    plant: Plant, pairs: list[tuple[Terminal, Terminal]], max_loss_db: float | None, taken: Collection[tuple[str, str]]
) -> tuple[list[_Found], str]:
    """The way of least loss between each pair, and a quantum receiver that kept another from being one."""
    found, blinded = [], ""
    for near, far in pairs:
        sender = transmitter(near.module, far.module)
        mhz = mhz_of(sender.wavelength_nm) if sender else None
        for way in ways(plant, near.port, far.port, mhz=mhz, guard_mhz=_GUARD_MHZ, taken=taken):
            used = {near.port, far.port}
            hops = way.hops(lambda group, used=used: group.take(used, taken))  # type: ignore[misc]
            found_shine = shine(plant, near.port, hops, mhz, classical=False)
            if found_shine.blinded is None:
                limits = [max_loss_db, *(each.module.max_loss_db for each in (near, far) if each.module is not None)]
                found.append(_Found(near, far, way, hops, min((limit for limit in limits if limit is not None), default=None)))
                break
            blinded = ":".join(found_shine.blinded)
    return found, blinded


def _route(topology: Topology, plant: Plant, chosen: _Found) -> LightRoute:
    sender = transmitter(chosen.near.module, chosen.far.module)
    more: list[str] = []
    if sender is not None and sender.signal == "quantum":
        # the receiver is at the end that does not send
        way = chosen.way if sender is chosen.near.module else chosen.way.reversed()
        met = neighbours(passages(way))
        if met:
            more = noise_told(met, noise(met, sender.wavelength_nm, FILTER_NM), FILTER_NM)
    return render(
        topology,
        plant,
        chosen.near.port,
        chosen.hops,
        wavelength_nm=sender.wavelength_nm if sender else None,
        guard_mhz=_GUARD_MHZ,
        budget_db=chosen.budget_db,
        loss_db=chosen.way.loss_db,
        more=more,
    )
