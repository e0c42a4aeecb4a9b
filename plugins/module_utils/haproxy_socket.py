# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One line to the runtime API of HAProxy, and what it answers."""

from __future__ import annotations

import errno
import os
import socket
import time

#: Bytes that an answer may have: some 100,000 servers.
MAX_ANSWER = 64 * 1024 * 1024


class SocketError(Exception):
    """HAProxy cannot be reached or did not answer.

    :param usage: whether the address itself cannot be one.
    """

    def __init__(self, message: str, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


def exchange(address: str, line: str, timeout: float) -> str:
    """Send a line and return the answer.

    :param address: path of the socket, also as ``unix@path``, or host and port.
    :param timeout: seconds for all of it.
    :raises SocketError: when none comes.
    """
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    size = 0
    try:
        with _connect(address, timeout) as connection:
            connection.sendall(line.encode() + b"\n")
            while size < MAX_ANSWER:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                part = connection.recv(65536)
                if not part:
                    return b"".join(parts).decode("utf-8", "replace")
                parts.append(part)
                size += len(part)
    except socket.timeout as error:  # TimeoutError only since Python 3.10
        raise SocketError(f"HAProxy at {address} did not answer '{line}' within {timeout:g} s") from error
    except OSError as error:
        raise SocketError(_unreachable(address, error)) from error
    raise SocketError(f"the answer of {address} to '{line}' is longer than {MAX_ANSWER} bytes")


def _connect(address: str, timeout: float) -> socket.socket:
    path = address[5:] if address.startswith("unix@") else address
    if "/" in path:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection
    host, _ignored, port = path.rpartition(":")
    if not host or not port.isdigit():
        raise SocketError(
            f"the socket {address!r} is neither a path such as /run/haproxy/admin.sock nor host:port", usage=True
        )
    return socket.create_connection((host.strip("[]"), int(port)), timeout)


def _unreachable(address: str, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"the socket {address} of HAProxy may not be opened by uid {os.geteuid()}; set become: true"
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return (
            f"no HAProxy answers at {address} ({error.strerror}): start it, or name the address of its 'stats socket' "
            "line in 'sockets'"
        )
    return f"HAProxy at {address} cannot be reached: {error}"
