# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The package manager of Debian and its family on this host: apt-get, apt-cache and dpkg, by argument lists."""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import struct
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import IO
from urllib.parse import unquote

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import cves, debian
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, Installed, PackageError
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.version import older

#: What keeps maintainer scripts from asking, and needrestart's hook from restarting what the caller wants to restart.
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_SUSPEND": "1",
    "NEEDRESTART_MODE": "l", "UCF_FORCE_CONFFOLD": "1",
}  # fmt: skip
#: A configuration file that somebody has changed stays; one that nobody has changed becomes the new one.
DPKG = ["--force-confdef", "--force-confold"]
ARCHIVES = "/var/cache/apt/archives"
EXTENDED_STATES = "/var/lib/apt/extended_states"
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", f"{ARCHIVES}/lock")
STATUS = "/var/lib/dpkg/status"
UPDATES = "/var/lib/dpkg/updates"
#: Seconds for what only reads.
QUESTION = 120.0
_NOT_FOUND = re.compile(r"E: (?:Version '\S+' for '\S+' was not found|Unable to locate package \S+).*")
#: A changelog longer than this is not read to its end; the newest entries come first.
_CHANGELOG = 1 << 20


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock of the package manager."""

    path: str
    pid: int
    words: str


class Apt:
    """apt of this host.

    :param run: how programs are run.
    """

    kind = "apt"

    def __init__(self, run: command.Runner = command.run) -> None:
        self._run = run
        self._shown: dict[str, dict[str, str]] = {}
        self.native = self._read(["dpkg", "--print-architecture"]).strip()

    def _read(self, argv: Sequence[str], *, fail: bool = True) -> str:
        done = self._run(argv, timeout=QUESTION, env=ENVIRONMENT)
        if fail and not done.ok:
            raise PackageError(done.describe())
        return done.stdout

    def installed(self) -> dict[str, Installed]:
        """Return what is installed, by name and architecture."""
        try:
            with open(EXTENDED_STATES, encoding="utf-8", errors="replace") as stream:
                automatic = debian.parse_automatic(stream.read(), self.native)
        except FileNotFoundError:
            automatic = frozenset()
        return debian.parse_installed(self._read(["dpkg-query", "-W", "-f", debian.FORMAT]), automatic)

    def audit(self) -> str:
        """Return what dpkg has not finished, in its own words; empty when all is well."""
        told = self._run(["dpkg", "--audit"], timeout=QUESTION).stdout.strip()
        return told or ("dpkg was cut off" if self.interrupted() else "")

    def interrupted(self) -> bool:
        """Tell whether dpkg was cut off, which apt-get refuses to go on from; by dpkg's journal, as apt-get does."""
        return any(name.isdigit() for name in os.listdir(UPDATES)) if os.path.isdir(UPDATES) else False

    def holders(self) -> list[Holder]:
        """Return the processes that hold a lock of dpkg or apt."""
        found = []
        for path in LOCKS:
            pid = lock_holder(path)
            if pid:
                found.append(Holder(path, pid, _words(pid)))
        return found

    def wait_for_locks(
        self, timeout: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> list[Holder]:
        """Wait until no lock is held; return who still holds one when the time is over."""
        deadline = clock() + timeout
        while True:
            held = self.holders()
            if not held or clock() >= deadline:
                return held
            sleep(min(1.0, max(0.0, deadline - clock())))

    def refresh(self, timeout: float) -> list[Finding]:
        """Load the lists of what there is; return what is wrong with a repository."""
        done = self._run(["apt-get", "-q", "update"], timeout=timeout, env=ENVIRONMENT)
        found = debian.parse_update(done.stdout + done.stderr)
        if not done.ok and not any(one.severity == "critical" for one in found):
            raise PackageError(done.describe())
        return found

    def upgrades(self) -> tuple[list[Change], list[str]]:
        """Return what an upgrade that removes nothing would change, and what it would have to leave."""
        text = self._read(["apt-get", "-s", "-q", "-o", "Debug::NoLocking=true", "--with-new-pkgs", "upgrade"])
        return debian.parse_simulation(text)[0], debian.parse_kept_back(text)

    def closure(self, wanted: Iterable[Change]) -> list[Change]:
        """Return exactly what installing these versions would change, with what they need.

        :raises PackageError: when a version is not to be had, or something would be removed.
        """
        names = [_exact(change) for change in wanted]
        if not names:
            return []
        done = self._run(
            ["apt-get", "-s", "-q", "-y", "-o", "Debug::NoLocking=true", "--allow-downgrades", "install", *names],
            timeout=QUESTION,
            env=ENVIRONMENT,
        )
        changes, removed = debian.parse_simulation(done.stdout)
        if not done.ok:
            missing = _NOT_FOUND.findall(done.stderr)
            raise PackageError("; ".join(missing) if missing else done.describe())
        if removed:
            raise PackageError(
                f"{', '.join(removed)} would be removed, which patching never does; deny what asks for it"
            )
        return changes

    def details(self, changes: Sequence[Change]) -> dict[str, dict[str, str]]:
        """Return what the lists tell of the new versions, by ``name:architecture=version``."""
        new = [name for name in map(_exact, changes) if name not in self._shown]
        if new:
            self._shown.update(debian.parse_show(self._read(["apt-cache", "show", *new], fail=False)))
        return {name: self._shown[name] for name in map(_exact, changes) if name in self._shown}

    def files(self, changes: Sequence[Change]) -> dict[str, str]:
        """Return the new packages that are on this host already, in the cache or at a file: address."""
        found: dict[str, str] = {}
        if not changes:
            return found
        argv = [
            "apt-get",
            "-q",
            "-y",
            "-o",
            "Debug::NoLocking=true",
            "--allow-downgrades",
            "--reinstall",
            "--print-uris",
        ]
        uris = debian.parse_uris(self._read([*argv, "install", *map(_exact, changes)], fail=False))
        for change in changes:
            cached = os.path.join(ARCHIVES, cache_name(change.name, change.after, change.architecture))
            uri = uris.get(os.path.basename(cached), "")
            local = unquote(uri[5:]) if uri.startswith("file:") else ""
            path = next((one for one in (cached, local) if one and os.path.isfile(one)), "")
            if path:
                found[change.key] = path
        return found

    def changelog(self, path: str) -> str:
        """Return the newest part of the changelog in a package; empty when it has none."""
        kept: list[bytes] = []

        def consume(output: IO[bytes]) -> None:
            with tarfile.open(fileobj=output, mode="r|") as archive:
                for member in archive:
                    if (
                        re.fullmatch(r"\./usr/share/doc/[^/]+/changelog(\.Debian)?(\.gz)?", member.name)
                        and member.isfile()
                    ):
                        stream = archive.extractfile(member)
                        if stream is not None:
                            plain = gzip.GzipFile(fileobj=stream) if member.name.endswith(".gz") else stream
                            kept.append(plain.read(_CHANGELOG))
                        if "Debian" in member.name:
                            return

        try:
            command.stream(["dpkg-deb", "--fsys-tarfile", path], consume, timeout=QUESTION)
        except (tarfile.TarError, OSError, EOFError, command.CommandError):
            return ""
        return kept[-1].decode("utf-8", "replace") if kept else ""

    def explain(
        self, changes: Sequence[Change], installed: dict[str, Installed], data: cves.Data | None, now: float
    ) -> list[Change]:
        """Return the changes with the CVEs that they fix and their age, as far as data or changelogs tell."""
        details, files = self.details(changes), self.files(changes)
        listed = {} if data or not changes else self._debsecan()
        explained = []
        for change in changes:
            found, age, old = set(listed.get(change.name, ())), change.age, installed.get(change.key)
            if data and old:
                source, version = source_of(details.get(_exact(change), {}), change)
                found |= set(
                    data.fixed(change.name, source, (old.version, old.source_version), (change.after, version))
                )
            text = self.changelog(files[change.key]) if change.key in files else ""
            if text and old:
                past = {one: older(one, old.source_version) for one in debian.versions_of(text)}
                found |= set(debian.fixed_by_changelog(text, old.source_version, past))
            changed = debian.changed_at(text)
            if changed is not None:
                age = max(0.0, now - changed)
            explained.append(replace(change, cves=tuple(sorted(found)), age=age))
        return explained

    def _debsecan(self) -> dict[str, tuple[str, ...]]:
        if not command.which("debsecan"):
            return {}
        codename = release().get("codename", "")
        suite = [f"--suite={codename}"] if codename else []
        return cves.parse_debsecan(self._read(["debsecan", *suite, "--only-fixed", "--format=summary"], fail=False))

    def status(self) -> tuple[int, int]:
        """Return what tells whether dpkg has changed anything: it writes its status anew, under another name."""
        found = os.stat(STATUS)
        return found.st_ino, found.st_mtime_ns

    # -- what changes the host ----------------------------------------------------------------------------------------

    def fetch(self, changes: Sequence[Change], timeout: float) -> None:
        """Load the packages, so that no network is needed later.

        :raises PackageError: when one cannot be had.
        """
        argv = ["apt-get", "-q", "-y", "--allow-downgrades", "--download-only", "install", *map(_exact, changes)]
        done = self._run(argv, timeout=timeout, env=ENVIRONMENT)
        if not done.ok:
            raise PackageError(done.describe())

    def keep(self, one: Installed, directory: str, timeout: float) -> str:
        """Put the package of an installed version into a directory; return its path, empty when it is not to be had.

        :raises PackageError: when there is no room for it.
        """
        name = cache_name(one.name, one.version, one.architecture)
        target, cached = os.path.join(directory, name), os.path.join(ARCHIVES, name)
        if is_package(self._run, target, one):
            return target
        if is_package(self._run, cached, one):
            copy(cached, target)
        else:
            for argv in (
                ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{one.key}={one.version}"],
                ["dpkg-repack", f"--arch={one.architecture}", one.name],
            ):
                if command.which(argv[0]):
                    self._run(argv, timeout=timeout, env=ENVIRONMENT, cwd=directory)
                    # dpkg-repack leaves the epoch out of the name
                    plain = one.version.partition(":")[2] or one.version
                    made = os.path.join(directory, f"{one.name}_{plain}_{one.architecture}.deb")
                    if made != target and os.path.isfile(made):
                        os.replace(made, target)
                if os.path.isfile(target):
                    break
        if is_package(self._run, target, one):
            return target
        if not os.statvfs(directory).f_bavail:  # apt-get does not say so of a repository on this host's own disk
            raise PackageError(f"{one.key} {one.version} cannot be kept: No space left on device in {directory}")
        return ""

    def configure(self, timeout: float) -> None:
        """Finish what dpkg had begun; what it says of a package that fails shows when it is read back."""
        self._run(["dpkg", "--configure", "-a", *DPKG], timeout=timeout, env=ENVIRONMENT)

    def install(self, changes: Sequence[Change], timeout: float, lock_timeout: float) -> command.Result:
        """Install exactly these versions."""
        return self._apply(["--no-remove", "install", *map(_exact, changes)], timeout, lock_timeout)

    def put_back(
        self, files: Sequence[str], purge: Sequence[str], timeout: float, lock_timeout: float
    ) -> command.Result:
        """Install packages from files, and purge what was new, in one step; apt finds the order."""
        removed = [f"{name}-" for name in purge]
        argv = ["--purge", "--reinstall", "--allow-change-held-packages", "install", *files, *removed]
        return self._apply(argv, timeout, lock_timeout)

    def _apply(self, argv: Sequence[str], timeout: float, lock_timeout: float) -> command.Result:
        options = ["-q", "-y", "--allow-downgrades", "-o", f"DPkg::Lock::Timeout={lock_timeout:.0f}"]
        options += ["-o", "Dpkg::Use-Pty=0", "-o", "APT::Sandbox::User=root"]
        for option in DPKG:
            options += ["-o", f"Dpkg::Options::={option}"]
        return self._run(["apt-get", *options, *argv], timeout=timeout, env=ENVIRONMENT)

    def mark(self, mark: str, names: Sequence[str]) -> None:
        """Mark packages as ``auto``, ``manual``, ``hold`` or ``unhold``.

        :raises PackageError: when that fails.
        """
        if names:
            done = self._run(["apt-mark", "-q", mark, *names], timeout=QUESTION, env=ENVIRONMENT)
            if not done.ok:
                raise PackageError(done.describe(), refused=False)

    def conffiles(self, names: Sequence[str]) -> dict[str, str]:
        """Return the configuration files of packages with the MD5 sums they were shipped with."""
        if not names:
            return {}
        return debian.parse_conffiles(self._read(["dpkg-query", "-W", "-f", "${Conffiles}\n", *names], fail=False))

    def contents(self, names: Sequence[str]) -> set[str]:
        """Return the paths that packages own."""
        return set(self._read(["dpkg-query", "-L", *names], fail=False).splitlines()) if names else set()


def _exact(change: Change) -> str:
    return f"{change.key}={change.after}"


def cache_name(name: str, version: str, architecture: str) -> str:
    """Return the file name that apt gives a package."""
    quoted = version.replace("%", "%25").replace(":", "%3a").replace("_", "%5f")
    return f"{name}_{quoted}_{architecture}.deb"


def units_of(paths: Iterable[str]) -> set[str]:
    """Return the services among the paths that packages own."""
    units = re.compile(r"/(?:usr/)?lib/systemd/system/([^/@]+\.service)")
    return {found.group(1) for found in map(units.fullmatch, paths) if found}


def source_of(details: dict[str, str], change: Change) -> tuple[str, str]:
    """Return name and version of the source of a new version."""
    name, _space, version = details.get("Source", change.name).partition(" ")
    return name, version.strip("()") or change.after


def is_package(run: command.Runner, path: str, one: Installed) -> bool:
    """Tell whether a file is the whole package of exactly this version."""
    if not os.path.isfile(path):
        return False
    fields = run(["dpkg-deb", "-f", path, "Package", "Version", "Architecture"], timeout=QUESTION)
    found = debian.parse_fields(fields.stdout)
    if (found.get("Package"), found.get("Version"), found.get("Architecture")) != (
        one.name,
        one.version,
        one.architecture,
    ):
        return False
    try:  # to its end, since a file that was cut has a head too
        return command.stream(["dpkg-deb", "--fsys-tarfile", path], lambda output: None, timeout=QUESTION).ok
    except command.CommandError:
        return False


def copy(source: str, target: str) -> None:
    """Copy a file by a name that is there only when it is whole.

    :raises PackageError: when it cannot be written.
    """
    try:
        with open(source, "rb") as stream, open(f"{target}.new", "wb") as out:
            while True:
                block = stream.read(1 << 20)
                if not block:
                    break
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        os.replace(f"{target}.new", target)
    except OSError as error:
        if os.path.exists(f"{target}.new"):
            os.unlink(f"{target}.new")
        raise PackageError(f"cannot keep {source} as {target}: {error.strerror}") from error


def lock_holder(path: str) -> int:
    """Return the process that holds the lock of a file; 0 when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        asked = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack("@hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return int(pid) if kind != fcntl.F_UNLCK else 0
    finally:
        os.close(descriptor)


def _words(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read(4096).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "a process that has ended meanwhile"


def release(path: str = "/etc/os-release") -> dict[str, str]:
    """Return distribution, version and code name of this host."""
    found = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, equals, value = line.strip().partition("=")
                if equals:
                    found[name] = value.strip('"')
    except OSError:
        pass
    return {
        "id": found.get("ID", ""),
        "version": found.get("VERSION_ID", ""),
        "codename": found.get("VERSION_CODENAME", ""),
    }
