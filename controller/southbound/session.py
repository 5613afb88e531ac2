"""What sessions of every protocol have in common: how they end, and the three ways in which a device fails them. Pure."""

from __future__ import annotations

from typing import Protocol


class SessionError(Exception):
    """There is no session, or it has ended; the text says why."""


class ProtocolError(Exception):
    """What the device sent cannot be understood: nothing that follows on this session can be trusted."""


class RefusedError(Exception):
    """The device understood and said no; the text is its own."""


class Session(Protocol):
    """An open session with a device."""

    lost: str | None
    """Why the session ended; None while it is open."""

    def end(self, reason: str) -> None:
        """Drop the session at once. Of several reasons the first is kept."""
        ...
