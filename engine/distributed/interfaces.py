"""The network interfaces of this machine, and which of them others should try first. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface."""
VIRTUAL = ("docker", "virbr", "veth", "br-", "cni", "flannel", "cali", "lxc", "podman", "tunl")
"""How interfaces are called that lead to containers and virtual machines of this very host."""


class Interface(NamedTuple):
    """An interface and one of its addresses."""

    name: str
    address: str


def list_interfaces() -> list[Interface]:
    """Returns the interfaces with an address: all of IPv4, then those of IPv6 that other machines can reach."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(Interface(name, socket.inet_ntoa(answer[20:24])))
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            address, _, _, scope, _, name = line.split()
            if scope == "00":  # global
                found.append(Interface(name, str(ipaddress.IPv6Address(bytes.fromhex(address)))))
    return found


def selects(pattern: str, name: str) -> bool:
    """Returns whether NCCL_SOCKET_IFNAME's ``pattern`` names an interface.

    It is a list of prefixes, ``ib,eth``; of names after ``=``, ``=ib0``; ``^`` before it turns it round, ``^docker``.
    """
    excluding = pattern.startswith("^")
    pattern = pattern.removeprefix("^")
    exact = pattern.startswith("=")
    parts = [part.strip() for part in pattern.removeprefix("=").split(",") if part.strip()]
    matches = any(name == part if exact else name.startswith(part) for part in parts)
    return matches != excluding


def sort_addresses(
    interfaces: Sequence[Interface], outward: Sequence[str], environment: Mapping[str, str]
) -> list[str]:
    """Returns the addresses of ``interfaces``, best first, each once.

    First what NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name; then ``outward``, the default route's; then all others,
    those of bridges and containers behind them; loopback last.
    """
    nccl = environment.get("NCCL_SOCKET_IFNAME", "")
    gloo = [name.strip() for name in environment.get("GLOO_SOCKET_IFNAME", "").split(",") if name.strip()]

    def rank(interface: Interface) -> int:
        if ipaddress.ip_address(interface.address).is_loopback:
            return 5
        if interface.name in gloo or (nccl and not nccl.startswith("^") and selects(nccl, interface.name)):
            return 0
        if interface.name.startswith(VIRTUAL) or (nccl and not selects(nccl, interface.name)):
            return 4
        if interface.address in outward:
            return 1
        return 2 if ":" not in interface.address else 3

    known = {interface.address for interface in interfaces}
    unknown = [Interface("", address) for address in outward if address not in known]
    return list(dict.fromkeys(each.address for each in sorted([*unknown, *interfaces], key=rank)))


def interface_of(address: str) -> str | None:
    """Returns the name of this machine's interface that has an address; None if none has."""
    return next((each.name for each in list_interfaces() if each.address == address), None)
