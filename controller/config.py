"""The daemon's own settings: a YAML file, each value of which an environment variable can override.

`BELLHOP_API_PORT=9000` stands for `api: {port: 9000}`; names are the path in the file, in capitals, after `BELLHOP_`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from controller.network.model import with_port

STRICT = ConfigDict(frozen=True, extra="forbid")
PREFIX = "BELLHOP"
Port = Annotated[int, Field(ge=0, le=65535)]


class WrongSettings(ValueError):
    """Settings with faults; the text has a line for each, `file: path: what`."""


def _loopback(host: str) -> str:
    try:
        right = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"'{host}' is not loopback, and nothing listens elsewhere without authentication; write 127.0.0.1")
    return host


def _listed(value: object) -> object:
    """Names with commas between them, as the environment has them, as a list."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class Listen(BaseModel):
    """Where to listen. Only loopback: nothing listens elsewhere without authentication."""

    model_config = STRICT

    host: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1"
    port: Port


class Netconf(BaseModel):
    """How to log in at NETCONF devices. The device's host key must be in `known_hosts`."""

    model_config = STRICT

    username: str
    known_hosts: Path
    client_key: Path | None = None
    password_file: Path | None = None


class Certificates(BaseModel):
    """The controller's certificate with its private key, and the authority that vouches for those it talks to (PEM files)."""

    model_config = STRICT

    ca: Path
    cert: Path
    key: Path


class OpenFlow(BaseModel):
    """Where OpenFlow switches dial in. Elsewhere than on loopback only with mutual TLS, which `tls` asks for.

    The files may be replaced while the controller runs: sessions that begin after that use the new ones. A switch's certificate that has a
    datapath id (16 hexadecimal digits) as its common name, or as a DNS name, is good for that datapath only.
    """

    model_config = STRICT

    host: str = "127.0.0.1"
    port: Port = 6653
    tls: Certificates | None = None
    packet_ins_per_s: Annotated[float, Field(gt=0)] = 20_000
    """What one switch may send up to applications; a tenth of it at once. The rest is dropped and counted."""
    meter_packet_ins: bool = False
    """Whether switches keep to that themselves, by the meter of their controller port: for switches that have meters."""

    @model_validator(mode="after")
    def _protected(self) -> OpenFlow:
        if self.tls is None:
            try:
                _loopback(self.host)
            except ValueError as error:
                raise ValueError(f"{error}, or give tls its certificates") from None
        return self


class PlannerSettings(BaseModel):
    """Where routes and plans are computed: `pool`, a process of the controller's own, or `dask://host:port`, a Dask cluster."""

    model_config = STRICT

    executor: Annotated[
        str,
        Field(pattern=r"^(pool|dask://[^/]+:[0-9]{1,5})$"),
        AfterValidator(lambda where: where if where == "pool" else with_port(where)),
    ] = "pool"


class ReconcilerSettings(BaseModel):
    """How often every device is read without a cause, how long what somebody else changed must stay so before it is set right, and how long
    a fibre must be dark before services are moved off it."""

    model_config = STRICT

    sweep_s: Annotated[float, Field(ge=1, le=86400)] = 30.0
    verdict_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    hold_off_s: Annotated[float, Field(ge=0, le=3600)] = 0.05


class DiscoverySettings(BaseModel):
    """How links and hosts are looked for: `Timing` says what the numbers of hellos do.

    `hosts` puts rules of the lowest priorities on every switch that send up ARP and neighbour discovery; where somebody else's rule of
    priority 0 is to carry these, set it to false. `secret` signs the hellos; without one a new key is made at each start.
    """

    model_config = STRICT

    enabled: bool = True
    hosts: bool = True
    interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    up_hellos: Annotated[int, Field(ge=1, le=100)] = 2
    dead_multiplier: Annotated[int, Field(ge=2, le=100)] = 3
    secret: Path | None = None


class Settings(BaseModel):
    """Everything the daemon is told besides the network document."""

    model_config = STRICT

    network: Path
    store: Path = Path("bellhop.db")
    api: Listen = Listen(port=8480)
    openflow: OpenFlow = OpenFlow()
    planner: PlannerSettings = PlannerSettings()
    reconciler: ReconcilerSettings = ReconcilerSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    netconf: Netconf | None = None
    kme: Certificates | None = None
    apps: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Modules of packet apps, as `apps.learning_switch`."""


def load(file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file, as overridden by the environment.

    Relative paths in the file are relative to it; those in the environment, and the default ones, to where the program was started.
    WrongSettings says everything that is wrong; OSError when unreadable.
    """
    try:
        data = yaml.safe_load(file.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise WrongSettings(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise WrongSettings(f"{file}: not a mapping; write network: my-network.yaml and the like")
    data = _overridden(_beside(file, data, Settings), Settings, PREFIX, environment)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise WrongSettings("\n".join(_told(file, each, environment) for each in error.errors())) from None


def _beside(file: Path, data: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The data with every path that is relative put where the file is."""
    sections, found = dict(_sections(model)), dict(data)
    for name, value in data.items():
        if name in sections and isinstance(value, dict):
            found[name] = _beside(file, value, sections[name])
        elif name in model.model_fields and isinstance(value, str) and model.model_fields[name].annotation in (Path, Path | None):
            found[name] = str(file.parent / value)
    return found


def _overridden(data: dict[str, Any], model: type[BaseModel], prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    below = dict(_sections(model))
    for name in model.model_fields:
        variable = f"{prefix}_{name.upper()}"
        if name in below:
            section = data.get(name)
            changed = _overridden(dict(section) if isinstance(section, dict) else {}, below[name], variable, environment)
            if changed:
                data = {**data, name: changed}
        elif variable in environment:
            data = {**data, name: environment[variable]}
    return data


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The fields that are sections of their own: Listen, or Netconf | None."""
    for name, field in model.model_fields.items():
        for each in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield name, each


def _told(file: Path, error: ErrorDetails, environment: Mapping[str, str]) -> str:
    """One fault: where it was given, the path of the setting, what is wrong."""
    path = [str(part) for part in error["loc"]]
    variable = "_".join([PREFIX, *path]).upper()
    what = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        what = f"is missing; give it in the file, or as {variable}"
    elif error["type"] == "extra_forbidden":
        section: type[BaseModel] = Settings
        for part in path[:-1]:
            section = dict(_sections(section)).get(part, section)
        close = difflib.get_close_matches(path[-1], section.model_fields, n=1)
        what = f"no such setting; {f'did you mean {close[0]}?' if close else 'there are ' + ', '.join(section.model_fields)}"
    return f"{variable if variable in environment else file}: {'.'.join(path)}: {what}"
