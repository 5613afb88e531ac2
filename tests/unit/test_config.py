"""The settings file and the environment over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller import daemon
from controller.cli import bellhop
from controller.config import Settings, WrongSettings, load

WHOLE = """\
network: my-network.yaml
store: state/bellhop.db
api: {port: 9000}
openflow: {host: "::1", port: 6633}
netconf: {username: operator, known_hosts: known_hosts}
kme: {ca: ca.crt, cert: controller.crt, key: controller.key}
"""


def settings(tmp_path: Path, text: str | bytes, **environment: str) -> Settings:
    file = tmp_path / "controller.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(file, environment)


def faults(tmp_path: Path, text: str | bytes, **environment: str) -> list[str]:
    with pytest.raises(WrongSettings) as wrong:
        settings(tmp_path, text, **environment)
    return str(wrong.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_whole_file(tmp_path: Path) -> None:
    found = settings(tmp_path, WHOLE)
    assert (found.network, found.store, found.api.host, found.api.port) == (
        tmp_path / "my-network.yaml", tmp_path / "state/bellhop.db", "127.0.0.1", 9000,
    )  # fmt: skip
    assert (found.openflow.host, found.openflow.port) == ("::1", 6633)
    assert found.netconf is not None and found.netconf.username == "operator"
    assert found.kme is not None and found.kme.ca == tmp_path / "ca.crt" and found.netconf.known_hosts == tmp_path / "known_hosts"


def test_paths_are_relative_to_the_file_and_those_of_the_environment_are_not(tmp_path: Path) -> None:
    found = settings(tmp_path, "network: /etc/n.yaml\nnetconf: {username: u, known_hosts: k, client_key: ../c}", BELLHOP_STORE="here.db")
    assert (found.network, found.store) == (Path("/etc/n.yaml"), Path("here.db"))
    assert found.netconf is not None and found.netconf.client_key == tmp_path / "../c"


def test_a_network_is_enough(tmp_path: Path) -> None:
    found = settings(tmp_path, "network: n.yaml")
    assert (found.api.port, found.openflow.port, found.netconf, found.kme) == (8480, 6653, None, None)


def test_the_environment_comes_first(tmp_path: Path) -> None:
    found = settings(tmp_path, WHOLE, BELLHOP_API_PORT="9001", BELLHOP_STORE="/elsewhere.db", BELLHOP_NETCONF_USERNAME="root")
    assert (found.api.port, found.store) == (9001, Path("/elsewhere.db"))
    assert found.netconf is not None and (found.netconf.username, found.netconf.known_hosts) == ("root", tmp_path / "known_hosts")


def test_the_environment_alone_can_give_a_section(tmp_path: Path) -> None:
    found = settings(
        tmp_path, "", BELLHOP_NETWORK="n.yaml", BELLHOP_KME_CA="ca", BELLHOP_KME_CERT="cert", BELLHOP_KME_KEY="key", BELLHOP_SERVER="x"
    )
    assert found.network == Path("n.yaml")
    assert found.kme is not None and found.kme.key == Path("key")


def test_every_fault_at_once(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        "stoer: x.db\napi: {host: 0.0.0.0, port: 99999}\nopenflow: {hots: localhost, port: 1}\nkme: {ca: ca.crt}\n",
        BELLHOP_OPENFLOW_PORT="many",
    )
    by_path = {line.split(": ")[1]: line for line in told}
    assert by_path.keys() == {"network", "stoer", "api.host", "api.port", "openflow.hots", "openflow.port", "kme.cert", "kme.key"}
    assert by_path["network"] == "controller.yaml: network: is missing; give it in the file, or as BELLHOP_NETWORK"
    assert by_path["stoer"].endswith("did you mean store?")
    assert by_path["openflow.hots"].endswith("did you mean host?")
    assert by_path["openflow.port"].startswith("BELLHOP_OPENFLOW_PORT: openflow.port: ")  # not the file's fault
    assert "65535" in by_path["api.port"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.0.0.999", "localhost.example", ""])  # noqa: S104 - it is refused
def test_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    (told,) = faults(tmp_path, f"network: n.yaml\napi: {{host: '{host}', port: 1}}")
    assert "is not loopback" in told and "write 127.0.0.1" in told


def test_the_scheduler_of_a_cluster_has_a_port(tmp_path: Path) -> None:
    assert settings(tmp_path, "network: n.yaml\nplanner: {executor: 'dask://h:8786'}").planner.executor == "dask://h:8786"
    (told,) = faults(tmp_path, "network: n.yaml\nplanner: {executor: 'dask://h:99999'}")
    assert told == "controller.yaml: planner.executor: 'dask://h:99999' ends in no port; give one from 1 to 65535"


def test_a_cluster_that_does_not_answer_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def silent(where: str) -> Iterator[None]:
        raise ValueError(f"no Dask scheduler answers at {where}")
        yield

    monkeypatch.setattr(daemon, "executor", silent)
    (tmp_path / "n.yaml").write_text("name: n\nnodes: {a: {kind: host}}\n")
    (tmp_path / "c.yaml").write_text("network: n.yaml\nstore: s.db\nplanner: {executor: 'dask://h:1'}\n")
    done = CliRunner().invoke(bellhop, ["run", "--config", str(tmp_path / "c.yaml")])
    assert (done.exit_code, done.stderr) == (2, "the settings: no Dask scheduler answers at dask://h:1\n")


@pytest.mark.parametrize("text", ["- a list", "network: [", b"network: \xff\xfe", "just words", "network: {a: b}", "1: 2\nnetwork: n"])
def test_no_settings_at_all(tmp_path: Path, text: str | bytes) -> None:
    assert all(line.startswith("controller.yaml: ") for line in faults(tmp_path, text))


def test_with_certificates_openflow_is_listened_to_elsewhere(tmp_path: Path) -> None:
    tls = "tls: {ca: ca.crt, cert: controller.crt, key: pki/controller.key}"
    found = settings(tmp_path, f'network: n.yaml\nopenflow: {{host: "192.0.2.1", {tls}}}\n')
    assert found.openflow.tls is not None
    assert (found.openflow.host, found.openflow.tls.key) == ("192.0.2.1", tmp_path / "pki/controller.key")
    (told,) = faults(tmp_path, "network: n.yaml\nopenflow: {host: 192.0.2.1}\n")
    assert "openflow: '192.0.2.1' is not loopback" in told and "or give tls its certificates" in told
    (told, _) = faults(tmp_path, "network: n.yaml\nopenflow: {tls: {ca: a, cert: b, kye: c}}\n")[::-1]
    assert "openflow.tls.kye: no such setting; did you mean key?" in told


@pytest.mark.parametrize("given", ["apps: [apps.learning_switch, mine]", "apps: 'apps.learning_switch, mine'"])
def test_apps_are_listed(tmp_path: Path, given: str) -> None:
    assert settings(tmp_path, f"network: n.yaml\n{given}\n").apps == ("apps.learning_switch", "mine")
    assert settings(tmp_path, "network: n.yaml\n", BELLHOP_APPS="mine").apps == ("mine",)
