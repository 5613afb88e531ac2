"""The listener with switches that misbehave, storm in, or bring certificates."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from controller.southbound.openflow.certificates import datapaths_named, server_tls
from controller.southbound.openflow.channel import Channel
from controller.southbound.openflow.codec import Framer, decode, encode
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    Hello,
    Message,
    PacketIn,
    PortDescReply,
    PortDescRequest,
    Role,
    RoleReply,
    RoleRequest,
)
from topologies.emulation import pki
from topologies.emulation.openflow_switch import EmulatedSwitch


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Admitted:
    """The sessions of the datapaths that a listener expects."""

    def __init__(self, listener: OpenFlowListener, *datapaths: int) -> None:
        self.channels: dict[int, Channel] = {}
        self.ever = 0
        self._waiting = [listener.expect(each, self._attach) for each in datapaths]

    def __enter__(self) -> Admitted:
        for each in self._waiting:
            each.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._waiting:
            each.__exit__(None, None, None)

    @contextmanager
    def _attach(self, channel: Channel) -> Iterator[None]:
        self.ever += 1
        self.channels[channel.datapath_id] = channel
        yield
        del self.channels[channel.datapath_id]


class Switch:
    """Says hello, answers what it must, and keeps what else it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, datapath_id: int, role: Message) -> None:
        self.writer = writer
        self.told: list[Message] = []
        self._reader = reader
        self._answers: dict[type, Message] = {
            FeaturesRequest: FeaturesReply(datapath_id, 0, 1),
            PortDescRequest: PortDescReply(()),
            RoleRequest: role,
            BarrierRequest: BarrierReply(),
        }

    async def run(self) -> None:
        """Until the controller closes the connection."""
        framer = Framer()
        self.writer.write(encode(Hello()))
        try:
            while data := await self._reader.read(65536):
                for frame in framer.feed(data):
                    message = decode(frame)
                    if isinstance(message, EchoRequest):
                        self.writer.write(encode(EchoReply(message.data), frame.xid))
                    elif answer := self._answers.get(type(message)):
                        self.writer.write(encode(answer, frame.xid))
                    else:
                        self.told.append(message)
        except OSError:
            pass
        finally:
            self.writer.close()


@asynccontextmanager
async def dialled(
    listener: OpenFlowListener, datapath_id: int, tls: ssl.SSLContext | None = None, role: Message | None = None
) -> AsyncIterator[Switch]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=tls)
    switch = Switch(reader, writer, datapath_id, role or RoleReply(Role.MASTER))
    running = asyncio.create_task(switch.run())
    try:
        yield switch
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        writer.close()


async def test_two_hundred_switches_come_back_at_once() -> None:
    await storms(switches=200, rounds=2)


@pytest.mark.soak
async def test_two_hundred_switches_come_back_again_and_again() -> None:
    await storms(switches=200, rounds=50)


async def storms(switches: int, rounds: int) -> None:
    """Every switch of the network dials at once, is served, and is cut off; nothing of it is left."""
    datapaths = range(1, switches + 1)
    async with OpenFlowListener("127.0.0.1", 0, claim=(Role.MASTER, 1)) as listener:
        with Admitted(listener, *datapaths) as admitted:
            for round in range(1, rounds + 1):
                connections = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", listener.port) for _ in datapaths))
                peers = [Switch(*each, number, RoleReply(Role.MASTER)) for number, each in enumerate(connections, 1)]
                running = [asyncio.create_task(peer.run()) for peer in peers]
                await until(lambda: len(admitted.channels) == switches)
                assert await asyncio.gather(*(each.request(BarrierRequest()) for each in admitted.channels.values())) == [
                    [BarrierReply()] for _ in datapaths
                ]
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
                await until(lambda: not admitted.channels and not listener.connected)
                assert listener.counters.sessions == round * switches
        await until(lambda: not listener._sessions)
        assert (listener.counters.refused, listener.counters.malformed) == (0, 0)


async def test_random_and_mutated_messages_harm_no_other_session(caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand messages into sessions of one datapath, which begin anew whenever they are closed."""
    random_ = random.Random(8)
    whole = [
        encode(PacketIn(7, 60, 0, 0, 0, (("in_port", 1), ("metadata", 5)), bytes(60))),
        encode(RoleReply(Role.MASTER, 1)),
        encode(Error(1, 1, bytes(20))),
        encode(FeaturesReply(1, 0, 1)),
        encode(EchoRequest(b"x")),
        encode(PortDescReply(())),
    ]

    def mutated() -> bytes:
        data = bytearray(random_.choice(whole))
        for _ in range(random_.randrange(1, 4)):
            data[random_.randrange(8, len(data))] = random_.randrange(256)
        if random_.random() < 0.3:
            data[1] = random_.randrange(256)
        if random_.random() < 0.002:
            data[random_.randrange(8)] = random_.randrange(256)
        return bytes(data)

    async with OpenFlowListener("127.0.0.1", 0) as listener:
        with Admitted(listener, 1, 2) as admitted:
            async with dialled(listener, 1):
                await until(lambda: 1 in admitted.channels)
                other = admitted.channels[1]
                sent = 0
                while sent < 10_000:
                    async with dialled(listener, 2) as wild:
                        await until(lambda: 2 in admitted.channels)
                        session = admitted.channels[2]
                        while sent < 10_000 and not session.closed_because:
                            sent += 50
                            wild.writer.write(b"".join(mutated() for _ in range(50)))
                            await asyncio.sleep(0)
                            assert await other.request(BarrierRequest()) == [BarrierReply()], "the other session is served meanwhile"
                    await until(lambda: 2 not in admitted.channels)
                assert admitted.channels[1] is other and not other.closed_because
                assert listener.counters.undecodable > 100
                assert listener.counters.malformed > 1
                complaints = caplog.text.count("left aside") + caplog.text.count("no request that is open")
                assert complaints <= 20 * listener.counters.sessions, "who sends nonsense does not fill the log"


async def test_a_stale_master_is_refused_and_told_of() -> None:
    async with OpenFlowListener("127.0.0.1", 0, claim=(Role.MASTER, 41)) as listener:
        told: list[tuple[int, str]] = []
        listener.on_refused = lambda datapath_id, why: told.append((datapath_id, why))
        with Admitted(listener, 1) as admitted:
            async with dialled(listener, 1, role=Error(11, 0)) as switch:
                await until(lambda: bool(told))
                assert told[0][0] == 1 and "another controller of a newer generation than ours, 41" in told[0][1]
                assert not admitted.ever
                await until(lambda: bool(switch.told[1:]))
                assert isinstance(switch.told[1], Error) and b"newer generation" in switch.told[1].data
            async with dialled(listener, 1, role=Error(1, 1)):
                await until(lambda: 1 in admitted.channels)  # roles are all that this one lacks
    assert listener.counters.refused == 1


class Authority:
    """Certificates in a directory, and TLS contexts of switches that have them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate, self.key = pki.issue(directory, "controller", "bellhop")
        self.authority = directory / "ca.crt"

    def switch(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        if name is not None:
            context.load_cert_chain(*pki.issue(self.directory, "qkd", name))
        return context


async def served(listener: OpenFlowListener, admitted: Admitted, datapath_id: int, tls: ssl.SSLContext | None) -> bytes:
    """The controller's certificate, once the switch has a session."""
    async with dialled(listener, datapath_id, tls) as switch:
        await until(lambda: datapath_id in admitted.channels)
        certificate: bytes = switch.writer.get_extra_info("ssl_object").getpeercert(True)
    await until(lambda: datapath_id not in admitted.channels)
    return certificate


async def test_switches_without_a_right_certificate_are_refused_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    wrong = ours.switch(None)
    wrong.load_cert_chain(*pki.issue(others.directory, "qkd", "s1"))
    async with OpenFlowListener("127.0.0.1", 0, tls=server_tls(ours.certificate, ours.key, ours.authority)) as listener:
        with Admitted(listener, 1) as admitted:
            await served(listener, admitted, 1, ours.switch("s1"))
            for number, (context, why) in enumerate(
                ((ours.switch(None), "peer did not return a certificate"), (wrong, "certificate verify failed")), 1
            ):
                async with dialled(listener, 1, context):
                    await until(lambda number=number: listener.counters.tls_refused == number)  # type: ignore[misc]
                assert why in caplog.text
            async with dialled(listener, 1):
                await until(lambda: listener.counters.tls_refused == 3)
            assert admitted.ever == 1


async def test_a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Authority(tmp_path)
    switch = ours.switch("s1")
    async with OpenFlowListener("127.0.0.1", 0, tls=server_tls(ours.certificate, ours.key, ours.authority)) as listener:
        with Admitted(listener, 1, 2) as admitted:
            async with dialled(listener, 2, switch):
                await until(lambda: 2 in admitted.channels)
                first = await served(listener, admitted, 1, switch)
                assert await served(listener, admitted, 1, switch) == first
                good = ours.certificate.read_bytes()
                ours.certificate.write_bytes(good[:100])
                assert await served(listener, admitted, 1, switch) == first
                assert "the old ones serve on" in caplog.text
                ours.certificate.write_bytes(good)
                ours.certificate.unlink()
                pki.issue(tmp_path, "controller", "bellhop")
                second = await served(listener, admitted, 1, switch)
                assert second != first
                assert 2 in admitted.channels, "sessions that stand are not touched"


async def test_a_certificate_for_a_datapath_is_good_for_no_other(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    bound = ours.switch(f"{1:016x}")
    async with OpenFlowListener("127.0.0.1", 0, tls=server_tls(ours.certificate, ours.key, ours.authority)) as listener:
        told: list[str] = []
        listener.on_refused = lambda datapath_id, why: told.append(why)
        with Admitted(listener, 1, 2) as admitted:
            await served(listener, admitted, 1, bound)
            async with dialled(listener, 2, bound):
                await until(lambda: bool(told))
            assert told == ["its certificate is for datapath 0000000000000001; give it one of its own"]
            assert admitted.ever == 1


async def test_an_emulated_switch_brings_its_certificate(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    async with OpenFlowListener("127.0.0.1", 0, tls=server_tls(ours.certificate, ours.key, ours.authority)) as listener:
        with Admitted(listener, 1) as admitted:
            switch = EmulatedSwitch("s1", 1, [1, 2], ("127.0.0.1", listener.port), tls=ours.switch("s1"))
            running = asyncio.create_task(switch.run())
            await until(lambda: 1 in admitted.channels)
            assert sorted(port for port in admitted.channels[1].ports if port < 10) == [1, 2]
            assert await admitted.channels[1].request(BarrierRequest()) == [BarrierReply()]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def test_datapath_ids_are_found_in_common_and_dns_names() -> None:
    certificate = {
        "subject": ((("organizationName", "0000000000000009"),), (("commonName", "00000000000000AB"),)),
        "subjectAltName": (("DNS", "0000000000000001"), ("DNS", "s1.example.net"), ("URI", "0000000000000007")),
    }
    assert datapaths_named(certificate) == {1, 0xAB}
    assert datapaths_named({}) == set()


def test_certificates_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"c\.crt.*see openflow\.tls in the settings"):
        server_tls(tmp_path / "c.crt", tmp_path / "c.key", tmp_path / "ca.crt")
