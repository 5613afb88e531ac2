"""A controller that is killed at any moment: what it was doing is done, and nothing else is left."""

import json
import random
import time
from typing import Any

import pytest


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [4, pytest.param(10, marks=pytest.mark.soak)])
def test_kill_minus_nine_while_programming(network: Any, rounds: int) -> None:
    """At random points, two a round, creating and removing: afterwards every device reads back as desired, and nothing else is left."""
    chance = random.Random(2026)
    empty, no_flows = network.emulator("GET", "/state"), network.flows()
    for _ in range(rounds):
        for removing in (False, True):
            if removing:
                for name in network.services():
                    network.curl("-X", "DELETE", "--max-time", "0.02", f"{network.workspace.api}/api/v1/services/{name}")
            else:
                for kind, ends in (("lightpath", ["alice/q9", "bob/q9"]), ("connectivity", ["h1", "h4"]), ("key", ["alice", "bob"])):
                    body = json.dumps({"kind": kind, "request": {"ends": ends}})
                    network.curl("--max-time", str(chance.choice([0.02, 0.2])), "-d", body, f"{network.workspace.api}/api/v1/services")
            time.sleep(chance.uniform(0, 0.12))
            network.kill_controller()
            network.start_controller()
            deadline = time.monotonic() + 15
            while any(each["state"] not in ("ACTIVE", "FAILED") for each in network.services().values()) or network.differences():
                assert time.monotonic() < deadline, (network.services(), network.differences())
                time.sleep(0.1)
            state, services = network.emulator("GET", "/state"), network.services().values()
            light = any(each["kind"] == "lightpath" for each in services)
            packets = any(each["kind"] == "connectivity" for each in services)
            assert state["cross_connects"] == ({"ocs1": [[1, 9]], "ocs2": [[1, 9]]} if light else {"ocs1": [], "ocs2": []})
            flows = network.flows()
            assert [len(flows[name]) for name in ("s1", "s2", "s3")] == ([4, 2, 4] if packets else [0, 0, 0])
    network.remove_all()
    assert (network.flows(), network.emulator("GET", "/state")["cross_connects"]) == (no_flows, empty["cross_connects"])
