from __future__ import annotations

import asyncio

import pytest
from lxml import etree

from controller.southbound.netconf.rpc import BASE
from topologies.emulation.netconf.datastores import Datastores
from topologies.emulation.netconf.edit_config import edit_config
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.optical_switch import OPTICAL_SWITCH, POLATIS_SWITCH, Attenuator, EmulatedOpticalSwitch, Model

HELD = {1: 17, 2: 18}


def config(inner: str) -> etree._Element:
    return etree.fromstring(f'<config xmlns="{BASE}" xmlns:nc="{BASE}">{inner}</config>')


def pairs(*entries: str, attributes: str = "") -> etree._Element:
    return config(f'<cross-connects xmlns="{OPTICAL_SWITCH}" {attributes}>{"".join(entries)}</cross-connects>')


def pair(ingress: object, egress: object = None, operation: str = "") -> str:
    leaf = "" if egress is None else f"<egress>{egress}</egress>"
    attribute = f'nc:operation="{operation}"' if operation else ""
    return f"<pair {attribute}><ingress>{ingress}</ingress>{leaf}</pair>"


def ports(container: str, *entries: str) -> str:
    return f'<{container} xmlns="{OPTICAL_SWITCH}">{"".join(f"<port>{entry}</port>" for entry in entries)}</{container}>'


def edited(switch: EmulatedOpticalSwitch, edit: etree._Element, default: str = "merge") -> etree._Element:
    """The configuration after an edit, found good."""
    result = edit_config(switch.schema, switch.datastores.running, edit, default)
    switch.datastores.validate(result)
    return result


@pytest.fixture
def switch() -> EmulatedOpticalSwitch:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0)
    switch.patch(HELD)
    return switch


@pytest.mark.parametrize(
    ("edit", "default", "result"),
    [
        (pairs(pair(3, 19)), "merge", {1: 17, 2: 18, 3: 19}),
        (pairs(pair(1, 20)), "merge", {1: 20, 2: 18}),
        (pairs(pair(1)), "merge", HELD),
        (pairs(pair(3, 19)), "replace", {3: 19}),
        (config(""), "replace", {}),
        (pairs(pair(1, 20)), "none", HELD),
        (pairs(pair(1, 20, "merge"), pair(2, 18)), "none", {1: 20, 2: 18}),
        (pairs(pair(3, 19, "create")), "none", {1: 17, 2: 18, 3: 19}),
        (pairs(pair(1, operation="delete"), pair(3, 17, "create")), "merge", {2: 18, 3: 17}),
        (pairs(pair(9, operation="remove"), pair(2, operation="remove")), "merge", {1: 17}),
        (pairs(pair(1, 20, "replace")), "merge", {1: 20, 2: 18}),
        (pairs(pair(3, 19), attributes='nc:operation="replace"'), "merge", {3: 19}),
        (pairs(attributes='nc:operation="delete"'), "merge", {}),
        (pairs(attributes='nc:operation="remove"'), "merge", {}),
        (pairs(pair(" 3 ", " 19\n")), "merge", {1: 17, 2: 18, 3: 19}),
        (pairs(pair("01", "020")), "merge", {1: 20, 2: 18}),
        (config(ports("port-config", "<port-id>32</port-id><label>to the lab</label>")), "merge", HELD),
    ],
)
async def test_edits(switch: EmulatedOpticalSwitch, edit: etree._Element, default: str, result: dict[int, int]) -> None:
    held = etree.tostring(switch.datastores.running)
    await switch.activate(edited(switch, edit, default))
    assert switch.cross_connects == set(result.items())
    assert etree.tostring(switch.datastores.running) == held


@pytest.mark.parametrize(
    ("edit", "tag", "path_end"),
    [
        (pairs(pair(1, 20, "create")), "data-exists", "pair[opsw:ingress='1']"),
        (pairs(pair(9, operation="delete")), "data-missing", "pair[opsw:ingress='9']"),
        (pairs(pair(9)), "missing-element", "pair[opsw:ingress='9']"),
        (pairs("<pair><egress>17</egress></pair>"), "missing-element", "pair"),
        (pairs(pair(33, 17)), "invalid-value", "opsw:egress"),
        (pairs(pair(3, 33)), "invalid-value", "pair[opsw:ingress='3']/opsw:egress"),
        (pairs(pair(3, 70000)), "invalid-value", "pair[opsw:ingress='3']/opsw:egress"),
        (pairs(pair(0, 17)), "invalid-value", "opsw:ingress"),
        (pairs(pair("three", 17)), "invalid-value", "opsw:ingress"),
        (pairs(pair("٣", 17)), "invalid-value", "opsw:ingress"),
        (pairs(pair("1" * 5000, 17)), "invalid-value", "opsw:ingress"),
        (pairs(pair("", 17)), "invalid-value", "opsw:ingress"),
        (pairs("<pair><ingress>1</ingress><ingress>2</ingress></pair>"), "bad-element", "pair[opsw:ingress='1']"),
        (pairs("<pair><ingress>1</ingress><colour>red</colour></pair>"), "unknown-element", "pair[opsw:ingress='1']"),
        (pairs("<pair><ingress>3</ingress><egress><port/></egress></pair>"), "bad-element", "opsw:egress"),
        (pairs("17"), "bad-element", "cross-connects"),
        (pairs('<pair xmlns=""><ingress>3</ingress><egress>19</egress></pair>'), "unknown-namespace", "cross-connects"),
        (config("<cross-connects/>"), "unknown-namespace", "/"),
        (config(f'<splitter xmlns="{OPTICAL_SWITCH}"/>'), "unknown-element", "/"),
        (config(f'<opm-power xmlns="{OPTICAL_SWITCH}"/>'), "unknown-element", "/"),
        (config(ports("port-config", "<port-id>3</port-id><status>ENABLED</status>")), "unknown-element", "port[opsw:port-id='3']"),
        (config(ports("port-config", "<port-id>33</port-id><label>no such port</label>")), "invalid-value", "opsw:port-id"),
        (config(ports("voa", "<port-id>3</port-id><atten-level>-3</atten-level>")), "unknown-element", "opsw:atten-level"),
        (config(ports("opm-config", "<port-id>3</port-id><averaging-time>9</averaging-time>")), "invalid-value", "opsw:averaging-time"),
        (pairs(pair(1, operation="destroy")), "bad-attribute", "cross-connects"),
        (pairs('<pair operation="delete"><ingress>1</ingress></pair>'), "unknown-attribute", "cross-connects"),
        (pairs('<pair insert="first"><ingress>1</ingress></pair>'), "unknown-attribute", "cross-connects"),
        (pairs('<pair><ingress>1</ingress><egress nc:operation="delete"/></pair>'), "missing-element", "pair[opsw:ingress='1']"),
        (pairs('<pair><ingress nc:operation="delete">1</ingress></pair>'), "bad-attribute", "pair[opsw:ingress='1']"),
        (pairs(pair(3, 19), attributes='nc:operation="create"'), "data-exists", "cross-connects"),
    ],
)
def test_faulty_edits(switch: EmulatedOpticalSwitch, edit: etree._Element, tag: str, path_end: str) -> None:
    with pytest.raises(FaultError) as fault:
        edited(switch, edit)
    assert fault.value.error.tag == tag
    assert fault.value.error.path.endswith(path_end)
    assert switch.cross_connects == set(HELD.items())


@pytest.mark.parametrize(
    ("wanted", "dual_sided", "tag"),
    [
        ({1: 1}, False, "invalid-value"),
        ({1: 2}, True, "invalid-value"),
        ({17: 1}, True, "invalid-value"),
        ({1: 17, 2: 17}, True, "data-exists"),
        ({1: 2, 2: 3}, False, "data-exists"),
        ({1: 2, 3: 1}, False, "data-exists"),
        ({1: 33}, False, "invalid-value"),
    ],
)
def test_configurations_that_light_cannot_follow(wanted: dict[int, int], dual_sided: bool, tag: str) -> None:
    switch = EmulatedOpticalSwitch("ocs1", 32, dual_sided)
    with pytest.raises(FaultError) as fault:
        edited(switch, pairs(*(pair(*entry) for entry in wanted.items())))
    assert fault.value.error.tag == tag


def test_configurations_that_stand() -> None:
    edited(EmulatedOpticalSwitch("ocs1", 32), pairs(pair(1, 17), pair(16, 32)))
    edited(EmulatedOpticalSwitch("ocs1", 5, dual_sided=False), pairs(pair(2, 1), pair(3, 5)))


@pytest.mark.parametrize(("ports", "dual_sided"), [(1, False), (7, True), (65536, False)])
def test_switches_that_cannot_be(ports: int, dual_sided: bool) -> None:
    with pytest.raises(ValueError, match="ports"):
        EmulatedOpticalSwitch("ocs1", ports, dual_sided)


async def test_the_older_model_names_its_cross_connects_pairs_and_shuts_ports_by_configuration() -> None:
    told: list[frozenset[tuple[int, int]]] = []
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0, on_commit=told.append, model="pairs")
    with pytest.raises(FaultError, match="there is no pair here; pairs can be configured"):
        edited(switch, pairs(pair(1, 17)))
    both = pairs(pair(1, 17).replace("pair", "pairs"), pair(2, 18).replace("pair", "pairs"))
    both.append(etree.fromstring(ports("ports", "<port-id>18</port-id><port-state>PC_DISABLED</port-state>")))
    await switch.activate(edited(switch, both))
    assert switch.cross_connects == {(1, 17), (2, 18)} and told == [{(1, 17)}]


async def test_a_commit_takes_effect_and_is_told() -> None:
    told: list[frozenset[tuple[int, int]]] = []
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0, on_commit=told.append)
    await switch.activate(edited(switch, pairs(pair(1, 17))))
    assert told == [frozenset({(1, 17)})] and switch.cross_connects == {(1, 17)}


def port_set_state(inner: str) -> etree._Element:
    return etree.fromstring(f'<port-set-state xmlns="{OPTICAL_SWITCH}">{inner}</port-set-state>')


async def test_a_closed_shutter_lets_no_light_through(switch: EmulatedOpticalSwitch) -> None:
    told: list[frozenset[tuple[int, int]]] = []
    switch.on_commit = told.append
    await switch.call(port_set_state("<port-disab>17</port-disab><port-disab> 5 </port-disab>"))
    await switch.call(port_set_state("<port-enab>17</port-enab>"))
    assert told == [{(2, 18)}, {(1, 17), (2, 18)}]
    assert switch.shut == {5} and switch.cross_connects == set(HELD.items())
    status = switch.state()[f"{{{OPTICAL_SWITCH}}}port-config"]()
    assert [leaf.text for leaf in status.iter(f"{{{OPTICAL_SWITCH}}}status")].count("DISABLED") == 1


@pytest.mark.parametrize(
    ("inner", "tag"),
    [
        ("<port-disab>1</port-disab><port-disab>33</port-disab>", "invalid-value"),
        ("<port-disab>1</port-disab><port-disab>x</port-disab>", "invalid-value"),
        ("<port-disab>1</port-disab><port-enab>1</port-enab>", "invalid-value"),
        ("<port-disab>1</port-disab><port>2</port>", "unknown-element"),
    ],
)
async def test_shutters_move_all_or_none(switch: EmulatedOpticalSwitch, inner: str, tag: str) -> None:
    with pytest.raises(FaultError) as fault:
        await switch.call(port_set_state(inner))
    assert fault.value.error.tag == tag and not switch.shut


def test_attenuators_are_told(switch: EmulatedOpticalSwitch) -> None:
    entries = (
        "<port-id>17</port-id><atten-mode>VOA_MODE_ABSOLUTE</atten-mode><atten-level>-12.5</atten-level>",
        "<port-id>18</port-id><atten-mode>VOA_MODE_RELATIVE</atten-mode><atten-level>-3</atten-level><reference-port>2</reference-port>",
        "<port-id>19</port-id><atten-mode>VOA_MODE_NONE</atten-mode>",
    )
    switch.datastores.running = edited(switch, config(ports("voa", *entries)))
    assert switch.attenuators == {17: Attenuator("VOA_MODE_ABSOLUTE", -12.5, 0), 18: Attenuator("VOA_MODE_RELATIVE", -3.0, 2)}


def shown(switch: EmulatedOpticalSwitch) -> list[str | None]:
    return [leaf.text for leaf in switch.state()[f"{{{OPTICAL_SWITCH}}}opm-power"]().iter(f"{{{OPTICAL_SWITCH}}}power")]


def test_powers_are_reported_in_hundredths_and_not_below_dark() -> None:
    switch = EmulatedOpticalSwitch("ocs1", 2)
    switch.set_power(1, -7.126)
    switch.set_power(2, -80.0)
    assert shown(switch) == ["-7.13", "-60.00"]
    with pytest.raises(KeyError):
        switch.set_power(3, 0.0)
    switch.datastores.running = edited(switch, config(ports("opm-config", "<port-id>1</port-id><offset>1.5</offset>")))
    assert shown(switch) == ["-5.63", "-60.00"] and switch.power_dbm(1) == -7.126


async def test_monitors_follow_the_light_when_they_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    switch = EmulatedOpticalSwitch("ocs1", 2, settling_time_s=0.02)
    monkeypatch.setattr(switch, "notify", lambda event: told.append(etree.QName(event).localname))
    switch.set_power(1, -5.0)
    switch.set_power(1, None)  # too short for the monitor to see
    switch.set_power(2, -9.0)
    assert shown(switch) == ["-60.00", "-60.00"] and not told
    await asyncio.sleep(0.1)
    assert shown(switch) == ["-60.00", "-9.00"] and told == ["port-power-clear"]
    switch.set_power(2, None)
    await switch.close()
    assert shown(switch) == ["-60.00", "-60.00"] and told == ["port-power-clear", "port-power-alarm"]


def test_alarms_go_by_the_threshold_and_the_mode_of_their_port(switch: EmulatedOpticalSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        switch,
        "notify",
        lambda event: told.append((etree.QName(event).localname, event.findtext(f"{{{POLATIS_SWITCH}}}port-label"))),
    )
    settings = (
        "<port-id>1</port-id><signal-low-threshold>-20</signal-low-threshold>",
        "<port-id>2</port-id><mode>POWER_ALARM_DISABLED</mode>",
    )
    label = ports("port-config", "<port-id>1</port-id><label>from alice</label>")
    switch.datastores.running = edited(switch, config(ports("opm-alarm-config", *settings) + label))
    for dbm in (-25.0, -10.0, -19.0, -20.0):
        switch.set_power(1, dbm)
        switch.set_power(2, dbm)
    switch.set_power(2, None)
    assert told == [("port-power-clear", "from alice"), ("port-power-alarm", "from alice")]


@pytest.mark.parametrize("model", ["pair", "pairs"])
def test_what_is_told_of_the_state_is_what_the_modules_say(model: Model) -> None:
    switch = EmulatedOpticalSwitch("ocs1", 4, model=model)
    switch.set_power(2, -3.0)
    told = config("")
    told.extend(make() for make in switch.state().values())
    switch.schema.check(told)
    with pytest.raises(FaultError):
        told[1][0][0].text = "0"
        switch.schema.check(told)


def test_what_was_found_good_is_not_looked_at_again(switch: EmulatedOpticalSwitch) -> None:
    looked: list[etree._Element] = []

    async def work(config: etree._Element) -> None: ...

    datastores = Datastores(switch.schema, config(""), looked.append, work, lambda session_id: None, lambda *event: None)
    result = edit_config(switch.schema, datastores.running, pairs(pair(1, 17)), "merge")
    datastores.validate(result)
    datastores.validate(result)
    assert looked == [result]
