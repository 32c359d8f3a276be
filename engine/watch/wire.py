"""Messages between ranks: one JSON object a line, over sockets that never block and that notice a dead node."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

Message = dict[str, Any]

LONGEST_LINE = 2**20
_CHUNK = 2**16


class Link:
    """One end of a connection."""

    def __init__(self, end: socket.socket, longest_line: int = LONGEST_LINE) -> None:
        end.setblocking(False)
        notice_dead_nodes(end)
        self.socket = end
        self.longest_line = longest_line
        self.ended = False
        """Whether the connection is of no more use."""
        self._received = bytearray()
        self._waiting = bytearray()

    def receive(self) -> list[Message]:
        """What has arrived since the last call."""
        while not self.ended:
            try:
                data = self.socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._received += data
            self.ended = self.ended or not data or len(self._received) > self.longest_line
            if len(data) < _CHUNK:
                break
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):  # whoever this is does not speak our language
                self.ended = True
                break
            messages.append(message)
        return messages

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message, now or in a later :meth:`flush`."""
        self._waiting += json.dumps({"kind": kind, **content}).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Sends what still waits, as far as it goes without waiting. Returns whether all is sent."""
        while self._waiting and not self.ended:
            try:
                del self._waiting[: self.socket.send(self._waiting)]
            except BlockingIOError:
                return False
            except OSError:
                self._waiting.clear()  # that it has ended is for receive to find, after what came before
        return True

    def close(self) -> None:
        self.ended = True
        with contextlib.suppress(OSError):
            self.socket.close()


def notice_dead_nodes(end: socket.socket) -> None:
    """Ends a connection within about 12 s after its other end's node lost power or network; a busy one keeps it."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    options = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has them all
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
