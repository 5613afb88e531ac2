"""Which host has an address, and whom it may be told."""

from __future__ import annotations

from collections.abc import Mapping

from controller.network.topology import Topology
from controller.services.desired import Book


class Neighbours:
    """The hosts of the document by their addresses."""

    def __init__(self, topology: Topology, book: Book) -> None:
        self._topology = topology
        self._book = book
        hosts = topology.nodes("host")
        self.names: Mapping[str, str] = {text: name for name, node in hosts for text in (node.mac, node.ip, node.ipv6) if text}

    def mac_of(self, asker: str, address: str) -> str | None:
        """The MAC address of the host with an IP address, if a service joins it with the host whose MAC address asks."""
        ends = self.names.get(asker), self.names.get(address)
        if None in ends or ",".join(sorted(map(str, ends))) not in self._book.ledger.reserved_of("hosts"):
            return None
        return self._topology.node(str(ends[1])).mac
