# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dumps, with the rows of every table counted in the very state that is dumped.

The rows are counted in a second session. Its snapshot is that of the dump when both stand at the same place in the
binary logs; a write that comes between the two is seen, and both begin again. Where writes never cease, the server is
held for the moment in which both begin.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb_session import (
    Access,
    Counted,
    Packing,
    Position,
    QueryError,
    Server,
    Session,
    about,
    begin_snapshot,
    count,
    describe,
    gtid_at,
    list_tables,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import Output, PipelineError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Made, MakeError, Stage, Work

#: How often a dump begins again before the server is held.
ATTEMPTS = 4

#: Seconds for which the server is held at most, once it is.
MAX_HOLD = 10.0

_POSITION = re.compile(rb"(?:MASTER|SOURCE)_LOG_FILE='([^'\n]+)', (?:MASTER|SOURCE)_LOG_POS=(\d+);")
_BEGUN = re.compile(rb"^-- (?:Current Database|Table structure|Dump completed)", re.MULTILINE)
_FOOTER = re.compile(rb"\n-- Dump completed(?: on [^\n]*)?\s*\Z")
_CHANGED = re.compile(r"\b(?:1412|1146)\b|Table definition has changed|doesn't exist")
_MAX_HEAD = 1 << 20

#: Tables or lines of a log that are named in a manifest.
_MAX_NAMES = 20


@dataclass(frozen=True)
class Choice:
    """What a dump holds, and what is asked of the source besides.

    :param databases: names, all when there are none.
    :param exclude: ``database.table`` of each one to leave out.
    :param counts: whether the rows are counted.
    :param checksums: whether the tables' checksums are asked for.
    :param lock_wait: seconds to wait for the lock of the last resort, 0: never ask for it.
    """

    databases: Sequence[str] = ()
    exclude: Sequence[str] = ()
    counts: bool = True
    checksums: bool = False
    lock_wait: int = 5


class _Again(Exception):
    """The dump and the count have begun at different places."""


class Ends:
    """Watches a dump pass: tells where it has begun, and keeps its end.

    :param begun: is called once, with the place in the binary logs that the dump names, None when it names none.
    """

    def __init__(self, begun: Callable[[Position | None], None]) -> None:
        self._begun = begun
        self._head: bytes | None = b""
        self._tail = b""
        self.position: Position | None = None

    def __call__(self, block: bytes | memoryview) -> None:
        """Take the next piece."""
        self._tail = (self._tail + bytes(block[-256:]))[-256:]
        if self._head is None:
            return
        self._head += block
        found = _BEGUN.search(self._head)
        if found or len(self._head) > _MAX_HEAD:
            head, self._head = self._head[: found.start() if found else _MAX_HEAD], None
            place = _POSITION.search(head)
            if place:
                self.position = Position(place[1].decode("utf-8", "surrogateescape"), int(place[2]))
            self._begun(self.position)

    @property
    def complete(self) -> bool:
        """Whether the last line is that of a dump that was not cut."""
        return bool(_FOOTER.search(self._tail))


def arguments(program: str, server: Server, access: Access, choice: Choice) -> list[str]:
    """Return the argument list of the dump program."""
    argv = [program, *access.arguments, "--single-transaction", "--routines", "--events", "--triggers", "--hex-blob"]
    argv += ["--default-character-set=utf8mb4", "--max-allowed-packet=1G"]
    if server.logging:
        maria = server.flavour == "MariaDB"
        argv += ["--master-data=2", "--gtid"] if maria else ["--source-data=2"]
    argv += [f"--ignore-table={name}" for name in choice.exclude]
    return [*argv, *(["--databases", "--", *choice.databases] if choice.databases else ["--all-databases"])]


class _Count:
    """Counts the rows beside a dump, from the moment at which the dump has begun.

    :param session: the connection in which it is counted.
    :param lock: holds the server until the count has begun, None when it is not held.
    """

    def __init__(self, session: Session, choice: Choice, lock: Session | None) -> None:
        self._session = session
        self._choice = choice
        self._lock = lock
        self._thread: threading.Thread | None = None
        self._result: Counted | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> _Count:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._session.kill()
            self._thread.join()

    def begin(self, dumped_at: Position | None) -> None:
        """Begin at the place of the dump.

        :raises _Again: when the server has gone on since the dump has begun.
        """
        counted_at = begin_snapshot(self._session)
        if self._lock is not None:
            try:
                self._lock.query("UNLOCK TABLES")
            except MakeError:
                raise _Again("the server was held for too long and let go") from None
        elif dumped_at is None or counted_at != dumped_at:
            raise _Again("the server went on between dump and count")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Counted:
        """Return what was counted, when it is.

        :raises MakeError: when it could not be counted.
        """
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        if self._result is None:
            raise MakeError("the dump never told where it has begun, so nothing was counted")
        return self._result

    def _run(self) -> None:
        try:
            tables = list_tables(self._session, self._choice.databases, self._choice.exclude)
            self._result = count(self._session, tables, self._choice.checksums)
        except BaseException as error:
            self._failure = error


def make(work: Work, access: Access, packing: Packing, choice: Choice) -> Made:
    """Make a dump.

    :raises MakeError: when it is not complete.
    """
    reasons: list[str] = []
    with Session(access, work.timeout) as session:
        server = describe(session)
        others = list_tables(session, choice.databases, choice.exclude).others
    for how in _attempts(server, choice):
        try:
            made = _attempt(work, access, packing, choice, how)
        except _Again as again:
            reasons.append(str(again))
            work.say(f"begins again: {again}")
            _remove(work.directory)
            continue
        if how == _UNCOUNTED and choice.counts:
            made.warnings.append(f"the rows are not counted, because no moment was found for it: {reasons[-1]}")
        for database, table, engine in others[:_MAX_NAMES]:
            made.warnings.append(
                f"{database}.{table} is of the engine {engine}, which knows no transactions: it is dumped as it is "
                "when its turn comes, and its rows are not counted"
            )
        if len(others) > _MAX_NAMES:
            made.warnings.append(f"{len(others) - _MAX_NAMES} more tables are of engines without transactions")
        return made
    raise MakeError(f"no dump could be made: {'; '.join(dict.fromkeys(reasons))}")


_FREE, _HELD, _UNCOUNTED = "free", "held", "uncounted"


def _attempts(server: Server, choice: Choice) -> list[str]:
    """Return how a dump is tried, in this order."""
    if not choice.counts:
        return [_UNCOUNTED] * 2
    tells_position = server.flavour == "MariaDB" and server.logging
    free = [_FREE] * ATTEMPTS if tells_position else []
    held = [_HELD] if choice.lock_wait else []
    return [*free, *held, _UNCOUNTED]


def _attempt(work: Work, access: Access, packing: Packing, choice: Choice, how: str) -> Made:
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(Session(access, work.timeout))
        server = describe(session)
        program = server.program("dump")
        argv = arguments(program, server, access, choice)
        lock = stack.enter_context(_held(access, choice.lock_wait)) if how == _HELD else None
        counting = None if how == _UNCOUNTED else stack.enter_context(_Count(session, choice, lock))
        gtid: list[str | None] = []

        def begun(position: Position | None) -> None:
            if position is not None:
                with contextlib.suppress(QueryError):
                    gtid.append(gtid_at(session, server, position))
            if counting is not None:
                counting.begin(position)

        ends = Ends(begun)
        compressing, suffix = packing
        name = f"dump.sql{suffix}"
        try:
            output: Output = work.stream([Stage(argv, access.environment), *compressing], name, watch=ends)
        except PipelineError as error:
            if _CHANGED.search(str(error)):
                raise _Again(f"a table was changed while it was dumped: {error}") from None
            raise
        if not ends.complete:
            raise MakeError(
                f"the dump does not end with '-- Dump completed', although {program} ended with exit code 0"
            )
        counted = counting.result() if counting else Counted({}, {}, [])
    positions: dict[str, Any] = {}
    if ends.position is not None:
        positions = {"binlog_file": ends.position.file, "binlog_position": ends.position.position}
        positions.update({"gtid": gtid[0]} if gtid and gtid[0] else {})
    return Made(
        method=program,
        engine={"name": server.flavour, "version": server.version, program: _version(work, program)},
        positions=positions,
        counts=counted.counts,
        checksums=counted.checksums,
        files={name: output.entry},
        exits=output.exits,
        warnings=[*review(output.logs[program]), *(f"not counted: {reason}" for reason in counted.untold)],
        more={"server": about(server), "databases": list(choice.databases), "excluded": list(choice.exclude)},
    )


@contextlib.contextmanager
def _held(access: Access, wait: int) -> Iterator[Session]:
    """Hold all writes until the block ends or MAX_HOLD has passed; waiting for that holds writes, too."""
    with Session(access, wait + 2 * MAX_HOLD) as session:
        session.query(f"SET SESSION lock_wait_timeout = {wait}")
        try:
            session.query("FLUSH TABLES WITH READ LOCK")
        except QueryError as error:
            raise _Again(f"the server could not be held: {error}") from None
        timer = threading.Timer(MAX_HOLD, session.kill)
        timer.daemon = True
        timer.start()
        try:
            yield session
        finally:
            timer.cancel()


def review(path: str) -> list[str]:
    """Return what the dump program has said; it says nothing when all is well."""
    lines = files.read(path).decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()][:_MAX_NAMES]


def _version(work: Work, program: str) -> str:
    done = work.run([program, "--version"], timeout=20)
    return done.stdout.strip().removeprefix(program).strip() if done.ok else ""


def _remove(directory: str) -> None:
    """Remove what an attempt has left."""
    for place, _directories, names in os.walk(directory):
        for name in names:
            os.unlink(os.path.join(place, name))
