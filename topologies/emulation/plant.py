"""The fibre plant: where light goes, given the fibres, their faults and the cross-connects the switches have committed. Pure.

It follows each transmitter's light port by port. That decides which QKD links live, with which loss, key rate and QBER, and what the
switches' monitors see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.network.model import Link, parse_end
from controller.network.topology import Topology
from controller.physics import coexistence
from controller.physics.key_rates import DecoyBb84, bbm92_rate

Port = tuple[str, str]

GYS = DecoyBb84()
"""The model of every QKD pair whose document declares no rate; for other protocols it stands in, as in the controller."""
FILTER_NM = 0.2
"""Width of the filter before a quantum receiver (assumed)."""
GATE_S = 1e-9
"""How long a detector is open for a pulse (assumed)."""
QUANTUM_NM = 1550.0
"""Wavelength of a QKD link that names no modules (assumed)."""


@dataclass(frozen=True, slots=True)
class QkdLight:
    """What a QKD link makes of its light. `live`: the light arrives; the rate may still be 0, with too much loss or too many errors.

    `path` is the ports it passes, the transmitter first and the receiver last; empty for a link that rides on fixed glass. `qber` is None
    where nothing is measured: in the dark, and on continuous-variable links.
    """

    live: bool
    rate_bps: float = 0.0
    qber: float | None = None
    loss_db: float | None = None
    path: tuple[Port, ...] = ()


DARK = QkdLight(False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A fibre that light passes: whether from its first end to its second, and the loss when it has passed (a bend sits behind it)."""

    fibre: Link
    forward: bool
    fibre_loss_db: float
    passed_db: float


@dataclass(frozen=True, slots=True)
class Ray:
    """One way that a transmitter's light takes: the ports in order, the loss in dB up to each, and the glass."""

    ports: tuple[Port, ...]
    losses_db: tuple[float, ...] = (0.0,)
    glass: tuple[Passage, ...] = ()

    def on(self, port: Port, loss_db: float) -> Ray:
        return replace(self, ports=(*self.ports, port), losses_db=(*self.losses_db, self.losses_db[-1] + loss_db))


@dataclass(frozen=True, slots=True)
class Lit:
    """What the plant looks like: every QKD link by id, the power at every lit port of each optical switch (of several lights the
    strongest), and the ways each transmitter's light takes."""

    links: Mapping[str, QkdLight]
    power_dbm: Mapping[str, Mapping[int, float]]
    rays: Mapping[Port, tuple[Ray, ...]]


@dataclass(slots=True)
class FibrePlant:
    """`cut` names fibres through which nothing passes, `extra_loss_db` what bends and misalignment add to a fibre, `intercepted` the
    share of a fibre's quantum signals that an eavesdropper measures and sends anew."""

    topology: Topology
    cut: set[str] = field(default_factory=set)
    cross_connects: dict[str, frozenset[tuple[int, int]]] = field(default_factory=dict)
    extra_loss_db: Mapping[str, float] = field(default_factory=dict)
    intercepted: Mapping[str, float] = field(default_factory=dict)
    _joined: dict[Port, tuple[Port, Link | None, bool]] = field(init=False, repr=False)
    _crossed: dict[Port, Port] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index what is joined to each port: by a fibre, with whether the port is its first end, or by a patch cord without loss."""
        self._joined = {}
        for link in self.topology.links("fibre", "free-space"):
            a, b = link.a, link.b
            if a.port is not None and b.port is not None:
                self._joined.setdefault((a.node, a.port), ((b.node, b.port), link, True))
                self._joined.setdefault((b.node, b.port), ((a.node, a.port), link, False))
        for name, node in self.topology.nodes():
            for module_name, module in node.modules.items():
                if module.port is not None:
                    patched = parse_end(module.port)
                    switch_port = (patched.node, patched.port or "")
                    self._joined.setdefault((name, module_name), (switch_port, None, True))
                    self._joined.setdefault(switch_port, ((name, module_name), None, False))

    def light(self) -> Lit:
        """Follow the light of every transmitter."""
        self._crossed = {
            (name, str(here)): (name, str(there))
            for name, pairs in self.cross_connects.items()
            for pair in pairs
            for here, there in (pair, pair[::-1])
        }
        rays: dict[Port, tuple[Ray, ...]] = {}
        power_dbm: dict[str, dict[int, float]] = {name: {} for name, _ in self.topology.nodes("optical-switch")}
        for name, node in self.topology.nodes():
            for module_name, module in node.modules.items():
                if module.role in ("tx", "tx-rx"):
                    start = (name, module_name)
                    rays[start] = tuple(self._follow(Ray((start,)), module.wavelength_nm))
                    for ray in rays[start]:
                        for (switch, port), loss_db in zip(ray.ports, ray.losses_db, strict=True):
                            if switch in power_dbm:
                                there = power_dbm[switch]
                                there[int(port)] = max(there.get(int(port), float("-inf")), module.launch_dbm - loss_db)
        return Lit({link.id: self._qkd(link, rays) for link in self.topology.links("qkd")}, power_dbm, rays)

    def _follow(self, ray: Ray, nm: float) -> Iterator[Ray]:
        """The ways on from the last port of `ray`; several where a splitter divides the light."""
        here = ray.ports[-1]
        there, fibre, forward = self._joined.get(here, (here, None, True))
        if there in ray.ports:
            yield ray
            return
        if fibre is None:
            ray = ray.on(there, 0.0)
        else:
            passage = self._pass(fibre, forward, ray.losses_db[-1])
            if passage is None:
                yield ray
                return
            glass = (*ray.glass, passage)
            ray = replace(ray.on(there, passage.fibre_loss_db + self.extra_loss_db.get(fibre.id, 0.0)), glass=glass)
        onward = [(port, loss_db) for port, loss_db in self._through_node(there, nm) if port not in ray.ports]
        if not onward:
            yield ray
        for port, loss_db in onward:
            yield from self._follow(ray.on(port, loss_db), nm)

    def _pass(self, fibre: Link, forward: bool, entered_db: float) -> Passage | None:
        loss = self.topology.figure(fibre, "loss_db")
        if fibre.id in self.cut or loss is None:
            return None
        return Passage(fibre, forward, loss.value, entered_db + loss.value)

    def _through_node(self, port: Port, nm: float) -> Iterator[tuple[Port, float]]:
        """The other ports of a node that light of `nm` entering at `port` leaves by, each with its insertion loss."""
        name, number = port
        node = self.topology.node(name)
        if node.kind == "optical-switch":
            if port in self._crossed:
                yield self._crossed[port], node.insertion_loss_db or 0.0
        elif node.kind == "passive":
            named = {each for pair in node.losses_db for each in pair.split("-")}
            for other in sorted(named | {str(each) for each in range(1, (node.ports or 0) + 1)}, key=int):
                loss_db = node.losses_db.get(f"{number}-{other}", node.losses_db.get(f"{other}-{number}", node.insertion_loss_db))
                passed = all(low <= nm <= high for low, high in (node.bands[each] for each in (number, other) if each in node.bands))
                if other != number and loss_db is not None and passed:
                    yield (name, other), loss_db

    def _qkd(self, link: Link, rays: Mapping[Port, Sequence[Ray]]) -> QkdLight:
        if not link.switched:
            return self._fixed(link)
        ends = [(end.node, end.module or "") for end in (link.a, link.b)]
        for start, end in (ends, ends[::-1]):
            arrived = [ray for ray in rays.get(start, ()) if ray.ports[-1] == end]
            receiver = self.topology.node(end[0]).modules[end[1]]
            for ray in sorted(arrived, key=lambda ray: ray.losses_db[-1])[:1]:
                loss_db = ray.losses_db[-1]
                if receiver.max_loss_db is None or loss_db <= receiver.max_loss_db:
                    return replace(self._modelled(link, ray.glass, loss_db, receiver.wavelength_nm), path=ray.ports)
        return DARK

    def _fixed(self, link: Link) -> QkdLight:
        """A link over fixed glass: declared figures, as far as faults leave them, else those of the model."""
        here, loss_db, glass = link.a.node, 0.0, list[Passage]()
        for fibre_id in link.fibres:
            fibre = self.topology.link(fibre_id)
            forward = fibre.a.node == here
            here = (fibre.b if forward else fibre.a).node
            if fibre_id in self.cut:
                return DARK
            if passage := self._pass(fibre, forward, loss_db):
                glass.append(passage)
                loss_db = passage.passed_db + self.extra_loss_db.get(fibre_id, 0.0)
        if link.rate_bps is not None:
            return self._declared(link, link.rate_bps, loss_db if glass else None)
        return self._modelled(link, glass, loss_db, QUANTUM_NM) if glass and len(glass) == len(link.fibres) else DARK

    def _declared(self, link: Link, rate_bps: float, loss_db: float | None) -> QkdLight:
        """Fewer clicks with more loss, and less key of each with more errors: by the asymptotic key fraction of BB84, dark counts left out."""
        extra_db = sum(self.extra_loss_db.get(fibre_id, 0.0) for fibre_id in link.fibres)
        added = sum(self.intercepted.get(fibre_id, 0.0) for fibre_id in link.fibres) / 4
        given = self.topology.figure(link, "qber")
        qber = min(0.5, (given.value if given else 0.0) + added)
        if added:
            least = bbm92_rate(1.0, given.value if given else 0.0, GYS.error_correction_efficiency)
            rate_bps *= bbm92_rate(1.0, qber, GYS.error_correction_efficiency) / least if least else 0.0
        return QkdLight(True, rate_bps * 10 ** (-extra_db / 10), qber if given or added else None, loss_db)

    def _modelled(self, link: Link, glass: Sequence[Passage], loss_db: float, nm: float) -> QkdLight:
        """Decoy BB84 over that loss, with the noise of data channels in the glass.

        Intercept-resend of a share f of the signals puts f/4 of them into the wrong detector (Bennett & Brassard 1984).
        """
        wrong = GYS.misalignment_error + sum(self.intercepted.get(each.fibre.id, 0.0) for each in glass) / 4
        noise = coexistence.clicks_per_gate(raman_hz(glass, loss_db, nm), GATE_S, GYS.receiver_efficiency)
        pair = replace(GYS, background_yield=min(1.0, GYS.background_yield + noise), misalignment_error=min(0.5, wrong))
        return QkdLight(True, pair.rate_bps(loss_db), None if link.protocol == "cv" else pair.qber(loss_db), loss_db)


def raman_hz(glass: Sequence[Passage], loss_db: float, nm: float) -> float:
    """Noise photons per second at the receiver at `nm`, behind `loss_db` in all, from the data channels lit in the glass.

    0 for fibre of unknown length and for wavelengths outside 1200 to 1700 nm, of which the model says nothing.
    """
    spans = []
    for passage in glass:
        fibre = passage.fibre
        if fibre.channels and fibre.length_km and 1200 <= nm <= 1700:
            coefficient = None
            if fibre.raman_per_km_nm is not None:
                coefficient = coexistence.RamanCoefficient(fibre.raman_per_km_nm, "declared", fibre.source or "")
            channels = [
                coexistence.DataChannel(each.wavelength_nm, each.launch_dbm, (each.direction == "forward") == passage.forward, coefficient)
                for each in fibre.channels
            ]
            per_km_db = min(100.0, passage.fibre_loss_db / fibre.length_km)
            spans.append(coexistence.SharedSpan(fibre.length_km, channels, per_km_db, per_km_db, max(0.0, loss_db - passage.passed_db)))
    return coexistence.raman_noise(spans, nm, FILTER_NM).photons_hz if spans else 0.0
