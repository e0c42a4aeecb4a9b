# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures of Prometheus, by instant queries."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Mapping

from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    BASELINE,
    SIDES,
    Counts,
    Observation,
    Source,
    SourceError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.http import Call, HttpError, Sender, send

#: What a side's expressions are called: two counters, and two levels.
EXPRESSIONS = ("requests", "errors", "latency", "value")


class PrometheusSource(Source):
    """Expressions of both sides, asked at every poll.

    :param url: the server's address.
    :param sides: for each side its expressions by name: ``requests`` and ``errors`` are counters that only grow,
        ``latency`` (seconds) and ``value`` are levels.
    :param token: bearer token; empty: none.
    :param verify: whether the certificate must be valid.
    :param patience: seconds for one answer.
    :param sender: sends a call.
    """

    def __init__(
        self,
        url: str,
        sides: Mapping[str, Mapping[str, str]],
        token: str = "",
        verify: bool = True,
        patience: float = 5.0,
        sender: Sender = send,
    ) -> None:
        self.title = f"Prometheus {url}"
        self.has_baseline = bool(sides.get(BASELINE))
        names = set(sides[SIDES[0]])
        self.metrics = frozenset(
            ({"errors"} if {"requests", "errors"} <= names else set()) | names & {"latency", "value"}
        )
        self.resets = 0
        self._url, self._sides, self._verify = url.rstrip("/"), sides, verify
        self._headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._patience, self._send = patience, sender
        self._last: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Ask everything once."""
        self.poll()

    def poll(self) -> Observation:
        """Return the growth of the counters and the levels."""
        answers = {
            (side, name): self.query(expression)
            for side in SIDES
            for name, expression in self._sides.get(side, {}).items()
        }
        seen = Observation()
        for side in SIDES:
            seen.side(side).add(self._counts(side, answers))
        return seen

    def notes(self) -> dict[str, int]:
        return {"resets": self.resets}

    def query(self, expression: str) -> float | None:
        """Return the one number that an expression has now; ``None`` when it has none.

        :raises SourceError: when Prometheus refuses it or it has several.
        """
        body = urllib.parse.urlencode({"query": expression}).encode()
        call = Call(f"{self._url}/api/v1/query", "POST", self._headers, body, self._verify)
        try:
            reply = self._send(call, self._patience)
        except HttpError as error:
            raise SourceError(f"{self.title} does not answer: {error}") from error
        if reply.status in (401, 403):
            raise SourceError(
                f"{self.title} answers {reply.status}, so it does not accept the token; give bearer_token_file with "
                "one that it does"
            )
        try:
            answer = json.loads(reply.body)
            status, data = answer["status"], answer.get("data") or {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"{self.title} answers {reply.status}, and not as Prometheus does; is its address right, "
                "without /api/v1?"
            ) from error
        if status != "success":
            words = str(answer.get("error"))
            raise SourceError(f"{self.title} refuses the query '{expression}': {words}")
        return self._number(expression, data)

    def _number(self, expression: str, data: Mapping[str, object]) -> float | None:
        kind, result = data.get("resultType"), data.get("result")
        try:
            if kind == "vector" and isinstance(result, list):
                if len(result) > 1:
                    raise SourceError(
                        f"the query '{expression}' has {len(result)} results, but one is needed; put sum(…) around it"
                    )
                if not result:
                    return None
                number = float(result[0]["value"][1])
            elif kind == "scalar" and isinstance(result, list):
                number = float(result[1])
            else:
                raise SourceError(f"the query '{expression}' has a {kind} as its result; an instant vector is needed")
        except (ValueError, LookupError, TypeError) as error:
            raise SourceError(f"the query '{expression}' has a result that is no number: {result!r:.200}") from error
        return number if math.isfinite(number) else None

    def _counts(self, side: str, answers: Mapping[tuple[str, str], float | None]) -> Counts:
        counts = Counts()
        for name in ("latency", "value"):
            level = answers.get((side, name))
            if level is not None:
                counts.levels[name] = level
        requests, errors = answers.get((side, "requests")), answers.get((side, "errors"))
        if requests is None or errors is None:
            return counts  # both or nothing: what is missing is not 0
        grown = {}
        for name, now in (("requests", requests), ("errors", errors)):
            before = self._last.get((side, name))
            self._last[side, name] = now
            if before is not None and now < before:
                self.resets += 1
            grown[name] = 0.0 if before is None else now if now < before else now - before
        counts.errors = round(grown["errors"])
        counts.requests = max(round(grown["requests"]), counts.errors)
        return counts
