# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way to run a program: an argument list, a fixed locale, a time limit, its output kept."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

#: Directories searched besides PATH: an unprivileged or become'd shell often lacks them.
ADMIN_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")

#: At most this many bytes of each output stream are kept, the last ones.
MAX_OUTPUT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Result:
    """A program that has ended by itself.

    :param argv: what was run.
    :param rc: its exit code; negative: the signal that ended it.
    :param stdout: what it printed, undecodable bytes replaced.
    :param stderr: what it said on standard error.
    :param seconds: how long it ran.
    """

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0; this alone never proves the effect."""
        return self.rc == 0

    def describe(self) -> str:
        """Return one sentence with the command, its exit code and its own last words."""
        words = (self.stderr.strip() or self.stdout.strip() or "it printed nothing")[-2000:]
        ending = f"was ended by signal {-self.rc}" if self.rc < 0 else f"ended with exit code {self.rc}"
        return f"'{' '.join(self.argv)}' {ending}: {words}"


class CommandError(Exception):
    """A program that could not be run, or did not end in time.

    :param message: what happened and what to do.
    :param argv: what was to be run.
    """

    def __init__(self, message: str, argv: Sequence[str]) -> None:
        super().__init__(message)
        self.argv = tuple(argv)


#: The signature of :func:`run`, for functions that are handed a runner (tests hand in transcripts).
Runner = Callable[..., Result]


def which(name: str) -> str | None:
    """Return the absolute path of a program, looked for on PATH and in the administrator's directories."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *ADMIN_PATHS))
    return shutil.which(name, path=search)


def tied(argv: Sequence[str]) -> list[str]:
    """Return the argument list of a program that the kernel ends when the thread that starts it ends, however it does.

    Where setpriv (util-linux 2.33) is not installed the program stays as it is.
    """
    return ["setpriv", "--pdeathsig", "KILL", *argv] if which("setpriv") else list(argv)


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    inherit: bool = True,
) -> Result:
    """Run a program to its end and return what it said.

    :param argv: program and arguments; nothing of it is seen by a shell.
    :param timeout: seconds after which the program and its children are killed.
    :param stdin: bytes for its standard input; by default it reads an end of file. The place for secrets.
    :param env: variables added to the environment of this process.
    :param cwd: directory to run in.
    :param user: account to run as, with its groups and HOME; needs root unless it is the current one.
    :param inherit: whether it sees the environment of this process too, not only what is given.
    :raises CommandError: when the program or the account does not exist, may not be run, or does not end in time.
    """
    command = [str(part) for part in argv]
    program = _program(command)
    environment = {**(os.environ if inherit else {}), "LC_ALL": "C", "LANGUAGE": "C"}
    identity = _identity(user, command)
    if identity:
        environment.update(HOME=identity.pop("home"), USER=str(user), LOGNAME=str(user))
    environment.update(env or {})
    started = time.monotonic()
    # Files, not pipes: a daemon that the program leaves behind keeps a pipe open and would make us wait for it.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=source,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                **identity,
            )
        except OSError as error:
            raise CommandError(f"'{' '.join(command)}' could not be started: {error}", command) from error
        try:
            rc = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            words = (_tail(err) or _tail(out)).strip()[-2000:] or "it printed nothing"
            raise CommandError(
                f"'{' '.join(command)}' did not end within {timeout:g} s and was killed: {words}", command
            ) from None
        except BaseException:
            _kill_group(process)
            raise
        return Result(tuple(command), rc, _tail(out), _tail(err), time.monotonic() - started)


def stream(
    argv: Sequence[str],
    consume: Callable[[IO[bytes]], None],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run a program and have its output read while it runs; the result has none of it.

    :param argv: program and arguments; nothing of it is seen by a shell.
    :param consume: is given the output; what it leaves is read and thrown away.
    :param timeout: seconds after which the program and its children are killed.
    :param env: variables added to the environment of this process; the place for secrets.
    :raises CommandError: when the program does not exist, may not be run, or does not end in time.
    """
    command = [str(part) for part in argv]
    program = _program(command)
    started = time.monotonic()
    late = threading.Event()
    with tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"'{' '.join(command)}' could not be started: {error}", command) from error

        def give_up() -> None:
            late.set()
            _kill_group(process)

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        timer.start()
        try:
            if process.stdout is not None:
                with process.stdout as output:
                    consume(output)
                    while output.read(1 << 20):
                        pass
            rc = process.wait()
        except BaseException:
            _kill_group(process)
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise CommandError(
                f"'{' '.join(command)}' did not end within {timeout:g} s and was killed: {_tail(err)[-2000:]}", command
            )
        return Result(tuple(command), rc, "", _tail(err), time.monotonic() - started)


def _program(command: Sequence[str]) -> str:
    program = command[0] if os.sep in command[0] else which(command[0])
    if program is None:
        raise CommandError(
            f"the program '{command[0]}' is not installed on this host; install it or name its path", command
        )
    return program


def _identity(user: str | None, command: list[str]) -> dict[str, Any]:
    """Return the Popen arguments for another account, and its home under ``home``; empty for the current one."""
    if user is None:
        return {}
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandError(f"there is no account '{user}' on this host to run '{command[0]}' as", command) from None
    if account.pw_uid == os.geteuid():
        return {"home": account.pw_dir}
    if os.geteuid() != 0:
        raise CommandError(f"running '{command[0]}' as '{user}' needs root; set become: true", command)
    groups = os.getgrouplist(user, account.pw_gid)
    return {"home": account.pw_dir, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - MAX_OUTPUT))
    return stream.read().decode("utf-8", "replace")
