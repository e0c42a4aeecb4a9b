# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A marked probe: ask a URL many times and count which side answers, by a header, a JSON field or an expression."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import probe as connection
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import (
    Side,
    TrafficError,
    describe,
    plausible,
)


@dataclass(frozen=True)
class MarkedProbe:
    """What to ask, and where the answer says which side it is of.

    :param host: Host header and TLS server name; by default those of the URL.
    :param count: how many requests, each on a connection of its own.
    :param header: name of the response header with the mark.
    :param json: dotted path of the field with the mark.
    :param regex: expression over the body whose first group is the mark.
    :param vary: ``Name: value`` with ``%s``, which is another number in each request.
    """

    url: str
    host: str | None = None
    count: int = 50
    header: str | None = None
    json: str | None = None
    regex: str | None = None
    vary: str | None = None
    timeout: float = 10.0
    validate_certs: bool = True


#: Given the probe and the number of the request, returns the mark; tests hand in their own.
Asker = Callable[[MarkedProbe, int], str]


def check(probe: MarkedProbe) -> None:
    """See that a probe can be made.

    :raises TrafficError: when it cannot.
    """
    try:
        connection.from_url(probe.url, probe.host, 0, probe.validate_certs)
    except (connection.ProbeError, ValueError) as error:
        raise TrafficError(str(error), refused=True) from error
    if sum(one is not None for one in (probe.header, probe.json, probe.regex)) != 1:
        raise TrafficError("the probe needs one of 'header', 'json' and 'regex' to tell the sides apart", refused=True)
    if probe.count < 1:
        raise TrafficError(f"the probe makes {probe.count} requests; set 'count' to at least 1", refused=True)
    if probe.vary is not None and not re.fullmatch(r"[A-Za-z0-9-]+: ?[^\r\n]*%s[^\r\n]*", probe.vary):
        raise TrafficError(
            f"'vary' is {probe.vary!r}; write a header with %s in its value, such as 'Cookie: uid=%s'", refused=True
        )
    if probe.regex is not None:
        try:
            groups = re.compile(probe.regex).groups
        except re.error as error:
            raise TrafficError(f"the expression {probe.regex!r} is wrong: {error}", refused=True) from error
        if not groups:
            raise TrafficError(f"the expression {probe.regex!r} has no group; put the mark in (...)", refused=True)


def request(
    url: str,
    host: str | None,
    *,
    method: str = "GET",
    target: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    validate_certs: bool = True,
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send one request on a connection of its own, and return the answer with the begin of its body.

    :param host: Host header and TLS server name; by default those of the URL.
    :param target: path and query; by default those of the URL.
    :raises OSError: when there is no answer; http.client.HTTPException: when it is none of HTTP.
    """
    where = connection.from_url(url, host, 0, validate_certs)
    parts = urlsplit(url)
    sent = {"Host": host or parts.netloc.rpartition("@")[2], "Connection": "close", "User-Agent": "worklog-maintenance"}
    client = http.client.HTTPConnection(where.address, where.port, timeout=timeout)
    try:
        client.sock = connection.connect(where, timeout)
        own = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        client.request(method, target or own, headers={**sent, **(headers or {})})
        answer = client.getresponse()
        return answer, answer.read(1 << 20)
    finally:
        client.close()


def ask(probe: MarkedProbe, number: int) -> str:
    """Send one request and return the mark of its answer.

    :raises TrafficError: when there is no good answer, or it has no mark.
    """
    headers = {}
    if probe.vary is not None:
        name, _ignored, value = probe.vary.partition(":")
        headers[name] = value.strip().replace("%s", str(number))
    try:
        answer, body = request(
            probe.url, probe.host, headers=headers, timeout=probe.timeout, validate_certs=probe.validate_certs
        )
    except (OSError, http.client.HTTPException) as error:
        raise TrafficError(
            f"no answer from {probe.url} to request {number}: {error or type(error).__name__}"
        ) from error
    if not 200 <= answer.status < 400:
        raise TrafficError(f"{probe.url} answered request {number} with {answer.status}: {body[:200]!r}")
    mark = _mark(probe, answer, body)
    if mark is None:
        raise TrafficError(f"the answer {number} of {probe.url} has no {_where(probe)}: {body[:200]!r}")
    return mark


def _where(probe: MarkedProbe) -> str:
    if probe.header is not None:
        return f"header {probe.header}"
    return f"JSON field {probe.json}" if probe.json is not None else f"match of {probe.regex}"


def _mark(probe: MarkedProbe, answer: http.client.HTTPResponse, body: bytes) -> str | None:
    if probe.header is not None:
        return answer.getheader(probe.header)
    text = body.decode("utf-8", "replace")
    if probe.regex is not None:
        found = re.search(probe.regex, text)
        return found.group(1) if found else None
    try:
        value = json.loads(text)
        for key in str(probe.json).split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, LookupError, TypeError):
        return None
    return str(value)


def prove(probe: MarkedProbe, sides: Sequence[Side], shares: dict[str, float], asker: Asker = ask) -> dict[str, Any]:
    """Show that the sides answer as often as they should.

    :param shares: side → percent.
    :returns: how many were asked, and how many answers each side gave.
    :raises TrafficError: when the counts do not fit the division, or an answer is of no side.
    """
    owner = owners(sides)
    seen = {side.name: 0 for side in sides}
    for number in range(1, probe.count + 1):
        mark = asker(probe, number)
        if mark not in owner:
            raise TrafficError(
                f"{probe.url} answers with the {_where(probe)} {mark!r}, which is of no side: the marks are "
                f"{', '.join(owner)}"
            )
        seen[owner[mark]] += 1
    for name, count in seen.items():
        if not plausible(count, probe.count, shares.get(name, 0.0) / 100):
            counted = ", ".join(f"{side} {value}" for side, value in seen.items())
            raise TrafficError(
                f"the division is to be {describe(shares)}, but of {probe.count} answers of {probe.url} came {counted}"
            )
    return {"requests": probe.count, "answers": seen}


def owners(sides: Sequence[Side]) -> dict[str, str]:
    """Return mark → side. A side without marks is known by its name, and by its servers' names where no other has them.

    :raises TrafficError: when two sides have the same mark.
    """
    found: dict[str, str] = {}
    for side in sides:
        for mark in side.marks or (side.name,):
            if found.setdefault(mark, side.name) != side.name:
                raise TrafficError(f"{mark!r} is a mark of {found[mark]} and of {side.name}", refused=True)
    hosts = [(_host(server), side) for side in sides if not side.marks for server in side.servers]
    for host, side in hosts:
        if host and host not in found and all(other is side for name, other in hosts if name == host):
            found[host] = side.name
    return found


def _host(server: str) -> str:
    """Return the host of an address, or the name of a server of HAProxy; nothing for a socket."""
    if server.startswith("unix:"):
        return ""
    return server.partition(":")[0] if server.count(":") == 1 else server
