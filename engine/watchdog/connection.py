"""multiprocessing's connections between ranks, with a bound on every wait and a look at the other end's kernel."""

from __future__ import annotations

import os
import socket
import struct
from multiprocessing.connection import Connection

GONE = (EOFError, OSError)
"""What a connection raises when the other end's process is gone, or has stopped within a message."""
_LAST_ACK = 56
"""Offset of the milliseconds since the last acknowledgement in Linux's ``struct tcp_info``."""


def connection_over(end: socket.socket) -> Connection:
    """Returns a connection that takes over ``end``, on which no wait is longer than some seconds."""
    end.settimeout(None)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 500_000))
    return Connection(end.detach())


def unacknowledged_seconds(connection: Connection) -> float:
    """Returns for how long the other end's kernel has given no sign, as it does for every heartbeat; 0.0: unknown."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as end:
            info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (OSError, AttributeError):  # closed, no TCP, or not Linux
        return 0.0
    return float(struct.unpack_from("I", info, _LAST_ACK)[0]) / 1000
