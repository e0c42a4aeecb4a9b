# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is inside a stream: layers of compression, then one format, whose members may be streams again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import ahead
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import formats, mydumper
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import Decoder
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.encrypted import (
    is_sealed,
    looks_like_age,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mariabackup import XbstreamWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import Members, printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.related import Related
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sqldump import SqlDumpWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.tar import Sink, TarWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.text import EnvWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: At most this many problems of one backup are kept; further ones are counted.
MAX_PROBLEMS = 100

#: The formats that have members.
_ARCHIVES = {"tar": TarWalker, "xbstream": XbstreamWalker}

#: Layers of compression that are taken off.
_MAX_LAYERS = 3

#: What may always be decompressed, however small the file: the ratio counts from here on, in bytes.
FREE = 1024 * 1024 * 1024


@dataclass
class Limits:
    """What a backup may expand to.

    :param ratio: decompressed bytes for each byte on disk; counted above :data:`FREE`.
    :param expanded: decompressed bytes in all.
    """

    ratio: float = 200.0
    expanded: int = 8 * 1024**4


@dataclass
class Inspection:
    """What was seen in one backup, whatever it consists of.

    :param limits: what it may expand to.
    :param wanted: names that must be there.
    :param identity: file with the key for what age has encrypted, None: it stays closed.
    :ivar sealed: number of encrypted streams that could not be looked into.
    """

    limits: Limits = field(default_factory=Limits)
    wanted: tuple[str, ...] = ()
    identity: str | None = None
    sealed: int = 0
    size: int = 0
    expanded: int = 0
    layers: list[str] = field(default_factory=list)
    format: str | None = None
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    created: float | None = None
    more_problems: int = 0
    has_members: bool = False

    def __post_init__(self) -> None:
        self.members = Members(self.wanted)
        self.related = Related()

    def problem(self, subject: str, problem: Problem) -> None:
        """Keep a problem; the serious ones first when there are too many."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((subject, problem))
            return
        self.more_problems += 1
        if problem.damage and not problem.note:
            for index, (_subject, kept) in enumerate(self.problems):
                if kept.note or not kept.damage:
                    self.problems[index] = (subject, problem)
                    return

    def not_checked(self, text: str) -> None:
        """Keep what could not be checked, once."""
        if text not in self.unchecked and len(self.unchecked) < MAX_PROBLEMS:
            self.unchecked.append(text)

    def take(self, amount: int) -> str | None:
        """Count decompressed bytes; return the limit that is exceeded, in words."""
        self.expanded += amount
        if self.expanded > self.limits.expanded:
            return f"it expands to more than {self.limits.expanded} bytes"
        if self.expanded > FREE and self.expanded > self.size * self.limits.ratio:
            return f"it expands to more than {self.limits.ratio:g} times its size"
        return None

    def absorb(self, subject: str, walker: Walker, inside: bool) -> None:
        """Take over what a walker saw."""
        for problem in walker.problems:
            self.problem(subject, problem)
        for text in walker.facts.unchecked:
            self.not_checked(text)
        self.sealed += is_sealed(walker)
        # The base of append-only files is no state of the data: what follows it changes its keys.
        counts = {} if subject.endswith(".base.rdb") else walker.facts.counts
        for database, tables in counts.items():
            known = self.counts.setdefault(database, {})
            for table, rows in tables.items():
                before = known.get(table, 0)
                known[table] = None if rows is None or before is None else before + rows
        if walker.facts.created is not None:
            self.created = max(self.created or 0.0, walker.facts.created)
        if isinstance(walker, EnvWalker) and not inside:
            for key in walker.keys:
                self.members.found(key)
        if not inside:
            self.attributes.update(walker.facts.attributes)


class _Layer:
    """One layer of compression, within the limits."""

    def __init__(self, inspection: Inspection, decoder: Decoder, subject: str) -> None:
        self._inspection = inspection
        self._decoder = decoder
        self._subject = subject
        self.complete = False

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out."""
        yield from self._within(self._decoder.decode(data))

    def end(self) -> Iterator[bytes]:
        """Yield what is left, and report."""
        yield from self._within(self._decoder.finish())
        self.complete = self._decoder.complete
        for problem in self._decoder.problems:
            self._inspection.problem(self._subject, problem)
        for text in self._decoder.unchecked:
            self._inspection.not_checked(text)

    def _within(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            exceeded = self._inspection.take(len(piece))
            if exceeded:
                self._decoder.stopped = True
                self._decoder.problems.append(
                    Problem(
                        "limit.expansion",
                        f"{exceeded}, and was not read any further",
                        damage=False,
                        advice="If that is right for this backup, raise max_ratio or max_expanded.",
                    )
                )
                return
            yield piece


class _Source:
    """What came from the source, before it was compressed: compares it with what comes out again."""

    def __init__(self, expected: Entry) -> None:
        self._expected = expected
        self._digest = hashlib.sha256()
        self._size = 0

    def take(self, data: bytes) -> None:
        """Take the next piece."""
        self._size += len(data)
        self._digest.update(data)

    def passing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces, and take them."""
        for piece in pieces:
            self.take(piece)
            yield piece

    def problem(self) -> Problem | None:
        """Return what is wrong, when all of it has come."""
        expected = self._expected
        if expected.size not in (self._size, None):
            text = f"it expands to {self._size} bytes, but the manifest says that {expected.size} came from the source"
        elif expected.sha256 not in (self._digest.hexdigest(), None):
            text = "what it expands to is not what came from the source: its SHA-256 is not the one in the manifest"
        else:
            return None
        return Problem("manifest.content", text, advice="It was damaged while it was made: make it again.")


class Content:
    """Take a stream, find out what it is, and have it followed.

    :param inspection: where everything goes.
    :param subject: path of the stream, members of archives after ``!``.
    :param name: the path as far as it tells what to expect.
    :param wanted: the format it must have, ``auto`` or ``plain``.
    :param inside: whether it is a part of a larger backup.
    :param depth: layers that were taken off.
    :param opened: whether it was decrypted, so that what is inside counts although it is a part.
    :param source: size and SHA-256 of what it must expand to.
    """

    def __init__(
        self,
        inspection: Inspection,
        subject: str,
        name: str,
        wanted: str = "auto",
        inside: bool = False,
        depth: int = 0,
        opened: bool = False,
        source: Entry | None = None,
    ) -> None:
        self._inspection = inspection
        self._subject = subject
        self._name = name
        self._wanted = wanted
        self._inside = inside
        self._depth = depth
        self._opened = opened
        self._expected = source
        self._source: _Source | None = None
        self._head = b""
        self._target: Callable[[bytes], None] | None = None
        self._walker: Walker | None = None
        self._layer: _Layer | None = None
        self._child: Content | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if self._target is not None:
            self._target(data)
            return
        self._head += data
        if len(self._head) >= formats.HEAD:
            self._begin()

    def close(self, complete: bool = True) -> None:
        """Take the end; when the stream is not ``complete``, what only its end can tell is not judged."""
        if self._target is None:
            self._begin()
        if self._layer is not None and self._child is not None:
            for piece in self._layer.end():
                self._pass(self._child, piece)
            self._child.close(complete and self._layer.complete)
            self._compare(complete and self._layer.complete)
        if self._walker is not None:
            self._finish(self._walker, complete)
            self._walker = None
        if self._expected is not None and self._layer is None and complete:
            self._inspection.not_checked("whether what came from the source is what it expands to: it stays closed")

    def consume(self, blocks: Iterator[bytes], threaded: bool) -> None:
        """Take all blocks of a file; a large one is decompressed in a thread of its own."""
        while self._target is None:
            block = next(blocks, None)
            if block is None:
                break
            if threaded and not self._head:
                layer = self._recognise(block[: formats.HEAD])
                if layer is not None:
                    self._consume_ahead(layer, block, blocks)
                    return
            self.feed(block)
        for block in blocks:
            self.feed(block)
        self.close()

    def _consume_ahead(self, layer: _Layer, first: bytes, blocks: Iterator[bytes]) -> None:
        def pieces() -> Iterator[bytes]:
            yield from layer.take(first)
            for block in blocks:
                yield from layer.take(block)
            yield from layer.end()

        child = self._new_child()
        ready = ahead(pieces(), 3)
        for piece in ready if self._source is None else ahead(self._source.passing(ready), 2):
            child.feed(piece)
        child.close(layer.complete)
        self._compare(layer.complete)

    def _recognise(self, head: bytes) -> _Layer | None:
        """Return the decompression that the stream needs."""
        if self._wanted == "plain":
            return None
        codec = formats.codec_of(head)
        promised, rest = formats.promised_codec(self._name)
        if codec is None and self._inspection.identity is not None and looks_like_age(head):
            codec = promised = formats.age(self._inspection.identity)
            rest = self._name[:-4] if self._name.lower().endswith(".age") else self._name
            self._opened = True
        elif codec is None and promised is not None and self._depth == 0:
            # its decoder says what is wrong with it
            codec = promised
        if codec is None:
            return None
        if self._depth == _MAX_LAYERS:
            self._inspection.problem(
                self._subject,
                Problem("limit.layers", f"it is compressed more than {_MAX_LAYERS} times over", damage=False),
            )
            return None
        if promised is not None:
            self._name = rest
        if self._expected is not None and formats.promised_codec(self._name)[0] is None:
            self._source, self._expected = _Source(self._expected), None
        if not self._inside:
            self._inspection.layers.append(codec.name)
        return _Layer(self._inspection, codec.decoder(), self._subject)

    def _new_child(self) -> Content:
        return Content(
            self._inspection,
            self._subject,
            self._name,
            self._wanted,
            self._inside,
            self._depth + 1,
            self._opened,
            self._expected,
        )

    def _begin(self) -> None:
        head, self._head = self._head, b""
        self._target = self._ignore
        layer = self._recognise(head[: formats.HEAD])
        if layer is not None:
            child = self._new_child()
            self._layer, self._child = layer, child
            self._target = partial(self._decompress, layer, child)
        else:
            walker = self._find_walker(head)
            if walker is not None:
                self._walker = walker
                self._target = partial(self._walk, walker)
        self._target(head)

    def _find_walker(self, head: bytes) -> Walker | None:
        start = head[: formats.HEAD]
        if self._wanted not in ("auto", "plain"):
            entry = formats.named(self._wanted)
        elif self._wanted == "plain":
            return None
        elif self._inside:
            found = formats.inside_format(self._name) or (formats.promised_format(self._name) if self._opened else None)
            if found is None or (found.inside == "sniff" and not found.sniff(start)):
                return None
            entry = found
        else:
            sniffed = formats.promised_format(self._name) or formats.format_of(start)
            if sniffed is None:
                return None
            entry = sniffed
        if not self._inside:
            self._inspection.format = entry.name
        if entry.name in _ARCHIVES and (self._opened or not self._inside):
            self._inspection.has_members = True
            return _ARCHIVES[entry.name](self._inspection.members, self._open_member)
        return entry.walker(self._name)

    def _open_member(self, name: str, size: int) -> Sink | None:
        keep = self._inspection.related.add(name, size)
        if keep is not None:
            return keep
        if not formats.followed_inside(name):
            return None
        subject = f"{self._subject}!{printable(name)}"
        return Content(self._inspection, subject, name, inside=True)

    def _ignore(self, data: bytes) -> None:
        pass

    def _decompress(self, layer: _Layer, child: Content, data: bytes) -> None:
        for piece in layer.take(data):
            self._pass(child, piece)

    def _pass(self, child: Content, piece: bytes) -> None:
        if self._source is not None:
            self._source.take(piece)
        child.feed(piece)

    def _compare(self, complete: bool) -> None:
        """Say whether all that came out is what came from the source; what is not complete is told to be so."""
        problem = self._source.problem() if self._source is not None and complete else None
        if problem is not None:
            self._inspection.problem(self._subject, problem)

    def _walk(self, walker: Walker, data: bytes) -> None:
        try:
            walker.feed(data)
        except Exception as error:
            self._broken(walker, error)

    def _finish(self, walker: Walker, complete: bool) -> None:
        before = len(walker.problems)
        try:
            walker.close()
        except Exception as error:
            self._broken(walker, error)
            return
        if not complete:
            del walker.problems[before:]
        part = walker.facts.part
        if isinstance(walker, SqlDumpWalker) and self._inside and complete:
            part = mydumper.unended(self._subject, walker)
        if part is not None:
            self._inspection.related.part(self._name, part)
        self._inspection.absorb(self._subject, walker, self._inside)

    def _broken(self, walker: Walker, error: Exception) -> None:
        """A walker must not raise; if one does, that is told and nothing is said about the backup."""
        self._target = self._ignore
        self._inspection.problem(
            self._subject,
            Problem(
                f"{walker.format}.internal",
                f"the check of the format {walker.format} failed with {type(error).__name__}: {error}",
                damage=False,
                advice="This is a fault of the check, not of the backup: please report it.",
            ),
        )
        self._inspection.absorb(self._subject, walker, self._inside)
        self._walker = None
