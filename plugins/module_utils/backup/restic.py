# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restic repository with copies of backups, one snapshot a backup; its tags tell which backup it is.

:class:`Repository` can add and read, and nothing else. Only :class:`PrunableRepository` can remove.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command, files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Busy

#: Where restic keeps what it knows of a repository; a service of systemd has no home for it.
CACHE = "/var/cache/worklog-maintenance/restic"

#: Snapshots named in one call.
_CHUNK = 100

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER_INFO = re.compile(r"(://[^/\s:@]*):[^/\s@]*@")

#: Options that would give a stranger the backups.
_BLIND = re.compile(
    r"StrictHostKeyChecking\s*=\s*(no|off|accept-new)|UserKnownHostsFile\s*=\s*/dev/null", re.IGNORECASE
)


class ResticError(Exception):
    """A repository could not be used; the message says why and what to do."""


class Missing(ResticError):
    """There is no repository."""


class Damaged(ResticError):
    """The repository, or something in it, is damaged."""


class Locked(ResticError, Busy):
    """Another program works on the repository."""


@dataclass(frozen=True)
class Location:
    """How a repository is reached.

    :param repository: where it is, as restic names it: a path, ``sftp:…``, ``rest:…``, ``s3:…``.
    :param password_file: file with its password, readable by its owner alone.
    :param environment_file: file with ``NAME=VALUE`` lines for the credentials of the backend, likewise.
    :param options: extended options of restic, such as ``sftp.command=ssh …``.
    :param timeout: seconds for one call.
    """

    repository: str
    password_file: str
    environment_file: str | None = None
    options: tuple[str, ...] = ()
    timeout: float = 12 * 3600.0

    def __post_init__(self) -> None:
        for option in self.options:
            if _BLIND.search(option):
                raise ValueError(f"options that check the key of the other host, unlike {option!r}")


@dataclass(frozen=True)
class Snapshot:
    """A copy of one backup.

    :param id: of the snapshot.
    :param time: when the backup was complete, in ISO 8601.
    :param path: of the backup in the snapshot: ``/<kind>/<UTC timestamp>``.
    :param tags: ``source``, ``kind``, ``id``, ``sequence``, and ``parent`` where it has one.
    """

    id: str
    time: str
    path: str
    tags: Mapping[str, str] = field(default_factory=dict)


Runner = Callable[..., command.Result]


class Repository:
    """Adds copies and reads them.

    :param location: how it is reached.
    :param run: runs a program.
    :param stream: runs a program and has its output read.
    """

    def __init__(self, location: Location, run: Runner = command.run, stream: Runner = command.stream) -> None:
        self.location = location
        self._run = run
        self._stream = stream

    def create(self) -> None:
        """Make the repository."""
        self.call("init")

    def identity(self) -> str:
        """Return the id that the repository has had since it was made."""
        found = _json(self.call("cat", "config", "--no-lock"))
        return str(found["id"] if isinstance(found, Mapping) and "id" in found else "")

    def unlock(self) -> None:
        """Remove the locks of programs that are gone; those of living ones stay."""
        self.call("unlock")

    def snapshots(self, source: str) -> tuple[list[Snapshot], int]:
        """Return the copies of a source, and how many others with its tag are no copies of ours."""
        answer = _json(self.call("snapshots", "--json", "--no-lock", "--tag", f"source:{source}"))
        found, foreign = [], 0
        for entry in answer or []:
            tags = dict(tag.split(":", 1) for tag in entry.get("tags") or [] if ":" in tag)
            paths = entry.get("paths") or []
            if tags.get("source") != source or not {"kind", "id", "sequence"} <= set(tags) or len(paths) != 1:
                foreign += 1
                continue
            path = f"/{tags['kind']}/{os.path.basename(paths[0])}"
            found.append(Snapshot(entry["id"], entry["time"], path, tags))
        return found, foreign

    def add(self, directory: str, path: str, tags: Mapping[str, str], ended: str) -> None:
        """Copy a backup.

        :param directory: of the source.
        :param path: of the backup, below it.
        :param tags: which backup it is.
        :param ended: when it was complete, ``YYYY-MM-DD HH:MM:SS`` in UTC.
        """
        arguments = [part for name, value in tags.items() for part in ("--tag", f"{name}:{value}")]
        self.call("backup", "--json", "--quiet", "--force", "--time", ended, *arguments, "--", path, cwd=directory)

    def check(self, part: str | None) -> None:
        """Have restic verify its structure, and read a part of the data.

        :param part: ``all``, or a part such as ``2/20``.
        :raises Damaged: when anything is wrong.
        """
        reading = [] if part is None else ["--read-data"] if part == "all" else [f"--read-data-subset={part}"]
        self.call("check", *reading)

    def archive(self, snapshot: Snapshot, consume: Callable[[IO[bytes]], None]) -> None:
        """Have a copy read as a tar archive, every byte from the repository and none from a cache."""
        argv = self._argv("dump", "--no-lock", "--no-cache", "--archive", "tar", snapshot.id, snapshot.path)
        try:
            result = self._stream(argv, consume, timeout=self.location.timeout, env=self._environment())
        except command.CommandError as error:
            raise ResticError(self._clean(str(error))) from None
        self._judge(result)

    def restore(self, snapshot: Snapshot, target: str) -> None:
        """Write a copy into a directory, below which it has its path."""
        self.call("restore", "--no-lock", snapshot.id, "--target", target)

    def call(self, *arguments: str, cwd: str | None = None) -> str:
        """Run restic and return what it prints.

        :raises ResticError: when it does not succeed.
        """
        try:
            result = self._run(self._argv(*arguments), timeout=self.location.timeout, env=self._environment(), cwd=cwd)
        except command.CommandError as error:
            raise ResticError(self._clean(str(error))) from None
        return self._judge(result)

    def _argv(self, *arguments: str) -> list[str]:
        return ["restic", *[part for option in self.location.options for part in ("-o", option)], *arguments]

    def _environment(self) -> dict[str, str]:
        """Return what must not be seen in a list of processes."""
        place = self.location
        given = read_environment(place.environment_file) if place.environment_file else {}
        _private(place.password_file)
        return {
            "RESTIC_CACHE_DIR": CACHE,
            **given,
            "RESTIC_REPOSITORY": place.repository,
            "RESTIC_PASSWORD_FILE": place.password_file,
            "RESTIC_PROGRESS_FPS": "0.0001",
            "TZ": "UTC",
        }

    def _judge(self, result: command.Result) -> str:
        """Return the output, or raise what went wrong: newer versions tell it by exit code, 0.14 in words."""
        if result.rc == 0:
            return result.stdout
        words = self._clean(" ".join((result.stderr.strip() or result.stdout.strip() or "it said nothing").split()))
        words, name = words[-1000:], self._clean(self.location.repository)
        verb = next((part for part in result.argv[1:] if part in _VERBS), "restic")
        for code, pattern, kind, text in _CAUSES:
            if result.rc == code or pattern.search(words):
                raise kind(text.format(name=name, file=self.location.password_file, words=words))
        if verb in ("check", "dump", "restore") and _DAMAGE.search(words):
            raise Damaged(f"the repository {name} is damaged: {words}")
        ending = f"was ended by signal {-result.rc}" if result.rc < 0 else f"ended with exit code {result.rc}"
        raise ResticError(f"'restic {verb}' on {name} {ending}: {words}")

    def _clean(self, text: str) -> str:
        """Return a text without the secrets that a repository's address or a backend's credentials hold."""
        text = _USER_INFO.sub(r"\1:***@", text)
        place = self.location.environment_file
        try:
            values = read_environment(place).values() if place else []
        except ResticError:
            return text
        for value in sorted(values, key=len, reverse=True):
            text = text.replace(value, "***") if len(value) >= 6 else text
        return text


class PrunableRepository(Repository):
    """A repository from which copies may be removed."""

    def forget(self, snapshots: Sequence[Snapshot]) -> None:
        """Remove exactly these snapshots; the space is freed by :meth:`prune`."""
        ids = [snapshot.id for snapshot in snapshots]
        for start in range(0, len(ids), _CHUNK):
            self.call("forget", *ids[start : start + _CHUNK])

    def prune(self) -> None:
        """Free the space that no snapshot needs."""
        self.call("prune")


_VERBS = ("init", "cat", "unlock", "snapshots", "backup", "check", "dump", "restore", "forget", "prune")

#: What went wrong: exit code of newer versions, words of 0.14, and what to tell.
_CAUSES: tuple[tuple[int | None, re.Pattern[str], type[ResticError], str], ...] = (
    (
        11,
        re.compile(r"already locked|unable to create lock"),
        Locked,
        "the repository {name} is locked by another program: {words}; try again when it has ended; what a killed "
        "program on another host has left is removed after 30 minutes, or at once by hand with 'restic unlock'",
    ),
    (
        12,
        re.compile(r"wrong password or no key found"),
        ResticError,
        "the password in {file} does not open the repository {name}; nothing was changed there",
    ),
    (
        None,
        re.compile(r"no space left on device|disk quota exceeded|not enough space", re.IGNORECASE),
        ResticError,
        "no space is left in the repository {name}: {words}; make room there or prune the tier",
    ),
    (
        None,
        re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED"),
        ResticError,
        "the key of the host of {name} is not known here: {words}; put it into known_hosts after comparing it",
    ),
    (  # restic may end before it has handed on all or any of what ssh says
        None,
        re.compile(
            r"\A(?!.*([Cc]onnection|Permission denied|[Nn]o route to host|Could not resolve|timed out))"
            r".*unable to start the sftp session"
        ),
        ResticError,
        "the repository {name} cannot be reached: {words}; is the key of its host in known_hosts?",
    ),
    (
        None,
        re.compile(
            r"unable to start the sftp session|[Cc]onnection (refused|reset|timed out)|[Nn]o route to host|"
            r"Could not resolve|no such host|Permission denied \(|i/o timeout"
        ),
        ResticError,
        "the repository {name} cannot be reached: {words}",
    ),
    (
        10,
        re.compile(r"Is there a repository at the following location|unable to open config file"),
        Missing,
        "there is no repository at {name}: {words}; if the place is right and mounted, and a new one is wanted, "
        "make it with: worklog-backup init SOURCE TIER",
    ),
    (
        3,
        re.compile(r"at least one source file could not be read"),
        ResticError,
        "restic could not read all files of the backup, so that the copy in {name} is incomplete: {words}",
    ),
)

_DAMAGE = re.compile(
    r"repository contains errors|does not exist|verification failed|not found|does not match|invalid data|"
    r"There were \d+ errors|unexpected EOF|damaged|failed to (load|download)|no such file",
    re.IGNORECASE,
)


def read_environment(path: str) -> dict[str, str]:
    """Return the variables in a file of ``NAME=VALUE`` lines.

    :raises ResticError: when it cannot be read, others can read it, or a line is none.
    """
    _private(path)
    found = {}
    try:
        lines = files.read(path).decode("utf-8", "replace").splitlines()
    except files.FileError as error:
        raise ResticError(str(error)) from error
    for number, line in enumerate(lines, 1):
        name, separator, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not separator or not _VARIABLE.fullmatch(name):
            raise ResticError(f"line {number} of {path} is not NAME=VALUE")
        found[name] = value.strip().strip("'\"")
    return found


def _private(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ResticError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise ResticError(f"{path} must be a file that only its owner can read (mode 0600): it holds a secret")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ResticError(f"restic printed something that is no JSON: {text[:200]!r}") from None
