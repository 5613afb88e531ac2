"""What the settings say of discovery, in a controller."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller import daemon
from controller.config import DiscoverySettings, Listen, OpenFlow, Settings, WrongSettings
from controller.services.planner import Planner
from controller.southbound.discovery.discovery import LLDP_RULE

DOCUMENT = 'name: one\nnodes: {s1: {kind: openflow-switch, dpid: "0000000000000001"}}\nlinks: []\n'


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(daemon, "Planner", lambda executor: Planner(ThreadPoolExecutor(1)))
    (tmp_path / "network.yaml").write_text(DOCUMENT)
    return Settings(network=tmp_path / "network.yaml", store=tmp_path / "store.db", api=Listen(port=0), openflow=OpenFlow(port=0))


def asked(settings: Settings, **discovery: object) -> Settings:
    return settings.model_copy(update={"discovery": DiscoverySettings.model_validate(discovery)})


async def test_hosts_are_looked_for_unless_the_settings_forbid_it(settings: Settings) -> None:
    async with daemon.running(settings) as face:
        assert len(face.desk.book.of("s1").wanted) == 4
    async with daemon.running(asked(settings, hosts=False)) as face:
        assert list(face.desk.book.of("s1").wanted) == [LLDP_RULE]


async def test_nothing_is_looked_for_when_disabled_or_only_observing(settings: Settings) -> None:
    async with daemon.running(asked(settings, enabled=False)) as face:
        assert face.discovery is None and not face.desk.book.of("s1").wanted
    async with daemon.running(settings, observe=True) as face:
        assert face.discovery is None and not face.desk.book.of("s1").wanted


async def test_the_key_is_made_at_each_start_or_kept_in_a_file(settings: Settings, tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        async with daemon.running(settings) as face:
            assert face.discovery is not None
            keys.append(face.discovery.key)
    assert keys[0] != keys[1] and len(keys[0]) == 32
    secret = tmp_path / "secret"
    secret.write_text("a secret of many bytes\n")
    async with daemon.running(asked(settings, secret=secret)) as face:
        assert face.discovery is not None and face.discovery.key == b"a secret of many bytes"
    secret.write_text("short\n")
    with pytest.raises(WrongSettings, match="holds 5 bytes; give at least 16"):
        async with daemon.running(asked(settings, secret=secret)):
            pass
