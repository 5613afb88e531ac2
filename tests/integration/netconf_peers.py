"""Peers of our NETCONF client that do what a test says, over real SSH on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncssh

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import frame
from controller.southbound.netconf.session import Credentials

PASSWORD = "sesame"
Process = asyncssh.SSHServerProcess[bytes]
HELLO = frame(rpc.hello([rpc.BASE_1_0, rpc.BASE_1_1], 1), chunked=False)


@asynccontextmanager
async def scripted(tmp_path: Path, script: Callable[[Process], Awaitable[None]]) -> AsyncIterator[tuple[int, Credentials]]:
    """A server that lets anybody in and then does what the script says."""

    class Anyone(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def serve(process: Process) -> None:
        with suppress(OSError, asyncssh.Error):
            await script(process)
        process.close()

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", 0, config=None, server_factory=Anyone, server_host_keys=[key], process_factory=serve, encoding=None, line_editor=False
    )
    try:
        port = server.get_port()
        yield port, credentials(tmp_path, port, key.export_public_key().decode().strip())
    finally:
        server.close()
        await server.wait_closed()


def chunked(text: str) -> bytes:
    return frame(text.encode(), chunked=True)


REPLY = f'<rpc-reply xmlns="{rpc.BASE}" message-id="%s">%s</rpc-reply>'


def credentials(tmp_path: Path, port: int, public_key: str, password: str | None = PASSWORD, client_key: Path | None = None) -> Credentials:
    known_hosts = tmp_path / f"known_hosts-{port}"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public_key}\n")
    return Credentials("bellhop", known_hosts, client_key, password)
