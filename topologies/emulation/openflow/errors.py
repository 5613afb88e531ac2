"""What an OpenFlow 1.3 switch answers to a request it refuses."""

from __future__ import annotations

from os_ken.ofproto import ofproto_v1_3 as ofp

_PREFIXES = {
    ofp.OFPET_HELLO_FAILED: "OFPHFC_",
    ofp.OFPET_BAD_REQUEST: "OFPBRC_",
    ofp.OFPET_BAD_ACTION: "OFPBAC_",
    ofp.OFPET_BAD_INSTRUCTION: "OFPBIC_",
    ofp.OFPET_BAD_MATCH: "OFPBMC_",
    ofp.OFPET_FLOW_MOD_FAILED: "OFPFMFC_",
    ofp.OFPET_GROUP_MOD_FAILED: "OFPGMFC_",
    ofp.OFPET_PORT_MOD_FAILED: "OFPPMFC_",
    ofp.OFPET_SWITCH_CONFIG_FAILED: "OFPSCFC_",
    ofp.OFPET_ROLE_REQUEST_FAILED: "OFPRRFC_",
    ofp.OFPET_METER_MOD_FAILED: "OFPMMFC_",
}


class OpenFlowError(Exception):
    """A refusal, with the error type and code of OpenFlow 1.3 that says why. Nothing of the request has taken effect."""

    def __init__(self, kind: int, code: int) -> None:
        prefix = _PREFIXES.get(kind, "")
        names = [name for name in vars(ofp) if prefix and name.startswith(prefix) and getattr(ofp, name) == code]
        super().__init__(names[0] if names else f"error {kind}/{code}")
        self.kind = kind
        self.code = code
