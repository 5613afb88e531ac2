"""The folder an emulated network runs in: addresses for every device, certificates, SSH keys, and the settings of each program."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import asyncssh
import yaml

from controller.network import document
from controller.network.topology import Topology
from topologies.emulation import pki
from topologies.emulation.management import KME_PORT, NETCONF_PORT, SCPI_PORT, addresses

USERNAME = "bellhop"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where everything of one run lies, and where its programs listen."""

    directory: Path
    topology: Topology
    api: str
    openflow: tuple[str, int]
    emulator: str

    @property
    def network(self) -> Path:
        return self.directory / "network.yaml"

    @property
    def settings(self) -> Path:
        return self.directory / "controller.yaml"

    @property
    def kmes(self) -> Path:
        return self.directory / "kmes.yaml"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"


def lay_out(
    topology: Topology,
    directory: Path,
    *,
    any_ports: bool = False,
    management: IPv4Network | None = None,
    api_port: int = 8480,
    openflow_port: int = 6653,
    emulator_port: int = 8481,
) -> Workspace:
    """Write what the programs of an emulated network need into `directory`; what is there from an earlier run is kept and used.

    Devices listen where the document says, or with `any_ports`, and where it says nothing, on free ports of loopback. With `management`
    each has an address of its own in that network, and listens there on the port that the document says, or the usual one.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    ports = _Ports()
    managed = addresses(topology, management) if management else {}
    for name, node in list(topology.nodes()):
        if name in managed and node.holds_keys:
            node = replace(node, kme=_at(managed[name], node.kme, KME_PORT))
        elif name in managed:
            node = replace(node, address=_at(managed[name], node.address, SCPI_PORT if node.driver == "scpi" else NETCONF_PORT))
        elif node.holds_keys and (any_ports or node.kme is None):
            node = replace(node, kme=f"127.0.0.1:{ports.free()}")
        elif node.kind in ("optical-switch", "wavelength-switch") and (any_ports or node.address is None):
            node = replace(node, address=f"127.0.0.1:{ports.free()}")
        topology.graph.nodes[name]["node"] = node
    if any_ports:
        api_port, openflow_port, emulator_port = ports.free(), ports.free(), ports.free()
    ports.close()
    workspace = Workspace(
        directory, topology, f"http://127.0.0.1:{api_port}", ("127.0.0.1", openflow_port), f"http://127.0.0.1:{emulator_port}"
    )
    workspace.network.write_text(document.dump(topology))
    _ssh_keys(workspace)
    _controller_settings(workspace, api_port)
    _kme_settings(workspace)
    (directory / "addresses.json").write_text(
        json.dumps({"api": workspace.api, "openflow": list(workspace.openflow), "emulator": workspace.emulator})
    )
    return workspace


def _at(host: IPv4Address, address: str | None, port: int) -> str:
    """The port of an address, or else `port`, at a host."""
    return f"{host}:{address.rpartition(':')[2] if address else port}"


class _Ports:
    """Free ports, each held until all have been chosen, so that none is given twice."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def free(self) -> int:
        held = socket.create_server(("127.0.0.1", 0))
        self._held.append(held)
        return int(held.getsockname()[1])

    def close(self) -> None:
        for held in self._held:
            held.close()


def _ssh_keys(workspace: Workspace) -> None:
    folder = workspace.directory / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    client = folder / "controller.key"
    if not client.exists():
        _private(client, asyncssh.generate_private_key("ssh-ed25519"))
    asyncssh.read_private_key(client).write_public_key(folder / "authorized_keys")
    known = []
    for name, node in workspace.topology.nodes("optical-switch", "wavelength-switch"):
        if node.driver == "scpi":
            continue
        host_key = folder / f"{name}.key"
        if not host_key.exists():
            _private(host_key, asyncssh.generate_private_key("ssh-ed25519"))
        host, _, port = (node.address or "").rpartition(":")
        known.append(f"[{host}]:{port} {asyncssh.read_private_key(host_key).export_public_key().decode().strip()}\n")
    (folder / "known_hosts").write_text("".join(known))


def _private(file: Path, key: asyncssh.SSHKey) -> None:
    file.touch(mode=0o600)
    key.write_private_key(file)


def _controller_settings(workspace: Workspace, api_port: int) -> None:
    certificate, key = pki.issue(workspace.pki, "controller", "bellhop")
    settings = {
        "network": str(workspace.network),
        "store": str(workspace.directory / "controller.db"),
        "api": {"host": "127.0.0.1", "port": api_port},
        "openflow": {"host": workspace.openflow[0], "port": workspace.openflow[1]},
        "netconf": {
            "username": USERNAME,
            "client_key": str(workspace.directory / "ssh" / "controller.key"),
            "known_hosts": str(workspace.directory / "ssh" / "known_hosts"),
        },
        "kme": {"ca": str(workspace.pki / "ca.crt"), "cert": str(certificate), "key": str(key)},
    }
    workspace.settings.write_text(yaml.safe_dump(settings, sort_keys=False))


def _kme_settings(workspace: Workspace) -> None:
    """One entry per node with keys; every SAE gets a certificate to fetch its keys with."""
    topology = workspace.topology
    holders = {name: node for name, node in topology.nodes() if node.holds_keys}
    entries = []
    for name, node in holders.items():
        host, _, port = (node.kme or "").rpartition(":")
        certificate, key = pki.issue(workspace.pki, "kme", name, host)
        for sae in topology.saes(name):
            pki.issue(workspace.pki, "sae", sae)
        entries.append(
            {
                "id": name,
                "host": host,
                "port": int(port),
                "saes": list(topology.saes(name)),
                "ca": str(workspace.pki / "ca.crt"),
                "cert": str(certificate),
                "key": str(key),
                "peers": {other: f"https://{peer.kme}" for other, peer in holders.items() if other != name},
                "store": str(workspace.directory / f"kme-{name}.db"),
                "kek": str(workspace.directory / f"kme-{name}.kek"),
            }
        )
    workspace.kmes.write_text(yaml.safe_dump(entries, sort_keys=False))
