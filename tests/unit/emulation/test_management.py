"""Which management network a run has, and what its devices are told of it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from controller.network import document
from topologies.emulation.management import addresses, claim, gateway
from topologies.emulation.workspace import lay_out

SANDBOX = Path(document.__file__).parents[2] / "topologies" / "sandbox.yaml"


def routes(file: Path, *networks: str) -> Path:
    """A /proc/net/route with a default route and these."""
    lines = [
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
        "eth0\t00000000\t010200C0\t3\t0\t0\t0\t00000000\t0\t0\t0",
    ]
    for network in map(IPv4Network, networks):
        destination, mask = (f"{int.from_bytes(each.packed, 'little'):08X}" for each in (network.network_address, network.netmask))
        lines.append(f"eth0\t{destination}\t00000000\t1\t0\t0\t0\t{mask}\t0\t0\t0")
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_network_is_one_runs_alone_and_no_route_leads_into_it(tmp_path: Path) -> None:
    last = routes(tmp_path / "most", "10.64.0.0/11", "10.96.0.0/12", "10.112.0.0/13", "10.120.0.0/14", "10.124.0.0/15", "10.126.7.0/24")
    network, claimed = claim(last)
    assert network == IPv4Network("10.127.0.0/16") and gateway(network) == "bellhop127"
    with claimed, pytest.raises(OSError, match=r"no management network is free from 10\.64.*`ip route`"):
        claim(last)
    again, claimed = claim(last)
    claimed.close()
    assert again == network, "what ended gave it back"
    with pytest.raises(OSError, match="no management network is free"):
        claim(routes(tmp_path / "all", "10.0.0.0/8"))


def test_more_devices_than_addresses_are_refused() -> None:
    topology = document.load(SANDBOX)
    assert addresses(topology, IPv4Network("10.9.0.0/28"))["alice"] == IPv4Address("10.9.0.3")
    with pytest.raises(ValueError, match=r"7 devices are more than 10\.9\.0\.0/29"):
        addresses(topology, IPv4Network("10.9.0.0/29"))


def test_the_addresses_of_devices_come_from_the_emulation_certificates_included(tmp_path: Path) -> None:
    for network in (IPv4Network("10.64.0.0/16"), IPv4Network("10.65.0.0/16")):
        workspace = lay_out(document.load(SANDBOX), tmp_path, any_ports=True, management=network)
        of = {name: str(address) for name, address in addresses(workspace.topology, network).items()}
        assert len(set(of.values())) == 7 and all(IPv4Address(each) in network for each in of.values())
        assert (
            workspace.topology.node("alice").kme == f"{of['alice']}:8411"
            and workspace.topology.node("ocs1").address == f"{of['ocs1']}:8301"
        )
        written = document.load(workspace.network)
        assert written.node("alice").kme == f"{of['alice']}:8411"
        settings = {each["id"]: each for each in yaml.safe_load(workspace.kmes.read_text())}
        assert (settings["alice"]["host"], settings["alice"]["peers"]["bob"]) == (of["alice"], f"https://{of['bob']}:8415")
        assert f"[{of['ocs1']}]:8301 ssh-ed25519" in (tmp_path / "ssh" / "known_hosts").read_text()
        certificate = x509.load_pem_x509_certificate(Path(settings["alice"]["cert"]).read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.IPAddress) == [IPv4Address(of["alice"])], "one who connects by address can verify it"
        assert workspace.openflow[0] == "127.0.0.1", "what has no authentication stays on loopback"


def test_usual_ports_where_the_document_says_none(tmp_path: Path) -> None:
    text = "name: bare\nnodes:\n  a: {kind: trusted-node}\n  o: {kind: optical-switch, ports: 4}\n"
    topology = lay_out(document.parse(text), tmp_path, management=IPv4Network("10.64.0.0/16")).topology
    assert (topology.node("a").kme, topology.node("o").address) == ("10.64.0.3:8443", "10.64.0.4:830")
