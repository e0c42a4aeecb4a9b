# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests that the gate sends itself: once as a test of function, or again and again as a source of figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    BASELINE,
    SIDES,
    Observation,
    Source,
    SourceError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.http import Call, HttpError, Sender, send


@dataclass(frozen=True)
class Request:
    """A request and the answer that is wanted.

    :param path: path and query.
    :param statuses: good statuses; empty: 200 to 299.
    :param matches: regular expression that the body must contain; empty: any body.
    :param limit: seconds that the whole answer may take.
    :param name: what messages call it.
    """

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    statuses: tuple[int, ...] = ()
    matches: str = ""
    limit: float = 5.0
    name: str = ""
    verify: bool = True

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.name or f"{self.method} {self.path}"


@dataclass(frozen=True)
class Result:
    """What came of a request.

    :param said: what was seen, such as ``HTTP 200``.
    :param seconds: how long it took; ``None`` when no answer came.
    """

    name: str
    target: str
    good: bool
    said: str
    seconds: float | None = None


def try_request(request: Request, target: str, sender: Sender = send) -> Result:
    """Send a request to a server and judge the answer.

    :param target: the server's address, such as ``http://app2:8080``.
    """
    body = request.body.encode() if request.body else None
    call = Call(target.rstrip("/") + request.path, request.method, request.headers, body, request.verify)
    try:
        reply = sender(call, request.limit)
    except HttpError as error:
        return Result(request.title, target, False, str(error))
    said, good = f"HTTP {reply.status}", True
    if not (reply.status in request.statuses if request.statuses else 200 <= reply.status < 300):
        wanted = " or ".join(str(status) for status in request.statuses) or "200 to 299"
        said, good = f"HTTP {reply.status} instead of {wanted}", False
    elif request.matches and not re.search(request.matches, reply.body):
        said, good = f"HTTP {reply.status}, but its body does not match '{request.matches}'", False
    return Result(request.title, target, good, said, round(reply.seconds, 4))


def try_all(requests: Sequence[Request], targets: Sequence[str], sender: Sender = send) -> list[Result]:
    """Send every request once to every server."""
    return [try_request(request, target, sender) for target in targets for request in requests]


class ProbeSource(Source):
    """Sends all requests to every server of both sides at every poll.

    :param sides: the servers' addresses, for each side.
    :param requests: what to send.
    :param sender: sends a call.
    """

    metrics = frozenset({"errors", "latency"})
    single_latencies = True

    def __init__(self, sides: Mapping[str, Sequence[str]], requests: Sequence[Request], sender: Sender = send) -> None:
        self.title = "probes"
        self.has_baseline = bool(sides.get(BASELINE))
        self._sides, self._requests, self._send = sides, tuple(requests), sender

    def begin(self) -> None:
        """There is nothing to remember."""
        if not self._requests:
            raise SourceError("a source of type probe needs requests")

    def poll(self) -> Observation:
        """Send every request once, to both sides in turn."""
        seen = Observation()
        for request in self._requests:
            for side in SIDES:
                for target in self._sides.get(side, ()):
                    result = try_request(request, target, self._send)
                    counts = seen.side(side)
                    counts.requests += 1
                    if not result.good:
                        counts.errors += 1
                    elif result.seconds is not None:
                        counts.latencies.append(result.seconds)
        return seen
