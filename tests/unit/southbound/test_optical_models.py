"""What optical devices' XML means, and what is asked of them, without a device."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.southbound.device import CrossConnect, Diff, Item, MediaChannel, PortChanged
from controller.southbound.drivers.optical_switch import OPTICAL_SWITCH, POLATIS_SWITCH, OpticalSwitch
from controller.southbound.drivers.wavelength_router import WavelengthRouter
from controller.southbound.netconf.rpc import BASE, MessageError, q

OLD = frozenset({f"{OPTICAL_SWITCH}?module=optical-switch&revision=2016-04-22"})
ROUTER = "http://openconfig.net/yang/wavelength-router"
PLATFORM = "http://openconfig.net/yang/platform"
LINE = "http://openconfig.net/yang/transport-line-common"


def data(content: str) -> etree._Element:
    return etree.fromstring(f'<data xmlns="{BASE}">{content}</data>')


def outline(edit: etree._Element | None) -> list[tuple[str, str | None, str]]:
    """The entries of an edit: name, operation, and the text of all their leaves."""
    assert edit is not None
    entries = edit.iterfind(f".//*[@{q(BASE, 'operation')}]")
    return [(etree.QName(each).localname, each.get(q(BASE, "operation")), "/".join(each.itertext())) for each in entries]


@pytest.mark.parametrize(
    ("revision", "older"),
    [
        ("?module=optical-switch&revision=2018-03-22", False),
        ("?module=optical-switch&revision=2017-08-04", False),
        ("?module=optical-switch&revision=2017-08-03", True),
        ("?revision=2016-04-22&module=optical-switch", True),
        ("?module=optical-switch", False),
        ("", False),
        ("-other?module=x&revision=2010-01-01", False),
    ],
)
def test_the_revision_in_the_hello_says_how_an_entry_is_called(revision: str, older: bool) -> None:
    model = OpticalSwitch(frozenset({OPTICAL_SWITCH + revision, f"{POLATIS_SWITCH}?module=polatis-switch&revision=2015-01-01"}))
    assert model.older == older
    edit = model.edit(frozenset(), Diff("", add=(CrossConnect(1, 9),)))
    assert edit is not None and edit[0].tag == q(OPTICAL_SWITCH, "pairs" if older else "pair")


def test_cross_connects_and_powers_of_both_revisions() -> None:
    pair = "<ingress>1</ingress><egress>9</egress>"
    new = data(
        f'<cross-connects xmlns="{OPTICAL_SWITCH}"><pair>{pair}</pair></cross-connects>'
        f'<opm-power xmlns="{OPTICAL_SWITCH}"><port><port-id>9</port-id><power>-8.25</power></port></opm-power>'
    )
    old = data(
        f'<cross-connects xmlns="{OPTICAL_SWITCH}"><pairs>{pair}</pairs></cross-connects>'
        f'<ports xmlns="{OPTICAL_SWITCH}"><port><port-id>9</port-id><opm><power>-8.25</power></opm></port>'
        "<port><port-id>10</port-id></port></ports>"
    )
    for model, read, other in ((OpticalSwitch(frozenset()), new, old), (OpticalSwitch(OLD), old, new)):
        assert (model.items(read), model.power_dbm(read)) == ({CrossConnect(1, 9)}, {9: -8.25})
        assert (model.items(other), model.power_dbm(other)) == (frozenset(), {})


def test_only_what_the_same_change_frees_is_replaced() -> None:
    model = OpticalSwitch(frozenset())
    held: frozenset[Item] = frozenset({CrossConnect(1, 9), CrossConnect(2, 10), CrossConnect(5, 13)})
    change = Diff(
        "",
        add=(CrossConnect(1, 10), CrossConnect(3, 11), CrossConnect(5, 14)),
        remove=(CrossConnect(1, 9), CrossConnect(2, 10), CrossConnect(4, 12), CrossConnect(5, 15)),
    )
    assert outline(model.edit(held, change)) == [
        ("pair", "delete", "2"),
        ("pair", "replace", "1/10"),
        ("pair", "create", "3/11"),
        ("pair", "create", "5/14"),  # the device will refuse: 5 is somebody else's
    ]
    assert model.edit(held, Diff("", add=(CrossConnect(1, 9),), remove=(CrossConnect(4, 12),))) is None


def test_alarms() -> None:
    model = OpticalSwitch(frozenset())
    for name, up in (("port-power-alarm", False), ("port-power-clear", True)):
        event = etree.fromstring(f'<{name} xmlns="{POLATIS_SWITCH}"><port-id>4</port-id></{name}>')
        assert model.event("o", event) == PortChanged("o", 4, up=up)
    assert model.event("o", etree.fromstring(f'<system-error xmlns="{POLATIS_SWITCH}"/>')) is None
    with pytest.raises(MessageError, match="port-id is ''"):
        model.event("o", etree.fromstring(f'<port-power-alarm xmlns="{POLATIS_SWITCH}"/>'))


def channels(content: str) -> etree._Element:
    return data(f'<wavelength-router xmlns="{ROUTER}"><media-channels>{content}</media-channels></wavelength-router>')


WHOLE = """<channel><index>7</index><config><index>7</index><name>a b</name><lower-frequency>193075000</lower-frequency>
  <upper-frequency>193125000</upper-frequency><admin-status>DISABLED</admin-status></config>
  <state><lower-frequency>1</lower-frequency></state>
  <source><config><port-name>1</port-name></config><state><port-name>9</port-name></state></source>
  <dest><config><port-name>east</port-name></config></dest></channel>"""


def test_media_channels_are_read_as_configured() -> None:
    model = WavelengthRouter()
    assert model.items(channels(WHOLE)) == {MediaChannel(7, "1", "east", 193_075_000, 193_125_000, "DISABLED", "a b")}
    bare = "<channel><index>8</index></channel><channel><index>9</index><config><index>9</index></config></channel>"
    assert model.items(channels(bare)) == {MediaChannel(8, "", "", 0, 0), MediaChannel(9, "", "", 0, 0)}, (
        "not said to be dark: taken for lit"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("<index>7</index>", "<index>x</index>"), "index is 'x'"),
        (("193075000", "-1"), "lower-frequency is '-1'"),
        (("193125000", "9" * 30), "upper-frequency is '999"),
        (("DISABLED", "OFF"), "admin-status is 'OFF'"),
    ],
)
def test_media_channels_that_are_none(change: tuple[str, str], why: str) -> None:
    with pytest.raises(MessageError, match=why):
        WavelengthRouter().items(channels(WHOLE.replace(*change, 1)))


def test_a_media_channel_is_written_as_it_is_read() -> None:
    model = WavelengthRouter()
    channel = MediaChannel(7, "1", "east", 193_075_000, 193_125_000, "DISABLED", "a b")
    edit = model.edit(frozenset(), Diff("", add=(channel,)))
    assert edit is not None and outline(edit) == [("channel", "create", "7/7/a b/193075000/193125000/DISABLED/1/east")]
    assert model.items(channels(etree.tostring(edit[0][0]).decode())) == {channel}


def test_of_media_channels_too_only_what_is_freed_is_replaced() -> None:
    one, two = MediaChannel(1, "1", "9", 10, 20), MediaChannel(2, "2", "9", 20, 30)
    moved, taken = MediaChannel(1, "1", "10", 10, 20), MediaChannel(2, "3", "9", 40, 50)
    edit = WavelengthRouter().edit(frozenset({one, two}), Diff("", add=(moved, taken), remove=(one,)))
    assert [each[:2] for each in outline(edit)] == [("channel", "replace"), ("channel", "create")]
    assert outline(WavelengthRouter().edit(frozenset({one, two}), Diff("", remove=(two, moved)))) == [("channel", "delete", "2")]
    assert WavelengthRouter().edit(frozenset({one}), Diff("", add=(one,), remove=(two,))) is None


def test_powers_of_a_wavelength_switch() -> None:
    def component(name: str, *powers: tuple[str, str]) -> str:
        told = "".join(f"<{side}><instant>{dbm}</instant></{side}>" for side, dbm in powers)
        state = f'<port><optical-port xmlns="{LINE}"><state>{told}</state></optical-port></port>' if powers else ""
        return f"<component><name>{name}</name>{state}</component>"

    def read(*components: str) -> dict[int, float]:
        return WavelengthRouter().power_dbm(data(f'<components xmlns="{PLATFORM}">{"".join(components)}</components>'))

    both = component("3", ("input-power", "-60.00"), ("output-power", "-3.50"))
    assert read(both, component("4", ("input-power", "-8")), component("fan"), component("east", ("input-power", "1"))) == {
        3: -3.5,
        4: -8.0,
    }
    with pytest.raises(MessageError, match="instant is 'inf'"):
        read(component("5", ("input-power", "inf")))
