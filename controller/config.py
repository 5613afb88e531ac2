"""The daemon's own settings: a YAML file, each value of which an environment variable can override.

`BELLHOP_API_PORT=9000` stands for `api: {port: 9000}`; names are the path in the file, in capitals, after `BELLHOP_`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

STRICT = ConfigDict(frozen=True, extra="forbid")
Port = Annotated[int, Field(ge=0, le=65535)]


class WrongSettings(ValueError):
    """Settings with faults; the text has a line for each, `file: path: what`."""


class Listen(BaseModel):
    """Where to listen. Only loopback: nothing listens elsewhere without authentication."""

    model_config = STRICT

    host: Annotated[str, Field(pattern=r"^(127(\.[0-9]{1,3}){3}|::1|localhost)$")] = "127.0.0.1"
    port: Port


class Netconf(BaseModel):
    """How to log in at NETCONF devices. The device's host key must be in `known_hosts`."""

    model_config = STRICT

    username: str
    known_hosts: Path
    client_key: Path | None = None
    password_file: Path | None = None


class KmeControl(BaseModel):
    """The controller's certificate for the control interface of KMEs, and the authority that vouches for theirs."""

    model_config = STRICT

    ca: Path
    cert: Path
    key: Path


class Settings(BaseModel):
    """Everything the daemon is told besides the network document."""

    model_config = STRICT

    network: Path
    store: Path = Path("bellhop.db")
    api: Listen = Listen(port=8480)
    openflow: Listen = Listen(port=6653)
    netconf: Netconf | None = None
    kme: KmeControl | None = None


def load(file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file, as overridden by the environment. WrongSettings says everything that is wrong; OSError when unreadable."""
    try:
        data = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise WrongSettings(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise WrongSettings(f"{file}: not a mapping; write network: my-network.yaml and the like")
    data = _overridden(data, Settings, "BELLHOP", environment)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        lines = [f"{file}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise WrongSettings("\n".join(lines)) from None


def _overridden(data: dict[str, Any], model: type[BaseModel], prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    for name, field in model.model_fields.items():
        variable = f"{prefix}_{name.upper()}"
        inner = next(
            (
                each
                for each in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(each, type) and issubclass(each, BaseModel)
            ),
            None,
        )
        if inner is not None:
            below = data.get(name)
            changed = _overridden(dict(below) if isinstance(below, dict) else {}, inner, variable, environment)
            if changed:
                data = {**data, name: changed}
        elif variable in environment:
            data = {**data, name: environment[variable]}
    return data
