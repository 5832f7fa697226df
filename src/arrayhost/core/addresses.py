"""Network addresses: ``tcp://host:port`` and its parts."""

from __future__ import annotations

import ipaddress
from typing import Any

__all__ = ["TCP_PREFIX", "advertised", "is_loopback", "parse_tcp", "tcp_address"]

TCP_PREFIX = "tcp://"
_MAX_PORT = 65535


def parse_tcp(address: str) -> tuple[str, int]:
    """Take ``tcp://host:port`` apart.

    Returns
    -------
    host : str
        A name or an address; an IPv6 one without its brackets.
    port : int

    Raises
    ------
    ValueError
        `address` is none.
    """
    host, colon, port = address.removeprefix(TCP_PREFIX).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = bool(bare) and bare.isprintable() and not set(bare) & set(" /@[]") and (bare == host or ":" in bare)
    if (
        not address.startswith(TCP_PREFIX)
        or not colon
        or not good
        or (":" in host and bare == host)
        or not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT)
    ):
        raise ValueError(f"address {address!r}: expected 'tcp://HOST:PORT', with an IPv6 address in brackets")
    return bare, int(port)


def tcp_address(where: tuple[Any, ...]) -> str:
    """Write a socket's name, or a (host, port), as ``tcp://host:port``."""
    host, port = where[0], where[1]
    return f"{TCP_PREFIX}[{host}]:{port}" if ":" in host else f"{TCP_PREFIX}{host}:{port}"


def advertised(address: str, machine: str) -> str:
    """What to call a port that is listened on: by the machine's name where that is done on all its addresses."""
    host, port = parse_tcp(address)
    return tcp_address((machine, port)) if ipaddress.ip_address(host.partition("%")[0]).is_unspecified else address


def is_loopback(host: str) -> bool:
    """Whether a numeric address can be reached from this machine only."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
