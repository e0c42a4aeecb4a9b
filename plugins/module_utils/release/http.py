# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP request, with a limit for the whole of it; redirects are not followed."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Bytes of a body that are looked at.
MAX_BODY = 1024 * 1024


class HttpError(Exception):
    """No complete HTTP answer came in time; the message says why."""


@dataclass(frozen=True)
class Call:
    """What is asked.

    :param url: http or https.
    :param verify: whether the certificate of an https address must be valid.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    verify: bool = True


@dataclass(frozen=True)
class Reply:
    """What came back.

    :param body: its first :data:`MAX_BODY` bytes.
    :param seconds: from the connection to the last byte.
    """

    status: int
    body: str
    seconds: float


#: Sends a call and waits at most so many seconds.
Sender = Callable[[Call, float], Reply]


def check_url(url: str) -> str:
    """Return an address that can be asked.

    :raises ValueError: when it is not one.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.username or parts.password:
        raise ValueError(f"the address of {parts.hostname} holds an account; give a header Authorization instead")
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"'{url}' is not an address; write it as http://host:port/path or https://…")
    return url


def send(call: Call, limit: float) -> Reply:
    """Send a call and return the whole answer.

    :param limit: seconds for all of it, however slowly the bytes drip.
    :raises HttpError: when no complete answer comes in time.
    """
    parts = urllib.parse.urlsplit(call.url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not call.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, parts.port, timeout=limit, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=limit)
    late = threading.Event()
    opened: list[socket.socket] = []  # the connection forgets it when the server says Connection: close

    def give_up() -> None:
        late.set()
        for one in opened:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    watchdog = threading.Timer(limit, give_up)
    watchdog.daemon = True
    begin = time.monotonic()
    watchdog.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.connect()
        opened.append(connection.sock)
        connection.request(call.method, target, body=call.body, headers={"Connection": "close", **call.headers})
        answer = connection.getresponse()
        body = answer.read(MAX_BODY)
        while answer.read(MAX_BODY):
            pass
        seconds = time.monotonic() - begin
        if answer.length:  # bytes that were announced and did not come; a read of a part does not say so
            raise http.client.IncompleteRead(body, answer.length)
    except socket.timeout as error:  # TimeoutError only since Python 3.10
        raise HttpError(f"no answer within {limit:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise HttpError(
            f"its certificate is not trusted ({error.verify_message}); set validate_certs: false where that is right"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise HttpError(f"no complete answer within {limit:g} s") from error
        if isinstance(error, http.client.IncompleteRead):
            raise HttpError("the answer was cut short") from error
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HttpError(words[:1].lower() + words[1:]) from error
    finally:
        watchdog.cancel()
        connection.close()
    if late.is_set():
        raise HttpError(f"no complete answer within {limit:g} s")
    return Reply(answer.status, body.decode("utf-8", "replace"), seconds)
