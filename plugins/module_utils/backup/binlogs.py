# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether binary logs follow each other without a gap, from what was recorded of each of them.

A log ends with the name of the next one. MariaDB and MySQL write at the beginning of each log which transactions came
before it, so that it can be told whether all of them are in the logs before it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

#: The name of a binary log: what the server calls it, a dot and at least six digits.
NAME = re.compile(r"(?P<base>.+)\.(?P<number>[0-9]{6,10})\Z")


@dataclass(frozen=True)
class Log:
    """What is known of one log.

    :param name: its file name, such as ``binlog.000007``.
    :param next: the file name of the one after it, as its last event says; None when it does not.
    :param closed: whether the server has ended it, by a ROTATE or a STOP event.
    :param in_use: whether the server has marked it as being written: a copy of a live log, or one of a server that
        crashed.
    :param start: the transactions before it, as :func:`mariadb_state` or :func:`mysql_state` write them; None: unknown.
    :param end: the transactions up to its end; None: unknown.
    :param first: time of its first event, in seconds since the epoch.
    :param last: time of its last event.
    """

    name: str
    next: str | None = None
    closed: bool = True
    in_use: bool = False
    start: str | None = None
    end: str | None = None
    first: float | None = None
    last: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Gap:
    """A place where logs do not follow each other.

    :param after: the last log before it.
    :param before: the first log after it; None when there is none.
    :param since: time of the last event before it.
    :param until: time of the first event after it.
    :param lost: True: transactions are missing; False: a log is missing, but none of its transactions; None: it cannot
        be told.
    :param message: one sentence for the operator.
    """

    after: str
    before: str | None
    since: float | None
    until: float | None
    lost: bool | None
    message: str


def continuity(logs: Iterable[Log]) -> list[Gap]:
    """Return the gaps between the logs of one server, in their order; a log may be given once only.

    That the newest log has no end is none when the server has it in use: it is still being written.
    """
    found = []
    ordered = sorted(logs, key=_order)
    for log, following in zip(ordered, ordered[1:]):
        gap = _between(log, following)
        if gap is not None:
            found.append(gap)
    if ordered and not ordered[-1].closed and not ordered[-1].in_use:
        last = ordered[-1]
        found.append(
            Gap(
                last.name,
                None,
                last.last,
                None,
                None,
                f"{last.name} ends at {moment(last.last)} without an end mark: it was cut between two events, "
                "or copied from a running server",
            )
        )
    return found


def successor(name: str) -> str | None:
    """Return the name that a server gives to the log after this one."""
    found = NAME.match(name)
    if found is None:
        return None
    number = found["number"]
    return f"{found['base']}.{int(number) + 1:0{len(number)}d}"


def mariadb_state(entries: dict[tuple[int, int], int]) -> str:
    """Return a state as MariaDB writes it: ``0-1-13,3-7-2``, from sequence numbers by domain and server."""
    return ",".join(f"{domain}-{server}-{entries[domain, server]}" for domain, server in sorted(entries))


def mysql_state(entries: dict[str, list[tuple[int, int]]]) -> str:
    """Return a state as MySQL writes it: ``uuid:1-5:8``, from the first and last numbers of runs by uuid."""
    return ",".join(
        f"{uuid}:" + ":".join(f"{first}-{last}" if last > first else f"{first}" for first, last in entries[uuid])
        for uuid in sorted(entries)
    )


def moment(time: float | None) -> str:
    """Return a time as people and programs read it."""
    if time is None:
        return "an unknown time"
    return datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _order(log: Log) -> tuple[str, int]:
    found = NAME.match(log.name)
    return (found["base"], int(found["number"])) if found else (log.name, 0)


def _between(log: Log, following: Log) -> Gap | None:
    expected = log.next or successor(log.name)
    missing = _names(expected, following.name) if expected != following.name else ""
    lost = _lost(log.end, following.start)
    if not missing and (lost is False or (lost is None and log.closed)):
        return None
    period = f"from {moment(log.last)} to {moment(following.first)}"
    if missing and lost is False:
        message = f"{missing} is missing between {log.name} and {following.name}, but no transaction is lost by that"
    elif missing:
        message = f"{missing} is missing: the transactions {period} are not there"
    elif lost:
        message = (
            f"{log.name} does not lead to {following.name}: transactions {period} are not there "
            f"(it ends at {log.end or 'none'}, and the next one begins after {following.start or 'none'})"
        )
    else:
        message = f"{log.name} has no end mark: transactions {period} may not be there"
    # Without any state, a log that is missing is all that is known, and it may have held something.
    return Gap(log.name, following.name, log.last, following.first, True if missing and lost is None else lost, message)


def _names(expected: str | None, following: str) -> str:
    """Return the logs that are missing, in words."""
    if expected is None or _order(Log(expected)) > _order(Log(following)):
        return f"what comes before {following}"
    first, last = _order(Log(expected)), _order(Log(following))
    count = last[1] - first[1] if first[0] == last[0] else 1
    return expected if count <= 1 else f"{expected} and {count - 1} more"


def _lost(end: str | None, start: str | None) -> bool | None:
    """Return whether a log begins after transactions that the one before it does not end with."""
    if end is None or start is None:
        return None
    if end == start:
        return False
    before, after = _entries(end), _entries(start)
    if ":" not in end and after:
        # A domain of MariaDB that FLUSH BINARY LOGS DELETE_DOMAIN_ID has removed is not in the next log.
        kept = {key.partition("-")[0] for key in after}
        before = {key: value for key, value in before.items() if key.partition("-")[0] in kept}
    return before != after


def _entries(state: str) -> dict[str, str]:
    """Return what a state says by domain and server, or by uuid."""
    entries = {}
    for entry in filter(None, state.split(",")):
        key, _sign, value = entry.partition(":") if ":" in entry else entry.rpartition("-")
        entries[key] = value
    return entries
