# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Release directories: made whole or not at all, proven before they are used, and made live by one link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.archive import ArchiveError
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner

#: What may be the name of a release directory or of a tag.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

_BLOCK = 1 << 20


class ArtefactError(Exception):
    """What was asked was not done; what was live is live."""


@dataclass
class Outcome:
    """What was done.

    :param artefact: what stands for the version: its directory relative to root, or the identifier of its image.
    :param live: version and artefact that are live now.
    :param proof: how the artefact was proven, one sentence each.
    :param removed: versions that were removed.
    """

    changed: bool = False
    artefact: str = ""
    live: Mapping[str, str] = field(default_factory=dict)
    proof: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    message: str = ""


@dataclass(frozen=True)
class Finish:
    """What is done to a release when its files are there.

    :param owner: account that owns the files and that the programs run as; None for root.
    :param shared: links to make, by their path in the release.
    :param commands: argument lists to run in the release.
    :param exclude: patterns of names that the application itself writes, which are no part of what has to stay.
    """

    owner: str | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[Sequence[str]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    timeout: float = 600


def check_name(version: str) -> str:
    """Return the name of a version.

    :raises ArtefactError: when it could lead elsewhere.
    """
    if not NAME.fullmatch(version):
        raise ArtefactError(f"'{version}' cannot be the name of a release: use letters, digits and . _ + -")
    return version


class Releases:
    """The release directories of one application.

    :param root: has the directory ``releases`` and the link ``current``.
    :param run: runs programs.
    """

    def __init__(self, root: str, run: Runner) -> None:
        self.root = root
        self.run = run
        self.directory = os.path.join(root, "releases")
        self.link = os.path.join(root, "current")

    def place(self, version: str) -> str:
        """Return the directory of a version."""
        return os.path.join(self.directory, version)

    def listing(self, version: str) -> str:
        """Return the path of what is written beside a release when it is whole."""
        return os.path.join(self.directory, f".{version}.json")

    def live(self) -> dict[str, str]:
        """Return version and artefact that the link names; empty when there is no link.

        :raises ArtefactError: when current is something else.
        """
        if not os.path.lexists(self.link):
            return {}
        if not os.path.islink(self.link):
            raise ArtefactError(f"{self.link} is not a symbolic link; move it away, and link the release that runs")
        target = os.path.normpath(os.path.join(self.root, os.readlink(self.link)))
        inside = os.path.dirname(target) == os.path.normpath(self.directory)
        name = os.path.basename(target)
        return {"version": name, "artefact": f"releases/{name}" if inside else target}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs on this host out.

        :raises ArtefactError: when one is at work.
        """
        try:
            os.makedirs(self.directory, mode=0o755, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ArtefactError(f"cannot use {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtefactError(f"another run works in {self.directory}; wait for it") from None
        else:
            yield
        finally:
            os.close(descriptor)

    def trouble(self, version: str, exclude: Sequence[str]) -> str:
        """Return why a release must not be used, empty when it is as it was made."""
        place = self.place(version)
        if not os.path.isdir(place):
            return f"{place} is not there"
        try:
            with open(self.listing(version), encoding="utf-8") as stream:
                listed = json.load(stream)["files"]
        except FileNotFoundError:
            return f"{place} was not made or finished by this module"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{self.listing(version)} cannot be read: {error}"
        found = contents(place, exclude)
        wrong = [path for path, value in listed.items() if found.get(path) != value and not _excluded(path, exclude)]
        if wrong:
            return f"{place} is not as it was made: {', '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}"
        return ""

    def make(self, version: str, fill: Callable[[str], Mapping[str, Any]], finish: Finish) -> None:
        """Make a release under another name, and rename it when it is whole and on disk.

        :param fill: fills a directory, and returns where that came from.
        :raises ArtefactError: when it cannot be made; nothing of it stays.
        """
        partial = os.path.join(self.directory, f".{version}.partial")
        try:
            for name in os.listdir(self.directory):  # what a run that was killed has left
                if name.startswith(".git-") or name.endswith((".partial", ".removed")):
                    _remove(os.path.join(self.directory, name))
            os.mkdir(partial, 0o755)
            origin = fill(partial)
            self._complete(partial, finish)
            self._seal(version, partial, origin, finish.exclude)
            os.sync()
            os.rename(partial, self.place(version))
            files.sync_directory(self.directory)
        except (OSError, ArchiveError, CommandError, files.FileError) as error:
            full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
            cure = "; make room there, nothing was changed" if full else ""
            raise ArtefactError(f"{self.place(version)} cannot be made: {error}{cure}") from error
        finally:
            with contextlib.suppress(OSError):
                _remove(partial)

    def seal(self, version: str, exclude: Sequence[str]) -> None:
        """Write down what a release that is there consists of.

        :raises ArtefactError: when that fails.
        """
        try:
            self._seal(version, self.place(version), {"found": True}, exclude)
        except (OSError, files.FileError) as error:
            raise ArtefactError(f"{self.listing(version)} cannot be written: {error}") from error

    def switch(self, artefact: str) -> bool:
        """Have the link name a release, and return whether that is a change.

        :raises ArtefactError: when it cannot; the old one is live then.
        """
        if self.live().get("artefact") == artefact:
            return False
        if not os.path.isdir(os.path.join(self.root, artefact)):
            raise ArtefactError(f"{os.path.join(self.root, artefact)} is not there; what was live is live")
        try:
            files.switch_link(self.link, artefact)
        except OSError as error:
            raise ArtefactError(f"{self.link} cannot be switched: {error.strerror}; what was live is live") from error
        return True

    def let_go(self) -> None:
        """Remove the link, so that nothing is live.

        :raises ArtefactError: when it cannot be removed.
        """
        try:
            os.unlink(self.link)
            files.sync_directory(self.root)
        except OSError as error:
            raise ArtefactError(f"{self.link} cannot be removed: {error.strerror}") from error

    def remove(self, version: str) -> bool:
        """Remove a release, first its name, so that half of it is never taken for a release.

        :raises ArtefactError: when it is live, or cannot be removed.
        """
        if self.live().get("artefact") == f"releases/{version}":
            raise ArtefactError(f"{self.place(version)} is live and cannot be removed")
        gone = os.path.join(self.directory, f".{version}.removed")
        there = os.path.isdir(self.place(version))
        try:
            _remove(gone)
            if there:
                os.rename(self.place(version), gone)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.listing(version))
            _remove(gone)
        except OSError as error:
            raise ArtefactError(f"{self.place(version)} cannot be removed: {error.strerror}") from error
        return there

    def surplus(self, keep: int, protect: Sequence[str]) -> list[str]:
        """Return the releases of ours that are more than are to be kept, oldest first."""
        made = []
        for name in os.listdir(self.directory):
            if os.path.isfile(self.listing(name)) and os.path.isdir(self.place(name)):
                made.append((os.stat(self.listing(name)).st_mtime_ns, name))
        return surplus([name for _unused, name in sorted(made)], keep, [self.live().get("version", ""), *protect])

    def _complete(self, place: str, finish: Finish) -> None:
        account = None
        if finish.owner:
            try:
                account = pwd.getpwnam(finish.owner)
            except KeyError:
                raise ArtefactError(f"there is no account '{finish.owner}' on this host") from None
        check_links(place)
        for path, target in finish.shared.items():
            link = os.path.join(place, path)
            if os.path.isabs(path) or ".." in path.split("/"):
                raise ArtefactError(f"shared: '{path}' is not a path in the release")
            if os.path.realpath(os.path.dirname(link)) != os.path.normpath(os.path.dirname(link)):
                raise ArtefactError(f"shared: '{path}' is behind a link")
            os.makedirs(os.path.dirname(link), exist_ok=True)
            _remove(link)
            os.symlink(target, link)
        for here, directories, names in os.walk(place):
            for path in (here, *(os.path.join(here, name) for name in (*directories, *names))):
                if account is not None and os.geteuid() == 0:
                    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
                elif os.geteuid() == 0:
                    os.chown(path, 0, 0, follow_symlinks=False)
                if not os.path.islink(path):
                    # archives without entries for directories leave them closed; nobody else may write
                    mode = stat.S_IMODE(os.lstat(path).st_mode)
                    os.chmod(path, mode | 0o755 if os.path.isdir(path) else mode & 0o755)
        for argv in finish.commands:
            done = self.run(
                [str(part) for part in argv],
                timeout=finish.timeout, cwd=place, user=finish.owner, env=finish.environment,
            )  # fmt: skip
            if not done.ok:
                raise ArtefactError(f"nothing was changed: in the new release {done.describe()}")

    def _seal(self, version: str, place: str, origin: Mapping[str, Any], exclude: Sequence[str]) -> None:
        document = {"schema": 1, "version": version, "origin": dict(origin), "made": time.time()}
        text = json.dumps({**document, "files": contents(place, exclude)}, sort_keys=True)
        files.replace(self.listing(version), text.encode("utf-8", "surrogateescape"), mode=0o644)


def surplus(oldest_first: Sequence[str], keep: int, protect: Sequence[str]) -> list[str]:
    """Return what is more than is to be kept; those protected count, and stay."""
    stay = set(protect)
    over = len(oldest_first) - max(keep, 1)
    found = [name for name in oldest_first if name not in stay]
    return found[: max(0, over)]


def contents(place: str, exclude: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of each file, and where each link leads, by the path in the directory."""
    found = {}
    for here, directories, names in os.walk(place):
        directories[:] = [name for name in directories if not _excluded(name, exclude)]
        for name in (*directories, *names):
            path = os.path.join(here, name)
            inside = os.path.relpath(path, place)
            if os.path.islink(path):
                found[inside] = f"link:{os.readlink(path)}"
            elif os.path.isfile(path) and not _excluded(name, exclude):
                found[inside] = sha256(path)
    return found


def sha256(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_links(place: str) -> None:
    """Refuse links that lead out of a directory, and what is neither file, directory nor link.

    :raises ArtefactError: naming the first.
    """
    whole = os.path.realpath(place)
    for here, directories, names in os.walk(place):
        for name in (*directories, *names):
            path = os.path.join(here, name)
            inside = os.path.relpath(path, place)
            if os.path.islink(path):
                target = os.readlink(path)
                real = os.path.realpath(path)
                if os.path.isabs(target) or not (real == whole or real.startswith(whole + os.sep)):
                    raise ArtefactError(f"nothing was changed: the link {inside!r} leads out of the release")
            elif stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise ArtefactError(f"nothing was changed: {inside!r} is neither a file, a directory nor a link")


def _excluded(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in path.split(os.sep) for pattern in patterns)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
