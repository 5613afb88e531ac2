"""A key service: keys for two SAEs, relayed over trusted nodes by their KMEs, on one path, as XOR shares on several, or split over several."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from controller.network.model import parse_end
from controller.network.topology import UnknownName
from controller.routing.compiled import compiled
from controller.routing.key_relay import Preference, key
from controller.services.app import (
    App,
    Companion,
    Item,
    KeyRelay,
    Ledger,
    NoRoute,
    Plan,
    Request,
    State,
    Topology,
    classical_channels,
)


class Keys(Request):
    """Keys between two ends, each a node or one of its SAE IDs. `rate_bps` is promised, both directions together; 0 is best effort.

    With `shares` a key is the XOR of a share on each of so many disjoint paths; with `split` each of at most so many paths carries keys of
    its own, and their rates add up. One of the two must be 1.

    Unless `prefer` says otherwise, a promised rate goes over the fewest trusted nodes that can carry it, best effort over the widest path.
    """

    rate_bps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    prefer: Preference | None = None
    shares: Annotated[int, Field(ge=1, le=16)] = 1
    split: Annotated[int, Field(ge=1, le=16)] = 1
    max_trusted_nodes: Annotated[int, Field(ge=0)] | None = None
    avoid: tuple[str, ...] = ()
    key_bits: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 256
    stock_keys: Annotated[int, Field(ge=1, le=4096)] = 64

    @model_validator(mode="after")
    def _one_way_to_use_paths(self) -> Keys:
        if self.shares > 1 and self.split > 1:
            raise ValueError("shares combines the keys of its paths and split adds up their rates; one of them must be 1")
        return self


def plan(service: str, request: Keys, network: Topology, ledger: Ledger, now_s: float) -> Plan:
    """Relay entries for every KME of every path, a lightpath for every switched QKD link among them, and the classical channels beside them."""
    (src, left_sae), (dst, right_sae) = (_end(network, text) for text in request.ends)
    for name in request.avoid:
        network.node(name)
    route = key(
        network,
        src,
        dst,
        rate_bps=request.rate_bps,
        prefer=request.prefer or ("fewest-trusted-nodes" if request.rate_bps else "widest"),
        shares=request.shares,
        split=request.split,
        max_trusted_nodes=request.max_trusted_nodes,
        avoid=request.avoid,
        segments=["relay"],  # no device makes key of live entanglement yet
        reserved=ledger.reserved_of("key"),
        taken=_taken_ports(network, ledger),
    )
    split = len(route.paths) if request.split > 1 else 1
    wanted = request.rate_bps / route.rate_bps if request.rate_bps else 1.0
    promised: dict[str, float] = {}
    desired: dict[str, tuple[Item, ...]] = {}
    companions: list[Companion] = []
    touches: set[str] = set()
    for share, path in enumerate(route.paths):
        touches.update(path.nodes, path.links)
        rate_bps = path.rate_bps * wanted if request.split > 1 else request.rate_bps or route.rate_bps
        for left, here, right in zip((None, *path.nodes), path.nodes, (*path.nodes[1:], None), strict=False):
            entry = KeyRelay(
                service=service,
                saes=(left_sae, right_sae),
                left=left,
                right=right,
                rate_bps=rate_bps / 2,
                share=share,
                shares=request.shares,
                split=split,
                key_bits=request.key_bits,
                stock_keys=request.stock_keys,
            )
            desired[here] = (*desired.get(here, ()), entry)
        for link_id in path.links:
            link = network.link(link_id)
            for fibre_id in link.fibres:
                touches.update((fibre_id, *network.link(fibre_id).nodes))
            if link.switched and link_id not in promised:
                companions.append(Companion("lightpath", {"ends": list(link.ends)}))
            promised[link_id] = promised.get(link_id, 0.0) + (rate_bps if request.rate_bps else 0.0)
    return Plan(
        desired=desired,
        touches=frozenset(touches),
        route=route.to_json(),
        reservations={f"key:{link_id}": amount for link_id, amount in promised.items()},
        companions=(*companions, *classical_channels(network, (pair for path in route.paths for pair in pairwise(path.nodes)))),
        explanation=route.explanation,
    )


def _end(network: Topology, text: str) -> tuple[str, str]:
    """The node and the SAE of an end. UnknownName when it is neither a node nor an SAE; NoRoute when the node holds no keys."""
    by_sae = compiled(network).by_structure.of("SAEs", lambda: {sae: name for name, _ in network.nodes() for sae in network.saes(name)})
    if text in by_sae:
        return by_sae[text], text
    if text not in network.graph:
        raise UnknownName("node or SAE", text, [*network.graph, *by_sae])
    saes = network.saes(text)
    if not saes:
        raise NoRoute(
            f"{text} is of kind {network.node(text).kind} and holds no keys; name an end-node, a trusted-node or an SAE", "ends", None
        )
    return text, saes[0]


def _taken_ports(network: Topology, ledger: Ledger) -> frozenset[tuple[str, str]]:
    """Ports of optical switches that a switched QKD link cannot have: those of lightpaths that do not light such a link."""
    holding = ledger.holding("port").values()
    if not holding:
        return frozenset()
    lit = [{f"port:{end.node}:{end.module}" for end in (link.a, link.b)} for link in network.links("qkd") if link.switched]
    taken = set()
    for entry in holding:
        resources = {resource for resource in entry.amounts if resource.startswith("port:")}
        if not any(modules <= resources for modules in lit):
            taken |= {parse_end(resource.removeprefix("port:")) for resource in resources}
    return frozenset((end.node, end.port or "") for end in taken)


def serving(service: str, plan: Plan, states: Mapping[str, State]) -> str:
    """A key can be delivered at both ends."""
    nodes = plan.route["paths"][0]["nodes"]
    for device in (nodes[0], nodes[-1]):
        if not states[device].stock_keys.get(service):
            return f"no key in stock at {device} yet"
    return ""


app = App(kind="key", request=Keys, plan=plan, serving=serving, buffered=True)
