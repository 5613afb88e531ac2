"""The emulated management network: optical switches and KMEs have a namespace and an address each, behind an Open vSwitch bridge.

A network is a /16 of 10.0.0.0/8: `.0.1` is where the controller is, `.0.2` the bridge, and the devices follow in the order of the document.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from controller.network.topology import Topology

BRIDGE = "mgmt"
NETCONF_PORT, SCPI_PORT, KME_PORT = 830, 5025, 8443
_CANDIDATES = range(64, 128)


@dataclass(frozen=True, slots=True)
class Management:
    """A management network to build. `outside` is a descriptor of the network namespace that the controller is in.

    `programs` are command lines that run in the namespaces of nodes, by the node's name; what they print goes to files in `logs`.
    """

    network: IPv4Network
    outside: int
    programs: Mapping[str, Sequence[str]]
    logs: Path

    @property
    def gateway(self) -> str:
        """The interface in the controller's namespace."""
        return gateway(self.network)

    def log_of(self, node: str) -> Path:
        return self.logs / f"node-{node}.log"


def gateway(network: IPv4Network) -> str:
    """The name of the interface through which the controller's namespace reaches the network: bellhop64 for 10.64.0.0/16."""
    return f"bellhop{network.network_address.packed[1]}"


def addresses(topology: Topology, network: IPv4Network) -> dict[str, IPv4Address]:
    """The address of each managed device, by the node's name. ValueError when they are more than the network has."""
    managed = [name for name, node in topology.nodes() if node.holds_keys or node.kind in ("optical-switch", "wavelength-switch")]
    if len(managed) > network.num_addresses - 4:
        raise ValueError(f"{len(managed)} devices are more than {network} has addresses for")
    return {name: network[index] for index, name in enumerate(managed, 3)}


def claim(routes: Path = Path("/proc/net/route")) -> tuple[IPv4Network, socket.socket]:
    """A network nobody uses in this network namespace; it is ours while the socket is open. OSError when all are taken.

    The claim is the socket's name, which the kernel gives to one program at a time and takes back from one that has died.
    """
    routed = [_network(line.split()) for line in routes.read_text().splitlines()[1:]]
    interfaces = {name for _, name in socket.if_nameindex()}
    for number in _CANDIDATES:
        network = IPv4Network(f"10.{number}.0.0/16")
        if gateway(network) in interfaces or any(each.prefixlen and each.overlaps(network) for each in routed):
            continue
        claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claimed.bind(f"\0bellhop management {network}")
            return network, claimed
        except OSError:
            claimed.close()
    raise OSError(
        f"no management network is free from 10.{_CANDIDATES[0]}.0.0/16 to 10.{_CANDIDATES[-1]}.0.0/16: `ip route` says who has them"
    )


def _network(route: Sequence[str]) -> IPv4Network:
    """The destination of a line of /proc/net/route, whose numbers are as the machine stores them."""
    destination, mask = (int(text, 16).to_bytes(4, "little") for text in (route[1], route[7]))
    return IPv4Network((destination, IPv4Address(mask).exploded))


def gateway_commands(management: Management) -> list[list[str]]:
    """What makes the cable from the bridge's `uplink` to the controller's namespace, to be run in the bridge's.

    The far end is made where it belongs at once, so that no kill can leave it behind: it goes with the namespace its peer is in.
    """
    outside = ["nsenter", f"--net=/proc/self/fd/{management.outside}"]
    name = management.gateway
    return [
        [*outside, "ip", "link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", str(os.getpid())],
        [*outside, "ip", "addr", "add", f"{management.network[1]}/{management.network.prefixlen}", "dev", name],
        [*outside, "ethtool", "-K", name, "tx", "off"],
        [*outside, "ip", "link", "set", name, "up"],
        ["ip", "link", "set", "uplink", "up"],
        ["ovs-vsctl", "add-port", BRIDGE, "uplink"],
        ["ip", "addr", "add", f"{management.network[2]}/{management.network.prefixlen}", "dev", BRIDGE],
        ["ip", "link", "set", BRIDGE, "up"],
    ]
