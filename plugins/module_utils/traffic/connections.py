# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections of this host to addresses and sockets, from the tables of the kernel.

A connection is a request under way as long as nginx keeps none to its upstreams, which is its default before 1.29.7.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator

from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: Name and port → addresses, as socket.getaddrinfo; tests hand in their own.
Resolver = Callable[..., Iterable[tuple[object, ...]]]
#: TCP states with a request under way: established, being established, and closed by the other side but not by nginx.
_TCP_OPEN = frozenset(("01", "02", "08"))
#: States of a connection to a UNIX socket that waits to be accepted, and that is.
_UNIX_OPEN = frozenset(("02", "03"))


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of an address as nginx writes it; the port is 80 without one.

    :raises TrafficError: when it is none.
    """
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, "80"
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise TrafficError(f"{address!r} is not an address such as app1:8080 or unix:/run/app.sock", refused=True)
    return host.strip("[]"), int(port)


def endpoints(addresses: Iterable[str], resolve: Resolver = socket.getaddrinfo) -> set[str]:
    """Return the addresses as /proc/net/tcp and tcp6 write them.

    :raises TrafficError: when a name is not known.
    """
    found: set[str] = set()
    for address in addresses:
        host, port = split_address(address)
        try:
            answers = list(resolve(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            raise TrafficError(f"the address of {host} is not known here: {error}", refused=True) from error
        for answer in answers:
            family, sockaddr = answer[0], answer[4]
            if isinstance(sockaddr, tuple) and isinstance(family, int):
                packed = socket.inet_pton(family, str(sockaddr[0]).partition("%")[0])
                found.add(f"{_hexadecimal(packed)}:{port:04X}")
                if family == socket.AF_INET:
                    found.add(f"{_hexadecimal(bytes(10) + bytes([255, 255]) + packed)}:{port:04X}")
    return found


def _hexadecimal(packed: bytes) -> str:
    """Return an address as the kernel prints it: words of four bytes in the order of this machine."""
    order = "<" if sys.byteorder == "little" else ">"
    return "".join(f"{word:08X}" for word in struct.unpack(f"{order}{len(packed) // 4}I", packed))


def tcp(lines: Iterable[str], remote: set[str]) -> int:
    """Return how many connections of a table are open to one of the addresses."""
    rows = (line.split() for line in lines)
    return sum(1 for row in rows if len(row) > 3 and row[2] in remote and row[3] in _TCP_OPEN)


def unix(lines: Iterable[str], path: str) -> int:
    """Return how many connections of /proc/net/unix were made to a socket, accepted or waiting."""
    rows = (line.split(None, 7) for line in lines)
    return sum(1 for row in rows if len(row) > 7 and row[5] in _UNIX_OPEN and _same(row[7].rstrip("\n"), path))


def _same(name: str, path: str) -> bool:
    return name == path or (name.startswith("/") and os.path.realpath(name) == os.path.realpath(path))


def count(addresses: Iterable[str], proc: str = "/proc", resolve: Resolver = socket.getaddrinfo) -> int:
    """Return how many connections are open to the addresses, each ``host:port`` or ``unix:/path``."""
    given = list(addresses)
    paths = [address[len("unix:") :] for address in given if address.startswith("unix:")]
    remote = endpoints((address for address in given if not address.startswith("unix:")), resolve)
    total = sum(unix(_lines(proc, "unix"), path) for path in paths)
    return total + (sum(tcp(_lines(proc, table), remote) for table in ("tcp", "tcp6")) if remote else 0)


def _lines(proc: str, table: str) -> Iterator[str]:
    try:
        with open(os.path.join(proc, "net", table), encoding="utf-8", errors="surrogateescape") as stream:
            yield from stream
    except FileNotFoundError:
        return  # no IPv6 here
