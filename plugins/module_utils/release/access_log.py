# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New lines of access logs, attempt by attempt: who answered, with what status, how quickly.

The format is turned into a strict regular expression in which no value can swallow the text that follows it, so that a
hostile line costs no more than any other and is at worst one that does not match. Only what is written after the
beginning is read. A log that is renamed, replaced or truncated under way is followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    BASELINE,
    SIDES,
    Counts,
    Observation,
    Source,
    SourceError,
    listing,
)

#: The format that nginx and Apache call so.
COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
)
#: A longer line is not looked at.
MAX_LINE = 64 * 1024
_BLOCK = 1 << 20
#: A log that was renamed is read on for so many polls: the server writes to it until it is told to open the new one.
_LINGER = 30
#: A log of which more than this share does not match is not understood.
_MOST_UNREADABLE = 0.1

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SEPARATOR = re.compile(r"(, | : )")
_UNITS = {"s": 1.0, "ms": 0.001, "us": 0.000001}
_TIMES = ("upstream_response_time", "request_time")


class FormatError(ValueError):
    """A log format that cannot be read for certain; the message says why."""


@dataclass(frozen=True)
class Attempt:
    """A request that one server was given.

    :param who: the value that tells the version, such as the server's address.
    :param status: the status it answered with; 0: it was given up for another server.
    :param seconds: how long it took, ``None`` if the line does not tell.
    """

    who: str
    status: int
    seconds: float | None


class Format:
    """A log format as nginx writes it: text with variables such as ``$status``.

    :param text: the format, or ``combined``.
    :param version: the variable that tells which version answered.
    :param time: the variable with the latency; by default the first of ``upstream_response_time`` and ``request_time``.
    :param unit: its unit: s, ms or us.
    :raises FormatError: when it lacks what a gate needs, or a value's end could not be told.
    """

    def __init__(self, text: str, version: str, time: str = "", unit: str = "s") -> None:
        text = COMBINED if text == "combined" else text
        self.pattern, self.variables = _expression(text)
        self._version = version.lstrip("$")
        self._unit = _UNITS[unit]
        named = time.lstrip("$")
        self.time = named or next((name for name in _TIMES if name in self.variables), "")
        if not {"status", "upstream_status"} & set(self.variables):
            raise FormatError("the log format has neither $status nor $upstream_status, so errors cannot be told")
        for name in (self._version, named):
            if name and name not in self.variables:
                known = listing([f"${variable}" for variable in self.variables], 30)
                raise FormatError(f"the log format has no ${name}; it has {known}")

    def attempts(self, line: bytes) -> list[Attempt] | None:
        """Return what a line tells; ``None`` when it does not match the format."""
        found = self.pattern.fullmatch(line)
        if not found:
            return None
        values = {name: found.group(number).decode("utf-8", "replace") for number, name in enumerate(self.variables, 1)}
        who, separators = _split(values[self._version], self._version)
        times = _split(values[self.time], self.time)[0] if self.time else []
        statuses = _split(values.get("upstream_status", ""), "upstream_status")[0]
        if "upstream_status" not in values or len(statuses) != len(who):
            # nginx goes on to the next server, after a comma, when one has failed
            final = values.get("status") or statuses[-1]
            statuses = ["0" if separator == ", " else "" for separator in separators] + [final]
        attempts = []
        for index, name in enumerate(who):
            status = statuses[index]
            if status:
                moment = (
                    times[index] if len(times) == len(who) else times[-1] if times and index == len(who) - 1 else ""
                )
                attempts.append(Attempt(name, int(status) if status.isdigit() else 0, self._seconds(moment)))
        return attempts

    def _seconds(self, text: str) -> float | None:
        try:
            return float(text) * self._unit
        except ValueError:
            return None


def _expression(text: str) -> tuple[re.Pattern[bytes], list[str]]:
    names: list[str] = []
    parts = _VARIABLE.split(text)
    literals, variables = parts[0::3], [braced or plain for braced, plain in zip(parts[1::3], parts[2::3])]
    expression = re.escape(literals[0].encode())
    for index, name in enumerate(variables):
        before, after = literals[index], literals[index + 1]
        if not after and index + 1 < len(variables):
            raise FormatError(
                f"nothing stands between ${name} and ${variables[index + 1]}, so their values cannot be told apart"
            )
        if name in names:
            raise FormatError(f"the log format has ${name} twice")
        names.append(name)
        expression += b"(" + _value(name, before, after) + b")" + re.escape(after.encode())
    return re.compile(expression, re.DOTALL), names


def _value(name: str, before: str, after: str) -> bytes:
    """Return the expression of a value that cannot reach past the text after it."""
    if name == "status":
        return rb"[0-9]{3}"
    if name.startswith("upstream_"):
        return rb'[^\s",]*(?:(?:, | : )[^\s",]+)*'
    if before.endswith('"') and after.startswith('"'):
        return rb'[^"\\]*(?:\\.[^"\\]*)*'
    stop = re.escape(after[:1].encode()) if after else b""
    return b'[^"' + stop + b"]*"


def _split(value: str, name: str) -> tuple[list[str], list[str]]:
    if not name.startswith("upstream_"):
        return [value], []
    parts = _SEPARATOR.split(value)
    return parts[0::2], parts[1::2]


class Tail:
    """What is added to a log, line by line, through rotations.

    :param path: the log.
    :raises SourceError: when it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.rotations = 0
        self._old: list[tuple[_Reader, int]] = []
        try:
            self._now = _Reader(path)
        except OSError as error:
            advice = (
                "; set become: true, or give this account the log's group" if isinstance(error, PermissionError) else ""
            )
            raise SourceError(f"the access log {path} cannot be read: {error.strerror or error}{advice}") from error
        self._now.to_end()

    def lines(self) -> Iterable[bytes]:
        """Yield the complete lines that were added since the last call."""
        for reader, _unused in self._old:
            yield from reader.lines()
        for reader, left in self._old:
            if not left:
                reader.close()
        self._old = [(reader, left - 1) for reader, left in self._old if left]
        yield from self._now.lines()
        try:
            replaced = not self._now.is_at(self.path)
            new = _Reader(self.path) if replaced else None
        except OSError:  # renamed, and the new one is not there yet
            return
        if new:
            self.rotations += 1
            self._old.append((self._now, _LINGER))
            self._now = new
            yield from new.lines()
        if self._now.truncated:
            self.rotations += 1
            self._now.truncated = False

    def close(self) -> None:
        """Let go of the files."""
        for reader in (*(reader for reader, _unused in self._old), self._now):
            reader.close()


class _Reader:
    def __init__(self, path: str) -> None:
        # a FIFO would block, here and for who writes to it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(0, "it is no regular file")
        self._stream: IO[bytes] = os.fdopen(descriptor, "rb", buffering=0)
        self._identity = (status.st_dev, status.st_ino)
        self._partial = b""
        self._skipping = False
        self._position = 0
        self.truncated = False

    def to_end(self) -> None:
        """Go to the end; the line that is being written there is not new."""
        self._position = self._stream.seek(0, os.SEEK_END)
        if self._position:
            self._stream.seek(self._position - 1)
            self._skipping = self._stream.read(1) != b"\n"

    def is_at(self, path: str) -> bool:
        status = os.stat(path)
        return (status.st_dev, status.st_ino) == self._identity

    def lines(self) -> Iterable[bytes]:
        size = os.fstat(self._stream.fileno()).st_size
        if size < self._position:
            self.truncated = True
            self._partial, self._skipping, self._position = b"", False, 0
        while self._position < size:
            self._stream.seek(self._position)
            block = self._stream.read(min(_BLOCK, size - self._position))
            if not block:
                return
            self._position += len(block)
            *lines, rest = (self._partial + block).split(b"\n")
            if lines and self._skipping:
                self._skipping = False
                del lines[0]
            yield from lines
            if len(rest) > MAX_LINE:
                self._skipping, rest = True, b""
            self._partial = b"" if self._skipping else rest

    def close(self) -> None:
        self._stream.close()


class AccessLogSource(Source):
    """Access logs of nginx or Apache.

    :param paths: the logs.
    :param log_format: their format.
    :param sides: the values of the version's variable, for each side; where only the candidate's are given, there is no
        baseline.
    :param errors: statuses that are errors, as classes (``5xx``) or single ones (``499``).
    """

    metrics = frozenset({"errors", "latency"})
    single_latencies = True

    def __init__(
        self, paths: Sequence[str], log_format: Format, sides: Mapping[str, Sequence[str]], errors: Sequence[str]
    ) -> None:
        self.title = f"access log {listing(paths)}"
        self.has_baseline = bool(sides.get(BASELINE))
        if not log_format.time:
            self.metrics = frozenset({"errors"})
        self._paths, self._format = tuple(paths), log_format
        self._side = {value: side for side in SIDES for value in sides.get(side, ())}
        self._errors = frozenset(errors)
        self._tails: list[Tail] = []
        self.lines = self.unreadable = self.others = 0

    def begin(self) -> None:
        """Go to the end of every log."""
        self._tails = [Tail(path) for path in self._paths]

    def poll(self) -> Observation:
        """Return what the new lines tell."""
        seen = Observation()
        for tail in self._tails:
            try:
                for line in tail.lines():
                    self._take(line, seen)
            except OSError as error:
                raise SourceError(f"the access log {tail.path} cannot be read: {error.strerror or error}") from error
        return seen

    def end(self) -> None:
        for tail in self._tails:
            tail.close()

    def notes(self) -> dict[str, int]:
        rotations = sum(tail.rotations for tail in self._tails)
        return {"lines": self.lines, "unreadable": self.unreadable, "others": self.others, "rotations": rotations}

    def doubt(self) -> str:
        if self.unreadable > _MOST_UNREADABLE * self.lines:
            return (
                f"{self.unreadable} of {self.lines} new lines of the {self.title} do not match the log format; give "
                "the format that the server really writes"
            )
        return ""

    def _take(self, line: bytes, seen: Observation) -> None:
        self.lines += 1
        attempts = self._format.attempts(line.rstrip(b"\r")) if len(line) <= MAX_LINE else None
        if attempts is None:
            self.unreadable += 1
            return
        for attempt in attempts:
            side = self._side.get(attempt.who)
            if side is None:
                self.others += 1
                continue
            counts: Counts = seen.side(side)
            counts.requests += 1
            if self._failed(attempt.status):
                counts.errors += 1
            elif attempt.seconds is not None:
                counts.latencies.append(attempt.seconds)

    def _failed(self, status: int) -> bool:
        return status == 0 or str(status) in self._errors or f"{status // 100}xx" in self._errors
