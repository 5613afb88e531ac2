"""What only the whole document can tell: whether the parts of a network fit together.

Each check yields complaints (path in the document, what is wrong, remedy). All of them are found in one go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from itertools import chain

import networkx as nx

from controller.network.model import LINK_FIELDS, NODE_NAMES, End, Link, Module, Node, parse_end

Key = tuple[str | int, ...]
Complaint = tuple[Key, str, str]

_QUANTUM_ENDS = {"end-node", "trusted-node", "repeater", "source", "satellite", "ground-station"}
_LIGHT_KINDS = {"fibre", "free-space"}
_LIGHT_ENDS = {"end-node", "trusted-node", "repeater", "ground-station"}
"""Kinds of node where the light of a fibre ends."""


def cross_check(nodes: Mapping[str, Node], links: Mapping[int, Link], names: set[str], faulty: Collection[str] = ()) -> list[Complaint]:
    """Every complaint about how nodes (by name) and links (by position) fit. `names` are all node names, those of faulty nodes too; `faulty`
    are ids of links that are wrong by themselves, about whose absence nobody need complain."""
    return list(
        chain(
            _nodes(nodes),
            _attachments(nodes, links, names),
            _ids(links),
            _link_ends(nodes, links, names),
            _ports(nodes, links),
            _figures(links),
            _over(nodes, links, faulty),
        )
    )


def _nodes(nodes: Mapping[str, Node]) -> Iterator[Complaint]:
    taken: dict[tuple[str, str], str] = {}
    for name, node in nodes.items():
        at: Key = ("nodes", name)
        if node.kind == "openflow-switch" and node.dpid is None:
            yield at, "an openflow-switch without dpid", 'give dpid: "0000000000000001" or the like, 16 hex digits'
        if node.driver == "scpi" and (node.kind != "optical-switch" or node.sides == "single"):
            what = "a single-sided switch" if node.kind == "optical-switch" else f"a {node.kind}"
            yield (*at, "driver"), f"{what} is not driven over SCPI here", "write driver: netconf"
        if node.kind == "optical-switch" and node.ports is None:
            yield at, "an optical-switch without ports", "give ports: 32 or the like"
        if node.sides != "single" and node.kind == "optical-switch" and node.ports is not None and node.ports % 2:
            yield (*at, "ports"), f"a dual-sided switch with {node.ports} ports", "give an even number, or sides: single"
        if node.ip is not None:
            try:
                ipaddress.IPv4Address(node.ip)
            except ValueError:
                yield (*at, "ip"), f"'{node.ip}' is no IPv4 address", "give one as in 10.0.0.1"
        if node.t1_s is not None and node.t2_s is not None and node.t2_s > 2 * node.t1_s:
            yield (*at, "t2_s"), f"t2_s {node.t2_s:g} is more than twice t1_s {node.t1_s:g}", "no memory dephases so slowly: give at most 2 t1_s"
        for field in node.origins:
            if field not in NODE_NAMES:
                yield (*at, "origins", field), f"origins names '{field}', which is no field of a node", "name a field"
        for field in ("dpid", "ip", "ipv6", "mac", "kme", "address"):
            value = getattr(node, field)
            if value is not None and taken.setdefault((field, value), name) != name:
                yield (*at, field), f"{field} {value} is also that of {taken[field, value]}", "give each its own"
        for index, sae in enumerate(node.saes or ((f"sae-{name}",) if node.holds_keys else ())):
            if taken.setdefault(("sae", sae), name) != name:
                yield (*at, "saes", index), f"SAE {sae} is also at {taken['sae', sae]}", "give each SAE an ID of its own"
        for port, (low_nm, high_nm) in node.bands.items():
            if low_nm >= high_nm:
                yield (*at, "bands", port), f"the band from {low_nm:g} to {high_nm:g} nm is empty", "give the lower wavelength first"
            yield from _port_number(node, (*at, "bands", port), End(name, port))
        for pair in node.losses_db:
            one, _, other = pair.partition("-")
            for port in (one, other):
                yield from _port_number(node, (*at, "losses_db", pair), End(name, port))
            if one == other:
                yield (*at, "losses_db", pair), "both ports are the same", "name two ports"
        for module_name, module in node.modules.items():
            if module.max_input_dbm is not None and module.role == "tx":
                yield (
                    (*at, "modules", module_name, "max_input_dbm"),
                    "a transmitter takes no light",
                    "give max_input_dbm to the receiver",
                )
            if module.port is not None:
                yield from _module_port(nodes, (*at, "modules", module_name, "port"), parse_end(module.port))


def _attachments(nodes: Mapping[str, Node], links: Mapping[int, Link], names: set[str]) -> Iterator[Complaint]:
    attached = {name: node.classical.host for name, node in nodes.items() if node.classical is not None}
    cabled = {name for link in links.values() if link.kind == "ethernet" for name in link.nodes} if attached else set()
    for name, host_name in attached.items():
        at: Key = ("nodes", name, "classical", "host")
        host = nodes.get(host_name)
        if host_name not in names:
            yield at, f"no node named '{host_name}'", "name a host of this document"
        elif host is None:
            continue  # it is faulty itself
        elif host.kind != "host":
            yield at, f"'{host_name}' is of kind {host.kind}", "name a host, by which the node's messages leave"
        elif host.mac is None or (host.ip is None and host.ipv6 is None):
            yield at, f"{host_name} has no addresses for packets to be sent to", f"give {host_name} a mac, and an ip or ipv6"
        elif host_name not in cabled:
            yield at, f"no ethernet link ends at {host_name}", f"join {host_name} with an openflow-switch"


def _module_port(nodes: Mapping[str, Node], at: Key, port: End) -> Iterator[Complaint]:
    switch = nodes.get(port.node)
    if switch is None:
        yield at, f"no node named '{port.node}'", "name a node of this document"
    elif switch.kind not in ("optical-switch", "wavelength-switch", "passive"):
        yield at, f"'{port.node}' is of kind {switch.kind}", "name a port of an optical-switch, wavelength-switch or passive node"
    else:
        yield from _port_number(switch, at, port)


def _ids(links: Mapping[int, Link]) -> Iterator[Complaint]:
    first: dict[str, int] = {}
    for index, link in links.items():
        if first.setdefault(link.id, index) != index:
            yield (
                ("links", index),
                f"a second link with id {link.id} (the first is links[{first[link.id]}])",
                "give parallel links an id each",
            )


def _link_ends(nodes: Mapping[str, Node], links: Mapping[int, Link], names: set[str]) -> Iterator[Complaint]:
    for index, link in links.items():
        for which, end in enumerate((link.a, link.b)):
            at: Key = ("links", index, "ends", which)
            if end.node not in names:
                yield at, f"no node named '{end.node}'", "name a node of this document"
            elif end.node in nodes:
                yield from _link_end(nodes[end.node], link, end, at)
        if link.a.node == link.b.node:
            yield ("links", index, "ends"), "both ends are at the same node", "join two nodes"


def _link_end(node: Node, link: Link, end: End, at: Key) -> Iterator[Complaint]:
    quantum = link.kind in ("qkd", "entanglement")
    if end.module is not None and not quantum:
        yield at, f"a {link.kind} link ends at a port, not at a module", f"write {end.node}:{end.module}"
    elif end.port is not None and quantum:
        yield at, f"a {link.kind} link ends at a node or a module, not at a port", f"write {end.node}/{end.port} or {end.node}"
    elif end.module is not None and end.module not in node.modules:
        known = ", ".join(node.modules) or "none"
        yield at, f"{end.node} has no module '{end.module}'", f"name one of its modules ({known})"
    elif end.module is not None and node.modules[end.module].signal != "quantum":
        yield at, f"{end} carries a {node.modules[end.module].signal} signal, not a quantum one", "name a module with signal: quantum"
    if link.kind == "qkd" and not node.holds_keys:
        yield at, f"a qkd link ends at {end.node}, a {node.kind}, which holds no keys", "end it at an end-node or a trusted-node"
    if link.kind == "entanglement" and node.kind not in _QUANTUM_ENDS:
        yield at, f"an entanglement link ends at {end.node}, a {node.kind}", "end it at an end-node, trusted-node or repeater"
    if link.kind == "ethernet" and node.kind in ("optical-switch", "wavelength-switch", "passive"):
        yield at, f"an ethernet link ends at {end.node}, a {node.kind}", "end it at a switch, a host or a node"
    if link.kind in _LIGHT_KINDS and node.kind in ("openflow-switch", "host"):
        yield at, f"a {link.kind} link ends at {end.node}, a {node.kind}", "end it at an optical or quantum node, or use kind: ethernet"
    if end.port is not None:
        yield from _port_number(node, at, end)


def _port_number(node: Node, at: Key, end: End) -> Iterator[Complaint]:
    if node.kind not in ("optical-switch", "wavelength-switch", "passive", "openflow-switch"):
        return
    text, most = end.port or "", 0xFFFFFF00 - 1 if node.kind == "openflow-switch" else node.ports or 65535
    if not text.isdecimal() or not 1 <= int(text) <= most:
        yield at, f"{end.node} has no port '{text}'", f"give a port number from 1 to {most}"
    elif text != str(int(text)):  # else one port would have two names
        yield at, f"{end.node} has no port '{text}'", f"write {int(text)}"


def _ports(nodes: Mapping[str, Node], links: Mapping[int, Link]) -> Iterator[Complaint]:
    """A port takes one fibre or one cable. A module patched to a port may name the fibre that does it as well."""
    holder: dict[tuple[str, str, str], str] = {}
    patched: dict[tuple[str, str], tuple[str, str]] = {}
    for name, node in nodes.items():
        for module_name, module in node.modules.items():
            if module.port is not None:
                port = parse_end(module.port)
                earlier = patched.setdefault((port.node, port.port or ""), (name, module_name))
                if earlier != (name, module_name):
                    yield (
                        ("nodes", name, "modules", module_name, "port"),
                        f"port {module.port} is taken by {'/'.join(earlier)}",
                        "patch it to a free port",
                    )
    for index, link in links.items():
        medium = {"ethernet": "cable", "fibre": "fibre", "free-space": "fibre"}.get(link.kind)
        if medium is None:
            continue
        for which, (end, other) in enumerate(((link.a, link.b), (link.b, link.a))):
            if end.port is None:
                continue
            earlier_id = holder.setdefault((medium, end.node, end.port), link.id)
            module_at = patched.get((end.node, end.port))
            if earlier_id != link.id:
                yield ("links", index, "ends", which), f"port {end} is taken by link {earlier_id}", "use a free port"
            elif module_at is not None and module_at != (other.node, other.port):
                yield ("links", index, "ends", which), f"port {end} is taken by module {'/'.join(module_at)}", "use a free port"


def _figures(links: Mapping[int, Link]) -> Iterator[Complaint]:
    for index, link in links.items():
        at: Key = ("links", index)
        if link.kind in _LIGHT_KINDS and link.length_km is None and link.loss_db is None:
            yield at, f"a {link.kind} link with neither length_km nor loss_db", "give one of them"
        if link.kind == "entanglement":
            if link.rate_hz is None:
                yield at, "an entanglement link without rate_hz", "give the pairs per second, all channels together"
            if (link.fidelity is None) == (link.state is None):
                yield at, "an entanglement link needs either fidelity or state", "give one of the two"
        for field in link.origins:
            if not any(field in fields for fields in LINK_FIELDS.values()):
                yield (*at, "origins", field), f"origins names '{field}', which is no figure of a link", "name one of its figures"


def _over(nodes: Mapping[str, Node], links: Mapping[int, Link], faulty: Collection[str]) -> Iterator[Complaint]:
    by_id = {link.id: link for link in links.values()}
    patched = {(end.node, end.port) for link in links.values() if link.kind in _LIGHT_KINDS for end in (link.a, link.b)}
    for index, link in links.items():
        at: Key = ("links", index, "over")
        if link.via is not None and (link.via not in nodes or nodes[link.via].kind not in ("source", "bell-station")):
            yield ("links", index, "via"), f"'{link.via}' is no source or bell-station of this document", "name one"
        if link.switched:
            yield from _switched(nodes, link, at, patched)
            continue
        if not link.fibres:
            if link.kind == "qkd" and link.rate_bps is None:
                yield (
                    ("links", index),
                    "a qkd link with neither rate_bps nor fibres to compute it from",
                    "give rate_bps, or over: [fibre id, ...]",
                )
            continue
        glass: nx.MultiGraph[str] = nx.MultiGraph()
        for position, fibre_id in enumerate(link.fibres):
            fibre = by_id.get(fibre_id)
            if fibre is None and fibre_id in faulty:
                continue
            if fibre is None:
                yield (*at, position), f"no link with id '{fibre_id}'", "name a fibre of this document by its id"
            elif fibre.kind not in _LIGHT_KINDS:
                yield (*at, position), f"'{fibre_id}' is of kind {fibre.kind}", "name a fibre or free-space link"
            else:
                glass.add_edge(*fibre.nodes)
        if len(glass.edges) == len(link.fibres):
            yield from _led(nodes, link, at, glass)


def _led(nodes: Mapping[str, Node], link: Link, at: Key, glass: nx.MultiGraph[str]) -> Iterator[Complaint]:
    """Whether the fibres that a link rides on lead from one of its ends to the other."""
    a, b = link.nodes
    if a not in glass or b not in glass or not nx.has_path(glass, a, b):
        yield at, f"these fibres do not join {a} and {b}", "list the fibres from one end to the other"
    elif not nx.is_connected(glass) or any(glass.degree[name] != (1 if name in (a, b) else 2) for name in glass):
        yield at, f"these fibres are more than one way from {a} to {b}", "list each fibre of the way once"
    else:
        for name in glass:
            if name not in (a, b) and name in nodes and nodes[name].kind in _LIGHT_ENDS:
                yield at, f"the light ends on the way at {name}, a {nodes[name].kind}", "end the link there, or lead the fibres around"


def _switched(nodes: Mapping[str, Node], link: Link, at: Key, patched: set[tuple[str, str | None]]) -> Iterator[Complaint]:
    modules: list[Module] = []
    for end in (link.a, link.b):
        if end.module is None:
            yield at, f"a switched link must say which modules it joins, and '{end}' names none", "write the ends as node/module"
        elif end.node in nodes and end.module in nodes[end.node].modules:
            modules.append(nodes[end.node].modules[end.module])
    if len(modules) < 2:
        return
    for module, end in zip(modules, (link.a, link.b), strict=True):
        if module.port is None and (end.node, end.module) not in patched:
            yield (
                at,
                f"nothing leads from module {end} to a switch",
                f"give the module a port, as in port: ocs1:1, or a fibre ending at {end.node}:{end.module}",
            )
    roles = {module.role for module in modules}
    if roles in ({"tx"}, {"rx"}):
        yield at, f"both modules have role {roles.pop()}", "join a transmitter (tx) with a receiver (rx)"
    if modules[0].technology != modules[1].technology:
        yield at, f"a {modules[0].technology} module cannot talk to a {modules[1].technology} one", "join modules of one technology"
