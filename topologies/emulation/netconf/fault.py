"""Why a server refuses an operation."""

from __future__ import annotations

from controller.southbound.netconf.rpc import RpcError


class FaultError(Exception):
    """An operation is refused; `error` is what the client is told."""

    def __init__(self, tag: str, message: str, path: str = "", type: str = "application", **info: str) -> None:
        super().__init__(message)
        self.error = RpcError(tag, message, path, type=type, info=tuple((name.replace("_", "-"), text) for name, text in info.items()))
