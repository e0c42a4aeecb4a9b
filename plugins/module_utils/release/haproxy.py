# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counters of HAProxy, by its runtime socket: what each server or backend answered since the last question.

The counters begin at 0 in the new process after a reload or restart; that is recognised, and only what the old process
counted after the last question is lost. HAProxy knows latencies only as a moving average, in which what was answered
before the watch began weighs for long; that part is taken out of it (:func:`latency_since`).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.haproxy_socket import SocketError, exchange
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    SIDES,
    Counts,
    Observation,
    Source,
    SourceError,
    listing,
)

#: Seconds for one answer of the socket.
PATIENCE = 5.0
#: Attempts at a server that end without a status of it: connections that failed, were tried again, or went to another
#: server. A backend's own statuses hold what became of them.
_ATTEMPTS = ("econ", "wretr", "wredis")
#: Answers that did not come, were none, or were cut short; and those of them that were cut short, of which the status,
#: a good one, was counted.
_BROKEN, _CUT = "eresp", "srv_abrt"
_STATUSES = tuple(f"hrsp_{kind}" for kind in ("2xx", "3xx", "4xx", "5xx", "other"))

#: How many requests the averages of HAProxy are over (TIME_STATS_SAMPLES in its source; measured on 2.6.12). Each
#: request replaces this part of the average; the first ones, an equal part of all that there were.
_WINDOW = 512

#: Asks a socket: its address and the command.
Asker = Callable[[str, str], str]


@dataclass(frozen=True)
class Snapshot:
    """What one HAProxy process has counted.

    :param process: its process number, which a reload changes.
    :param rows: the fields of each server and backend, by ``backend/server`` and ``backend``.
    """

    process: str
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def parse(text: str) -> Snapshot:
    """Return what ``show info; show stat`` says.

    :raises ValueError: when it is something else.
    """
    information, mark, table = text.partition("# pxname,")
    process = next((line[4:].strip() for line in information.splitlines() if line.startswith("Pid:")), "")
    if not mark or not process:
        words = " ".join(text.split())[:200]
        raise ValueError(f"no statistics of HAProxy, but '{words}'")
    rows = {}
    for row in csv.DictReader(("pxname," + table).splitlines()):
        name, server = row.get("pxname") or "", row.get("svname") or ""
        if server != "FRONTEND":
            rows[name if server == "BACKEND" else f"{name}/{server}"] = row
    return Snapshot(process, rows)


def ask(address: str, command: str) -> str:
    """Return the answer of a runtime socket.

    :param address: path of a Unix socket, or ``host:port``.
    :raises SourceError: when none comes.
    """
    try:
        return exchange(address, command, PATIENCE)
    except SocketError as error:
        raise SourceError(str(error)) from error


def latency_since(before: tuple[float, int], after: tuple[float, int]) -> float | None:
    """Return the mean latency of the requests between two moments; ``None`` when there were none.

    HAProxy rounds to milliseconds, so of 10 requests it is known to 50 ms, of 100 to 6 ms.

    :param before: the moving average, and how many requests it is of.
    """
    (old, first), (new, last) = before, after
    if last <= first:
        return None
    weight = first / min(last, _WINDOW) if first < _WINDOW else 1.0
    weight *= (1 - 1 / _WINDOW) ** max(0, last - max(first, _WINDOW))
    return max(0.0, (new - old * weight) / (1 - weight))


class HaproxySource(Source):
    """Counters of one or more HAProxy processes.

    :param sockets: address of each process's runtime socket.
    :param sides: the servers (``backend/server``) or backends of each side; every process must have them.
    :param classes: classes of statuses that are errors, such as ``5xx``.
    :param asker: asks a socket.
    """

    metrics = frozenset({"errors", "latency"})

    def __init__(
        self, sockets: Sequence[str], sides: Mapping[str, Sequence[str]], classes: Sequence[str], asker: Asker = ask
    ) -> None:
        self.title = f"HAProxy {listing(sockets)}"
        self.has_baseline = bool(sides.get(SIDES[1]))
        self.resets = 0
        self._sockets, self._sides, self._ask = tuple(sockets), sides, asker
        self._errors = tuple(f"hrsp_{name}" for name in classes)
        self._last: dict[str, Snapshot] = {}
        #: Average latency in seconds and requests of each server or backend when the watch began, by socket.
        self._first: dict[tuple[str, str], tuple[float, int]] = {}

    def begin(self) -> None:
        """Read every socket once."""
        self._last = {address: self._read(address) for address in self._sockets}
        for address, snapshot in self._last.items():
            self._first.update({(address, name): _average(row) for name, row in snapshot.rows.items()})

    def poll(self) -> Observation:
        """Return the differences to the last answers, of all sockets together."""
        now = {address: self._read(address) for address in self._sockets}
        seen = Observation()
        for address, snapshot in now.items():
            before = self._last[address]
            if snapshot.process != before.process:
                self.resets += 1
                before = Snapshot(snapshot.process)
            for side in SIDES:
                for name in self._sides.get(side, ()):
                    counts, again = self.difference(name, before.rows.get(name, {}), snapshot.rows[name])
                    self.resets += again
                    if again or not before.rows:
                        self._first[address, name] = (0.0, 0)
                    latency = latency_since(self._first[address, name], _average(snapshot.rows[name]))
                    if latency is not None:
                        counts.levels["latency"] = latency
                    seen.side(side).add(counts)
        self._last = now
        return seen

    def notes(self) -> dict[str, int]:
        return {"resets": self.resets}

    def difference(self, name: str, before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Counts, bool]:
        """Return what a server or backend did between two answers, and whether its counters began anew."""
        fields = (*_STATUSES, *_ATTEMPTS, _BROKEN, _CUT)
        old, new = ({field: _number(row, field) for field in fields} for row in (before, after))
        again = any(new[field] < old[field] for field in fields)
        grown = {field: new[field] - (0 if again else old[field]) for field in fields}
        requests = sum(grown[field] for field in _STATUSES)
        errors = sum(grown[field] for field in self._errors)
        if "/" in name:
            attempts = sum(grown[field] for field in _ATTEMPTS)
            requests += attempts + max(0, grown[_BROKEN] - grown[_CUT])
            errors += attempts + max(grown[_BROKEN], grown[_CUT])
        else:
            errors += grown[_CUT]
        status = after.get("status") or ""
        down = f"HAProxy says that {name} is {status} ({_why(after)})" if status.startswith("DOWN") else ""
        return Counts(requests, min(errors, requests), down=down), again

    def _read(self, address: str) -> Snapshot:
        try:
            snapshot = parse(self._ask(address, "show info; show stat"))
        except ValueError as error:
            raise SourceError(f"{address} gave {error}") from error
        for side in SIDES:
            for name in self._sides.get(side, ()):
                if name not in snapshot.rows:
                    raise SourceError(
                        f"HAProxy behind {address} has no '{name}' for the {side}; "
                        f"it has {listing(sorted(snapshot.rows))}"
                    )
        return snapshot


def _number(row: Mapping[str, str], field: str) -> int:
    value = row.get(field) or "0"
    return int(value) if value.isdigit() else 0


def _average(row: Mapping[str, str]) -> tuple[float, int]:
    return _number(row, "rtime") / 1000, sum(_number(row, status) for status in _STATUSES)


def _why(row: Mapping[str, str]) -> str:
    words = [row.get("check_status") or "", row.get("check_code") or "", row.get("last_chk") or ""]
    return " ".join(word for word in words if word) or "no check"
