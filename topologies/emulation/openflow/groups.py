"""Groups of OpenFlow 1.3: buckets, which of them a frame goes through, and what is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.openflow.errors import OpenFlowError

Bucket = Any
"""An os-ken `OFPBucket`."""
Choose = Callable[[bytes, list[int]], int]
"""Picks a bucket of a select group: from the frame and the weights of the buckets that are alive, the index of one."""


def by_addresses(frame: bytes, weights: list[int]) -> int:
    """The bucket that a hash of the Ethernet addresses falls to: a conversation in one direction stays with its bucket."""
    point = crc32(frame[:12]) % sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    raise AssertionError("the point lies within the sum of the weights")


@dataclass(slots=True)
class Group:
    number: int
    kind: int
    buckets: list[Bucket]
    added_s: float = 0.0
    packets: int = 0
    bytes: int = 0
    bucket_counts: list[list[int]] = field(init=False)
    """Packets and bytes, by bucket."""

    def __post_init__(self) -> None:
        self.bucket_counts = [[0, 0] for _ in self.buckets]

    @property
    def next_groups(self) -> set[int]:
        return {action.group_id for bucket in self.buckets for action in bucket.actions if action.type == ofp.OFPAT_GROUP}


class GroupTable:
    """The groups of a switch. `is_live` tells a port's liveness."""

    def __init__(self, is_live: Callable[[int], bool], choose: Choose = by_addresses) -> None:
        self._groups: dict[int, Group] = {}
        self._is_live = is_live
        self._choose = choose

    def __contains__(self, number: int) -> bool:
        return number in self._groups

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    def __getitem__(self, number: int) -> Group:
        return self._groups[number]

    def change(self, command: int, group: Group) -> None:
        """Add or modify. OpenFlowError (GROUP_MOD_FAILED) when it cannot be."""
        if group.number > ofp.OFPG_MAX:
            raise _failed(ofp.OFPGMFC_INVALID_GROUP)
        if group.kind not in (ofp.OFPGT_ALL, ofp.OFPGT_SELECT, ofp.OFPGT_INDIRECT, ofp.OFPGT_FF):
            raise _failed(ofp.OFPGMFC_BAD_TYPE)
        if group.kind == ofp.OFPGT_INDIRECT and len(group.buckets) != 1:
            raise _failed(ofp.OFPGMFC_INVALID_GROUP)
        if group.kind != ofp.OFPGT_SELECT and any(bucket.weight for bucket in group.buckets):
            raise _failed(ofp.OFPGMFC_INVALID_GROUP)
        if group.kind == ofp.OFPGT_FF and not all(map(_watches, group.buckets)):
            raise _failed(ofp.OFPGMFC_INVALID_GROUP)
        if group.kind in (ofp.OFPGT_ALL, ofp.OFPGT_INDIRECT) and any(map(_watches, group.buckets)):
            raise _failed(ofp.OFPGMFC_WATCH_UNSUPPORTED)
        if any(bucket.watch_group not in (ofp.OFPG_ANY, group.number, *self._groups) for bucket in group.buckets):
            raise _failed(ofp.OFPGMFC_BAD_WATCH)
        if command == ofp.OFPGC_ADD and group.number in self:
            raise _failed(ofp.OFPGMFC_GROUP_EXISTS)
        if command == ofp.OFPGC_MODIFY and group.number not in self:
            raise _failed(ofp.OFPGMFC_UNKNOWN_GROUP)
        if self._leads_back(group):
            raise _failed(ofp.OFPGMFC_LOOP)
        if command == ofp.OFPGC_MODIFY:
            old = self[group.number]
            group.added_s, group.packets, group.bytes = old.added_s, old.packets, old.bytes
        self._groups[group.number] = group

    def _leads_back(self, group: Group) -> bool:
        """Whether the group's buckets lead to the group itself, or watch it."""

        def after(each: Group) -> set[int]:
            return each.next_groups | {bucket.watch_group for bucket in each.buckets}

        seen: set[int] = set()
        ahead = after(group)
        while ahead - seen:
            number = (ahead - seen).pop()
            seen.add(number)
            if number == group.number:
                return True
            ahead |= after(self[number]) if number in self else set()
        return False

    def delete(self, number: int) -> set[int]:
        """Delete a group, or all with OFPG_ALL, and say which are gone. CHAINED_GROUP when another group still leads to it."""
        if number == ofp.OFPG_ALL:
            gone = set(self._groups)
        else:
            gone = {number} & set(self._groups)
            if any(number in group.next_groups for group in self._groups.values()):
                raise _failed(ofp.OFPGMFC_CHAINED_GROUP)
        for each in gone:
            del self._groups[each]
        return gone

    def chosen(self, group: Group, frame: bytes) -> list[int]:
        """The buckets that a frame goes through, by index."""
        if group.kind in (ofp.OFPGT_ALL, ofp.OFPGT_INDIRECT):
            return list(range(len(group.buckets)))
        alive = [index for index, bucket in enumerate(group.buckets) if self._bucket_lives(bucket)]
        if group.kind == ofp.OFPGT_FF:
            return alive[:1]
        alive = [index for index in alive if group.buckets[index].weight]
        return [alive[self._choose(frame, [group.buckets[index].weight for index in alive])]] if alive else []

    def _bucket_lives(self, bucket: Bucket) -> bool:
        if not _watches(bucket):
            return True
        if bucket.watch_port != ofp.OFPP_ANY and self._is_live(bucket.watch_port):
            return True
        return bucket.watch_group in self and any(map(self._bucket_lives, self[bucket.watch_group].buckets))


def _watches(bucket: Bucket) -> bool:
    return bool(bucket.watch_port != ofp.OFPP_ANY or bucket.watch_group != ofp.OFPG_ANY)


def _failed(code: int) -> OpenFlowError:
    return OpenFlowError(ofp.OFPET_GROUP_MOD_FAILED, code)
