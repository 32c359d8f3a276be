"""Where ranks come in: a port that anybody may connect to, and a token that only the ranks of this start know."""

from __future__ import annotations

import hmac
import os
import selectors
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.rendezvous import own_addresses
from engine.watch.wire import Link, Message

_STRANGER_SECONDS = 10.0
_STRANGERS = 256
_STRANGERS_LINE = 4096


@dataclass(eq=False)
class _Stranger:
    """A connection that has not said the token yet."""

    link: Link
    since: float


class Door:
    """Lets in those who say the token, and turns away all others before they cost anything."""

    def __init__(
        self, selector: selectors.BaseSelector, guests: int, token: str, enter: Callable[[Message, Link], bool]
    ) -> None:
        """Listens from now on.

        Args:
            selector: tells of what arrives; each of its entries holds a function to be called then.
            guests: how many are expected.
            enter: called with the hello and the link of one who knows the token; returns whether it may come in, and
                then has the link's socket registered for itself.
        """
        self._selector, self._guests, self._token, self._enter = selector, guests, token, enter
        self._strangers: list[_Stranger] = []
        self._now = 0.0
        self._listener = socket.create_server(("", 0), backlog=guests + 64)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def address(self) -> str:
        """Where this is found from elsewhere: ``host host … port``."""
        hosts = [*filter(None, [os.environ.get("MASTER_ADDR")]), *own_addresses()]
        return " ".join([*dict.fromkeys(hosts), str(self._listener.getsockname()[1])])

    def sockets(self) -> Iterable[socket.socket]:
        """All of them, for a forked child to close."""
        return [self._listener, *(stranger.link.socket for stranger in self._strangers)]

    def tidy(self, now: float) -> None:
        """Turns away those who have said nothing for too long."""
        self._now = now
        for stranger in [stranger for stranger in self._strangers if now - stranger.since > _STRANGER_SECONDS]:
            self._turn_away(stranger)

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            stranger = _Stranger(Link(end, _STRANGERS_LINE), self._now)
            self._strangers.append(stranger)
            self._selector.register(end, selectors.EVENT_READ, lambda stranger=stranger: self._meet(stranger))
            if len(self._strangers) > _STRANGERS + self._guests:
                self._turn_away(self._strangers[0])

    def _meet(self, stranger: _Stranger) -> None:
        messages = stranger.link.receive() if stranger in self._strangers else []
        if messages and not stranger.link.ended and self._knows(messages[0]):
            self._strangers.remove(stranger)
            self._selector.unregister(stranger.link.socket)
            if not self._enter(messages[0], stranger.link):
                stranger.link.close()
        elif messages or (stranger.link.ended and stranger in self._strangers):
            self._turn_away(stranger)

    def _knows(self, hello: Message) -> bool:
        return hmac.compare_digest(str(hello.get("token", "")).encode(), self._token.encode())

    def _turn_away(self, stranger: _Stranger) -> None:
        self._selector.unregister(stranger.link.socket)
        stranger.link.close()
        self._strangers.remove(stranger)
