# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis append-only files: the commands that lead to the data set, after a snapshot or from nothing.

Since Redis 7 they are a directory: a base, increments, and a manifest that names them in order (``aof.c``). The file
has no checksum and no end mark: a loss of whole commands at its end is not seen without an expectation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import Step, Stop
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_rdb import RdbWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

_COMMAND = re.compile(rb"\*[1-9]\d{0,9}\r\n\$\d{1,10}\r\n")
_ANNOTATION = re.compile(rb"#TS:\d+\r\n")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9._|-]*\Z")
_ADVICE = "redis-check-aof shows the place; compare the size with the source"


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is a file of commands.

    One that begins with a snapshot looks like an RDB: :class:`AofWalker` follows both.
    """
    annotation = _ANNOTATION.match(head)
    return _COMMAND.match(head, annotation.end() if annotation else 0) is not None


class AofWalker(RdbWalker):
    """Follows an append-only file, with or without a snapshot at its beginning."""

    format = "redis_aof"

    def __init__(self) -> None:
        self._commands = 0
        self._begin = 0
        self._snapshot = False
        self._transaction: int | None = None
        self._first_stamp: float | None = None
        super().__init__()

    def walk(self) -> Step:
        yield from self.more() if not self.data else ()
        if not self.data:
            return
        yield from self.need(1)
        if self.data[self.at] == 82:
            self._snapshot = True
            yield from self.rdb()
            self._snapshot = False
            self.facts.attributes["preamble"] = True
        while True:
            self._pass_whole()
            if len(self.data) == self.at:
                yield from self.more()
                if len(self.data) == self.at:
                    return
                continue
            yield from self._next()

    def _pass_whole(self) -> None:
        """Go over all commands that have arrived as a whole."""
        data, at, end = self.data, self.at, len(self.data)
        find = data.find
        commands = 0
        while at < end and data[at] == 42:
            line = find(b"\r\n", at, at + 16)
            digits = data[at + 1 : line]
            if line < 0 or not digits.isdigit():
                break
            place = line + 2
            name = b""
            for number in range(int(digits)):
                line = find(b"\r\n", place, place + 16)
                digits = data[place + 1 : line]
                if line < 0 or data[place] != 36 or not digits.isdigit():
                    place = 0
                    break
                stop = line + 2 + int(digits)
                if stop + 2 > end or data[stop : stop + 2] != b"\r\n":
                    place = 0
                    break
                if not number:
                    name = data[line + 2 : stop]
                place = stop + 2
            if not place or not self._take(name, self.base + at):
                break
            at = place
            commands += 1
        self.at = at
        self._commands += commands

    def _take(self, name: bytes, at: int) -> bool:
        """Note a command's name; return whether it can be one."""
        if len(name) < 6:
            upper = name.upper()
            if upper == b"MULTI":
                self._transaction = at
            elif upper == b"EXEC":
                self._transaction = None
        return _NAME.match(name) is not None

    def _next(self) -> Step:
        """Pass over one command or annotation of any size, piece by piece."""
        self._begin = self.base + self.at
        yield from self.need(1)
        if self.data[self.at] == 35:
            line = yield from self._line()
            if line.startswith(b"#TS:") and line[4:].isdigit():
                self.facts.attributes["last_command"] = int(line[4:20])
            return
        count = yield from self._number(42)
        if not count:
            self._stop_command("it has no words")
        for number in range(count):
            size = yield from self._number(36)
            if number or size > 256:
                yield from self.skip(size)
            else:
                yield from self.need(size)
                name = self.data[self.at : self.at + size]
                self.at += size
                if not self._take(name, self._begin):
                    self._stop_command("its name is none")
            yield from self.need(2)
            if not self.data.startswith(b"\r\n", self.at):
                self._stop_command("a word does not end where it should")
            self.at += 2
        self._commands += 1

    def _line(self) -> Generator[None, None, bytes]:
        while True:
            end = self.data.find(b"\r\n", self.at, self.at + 1026)
            if end >= 0:
                line = self.data[self.at : end]
                self.at = end + 2
                return line
            yield from self.need(min(len(self.data) - self.at + 1, 1027))
            if len(self.data) - self.at >= 1027 and self.data.find(b"\r\n", self.at, self.at + 1026) < 0:
                self._stop_command("a line does not end")

    def _number(self, sign: int) -> Generator[None, None, int]:
        line = yield from self._line()
        if line[:1] != bytes((sign,)) or not line[1:].isdigit() or len(line) > 11:
            self._stop_command(f"{line[:20]!r} is neither a command nor a word of one")
        return int(line[1:])

    def _stop_command(self, reason: str) -> None:
        text = f"the command at byte {self._begin}, after {self._commands} whole ones, is broken: {reason}"
        self.problem("aof.command", text, self._begin, advice=_ADVICE)
        raise Stop

    def cut(self) -> None:
        if self._snapshot:
            super().cut()
            return
        text = f"the file ends inside a command, after {self._commands} whole ones"
        self.problem("aof.cut", text, self._begin, advice="Redis would drop that command; " + _ADVICE)

    def close(self) -> None:
        clean = not self.problems
        super().close()
        if clean and not self.problems and self._transaction is not None:
            text = "the file ends inside a transaction, which Redis would drop"
            self.problem("aof.transaction", text, self._transaction, advice=_ADVICE)
        attributes = self.facts.attributes
        attributes["commands"] = self._commands
        if not attributes.get("preamble"):
            attributes.pop("keys", None)
            attributes.pop("expires", None)
        self.facts.unchecked.append(
            "an append-only file has no checksum and no end: changed values and missing commands"
        )


@dataclass
class Manifest:
    """The parts of an append-only directory.

    :param base: the file of the snapshot or of the rewritten commands; ``None`` before the first rewrite.
    :param increments: the files of later commands, in order; only the last one may be cut in an emergency.
    :param problems: rules of the format that are broken, and files that are missing.
    """

    base: str | None = None
    increments: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_manifest(text: bytes, names: Iterable[str]) -> Manifest:
    """Return the parts that a manifest (``appendonly.aof.manifest``) names.

    :param text: the manifest; more than 1 MiB is not read.
    :param names: the files beside the manifest.
    """
    manifest = Manifest()
    there = set(names)
    latest = 0
    entries = 0
    for number, line in enumerate(text[: 1 << 20].decode("utf-8", "surrogateescape").split("\n"), 1):
        if line.startswith("#") or not line.strip():
            continue
        entries += 1
        values = _entry(line)
        if values is None:
            _wrong(manifest, f"line {number} is none of a manifest: {line[:80]!r}")
            continue
        name, sequence, kind = values
        if kind == "b":
            if manifest.base is not None:
                _wrong(manifest, f"line {number} names a second base, {name}")
            manifest.base = name
        elif kind == "i":
            if sequence <= latest:
                _wrong(manifest, f"line {number}: increment {sequence} comes after {latest}")
            latest = sequence
            manifest.increments.append(name)
        if kind != "h" and name not in there:
            text_ = f"the manifest names {name}, which is not there"
            manifest.problems.append(Problem("aof.missing", text_, advice="copy the whole directory at one time"))
    if not entries:
        _wrong(manifest, "it names no file")
    elif not text.endswith(b"\n"):
        _wrong(manifest, "its last line is cut")
    return manifest


def _entry(line: str) -> tuple[str, int, str] | None:
    """Return the file, sequence and type of a line, ``None`` when it breaks the rules."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    pairs = dict(zip(words[::2], words[1::2]))
    name, sequence, kind = pairs.get("file", ""), pairs.get("seq", ""), pairs.get("type", "")
    if len(words) % 2 or not name or "/" in name or not re.fullmatch(r"[1-9][0-9]{0,18}", sequence):
        return None
    return (name, int(sequence), kind) if kind in ("b", "i", "h") else None


def _wrong(manifest: Manifest, message: str) -> None:
    manifest.problems.append(Problem("aof.manifest", f"the manifest is wrong: {message}"))
