# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories in which backups are restored, and the programs that serve them; both go when we go.

A directory carries a lock that its maker holds while it lives, so that a later run knows what was abandoned. A server
is killed by the kernel when the process that started it dies, however that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import last_words
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner, which

#: Where restored data lie by default.
ROOT = "/var/lib/worklog-maintenance/scratch"

_LOCK = ".scratch"

#: What a directory is called until it carries its lock, and the seconds that this takes at most.
_BEGUN, _BEGINNING = ".begun-", 60.0

_SERVERS = ("mariadbd", "mysqld", "redis-server", "mongod", "ferretdb")


@contextlib.contextmanager
def directory(root: str, name: str, *, keep: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Have an empty directory while the block runs; it is removed in the end, whatever happens.

    :param root: directory of all of them; it is made when it is missing.
    :param name: what it is for.
    :param keep: asked in the end: whether the directory stays.
    :raises RestoreError: when it cannot be made, or is inside the data of a running server.
    """
    guard(root)
    make_root(root)
    path = os.path.join(root, f"{name}-{os.getpid()}-{time.time_ns() // 10**6}")
    begun = os.path.join(root, _BEGUN + os.path.basename(path))
    made = False
    try:
        with undisturbed():
            try:
                os.mkdir(begun, 0o711)
                os.chmod(begun, 0o711)
                descriptor = os.open(os.path.join(begun, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.rename(begun, path)
                made = True
            except OSError as error:
                raise RestoreError(f"cannot make {path}: {error.strerror}") from error
        yield path
    finally:
        with undisturbed():
            if made:
                os.close(descriptor)
                if keep():
                    os.unlink(os.path.join(path, _LOCK))
                else:
                    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold SIGALRM back while the block runs: a drill that is given up is cleaned up after all the same."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
        return
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        if came:
            signal.raise_signal(signal.SIGALRM)


def make_root(root: str) -> None:
    """Make the directory of all, with a way into it for the accounts that servers run as."""
    missing = []
    place = root
    while not os.path.isdir(place):
        missing.append(place)
        place = os.path.dirname(place)
    try:
        for path in reversed(missing):
            os.mkdir(path)
            os.chmod(path, 0o711)
    except OSError as error:
        raise RestoreError(f"cannot make {root}: {error.strerror}") from error


def clean(root: str) -> list[str]:
    """Remove what runs that were killed have left, and return the paths."""
    gone: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.listdir(root)):
            path = os.path.join(root, entry)
            lock = os.path.join(path, _LOCK)
            if os.path.islink(path) or not os.path.isfile(lock):
                if entry.startswith(_BEGUN) and time.time() - os.lstat(path).st_mtime > _BEGINNING:
                    with contextlib.suppress(OSError):
                        os.rmdir(path)
                continue
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)
    return gone


def guard(path: str) -> None:
    """Refuse a place inside the data directory of a running server.

    :raises RestoreError: naming the server.
    """
    wanted = os.path.realpath(path)
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as stream:
                name = stream.read().strip()
            if name in _SERVERS:
                data = os.readlink(f"/proc/{process}/cwd")
                if data != os.sep and f"{wanted}{os.sep}".startswith(f"{data}{os.sep}"):
                    raise RestoreError(
                        f"{path} is inside {data}, the data of the running {name} (process {process}): "
                        "choose another directory for the scratch data"
                    )


def room(path: str, needed: int) -> None:
    """Refuse to begin what will not fit.

    :raises RestoreError: with both figures.
    """
    free = shutil.disk_usage(path).free
    if free < needed:
        raise RestoreError(
            f"not enough space in {path}: {free} bytes are free, the restore takes about {needed}; "
            "make room or choose another directory for the scratch data"
        )


def give(path: str, user: str) -> None:
    """Make an account the owner of a tree."""
    account = pwd.getpwnam(user)
    chown_tree(path, account.pw_uid, account.pw_gid)


def chown_tree(path: str, uid: int, gid: int) -> None:
    """Change the owner of everything below a directory, links themselves and not what they name."""
    os.chown(path, uid, gid, follow_symlinks=False)
    for _place, directories, names, descriptor in os.fwalk(path):
        for name in (*directories, *names):
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


@contextlib.contextmanager
def serving(
    argv: Sequence[str],
    *,
    user: str,
    log: str,
    ready: Callable[[], bool],
    timeout: float,
    stop: Callable[[], None] | None = None,
    what: str = "the scratch server",
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block runs.

    :param user: the account it runs as.
    :param log: file for what it says.
    :param ready: whether it answers.
    :param timeout: seconds for it to answer, and to end.
    :param stop: asks it to end, by default with SIGTERM; when it does not within the time it is killed.
    :param what: what an error calls it.
    :raises RestoreError: when it ends by itself or does not answer in time.
    """
    program = argv[0] if os.sep in argv[0] else which(argv[0])
    if program is None:
        raise RestoreError(f"the program '{argv[0]}' is not installed on this host; install it to restore here")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise RestoreError(f"there is no account '{user}' on this host for the scratch server") from None
    # The kernel ends the server when this process dies; setpriv sets that after it has become the other account.
    wrapped = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--no-new-privs"]
    if account.pw_uid == os.geteuid():
        wrapped = ["setpriv", "--no-new-privs"]
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            [*wrapped, "--pdeathsig=KILL", program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=os.path.dirname(log),
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
        )
    try:
        limit = time.monotonic() + timeout
        while not ready():
            if process.poll() is not None:
                raise RestoreError(
                    f"{what} {os.path.basename(program)} ended with exit code {process.returncode}: "
                    f"{last_words(log, 400)}"
                )
            if time.monotonic() > limit:
                raise RestoreError(f"{what} did not answer within {timeout:g} s: {last_words(log, 400)}")
            time.sleep(0.05)
        yield process
        if process.poll() is not None:
            raise RestoreError(f"{what} ended too early: {last_words(log, 400)}")
        (stop or process.terminate)()
        try:
            process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RestoreError(f"{what} did not end within {timeout:g} s: {last_words(log, 400)}") from None
    finally:
        with undisturbed():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def serve_on(directory: str, argv: Sequence[str], *, user: str, unit: str, seconds: float, run: Runner) -> None:
    """Run a server on a kept directory for some time by itself; the directory goes with it.

    :param unit: name of the unit of systemd that it becomes.
    :raises RestoreError: when it cannot be started.
    """
    program = argv[0] if os.sep in argv[0] else which(argv[0])
    command = [
        "systemd-run", f"--unit={unit}", "--collect", "--quiet", "--service-type=exec",
        f"--property=User={user}", f"--property=RuntimeMaxSec={seconds:.0f}", "--property=NoNewPrivileges=yes",
        f"--property=ExecStopPost=+/bin/rm -rf -- {directory}", str(program), *argv[1:],
    ]  # fmt: skip
    done = run(command, timeout=60)
    if not done.ok:
        raise RestoreError(f"the scratch server could not be started as {unit}: {done.describe()}")
