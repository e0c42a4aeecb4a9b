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
    tap: Callable[[bytes], None] | None = None,
    watch: Callable[[bytes], None] | None = None,
) -> Output:
    """Run the programs, keep what the last one writes, and return when it is on disk.

    :param stages: the first one reads nothing, each further one reads what the one before it writes.
    :param target: the file, which must not exist; it is made with mode 0600.
    :param logs: directory for ``<program>.log``, with what each program says on standard error.
    :param timeout: seconds after which all are killed.
    :param tap: is given every block besides.
    :param watch: is given every block that the first program writes, before it goes on; what it raises ends the chain.
    :raises PipelineError: when any of them fails. The file may be there, with a part of the output.
    """
    began = time.monotonic()
    paths = {stage.name: os.path.join(logs, f"{stage.name}.log") for stage in stages}
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        relayed = watch is not None and len(stages) > 1
        taps = [each for each in (tap, None if relayed else watch) if each is not None]
        processes = stack.enter_context(_started(stages, paths, relayed))

        def give_up() -> None:
            late.set()
            _kill(processes)

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        relay = _Relay(processes, watch) if watch is not None and relayed else None
        stack.enter_context(relay or contextlib.nullcontext())
        last = processes[-1].stdout
        entry = _keep(last, target, taps) if last else Entry()
        useless: set[str] = set()
        if processes[-1].wait():  # nobody reads what the others write, but they may not notice for hours
            useless = {stage.name for stage, process in zip(stages, processes) if process.poll() is None}
            _kill(processes)
        exits = {stage.name: process.wait() for stage, process in zip(stages, processes)}
        if relay is not None:
            relay.end()
    if late.is_set():
        raise PipelineError(f"{' | '.join(exits)} did not end within {timeout:g} s and was killed")
    failed = {name: code for name, code in exits.items() if code and name not in useless}
    # Who lost its reader is not to blame, unless it is the only one that failed.
    blamed = {name: code for name, code in failed.items() if code != -signal.SIGPIPE} or failed
    if blamed:
        raise PipelineError(
            "; ".join(f"{name} {_ending(code)}: {last_words(paths[name])}" for name, code in blamed.items())
        )
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


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _keep(source: IO[bytes], target: str, taps: Sequence[Callable[[bytes], None]]) -> Entry:
    digest, size = hashlib.sha256(), 0
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0) as out:
            while block := source.read(_BLOCK):
                digest.update(block)
                size += len(block)
                for tap in taps:
                    tap(block)
                _write(out, block)
            os.fsync(out.fileno())
    except OSError as error:
        raise PipelineError(f"cannot write {target}: {error.strerror}") from error
    return Entry(size, digest.hexdigest())


class _Relay:
    """Carries what the first program writes to the second one, past one who watches, in a thread of its own."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], watch: Callable[[bytes], None]) -> None:
        self._processes = processes
        self._pipes = (processes[0].stdout, processes[1].stdin)
        self._watch = watch
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> _Relay:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            _kill(self._processes)
        self._thread.join()

    def end(self) -> None:
        """Return when everything was carried; raise what the watch raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _carry(self) -> None:
        source, sink = self._pipes
        try:
            while source and sink and (block := source.read(_BLOCK)):
                self._watch(block)
                _write(sink, block)
        except BrokenPipeError:
            pass  # the second program has ended, and its exit code says why
        except BaseException as error:
            self._failure = error
            _kill(self._processes)
        finally:
            _close(source, sink)  # so that the programs on both sides notice


def _close(*pipes: IO[bytes] | None) -> None:
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


def _write(sink: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[sink.write(view) :]


@contextlib.contextmanager
def _started(
    stages: Sequence[Stage], paths: Mapping[str, str], relayed: bool
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the programs; whatever happens, none of them outlives this.

    :param relayed: the caller carries the output of the first one to the second one.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        source: Any = subprocess.DEVNULL
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
            _close(process.stdin, process.stdout)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _widen(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # more than this user may have: the pipe stays as it is
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _BLOCK)
