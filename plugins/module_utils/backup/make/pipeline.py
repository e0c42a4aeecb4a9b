# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs connected by pipes whose last output becomes a file, hashed as it passes; every exit code counts.

A shell tells the exit code of the last program only, so that a failed dump looks like a good one when its compression
ended well.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.command import which

_BLOCK = 1 << 20

#: What is hashed and handed on at once: small enough to stay in the cache of a core meanwhile.
_PIECE = 1 << 18

#: Bytes of a file after which the kernel is told to begin to write them to the disk.
_STRETCH = 1 << 25

#: Seconds in which a pipe is let fill; it holds what comes in them at 1 GB/s.
_PAUSE = 0.001

#: Linux: set the capacity of a pipe; what the kernel gives without it makes the programs wait for each other.
_F_SETPIPE_SZ = 1031

#: Seconds for a program to notice that its reader has ended.
_GRACE = 2.0


class PipelineError(Exception):
    """A program failed, could not be started or did not end in time, or its output could not be kept."""


@dataclass(frozen=True)
class Stage:
    """One program.

    :param argv: program and arguments.
    :param env: variables added to the environment; the place for secrets.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the program's name."""
        return os.path.basename(self.argv[0])


@dataclass(frozen=True)
class Output:
    """What came out.

    :param entry: size and SHA-256 of the file, and of what came from the source when something changed it on the way.
    :param exits: exit code by program.
    :param logs: path of what each program said on standard error, by program.
    :param seconds: how long it took.
    """

    entry: Entry
    exits: dict[str, int]
    logs: dict[str, str]
    seconds: float


class _Sink(io.RawIOBase):
    """Writes into a pipe or file, and counts and hashes what goes in."""

    def __init__(self, target: IO[bytes], watch: Callable[[memoryview], None] | None) -> None:
        self._target = target
        self._watch = watch
        self._digest = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        """Write all of it."""
        view = memoryview(block)
        if self._watch is not None:
            self._watch(view)
        self._digest.update(view)
        size = len(view)
        self._size += size
        while view:
            view = view[self._target.write(view) :]
        return size

    def take(self, source: IO[bytes]) -> None:
        """Write all that comes from there.

        It goes through one piece of memory, since a new one each time costs as much as hashing; and what comes in
        small pieces is given the time to become a larger one, since waking up for each costs more than that.
        """
        buffer = memoryview(bytearray(_PIECE))
        while size := os.readv(source.fileno(), [buffer]):
            self.write(buffer[:size])
            if size < _PIECE // 2:
                time.sleep(_PAUSE)

    def close(self) -> None:
        """Let the reader see the end."""
        self._target.close()
        super().close()

    def entry(self) -> Entry:
        """Return size and SHA-256 of what went in."""
        return Entry(self._size, self._digest.hexdigest())


class _File(_Sink):
    """Writes into a file, and has the kernel begin to put it on disk meanwhile, so that little is left at the end."""

    def __init__(self, target: IO[bytes], watch: Callable[[memoryview], None] | None) -> None:
        super().__init__(target, watch)
        self._begun = 0

    def write(self, block: Any) -> int:
        """Write all of it."""
        size = super().write(block)
        if self._size - self._begun >= _STRETCH:
            # What is not on disk yet stays in memory: mm/fadvise.c of Linux starts to write it, and returns.
            os.posix_fadvise(self._target.fileno(), self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._size
        return size


class _Feeder:
    """Has a function write into a pipe, in a thread of its own."""

    def __init__(
        self, function: Callable[[_Sink], None], pipe: IO[bytes], watch: Callable[[memoryview], None] | None
    ) -> None:
        self.failures: list[BaseException] = []
        self._function = function
        self._sink = _Sink(pipe, watch)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._function(self._sink)
        except BaseException as error:
            self.failures.append(error)
        finally:
            self._sink.close()

    def entry(self) -> Entry:
        """Return size and SHA-256 of what was written."""
        return self._sink.entry()

    def join(self) -> None:
        """Return when the function has ended."""
        self._thread.join()


def run(
    stages: Sequence[Stage],
    target: str,
    *,
    logs: str,
    timeout: float,
    feed: Callable[[IO[bytes]], None] | None = None,
    watch: Callable[[memoryview], None] | None = None,
    content: bool = True,
) -> Output:
    """Run the programs, keep what the last one writes, and return when it is on disk.

    What comes from the source, before anything compresses or encrypts it, is hashed too: damage on the way between them
    shows when the file is expanded again. On two cores that zstd keeps busy this takes a fifth of the time.

    :param stages: the first one reads nothing, or what is fed; each further one reads what the one before it writes.
    :param target: the file, which must not exist; it is made with mode 0600.
    :param logs: directory for ``<program>.log``, with what each program says on standard error.
    :param timeout: seconds after which all are killed.
    :param feed: the source instead of a program: writes what the first program reads, or the file when there is none.
    :param watch: is given every block that comes from the source, before it goes on and only until it returns; what it
        raises ends the chain.
    :param content: whether what comes from the source is hashed too; what carries checksums of its own needs no other.
    :raises PipelineError: when any of them fails. The file may be there, with a part of the output.
    :raises Exception: what ``feed`` or ``watch`` raises, likewise.
    """
    began = time.monotonic()
    paths = {stage.name: os.path.join(logs, f"{stage.name}.log") for stage in stages}
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        feeder = source = None
        relayed = feed is None and len(stages) > 1 and (content or watch is not None)
        if feed is not None:
            source, pipe = _pipe()
            feeder = _Feeder(partial(_buffered, feed), pipe, watch)
            stack.callback(feeder.join)
            stack.callback(source.close)  # comes before the join: whoever still writes is told
        processes = stack.enter_context(_started(stages, paths, source, relayed))
        if relayed:
            feeder = _relay(processes, watch)
            stack.callback(feeder.join)
            stack.callback(_kill, processes)  # likewise

        def give_up() -> None:
            late.set()
            _kill(processes)

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        last = processes[-1].stdout if processes else source
        own = None if last is None else _keep(last, target, None if feeder else watch)
        useless: set[str] = set()
        if processes and processes[-1].wait():  # nobody reads what the others write, but they may not notice for hours
            useless = {stage.name for stage, process in zip(stages, processes) if not _ends(process)}
        failures = feeder.failures if feeder else []
        if useless or any(not isinstance(failure, BrokenPipeError) for failure in failures):
            _kill(processes)
        exits = {stage.name: process.wait() for stage, process in zip(stages, processes)}
    if late.is_set():
        raise PipelineError(f"{' | '.join(exits)} did not end within {timeout:g} s and was killed")
    for failure in failures:
        if not isinstance(failure, BrokenPipeError):
            raise failure  # the programs took the end of what was written for the end of the data
    # Who lost its reader is not to blame, unless it is the only one that failed.
    failed = {name: code for name, code in exits.items() if code and name not in useless}
    blamed = {name: code for name, code in failed.items() if code != -signal.SIGPIPE}
    if failures and not blamed:
        reader = stages[1 if relayed else 0].name
        raise PipelineError(f"{reader} did not read to the end: {last_words(paths[reader])}")
    if failed:
        words = (f"{name} {_ending(code)}: {last_words(paths[name])}" for name, code in (blamed or failed).items())
        raise PipelineError("; ".join(words))
    inner = feeder.entry() if feeder and stages else None
    entry = Entry() if own is None else Entry(own.size, own.sha256, inner)
    return Output(entry, exits, paths, time.monotonic() - began)


def _buffered(feed: Callable[[IO[bytes]], None], sink: _Sink) -> None:
    """Have a function write that writes little at a time."""
    with io.BufferedWriter(sink, _BLOCK) as stream:
        feed(stream)


def _relay(processes: Sequence[subprocess.Popen[bytes]], watch: Callable[[memoryview], None] | None) -> _Feeder:
    """Carry what the first program writes to the second one."""

    def carry(source: IO[bytes], sink: _Sink) -> None:
        with source:  # closed at the end, so that the first program notices when the second one has ended
            sink.take(source)

    source, pipe = processes[0].stdout, processes[1].stdin
    if source is None or pipe is None:
        raise PipelineError("the programs are not connected")
    return _Feeder(partial(carry, source), pipe, watch)


def last_words(path: str, limit: int = 2000) -> str:
    """Return the end of a log in one line."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - limit))
            text = stream.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()) or "it said nothing"


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _keep(source: IO[bytes], target: str, watch: Callable[[memoryview], None] | None) -> Entry:
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0) as out:
            sink = _File(out, watch)
            sink.take(source)
            os.fsync(out.fileno())
    except OSError as error:
        raise PipelineError(f"cannot write {target}: {error.strerror}") from error
    return sink.entry()


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    reader, writer = os.pipe()
    source, sink = os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)
    _widen(source)
    return source, sink


@contextlib.contextmanager
def _started(
    stages: Sequence[Stage], paths: Mapping[str, str], first: IO[bytes] | None, relayed: bool
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the programs; whatever happens, none of them outlives this.

    :param first: what the first one reads.
    :param relayed: the caller carries the output of the first one to the second one.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        source: Any = subprocess.DEVNULL if first is None else first
        for number, stage in enumerate(stages):
            program = stage.argv[0] if os.sep in stage.argv[0] else which(stage.argv[0])
            if program is None:
                raise PipelineError(f"the program '{stage.argv[0]}' is not installed on this host")
            try:
                with open(paths[stage.name], "ab") as log:
                    process = subprocess.Popen(
                        [program, *stage.argv[1:]],
                        stdin=source,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        bufsize=0,
                        env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **stage.env},
                        start_new_session=True,
                    )
            except OSError as error:
                raise PipelineError(f"{stage.name} could not be started: {error}") from error
            processes.append(process)
            if process.stdin is not None:
                _widen(process.stdin)
            elif source is not subprocess.DEVNULL:
                source.close()  # so that the program before it notices when its reader ends
            source = process.stdout
            _widen(source)
            if relayed and number == 0:
                source = subprocess.PIPE
        yield processes
    finally:
        _kill(processes)
        for process in processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a program ends by itself now."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    return process.returncode is not None


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _widen(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # more than this user may have: the pipe stays as it is
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _BLOCK)
