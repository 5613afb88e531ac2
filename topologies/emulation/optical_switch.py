"""An emulated optical circuit switch: the cross-connects, powers and alarms of a Polatis switch, served over NETCONF.

The element names and namespaces are those of the vendor's modules `optical-switch` and `polatis-switch`, so that one driver serves both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import asyncssh
from lxml import etree

from controller.southbound.netconf.rpc import BASE, element, q, unsigned
from topologies.emulation.netconf_server import FaultError, NetconfServer

OPTICAL_SWITCH = "http://www.polatis.com/yang/optical-switch"
POLATIS_SWITCH = "http://www.polatis.com/yang/polatis-switch"
DARK_DBM = -60.0
"""What a Polatis power monitor reports without light: the bottom of its range."""

Element = etree._Element
Pairs = Mapping[int, int]
_OPERATIONS = ("merge", "replace", "create", "delete", "remove")
_CONTAINER = "/opsw:cross-connects"


class EmulatedOpticalSwitch:
    """A switch of `ports` ports. Its state lives as long as the object: sessions, and the server itself, come and go.

    A dual-sided switch connects an ingress in the first half of the ports with an egress in the second; a single-sided one connects any
    two. A change takes `switching_time_s`; then `on_commit` is called with every cross-connect there is, before the client has its reply.
    Raises ValueError for a switch that cannot be.
    """

    def __init__(
        self,
        name: str,
        ports: int,
        dual_sided: bool = True,
        switching_time_s: float = 0.025,
        on_commit: Callable[[frozenset[tuple[int, int]]], None] = lambda cross_connects: None,
    ) -> None:
        if not 2 <= ports <= 65535 or (dual_sided and ports % 2):
            raise ValueError(f"{name}: {ports} ports: a switch has 2 to 65535, a dual-sided one an even number")
        self.name = name
        self.ports = ports
        self.dual_sided = dual_sided
        self.switching_time_s = switching_time_s
        self.on_commit = on_commit
        self.capabilities: tuple[str, ...] = (
            f"{OPTICAL_SWITCH}?module=optical-switch&revision=2018-03-22",
            f"{POLATIS_SWITCH}?module=polatis-switch&revision=2018-01-19",
        )
        self.prefixes: Mapping[str, str] = {"opsw": OPTICAL_SWITCH}
        self.running: Pairs = {}
        self._power_dbm = dict.fromkeys(range(1, ports + 1), DARK_DBM)
        self._server: NetconfServer[Pairs] | None = None

    @property
    def cross_connects(self) -> frozenset[tuple[int, int]]:
        """The (ingress, egress) pairs that are in effect."""
        return frozenset(self.running.items())

    @property
    def host_public_key(self) -> str:
        """The SSH host key in OpenSSH format, for a known_hosts file; empty before the first start."""
        return "" if self._server is None else self._server.host_public_key

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        listener: socket.socket | None = None,
        passwords: Mapping[str, str] | None = None,
        authorized_keys: Path | None = None,
        host_key: Path | asyncssh.SSHKey | None = None,
    ) -> int:
        """Serve NETCONF; returns the port. See NetconfServer.start."""
        self._server = NetconfServer(self)
        return await self._server.start(
            host, port, listener=listener, passwords=passwords, authorized_keys=authorized_keys, host_key=host_key
        )

    async def close(self) -> None:
        """Stop serving; the cross-connects stay, as on a switch whose management port is unplugged."""
        if self._server is not None:
            await self._server.close()

    def set_power(self, port: int, dbm: float | None) -> None:
        """What the power monitor of a port measures, in dBm; None is dark. Going dark raises port-power-alarm, coming back its clear."""
        was_dark = self._power_dbm[port] <= DARK_DBM
        self._power_dbm[port] = DARK_DBM if dbm is None else max(dbm, DARK_DBM)
        dark = self._power_dbm[port] <= DARK_DBM
        if dark != was_dark and self._server is not None:
            alarm = element(POLATIS_SWITCH, "port-power-alarm" if dark else "port-power-clear")
            etree.SubElement(alarm, q(POLATIS_SWITCH, "port-id")).text = str(port)
            etree.SubElement(alarm, q(POLATIS_SWITCH, "port-label"))
            self._server.notify(alarm)

    # What the configuration means, for the server.

    def configuration(self, config: Pairs) -> list[Element]:
        root = element(OPTICAL_SWITCH, "cross-connects")
        for ingress, egress in sorted(config.items()):
            pair = etree.SubElement(root, q(OPTICAL_SWITCH, "pair"))
            etree.SubElement(pair, q(OPTICAL_SWITCH, "ingress")).text = str(ingress)
            etree.SubElement(pair, q(OPTICAL_SWITCH, "egress")).text = str(egress)
        return [root]

    def state(self) -> list[Element]:
        powers = element(OPTICAL_SWITCH, "opm-power")
        ports = element(OPTICAL_SWITCH, "port-config")
        for port, dbm in self._power_dbm.items():
            for parent, leaf, text in ((powers, "power", f"{dbm:.2f}"), (ports, "status", "ENABLED")):
                entry = etree.SubElement(parent, q(OPTICAL_SWITCH, "port"))
                etree.SubElement(entry, q(OPTICAL_SWITCH, "port-id")).text = str(port)
                etree.SubElement(entry, q(OPTICAL_SWITCH, leaf)).text = text
        return [powers, ports]

    async def activate(self, config: Pairs) -> None:
        await asyncio.sleep(self.switching_time_s)
        self.running = dict(config)
        self.on_commit(self.cross_connects)

    def validate(self, config: Pairs) -> None:
        """Each port is in one cross-connect at most: light passes both ways, so an egress is as taken as an ingress."""
        user: dict[int, int] = {}
        for ingress, egress in sorted(config.items()):
            path = _pair_path(ingress) + "/opsw:egress"
            if ingress == egress:
                raise FaultError("invalid-value", f"port {ingress} cannot be connected to itself", path)
            half = self.ports // 2
            if self.dual_sided and not ingress <= half < egress:
                raise FaultError("invalid-value", f"{ingress} to {egress}: ingress is 1 to {half}, egress {half + 1} to {self.ports}", path)
            for port in (ingress, egress):
                if port in user:
                    raise FaultError("data-exists", f"port {port} is already used by the cross-connect of ingress {user[port]}", path)
                user[port] = ingress

    def edit(self, config: Pairs, edit: Element, default_operation: str) -> Pairs:
        pairs = {} if default_operation == "replace" else dict(config)
        default = "merge" if default_operation == "replace" else default_operation
        for container in edit:
            _known(container, "cross-connects", "/")
            operation = _operation(container, default, _CONTAINER)
            if operation == "create" and pairs:
                raise FaultError("data-exists", "there are cross-connects already", _CONTAINER)
            if operation == "delete" and not pairs:
                raise FaultError("data-missing", "there are no cross-connects to delete", _CONTAINER)
            if operation in ("delete", "remove", "replace"):
                pairs.clear()
            if operation in ("delete", "remove"):
                continue
            for pair in container:
                _known(pair, "pair", _CONTAINER)
                self._edit_pair(pairs, pair, _operation(pair, "merge" if operation in ("create", "replace") else operation, _CONTAINER))
        return pairs

    def _edit_pair(self, pairs: dict[int, int], pair: Element, operation: str) -> None:
        leaves: dict[str, Element] = {}
        for leaf in pair:
            name = _known(leaf, "ingress or egress", f"{_CONTAINER}/opsw:pair")
            if name in leaves:
                raise FaultError("bad-element", f"the pair has two {name} leaves", f"{_CONTAINER}/opsw:pair", bad_element=name)
            leaves[name] = leaf
        if "ingress" not in leaves:
            raise FaultError("missing-element", "the pair has no ingress, its key", f"{_CONTAINER}/opsw:pair", bad_element="ingress")
        ingress = self._port(leaves["ingress"], f"{_CONTAINER}/opsw:pair/opsw:ingress")
        path = _pair_path(ingress)
        if operation == "create" and ingress in pairs:
            raise FaultError("data-exists", f"ingress {ingress} is already connected to {pairs[ingress]}", path)
        if operation in ("delete", "none") and ingress not in pairs:
            raise FaultError("data-missing", f"ingress {ingress} is not connected", path)
        if operation in ("delete", "remove"):
            pairs.pop(ingress, None)
        elif "egress" in leaves and operation != "none":
            pairs[ingress] = self._port(leaves["egress"], f"{path}/opsw:egress")
        elif ingress not in pairs or operation == "replace":
            raise FaultError("missing-element", "the pair has no egress", path, bad_element="egress")

    def _port(self, leaf: Element, path: str) -> int:
        if _operation(leaf, "", path):
            raise FaultError("operation-not-supported", "an operation goes on the pair, not on its leaves", path)
        text = (leaf.text or "").strip()
        port = unsigned(text)
        if port is None or not 1 <= port <= self.ports:
            raise FaultError("invalid-value", f"{text[:40]!r} is no port: this switch has ports 1 to {self.ports}", path)
        return port


def _pair_path(ingress: int) -> str:
    return f"{_CONTAINER}/opsw:pair[opsw:ingress='{ingress}']"


def _known(node: Element, expected: str, path: str) -> str:
    """The node's local name, which must be one of the expected ones."""
    name = etree.QName(node)
    if name.namespace != OPTICAL_SWITCH:
        raise FaultError(
            "unknown-namespace",
            f"{name.localname} is in {name.namespace or 'no namespace'}; it belongs in {OPTICAL_SWITCH}",
            path,
            bad_element=name.localname,
            bad_namespace=name.namespace or "",
        )
    if name.localname not in expected.split(" or "):
        raise FaultError("unknown-element", f"{name.localname} cannot be configured here; {expected} can", path, bad_element=name.localname)
    return name.localname


def _operation(node: Element, inherited: str, path: str) -> str:
    name = etree.QName(node).localname
    if "operation" in node.attrib:  # taken for a merge, a delete would do the opposite
        raise FaultError(
            "unknown-attribute",
            f"the operation of {name} must be in the namespace {BASE}",
            path,
            bad_attribute="operation",
            bad_element=name,
        )
    operation = node.get(q(BASE, "operation"), inherited)
    if operation != inherited and operation not in _OPERATIONS:
        raise FaultError("bad-attribute", f"{operation[:40]!r} is no operation", path, bad_attribute="operation", bad_element=name)
    return operation
