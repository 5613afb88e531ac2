from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from controller.southbound.netconf.rpc import BASE
from topologies.emulation.netconf.edit_config import edit_config, merge_state
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.wavelength_switch import LINE_COMMON, PLATFORM, WAVELENGTH_ROUTER, EmulatedWavelengthSwitch, MediaChannel

C34, C35 = (193_400_000, 193_450_000), (193_450_000, 193_500_000)
CHANNEL = """<channel %s><index>%d</index>
  <config><index>%d</index><lower-frequency>%s</lower-frequency><upper-frequency>%s</upper-frequency><admin-status>%s</admin-status></config>
  <source><config><port-name>%s</port-name></config></source><dest><config><port-name>%s</port-name></config></dest></channel>"""


def channel(index: int, spectrum: tuple[int, int], source: str, dest: str, admin: str = "ENABLED", attribute: str = "") -> str:
    return CHANNEL % (attribute, index, index, *spectrum, admin, source, dest)


def router(*channels: str) -> str:
    return f'<wavelength-router xmlns="{WAVELENGTH_ROUTER}"><media-channels>{"".join(channels)}</media-channels></wavelength-router>'


def edited(switch: EmulatedWavelengthSwitch, inner: str) -> etree._Element:
    edit = etree.fromstring(f'<config xmlns="{BASE}" xmlns:nc="{BASE}">{inner}</config>')
    result = edit_config(switch.schema, switch.datastores.running, edit, "merge")
    switch.datastores.validate(result)
    return result


@pytest.fixture
def switch() -> EmulatedWavelengthSwitch:
    return EmulatedWavelengthSwitch("wss1", ["line", "drop-1", "drop-2", "drop-3"], switching_time_s=0.0)


async def commit(switch: EmulatedWavelengthSwitch, inner: str) -> None:
    switch.datastores.running = edited(switch, inner)
    await switch.activate(switch.datastores.running)


async def test_media_channels_come_and_go(switch: EmulatedWavelengthSwitch) -> None:
    told: list[Any] = []
    switch.on_commit = told.append
    await commit(
        switch, router(channel(1, C34, "line", "drop-1"), channel(2, C35, "line", "drop-2"), channel(3, C34, "line", "drop-3", "DISABLED"))
    )
    first, second = MediaChannel(1, "line", "drop-1", *C34), MediaChannel(2, "line", "drop-2", *C35)
    assert switch.channels == {first, second}
    shut = (
        f'<components xmlns="{PLATFORM}"><component><name>drop-1</name><port>'
        f'<optical-port xmlns="{LINE_COMMON}"><config><admin-state>DISABLED</admin-state></config></optical-port></port></component></components>'
    )
    await commit(switch, shut)
    power = (
        f"<channel><index>2</index><spectrum-power-profile><distribution><lower-frequency>{C35[0]}</lower-frequency>"
        f"<upper-frequency>{C35[1]}</upper-frequency><config><lower-frequency>{C35[0]}</lower-frequency>"
        f"<upper-frequency>{C35[1]}</upper-frequency><target-power>-3.5</target-power></config></distribution></spectrum-power-profile></channel>"
    )
    await commit(switch, router(power))
    await commit(switch, router('<channel nc:operation="delete"><index>2</index></channel>'))
    assert told[1:] == [{second}, {MediaChannel(2, "line", "drop-2", *C35, -3.5)}, set()]


@pytest.mark.parametrize(
    ("inner", "tag", "said"),
    [
        (router(channel(2, C34, "line", "drop-2")), "data-exists", "channel 2 shares spectrum with channel 1 at port line"),
        (router(channel(2, (C34[0] - 1, C34[0] + 1), "drop-2", "drop-1")), "data-exists", "at port drop-1"),
        (router(channel(2, C35, "line", "drop-9")), "data-missing", "drop-9"),
        (router(channel(2, C35, "line", "line")), "invalid-value", "cannot leave there"),
        (router(channel(2, C35[::-1], "line", "drop-2")), "invalid-value", "is not below"),
        (router("<channel><index>2</index></channel>"), "data-missing", "no target instance"),
        (
            router("<channel><index>2</index><config><index>2</index><admin-status>ENABLED</admin-status></config></channel>"),
            "missing-element",
            "port-name",
        ),
        (
            router("<channel><index>2</index><config><index>2</index><admin-status>ON</admin-status></config></channel>"),
            "invalid-value",
            "ON",
        ),
        (router("<channel><index>1</index><state><oper-status>UP</oper-status></state></channel>"), "unknown-element", "operational state"),
        (router(channel(1, C34, "line", "drop-1", attribute='nc:operation="create"')), "data-exists", "channel index 1"),
        (
            f'<components xmlns="{PLATFORM}"><component><name>drop-9</name><config><name>drop-9</name></config></component></components>',
            "operation-not-supported",
            "drop-9",
        ),
    ],
)
async def test_faulty_edits(switch: EmulatedWavelengthSwitch, inner: str, tag: str, said: str) -> None:
    await commit(switch, router(channel(1, C34, "line", "drop-1")))
    with pytest.raises(FaultError, match=said) as fault:
        edited(switch, inner)
    assert fault.value.error.tag == tag


async def test_identities_keep_their_namespace(switch: EmulatedWavelengthSwitch) -> None:
    mode = (
        f'<channel><index>1</index><config xmlns:x="{WAVELENGTH_ROUTER}"><index>1</index>'
        "<attenuation-control-mode>%s</attenuation-control-mode></config></channel>"
    )
    await commit(switch, router(mode % "x:ATTENUATION_FIXED_LOSS"))
    await commit(switch, router(mode % "x:ATTENUATION_DYNAMIC_LOSS").replace("x:", "y:").replace("xmlns:x", "xmlns:y"))
    held = next(switch.datastores.running.iter(f"{{{WAVELENGTH_ROUTER}}}attenuation-control-mode"))
    assert held.text == "y:ATTENUATION_DYNAMIC_LOSS" and held.nsmap["y"] == WAVELENGTH_ROUTER
    await commit(switch, router(mode % "ATTENUATION_DYNAMIC_LOSS"))
    with pytest.raises(FaultError, match="ATTENUATION_GUESSED"):
        edited(switch, router(mode % "x:ATTENUATION_GUESSED"))


async def test_what_is_told_of_the_state_is_what_the_modules_say(switch: EmulatedWavelengthSwitch) -> None:
    await commit(switch, router(channel(1, C34, "line", "drop-1"), channel(2, C34, "line", "drop-2", "DISABLED")))
    switch.set_power("drop-1", input_dbm=None, output_dbm=-7.126)
    told = etree.Element("config")
    told.extend(merge_state(switch.schema, switch.datastores.running, [make() for make in switch.state().values()]))
    switch.schema.check(told)
    assert [leaf.text for leaf in told.iter(f"{{{WAVELENGTH_ROUTER}}}oper-status")] == ["UP", "DOWN"]
    assert [leaf.text for leaf in told.iter(f"{{{LINE_COMMON}}}instant")] == ["-60.00", "-60.00", "-60.00", "-7.13", *["-60.00"] * 4]
    assert [entry.findtext(f"{{{PLATFORM}}}name") for entry in told.iter(f"{{{PLATFORM}}}component")] == list(switch.ports)
    with pytest.raises(KeyError):
        switch.set_power("drop-9", input_dbm=None, output_dbm=None)


@pytest.mark.parametrize("ports", [["line"], ["line", "line"]])
def test_switches_that_cannot_be(ports: list[str]) -> None:
    with pytest.raises(ValueError, match="two ports or more"):
        EmulatedWavelengthSwitch("wss1", ports)
