# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a server whether it would take a body of a size, without sending one.

The request carries ``Expect: 100-continue``: nginx compares Content-Length with the limit before it reads a body and
answers 413, or ``100 Continue`` when it is ready to read (or another status, when no body is wanted there). Then the
connection is closed. With request buffering, which is the default, an application behind nginx sees nothing of it;
where buffering is off it may see a request that ends at once.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

#: The body declared where there is no limit: 1 TiB.
UNLIMITED_SIZE = 1 << 40


class ProbeError(Exception):
    """A probe that cannot be made, or that does not show the wanted limit in force."""


class NoAddress(ProbeError):
    """This host has no such address, for instance no IPv6, so nobody can ask there."""


@dataclass(frozen=True)
class Probe:
    """Where to ask.

    :param address: address, or path of a unix socket with port 0.
    :param host: what goes into the Host header and the TLS server name.
    :param limit: the limit that shall be in force, in bytes; 0: unlimited.
    """

    address: str
    port: int
    host: str
    path: str
    limit: int
    tls: bool = False
    verify: bool = True
    proxy_protocol: bool = False

    @property
    def url(self) -> str:
        """What is asked, for messages."""
        where = f"{self.address}:{self.port}" if self.port else f"unix:{self.address}"
        return f"{'https' if self.tls else 'http'}://{self.host or where}{self.path} on {where}"


def from_url(url: str, host: str | None, limit: int, verify: bool) -> Probe:
    """Return the probe for a URL.

    :raises ProbeError: when it is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProbeError(f"{url!r} is not an http or https URL to probe")
    tls = parts.scheme == "https"
    return Probe(
        parts.hostname,
        parts.port or (443 if tls else 80),
        host or parts.hostname,
        parts.path or "/",
        limit,
        tls,
        verify,
    )


def ask(probe: Probe, size: int, timeout: float) -> int:
    """Return the status that a body of a size is answered with; 100 is the invitation to send it.

    :param timeout: seconds for the whole exchange.
    :raises ProbeError: when no HTTP answer comes.
    """
    deadline = time.monotonic() + timeout
    try:
        with connect(probe, timeout) as connection:
            connection.sendall(_head(probe, size))
            answer = b""
            while b"\r\n" not in answer:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ProbeError(f"no answer from {probe.url} within {timeout:g} s")
                connection.settimeout(left)
                part = connection.recv(4096)
                if not part:
                    break
                answer += part
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(
            f"the certificate of {probe.url} is not trusted ({error.verify_message}); set validate_certs: false where "
            "that is right"
        ) from error
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise NoAddress(f"{probe.url} is not probed: this host has no such address") from error
        raise ProbeError(f"no answer from {probe.url}: {error}") from error
    words = answer.split(b"\r\n")[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ProbeError(f"no HTTP answer from {probe.url}, but {answer[:80]!r}")
    return int(words[1])


def connect(probe: Probe, timeout: float) -> socket.socket:
    """Return a connection to where a probe asks, with TLS where it says so.

    :raises OSError: when nobody answers there, or the certificate is not trusted.
    """
    if probe.port:
        connection = socket.create_connection((probe.address.strip("[]"), probe.port), timeout)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(probe.address)
    try:
        if probe.proxy_protocol:
            connection.sendall(b"PROXY UNKNOWN\r\n")
        if probe.tls:
            context = ssl.create_default_context()
            if not probe.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname=probe.host or None)
    except BaseException:
        connection.close()
        raise
    return connection


def _head(probe: Probe, size: int) -> bytes:
    path = quote(probe.path.encode("utf-8", "surrogateescape"), safe="/%?=&;:@!$'()*+,~-._")
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {probe.host}",
        f"Content-Length: {size}",
        "Content-Type: application/octet-stream",
        "Expect: 100-continue",
        "User-Agent: worklog-maintenance",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")


Asker = Callable[[Probe, int, float], int]


def prove_limit(probe: Probe, timeout: float, asker: Asker = ask) -> list[dict[str, Any]]:
    """Show that a limit is in force: one byte less is taken, one byte more is refused.

    :returns: for each request its declared size and the status.
    :raises ProbeError: when the answers show something else.
    """
    if probe.limit == 0:
        sizes = [(UNLIMITED_SIZE, False)]
    else:
        sizes = [(probe.limit - 1, False), (probe.limit + 1, True)]
    results: list[dict[str, Any]] = []
    for size, refused in sizes:
        status = asker(probe, size, timeout)
        results.append({"url": probe.url, "host": probe.host, "size": size, "status": status})
        if (status == 413) != refused:
            wanted = "refused with 413" if refused else "taken"
            raise ProbeError(
                f"{probe.url} answers a body of {size} bytes with {status}, but it should be {wanted} at a limit of "
                f"{probe.limit or 'unlimited'}; look for another server or proxy that answers there"
            )
    return results
