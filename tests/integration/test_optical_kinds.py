"""A network with an optical switch of each driver and a wavelength switch: brought up, read, and lit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SANDBOX = Path(__file__).parents[2] / "topologies" / "sandbox.yaml"
OCS2 = 'driver: netconf, address: "127.0.0.1:8302"}\n'


@pytest.mark.timeout(90)
def test_every_kind_of_optical_device_is_held_and_lit(networks: Callable[..., Any], tmp_path: Path) -> None:
    sandbox = SANDBOX.read_text()
    assert OCS2 in sandbox
    wss1 = '  wss1: {kind: wavelength-switch, ports: 4, driver: netconf, address: "127.0.0.1:8303"}\n'
    (tmp_path / "mixed.yaml").write_text(sandbox.replace(OCS2, OCS2.replace("netconf", "scpi") + wss1))
    network = networks(topology=str(tmp_path / "mixed"))
    network.start_controller()

    found = {each["name"]: each for each in network.api("GET", "/api/v1/devices")["devices"]}
    assert all(found[name]["connected"] and found[name]["items"] == 0 for name in ("ocs1", "ocs2", "wss1"))
    power_dbm = {name: network.api("GET", f"/api/v1/devices/{name}")["actual"]["power_dbm"] for name in ("ocs1", "ocs2", "wss1")}
    assert {name: len(ports) for name, ports in power_dbm.items()} == {"ocs1": 16, "ocs2": 0, "wss1": 4}

    service = network.create("lightpath", "alice/q9", "bob/q9")
    network.wait_active(service)
    lit = network.emulator("GET", "/state")
    assert lit["cross_connects"] == {"ocs1": [[1, 9]], "ocs2": [[1, 9]]}
    assert [link["live"] for name, link in lit["qkd"].items() if name == "qkd:alice--bob"] == [True]
    network.remove_all()
    assert network.emulator("GET", "/state")["cross_connects"] == {"ocs1": [], "ocs2": []}
