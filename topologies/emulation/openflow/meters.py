"""Meters of OpenFlow 1.3 with drop bands: token buckets on a clock that the caller gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.openflow.errors import OpenFlowError

Band = Any
"""An os-ken `OFPMeterBandDrop`."""


@dataclass(slots=True)
class Meter:
    """Drops what exceeds the rate of any band. A band's bucket holds its burst (in kilobits or packets); without one, what it lets
    through in a second.
    """

    number: int
    flags: int
    bands: list[Band]
    added_s: float = 0.0
    packets: int = 0
    bytes: int = 0
    band_counts: list[list[int]] = field(init=False)
    """Packets and bytes dropped, by band."""
    _tokens: list[float] = field(init=False)
    _filled_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.band_counts = [[0, 0] for _ in self.bands]
        self._tokens = [self._depth(band) for band in self.bands]
        self._filled_s = self.added_s

    def _depth(self, band: Band) -> float:
        return float((band.burst_size if self.flags & ofp.OFPMF_BURST and band.burst_size else band.rate) * self._unit)

    @property
    def _unit(self) -> int:
        """Tokens are packets or bits; rates and bursts are in packets or kilobits."""
        return 1 if self.flags & ofp.OFPMF_PKTPS else 1000

    def passes(self, size: int, now_s: float) -> bool:
        """Whether a frame of `size` bytes may go on; it is counted."""
        self.packets += 1
        self.bytes += size
        cost = 1 if self.flags & ofp.OFPMF_PKTPS else 8 * size
        elapsed_s, self._filled_s = max(0.0, now_s - self._filled_s), max(now_s, self._filled_s)
        for index, band in enumerate(self.bands):
            self._tokens[index] = min(self._depth(band), self._tokens[index] + band.rate * self._unit * elapsed_s)
        exceeded = [index for index, tokens in enumerate(self._tokens) if tokens < cost]
        if exceeded:
            highest = max(exceeded, key=lambda index: self.bands[index].rate)
            self.band_counts[highest][0] += 1
            self.band_counts[highest][1] += size
            return False
        self._tokens = [tokens - cost for tokens in self._tokens]
        return True


def checked(meter: Meter) -> Meter:
    """The meter itself. OpenFlowError (METER_MOD_FAILED) when its number, flags or bands cannot be."""
    if not (1 <= meter.number <= ofp.OFPM_MAX or meter.number == ofp.OFPM_CONTROLLER):
        raise failed(ofp.OFPMMFC_INVALID_METER)
    units = meter.flags & (ofp.OFPMF_KBPS | ofp.OFPMF_PKTPS)
    known = ofp.OFPMF_KBPS | ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
    if units not in (ofp.OFPMF_KBPS, ofp.OFPMF_PKTPS) or meter.flags & ~known:
        raise failed(ofp.OFPMMFC_BAD_FLAGS)
    if not meter.bands:
        raise failed(ofp.OFPMMFC_OUT_OF_BANDS)
    for band in meter.bands:
        if band.type != ofp.OFPMBT_DROP:
            raise failed(ofp.OFPMMFC_BAD_BAND)
        if not band.rate:
            raise failed(ofp.OFPMMFC_BAD_RATE)
    return meter


def failed(code: int) -> OpenFlowError:
    return OpenFlowError(ofp.OFPET_METER_MOD_FAILED, code)
