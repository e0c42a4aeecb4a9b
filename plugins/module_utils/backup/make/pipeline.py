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
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.command import which

_BLOCK = 1 << 20

#: Linux: set the capacity of a pipe; what the kernel gives without it makes the programs wait for each other.
_F_SETPIPE_SZ = 1031


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

    :param entry: size and SHA-256 of the file.
    :param exits: exit code by program.
    :param logs: path of what each program said on standard error, by program.
    :param seconds: how long it took.
    """

    entry: Entry
    exits: dict[str, int]
    logs: dict[str, str]
    seconds: float


def run(
    stages: Sequence[Stage],
    target: str,
    *,
    logs: str,
    timeout: float,
    feed: Callable[[IO[bytes]], None] | None = None,
    tap: Callable[[bytes], None] | None = None,
) -> Output:
    """Run the programs, keep what the last one writes, and return when it is on disk.

    :param stages: the first one reads nothing, each further one reads what the one before it writes.
    :param feed: writes what the first one reads instead, or the file itself when there is no program; in a thread.
    :param target: the file, which must not exist; it is made with mode 0600.
    :param logs: directory for ``<program>.log``, with what each program says on standard error.
    :param timeout: seconds after which all are killed.
    :param tap: is given every block besides.
    :raises PipelineError: when any of them fails. The file may be there, with a part of the output.
    :raises Exception: what ``feed`` raises, likewise.
    """
    began = time.monotonic()
    paths = {stage.name: os.path.join(logs, f"{stage.name}.log") for stage in stages}
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        source, failures = stack.enter_context(_fed(feed))
        processes = stack.enter_context(_started(stages, paths, source))

        def give_up() -> None:
            late.set()
            _kill(processes)

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        last = processes[-1].stdout if processes else source
        entry = _keep(last, target, tap) if last else Entry()
        exits = {stage.name: process.wait() for stage, process in zip(stages, processes)}
    if late.is_set():
        raise PipelineError(f"{' | '.join(exits)} did not end within {timeout:g} s and was killed")
    if failures and not isinstance(failures[0], BrokenPipeError):
        raise failures[0]  # the programs took the end of what it wrote for the end of the data
    # The first one in the chain that failed by itself is to blame: those before it may have lost their reader.
    failed = [name for name, code in exits.items() if code not in (0, -signal.SIGPIPE)] or [
        name for name, code in exits.items() if code
    ]
    if failed:
        name, code = failed[0], exits[failed[0]]
        ending = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise PipelineError(f"{name} {ending}: {last_words(paths[name])}")
    if failures:
        raise PipelineError(f"{stages[0].name} did not read to the end: {last_words(paths[stages[0].name])}")
    return Output(entry, exits, paths, time.monotonic() - began)


def last_words(path: str, limit: int = 2000) -> str:
    """Return the end of a log in one line."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - limit))
            text = stream.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()) or "it said nothing"


def _keep(source: IO[bytes], target: str, tap: Callable[[bytes], None] | None) -> Entry:
    digest, size = hashlib.sha256(), 0
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0) as out:
            while block := source.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if tap is not None:
                    tap(block)
                view = memoryview(block)
                while view:
                    view = view[out.write(view) :]
            os.fsync(out.fileno())
    except OSError as error:
        raise PipelineError(f"cannot write {target}: {error.strerror}") from error
    return Entry(size, digest.hexdigest())


@contextlib.contextmanager
def _fed(feed: Callable[[IO[bytes]], None] | None) -> Iterator[tuple[IO[bytes] | None, list[BaseException]]]:
    """Have the function write in a thread; give where that can be read, and the place for what goes wrong with it."""
    failures: list[BaseException] = []
    if feed is None:
        yield None, failures
        return
    ends = os.pipe()
    reader, writer = os.fdopen(ends[0], "rb", 0), os.fdopen(ends[1], "wb", _BLOCK)
    _widen(reader)

    def work() -> None:
        try:
            with writer:
                feed(writer)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield reader, failures
    finally:
        reader.close()
        thread.join()


@contextlib.contextmanager
def _started(
    stages: Sequence[Stage], paths: Mapping[str, str], first: IO[bytes] | None
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the programs; whatever happens, none of them outlives this.

    :param first: what the first one reads.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        source: Any = subprocess.DEVNULL if first is None else first
        for stage in stages:
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
            if source is not subprocess.DEVNULL:
                source.close()  # so that the program before it notices when its reader ends
            source = process.stdout
            _widen(source)
        yield processes
    finally:
        _kill(processes)
        for process in processes:
            process.wait()
            if process.stdout:
                process.stdout.close()


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _widen(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # more than this user may have: the pipe stays as it is
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _BLOCK)
