"""Requests of ETSI GS QKD 014, and who may make them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kme.delivery import BadRequest, KeyRequest, key_ids, key_request
from apps.kme.identity import Identity, identify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["number", "size", "key_IDs", "key_ID", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, KeyRequest(1, None)),
        ({"number": 3, "size": 256}, KeyRequest(3, 256)),
        ({"number": None, "size": None, "additional_slave_SAE_IDs": [], "extension_mandatory": []}, KeyRequest(1, None)),
        ({"extension_optional": [{"abc_route_type": "direct"}]}, KeyRequest(1, None)),
    ],
)
def test_good_key_requests(body: dict[str, Any], wanted: KeyRequest) -> None:
    assert key_request(body) == wanted


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"size": 255}, "size shall be a multiple of 8"),
        ({"size": 0}, "size is out of range"),
        ({"size": -8}, "size is out of range"),
        ({"number": 0}, "number is out of range"),
        ({"number": 129}, "number is out of range"),
        ({"number": True}, "number is not an integer"),
        ({"size": "256"}, "size is not an integer"),
        ({"additional_slave_SAE_IDs": ["c"]}, "one slave SAE only"),
        ({"extension_mandatory": [{"abc_max_age": 1}]}, "not all extension_mandatory parameters are supported"),
        ([], "not a key request"),
    ],
)
def test_bad_key_requests(body: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        key_request(body)
    assert refused.value.details


def test_key_ids_come_in_canonical_form() -> None:
    key_id = uuid4()
    assert key_ids({"key_IDs": [{"key_ID": str(key_id).upper()}]}) == (str(key_id),)


@pytest.mark.parametrize("listed", [None, [], ["x"], [{"key_ID": 5}], [{"key_ID": "x"}], [{}], [{"key_ID": str(uuid4())}] * 2, "x"])
def test_bad_key_ids(listed: Any) -> None:
    with pytest.raises(BadRequest):
        key_ids({"key_IDs": listed})


@given(JSON)
def test_any_body_is_understood_or_refused(body: Any) -> None:
    for parse in (key_request, key_ids):
        try:
            parse(body)
        except BadRequest as refused:
            assert str(refused)


@pytest.mark.parametrize(
    ("certificate", "identity"),
    [
        (None, None),
        ({}, None),
        ({"subjectAltName": (("DNS", "x"), ("URI", "urn:bellhop:kme:alice"))}, Identity("kme", "alice")),
        ({"subjectAltName": (("URI", "urn:bellhop:sae:a%2Fb"),)}, Identity("sae", "a/b")),
        ({"subject": ((("commonName", "vpn1"),),)}, Identity("sae", "vpn1")),
        (
            {"subject": ((("commonName", "vpn1"),),), "subjectAltName": (("URI", "urn:bellhop:controller:c1"),)},
            Identity("controller", "c1"),
        ),
        ({"subject": ((("commonName", "vpn1"),),), "subjectAltName": (("URI", "urn:bellhop:kme"),)}, None),
    ],
)
def test_the_certificate_names_the_caller(certificate: dict[str, Any] | None, identity: Identity | None) -> None:
    assert identify(certificate) == identity
