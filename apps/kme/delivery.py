"""The face to applications: ETSI GS QKD 014 V1.1.1.

What the standard leaves open is decided so: a request is met whole or not at all; an empty stock is 503; keys have the sizes of the
services between the two SAEs and no other; a key ID fetched once is unknown afterwards (400).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiohttp import web

from apps.kme.identity import Identity
from apps.kme.pad import wipe
from apps.kme.relay import Relay
from apps.kme.vault import Key, Missing, NotTheSlave, Vault

PREFIX = "/api/v1/keys/"
MAX_KEYS_PER_REQUEST = 128


@dataclass(frozen=True, slots=True)
class KeyRequest:
    number: int = 1
    size: int | None = None
    """In bits; None for the service's own."""


class BadRequest(ValueError):
    """What is wrong with a request, and for each fault its `{parameter: what}`."""

    def __init__(self, message: str, *details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def key_request(body: Any) -> KeyRequest:
    """The "Get key" parameters in a decoded body; null is the same as not given."""
    given = _object(body, "a key request")
    number, size = _integer(given, "number"), _integer(given, "size")
    if number is not None and not 1 <= number <= MAX_KEYS_PER_REQUEST:
        raise BadRequest("number is out of range", {"number": f"from 1 to {MAX_KEYS_PER_REQUEST}"})
    if size is not None and size % 8:
        raise BadRequest("size shall be a multiple of 8", {"size": size})
    if size is not None and size <= 0:
        raise BadRequest("size is out of range", {"size": "must be positive"})
    if given.get("additional_slave_SAE_IDs"):
        raise BadRequest("this KME delivers to one slave SAE only", {"additional_slave_SAE_IDs": "max_SAE_ID_count is 0"})
    if given.get("extension_mandatory"):
        raise BadRequest("not all extension_mandatory parameters are supported", {"extension_mandatory": "none is supported"})
    return KeyRequest(1 if number is None else number, size)


def key_ids(body: Any) -> tuple[str, ...]:
    """The key IDs in a decoded "Get key with key IDs" body, in canonical form."""
    listed = _object(body, "a list of key IDs").get("key_IDs")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_KEYS_PER_REQUEST:
        raise BadRequest("key_IDs is missing or too long", {"key_IDs": f"a list of 1 to {MAX_KEYS_PER_REQUEST} objects with a key_ID"})
    found = []
    for index, item in enumerate(listed):
        text = item.get("key_ID") if isinstance(item, dict) else None
        try:
            found.append(str(UUID(text)))
        except (TypeError, ValueError, AttributeError):
            raise BadRequest("a key_ID is not a UUID", {f"key_IDs[{index}]": 'an object {"key_ID": UUID}'}) from None
    if len(set(found)) < len(found):
        raise BadRequest("a key_ID is listed twice", {"key_IDs": "each key is delivered once"})
    return tuple(found)


def _object(body: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest(f"the body is not {what}", {"body": "a JSON object is expected"})
    return body


def _integer(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise BadRequest(f"{name} is not an integer", {name: "an integer is expected"})


def error(status: int, message: str, details: Sequence[dict[str, Any]] = ()) -> web.Response:
    body: dict[str, Any] = {"message": message}
    if details:
        body["details"] = list(details)
    return web.json_response(body, status=status)


def containers(keys: Sequence[Key]) -> web.Response:
    """The key container of the standard; the keys are wiped."""
    body = {"keys": [{"key_ID": key_id, "key": base64.b64encode(key).decode()} for key_id, key in keys]}
    wipe(*(key for _, key in keys))
    return web.json_response(body)


def routes(relay: Relay, vault: Vault) -> list[web.RouteDef]:
    async def status(request: web.Request) -> web.Response:
        caller, slave = _caller(request), request.match_info["sae"]
        services = relay.between(caller, slave)
        if not services:
            return _no_service(caller, slave)
        stock = await relay.store(vault.stock)
        ready = sum(stock.get(entry.service, {"master": 0})["master"] for entry in services)
        sizes = [entry.key_bits for entry in services]
        return web.json_response(
            {
                "source_KME_ID": relay.settings.id,
                "target_KME_ID": relay.far_ends.get(services[0].service, ""),
                "master_SAE_ID": caller,
                "slave_SAE_ID": slave,
                "key_size": sizes[0],
                "stored_key_count": ready,
                "max_key_count": max(ready, sum(entry.stock_keys for entry in services)),
                "max_key_per_request": MAX_KEYS_PER_REQUEST,
                "max_key_size": max(sizes),
                "min_key_size": min(sizes),
                "max_SAE_ID_count": 0,
            }
        )

    async def enc_keys(request: web.Request) -> web.Response:
        caller, slave = _caller(request), request.match_info["sae"]
        wanted = key_request(await _parameters(request, ("number", "size")))
        services = relay.between(caller, slave)
        if not services:
            return _no_service(caller, slave)
        size = wanted.size or services[0].key_bits
        if size not in (sizes := sorted({entry.key_bits for entry in services})):
            raise BadRequest("keys of this size are not available", {"size": f"available: {', '.join(map(str, sizes))} bits"})
        try:
            keys = await relay.store(vault.deliver_new, caller, slave, size, wanted.number)
        except Missing as missing:
            return error(503, f"not enough key: {missing}; ask again later")
        relay.wake(entry.service for entry in services)
        return containers(keys)

    async def dec_keys(request: web.Request) -> web.Response:
        caller, master = _caller(request), request.match_info["sae"]
        query = request.query.getall("key_ID", [])
        wanted = key_ids({"key_IDs": [{"key_ID": key_id} for key_id in query]} if request.method == "GET" else await _body(request))
        try:
            return containers(await relay.store(vault.deliver_named, master, caller, wanted))
        except NotTheSlave:
            return web.Response(status=401)
        except Missing as missing:
            return error(400, "one or more keys specified are not found on KME", [{"key_ID": str(missing)}])

    return [
        # No HEAD: it would deliver keys to nobody.
        web.get(PREFIX + "{sae}/status", status, allow_head=False),
        web.get(PREFIX + "{sae}/enc_keys", enc_keys, allow_head=False),
        web.post(PREFIX + "{sae}/enc_keys", enc_keys),
        web.get(PREFIX + "{sae}/dec_keys", dec_keys, allow_head=False),
        web.post(PREFIX + "{sae}/dec_keys", dec_keys),
    ]


def _caller(request: web.Request) -> str:
    identity: Identity = request["identity"]
    return identity.name


def _no_service(caller: str, slave: str) -> web.Response:
    return error(400, f"no keys are relayed between {caller} and {slave}", [{"slave_SAE_ID": "no key service joins the two SAEs here"}])


async def _parameters(request: web.Request, names: Sequence[str]) -> Any:
    """The parameters of a GET, which are integers in the query, or the body of a POST."""
    if request.method != "GET":
        return await _body(request)
    return {name: _number(request.query[name]) for name in names if name in request.query}


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


async def _body(request: web.Request) -> Any:
    """The decoded body; an empty one asks for the defaults."""
    raw = await request.read()
    try:
        return json.loads(raw) if raw.strip() else {}
    except ValueError as fault:
        raise BadRequest("the body is not JSON", {"body": str(fault)}) from fault
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
