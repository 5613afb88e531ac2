"""What a device is to Bellhop: a set of items it holds, and one driver protocol to read and change them.

An item is a value (a flow rule, a group, a meter, a cross-connect, a media channel, a relay entry): equal items are the same thing wherever they are seen.
What a device should hold, what it holds and what must change are all sets of items, so one `diff` serves every family.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Any, Literal, NamedTuple, Protocol

BELLHOP_COOKIE_PREFIX = 0xBE11
"""The top 16 bits of the cookie of every flow rule that Bellhop owns."""

GROUP_NUMBERS = range(0xBE110000, 0xBE120000)
METER_NUMBERS = range(0x20000, 0x40000)
"""The numbers of the groups and meters that Bellhop owns, which carry no cookie. Open vSwitch promises no meters above 0x40000."""
CONTROLLER_METER = 0xFFFFFFFE
"""The meter that every PACKET_IN passes (OFPM_CONTROLLER). It has no owner by its number: the store remembers that it is ours."""

Match = tuple[tuple[str, int | str], ...]
Actions = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class FlowRule:
    """One OpenFlow 1.3 flow entry.

    `match` is sorted by field name; names are the OXM names (`eth_dst`, `ipv4_src`). Addresses are text in canonical form
    (`02:00:00:00:00:01`, `10.0.0.1`), everything else is an int; a masked value is the text `value/mask`. `actions` are the
    apply-actions in order: `("output", 3)`, `("set_field:eth_dst", "02:00:00:00:00:01")`, `("group", 7)`, `("push_vlan", 0x8100)`,
    `("pop_vlan", 0)`; then the other instructions by their OpenFlow number: `("goto_table", 1)`, `("write_metadata", 5)`,
    `("write:<action>", value)` for each action that joins the action set, `("clear_actions", 0)`, `("meter", 0x20001)`, which packets
    pass before all else. `hop` counts from the service's ingress (0); it orders stages and is no part of the rule's identity.
    """

    priority: int
    match: Match
    actions: Actions
    cookie: int
    table: int = 0
    hop: int = field(default=0, compare=False)
    kind: Literal["flow"] = "flow"

    @property
    def key(self) -> tuple[object, ...]:
        """What the switch tells rules apart by: a second rule with this key replaces the first."""
        return (self.kind, self.table, self.priority, self.match)

    @property
    def ours(self) -> bool:
        """Whether the cookie says that Bellhop put the rule there."""
        return self.cookie >> 48 == BELLHOP_COOKIE_PREFIX

    def __eq__(self, other: object) -> bool:
        # By hand, as a table of ten thousand rules is compared in one turn of the event loop, and what dataclass makes takes twice as long.
        if not isinstance(other, FlowRule):
            return NotImplemented
        return (
            self.match == other.match
            and self.actions == other.actions
            and self.priority == other.priority
            and self.cookie == other.cookie
            and self.table == other.table
        )


NO_WATCH = 0xFFFFFFFF
"""OFPP_ANY and OFPG_ANY: the bucket watches no port, no group."""


class GroupType(IntEnum):
    """ALL buckets, one that the switch SELECTs, the only one (INDIRECT), or the first whose watched port or group is live."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """`weight` counts in SELECT groups; `watch_port` and `watch_group` in FAST_FAILOVER groups, where one of them is required."""

    actions: Actions
    weight: int = 0
    watch_port: int = NO_WATCH
    watch_group: int = NO_WATCH


@dataclass(frozen=True, slots=True)
class Group:
    """One entry of an OpenFlow switch's group table; rules send packets to it by `("group", number)`.

    `type` is a `GroupType`, or the number of one that is not in OpenFlow 1.3.
    """

    number: int
    type: int
    buckets: tuple[Bucket, ...] = ()
    kind: Literal["group"] = "group"

    @property
    def key(self) -> tuple[object, ...]:
        return (self.kind, self.number)

    @property
    def ours(self) -> bool:
        """Whether the number says that Bellhop put the group there."""
        return self.number in GROUP_NUMBERS


METER_KBPS, METER_PKTPS, METER_BURST, METER_STATS = 1, 2, 4, 8
"""The flags of a meter: rates in kbit/s, rates in packets/s, heed `Band.burst`, count."""


class BandType(IntEnum):
    DROP = 1
    DSCP_REMARK = 2


@dataclass(frozen=True, slots=True)
class Band:
    """What happens above `rate` (kbit/s or packets/s, as the meter's flags say; `burst` in kbit or packets).

    `precedence_levels` is by how much DSCP_REMARK raises the drop precedence. A type that is not modelled keeps its bytes in `rest`, in hex.
    """

    rate: int
    burst: int = 0
    type: int = BandType.DROP
    precedence_levels: int = 0
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Meter:
    """One entry of an OpenFlow switch's meter table; rules put packets through it by `("meter", number)`."""

    number: int
    flags: int
    bands: tuple[Band, ...] = ()
    kind: Literal["meter"] = "meter"

    @property
    def key(self) -> tuple[object, ...]:
        return (self.kind, self.number)

    @property
    def ours(self) -> bool:
        """Whether the number says that Bellhop put the meter there."""
        return self.number in METER_NUMBERS


@dataclass(frozen=True, slots=True)
class CrossConnect:
    """One cross-connect of an optical circuit switch: light passes between two ports, in both directions."""

    ingress: int
    egress: int
    kind: Literal["cross-connect"] = "cross-connect"

    @property
    def key(self) -> tuple[object, ...]:
        return (self.kind, self.ingress, self.egress)

    @property
    def ours(self) -> bool:
        """Always false: a cross-connect carries no mark of its owner, the store remembers which are ours."""
        return False


ChannelAdmin = Literal["ENABLED", "DISABLED", "MAINT"]


@dataclass(frozen=True, slots=True)
class MediaChannel:
    """One media channel of a wavelength switch: the light between two frequencies (in MHz) passes from the port `source` to the port `dest`.

    Ports are the device's names of them. The device tells channels apart by `index`; `name` is free text. A DISABLED channel is dark.
    """

    index: int
    source: str
    dest: str
    lower_frequency_mhz: int
    upper_frequency_mhz: int
    admin: ChannelAdmin = "ENABLED"
    name: str = ""
    kind: Literal["media-channel"] = "media-channel"

    @property
    def key(self) -> tuple[object, ...]:
        """All of it: a channel gives way to another of its index only where it is removed by name, so that nobody else's is taken over."""
        return (self.kind, self)

    @property
    def ours(self) -> bool:
        """Always false: as of cross-connects, the store remembers which are ours."""
        return False


class KeyRelay(NamedTuple):
    """One KME's part in carrying the keys of one service over one path. A tuple, as plans make, send, store and compare them by the thousand.

    `saes` are the service's two SAE IDs, left and right. `left` and `right` are the neighbouring KMEs on the path towards each; None
    marks the KME that serves that SAE. `share` of `shares` numbers the XOR share this path carries; with `split` above 1 it is instead the
    number of the path, of so many that each carry keys of their own. `rate_bps` is the most that the ends relay per direction on the path;
    `stock_keys` is how many keys of `key_bits` bits each end keeps ready per direction, over all paths.
    """

    service: str
    saes: tuple[str, str]
    left: str | None
    right: str | None
    rate_bps: float
    share: int = 0
    shares: int = 1
    key_bits: int = 256
    stock_keys: int = 64
    split: int = 1
    kind: Literal["key-relay"] = "key-relay"

    def __reduce__(self) -> tuple[object, ...]:
        return KeyRelay, tuple(self)  # what a tuple does by itself takes twice as long

    @property
    def key(self) -> tuple[object, ...]:
        return (self.kind, self.service, self.share)

    @property
    def ours(self) -> bool:
        """Always true: a KME takes relay entries from its controller only."""
        return True


Item = FlowRule | Group | Meter | CrossConnect | MediaChannel | KeyRelay

_VALUES = {each: attrgetter(*each.__slots__) for each in (FlowRule, Group, Meter, CrossConnect, MediaChannel)}


def fields_of(item: Item) -> dict[str, Any]:
    """What the item says, by name."""
    return item._asdict() if isinstance(item, KeyRelay) else asdict(item)


@dataclass(frozen=True, slots=True)
class State:
    """What a device was read to hold. Readings are by port, neighbour KME or service; a device fills those that it has."""

    items: frozenset[Item] = frozenset()
    power_dbm: Mapping[int, float] = field(default_factory=dict)
    pool_bytes: Mapping[str, int] = field(default_factory=dict)
    stock_keys: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diff:
    """What must change on one device. An added item whose key equals a removed one replaces it, and only the addition is listed."""

    device: str
    add: tuple[Item, ...] = ()
    remove: tuple[Item, ...] = ()
    foreign: tuple[Item, ...] = ()
    """Items Bellhop did not put there: reported, never touched."""

    @property
    def empty(self) -> bool:
        return not self.add and not self.remove


def order(items: Iterable[Item]) -> tuple[Item, ...]:
    """Items in an order that is the same in every run."""
    return tuple(sorted(items, key=_rank))


def _rank(item: Item) -> tuple[object, ...]:
    if isinstance(item, KeyRelay):  # a KME has thousands, and their text takes ten times as long
        sides = item.left or "", item.right or ""
        return item.kind, item.service, item.share, *sides, item.saes, item.rate_bps, item.shares, item.key_bits, item.stock_keys, item.split
    return item.kind, repr(_VALUES[type(item)](item))  # a match has numbers and texts, which do not compare


def diff(device: str, actual: frozenset[Item], present: frozenset[Item], absent: frozenset[Item]) -> Diff:
    """What turns `actual` into what is wanted: `present` there, `absent` gone, all else left alone.

    An item is removed only when it is known to be Bellhop's: it is listed in `absent` (once desired, no longer) or carries Bellhop's mark.
    """
    unwanted = actual - present
    lacking = len(present) > len(actual) - len(unwanted)  # to compare once more takes as long again
    add = present - actual if lacking else frozenset()
    replaced = {item.key for item in add}
    removable = {item for item in unwanted if item in absent or item.ours}
    return Diff(
        device,
        add=order(add),
        remove=order(item for item in removable if item.key not in replaced),
        foreign=order(unwanted - removable),
    )


class DeviceError(Exception):
    """A device did not do what it was asked. The text says what, and what to do."""

    def __init__(self, device: str, what: str) -> None:
        super().__init__(f"{device}: {what}")
        self.device = device
        self.what = what


class Unreachable(DeviceError):
    """No session with the device; what it holds is unknown until it is read again."""


class Refused(DeviceError):
    """The device is there and refused the change."""


@dataclass(frozen=True, slots=True)
class Connected:
    device: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Something else than this driver's last `apply` changed the device: read it again."""

    device: str
    what: str


@dataclass(frozen=True, slots=True)
class PortChanged:
    """A port lost or regained its signal (OpenFlow port status, optical loss of signal)."""

    device: str
    port: int
    up: bool


@dataclass(frozen=True, slots=True)
class QkdLinkReport:
    """A KME's word on a QKD link that feeds it: whether it makes key, its secret-key rate and QBER over the last interval."""

    device: str
    link: str
    up: bool
    rate_bps: float
    qber: float | None


DeviceEvent = Connected | Disconnected | Changed | PortChanged | QkdLinkReport


class Device(Protocol):
    """The driver protocol: one object per device, owning its session.

    Every method but `events` raises `Unreachable` when there is no session and `Refused` when the device says no.
    """

    name: str
    capabilities: frozenset[str]
    """`validate`: `check` asks the device itself; `power`: `State.power_dbm` is measured; `atomic`: one `apply` is all or nothing."""

    @property
    def connected(self) -> bool: ...

    async def read(self) -> State: ...

    async def check(self, diff: Diff) -> list[str]:
        """What the device would refuse, without changing it; empty when nothing."""
        ...

    async def apply(self, diff: Diff) -> None:
        """Make the change. When this returns, the device has confirmed it."""
        ...

    def events(self) -> AsyncIterator[DeviceEvent]:
        """The device's events, for one reader, from the moment of the call."""
        ...

    async def run(self) -> None:
        """Hold the session, reconnecting with back-off, until cancelled."""
        ...
