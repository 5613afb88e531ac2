"""What the daemon makes of what a KME reports of its QKD links."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller import daemon
from controller.network import document
from controller.southbound.device import QkdLinkReport

SANDBOX = Path(document.__file__).parents[2] / "topologies" / "sandbox.yaml"
LINK = "qkd:alice--relay1"


@pytest.mark.parametrize(
    ("rate_bps", "qber"), [(math.inf, 0.02), (math.nan, None), (-1.0, None), (1e300, 0.02), (900.0, math.nan), (900.0, 7.0)]
)
async def test_a_report_that_cannot_be_is_lost_and_told(rate_bps: float, qber: float | None, caplog: pytest.LogCaptureFixture) -> None:
    topology, told = document.load(SANDBOX), list[Any]()
    view = SimpleNamespace(trouble="")
    face: Any = SimpleNamespace(
        topology=topology,
        reconciler=SimpleNamespace(views={"alice": view}),
        desk=SimpleNamespace(network_changed=lambda event, better: told.append(event)),
    )
    device: Any = SimpleNamespace(name="alice")

    async def heard(*reports: QkdLinkReport) -> AsyncIterator[QkdLinkReport]:
        for each in reports:
            yield each

    revision = topology.revision
    await daemon._follow(face, set(), [], device, heard(QkdLinkReport("alice", LINK, True, rate_bps, qber)))
    assert (topology.revision, told) == (revision, [])
    assert f"{LINK} cannot be" in view.trouble and f"alice: {view.trouble}" in caplog.text
    await daemon._follow(face, set(), [], device, heard(QkdLinkReport("alice", LINK, False, rate_bps, 0.53)))
    assert not topology.up(topology.link(LINK)) and len(told) == 1, "of a link that makes no key no rate counts"
    assert topology.measured("qber")[LINK] == 0.5 and LINK not in topology.measured("rate_bps")
