# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put restored data in the place of those in production, which are kept, and put them back when it fails.

The data are made ready beside the old ones, while the service runs; then it is stopped, two directories are renamed,
and it is started. What is about to be done is written down first, so that whoever comes after a crash goes on from
there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import DUMP, utc
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import job, scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Parts, RestoreError, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.files import Archive
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.restorers import restorer_of
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Store
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding, worst

#: Where the journals are.
STATE = "/var/lib/worklog-maintenance/restore"

#: In this order; each is written before its step begins. What stands behind ``built`` touches production.
BUILDING, BUILT, STOPPING, SWAPPING, STARTING, CHECKING, DONE = (
    "building", "built", "stopping", "swapping", "starting", "checking", "done"
)  # fmt: skip
PUTTING_BACK, PUT_BACK = "putting back", "put back"
_FINISHED = (DONE, PUT_BACK)

_IN_WORDS = {
    BUILDING: "the data were being made ready beside the old ones; nothing in production was touched",
    BUILT: "the data are ready beside the old ones; nothing in production was touched",
    STOPPING: "the services were being stopped; the old data are in place",
    SWAPPING: "the data were being exchanged",
    STARTING: "the restored data are in place, the services were being started",
    CHECKING: "the restored data are in place, the services run, and were being checked",
    PUTTING_BACK: "the old data were being put back",
}


class Failed(RestoreError):
    """The restore failed after production was touched; the message says what was put back."""


@dataclass(frozen=True)
class Production:
    """What is replaced.

    :param directory: the data of the service.
    :param service: the unit of systemd that has them open, empty when there is none.
    :param applications: further units of this host, which are stopped before and started again after it.
    :param client: configuration file for asking the running service, None: as this account may.
    """

    directory: str
    service: str = ""
    applications: tuple[str, ...] = ()
    client: str | None = None


@dataclass
class Journal:
    """What was done, as it stands on disk."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """Return the step that was begun last, empty when there is none."""
        return str(self.values.get("stage", ""))

    @property
    def unfinished(self) -> bool:
        """Return whether a restore was begun and not ended."""
        return bool(self.stage) and self.stage not in _FINISHED

    def write(self, stage: str, **values: Any) -> None:
        """Write down what is begun now.

        :raises RestoreError: when it cannot be written; then it must not be begun.
        """
        self.values.update(values, stage=stage)
        try:
            files.replace(self.path, json.dumps(self.values, indent=1).encode() + b"\n", mode=0o600)
        except files.FileError as error:
            raise RestoreError(f"the journal cannot be written, so nothing more is done: {error}") from error

    def describe(self) -> str:
        """Return in words what was found."""
        source, began = self.values.get("source"), self.values.get("began", "an unknown time")
        return f"a restore of {source} that began at {began} was not ended: {_IN_WORDS.get(self.stage, self.stage)}"


class InPlace:
    """One restore in place; used under :func:`held`.

    :param request: what is to be restored.
    :param production: what is replaced.
    :param journal: of the source.
    :param say: tells the operator what is done now.
    """

    def __init__(
        self,
        request: job.Request,
        production: Production,
        journal: Journal,
        run: Runner,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.request = request
        self.production = production
        self.journal = journal
        self.run = run
        self.say = say
        self.clock = clock
        self.directory = os.path.realpath(production.directory)
        self.root = os.path.join(os.path.dirname(self.directory), ".worklog-restore")
        self.swaps = True
        self.findings: list[Finding] = []
        self.downtime: float | None = None

    def look(self) -> None:
        """Refuse what cannot work, before anything is done.

        :raises RestoreError: with the reason.
        """
        _known, backups = job.catalogue(self.request)
        restorer = restorer_of(backups[-1], self.request.options)
        self.swaps = restorer.swaps
        if not restorer.swaps and not isinstance(restorer, Archive):
            raise RestoreError(
                f"{self.request.source} ({restorer.name}) is not restored in place: restore it into scratch, "
                "with serve, look at it, and copy from there what is needed"
            )
        if not os.path.isdir(self.directory):
            raise RestoreError(f"{self.directory} is no directory: name the one that holds {self.request.source}")
        if restorer.swaps and os.path.ismount(self.directory):
            raise RestoreError(
                f"{self.directory} is a mount point, which cannot be renamed: restore into scratch beside it "
                "and move the files by hand, or mount the file system one level higher"
            )
        for unit in filter(None, (self.production.service, *self.production.applications)):
            known = self.run(["systemctl", "show", "--property=LoadState", "--value", unit], timeout=60).stdout.strip()
            if known != "loaded":
                raise RestoreError(f"there is no unit {unit} on this host (it is {known or 'unknown'})")
        if self.journal.unfinished:
            self.say(self.journal.describe())
            if self.journal.values.get("wanted") != self._wanted():
                raise RestoreError(
                    f"{self.journal.describe()}; this is another request. Run the same one again to go on, or "
                    "state=put_back to end it"
                )

    def restore(self, only_build: bool = False) -> None:
        """Go from wherever the journal stands to the restored data in production.

        :param only_build: stop when they are ready.
        :raises RestoreError: when it fails before production was touched.
        :raises Failed: when it fails after that; the old data are back then, or the message says why not.
        """
        if self.journal.stage == PUTTING_BACK:
            self.put_back()
            raise Failed("an earlier restore had failed; its old data are back now, run it once more")
        built = str(self.journal.values.get("built", ""))
        if not self.journal.unfinished or self.journal.stage == BUILDING or not (
            os.path.isdir(built) or self.journal.stage in (SWAPPING, STARTING, CHECKING)
        ):  # fmt: skip
            self._build()
        if only_build:
            return
        began = time.monotonic()
        try:
            self._swap()
        except (RestoreError, CommandError, OSError) as error:
            try:
                self.put_back()
            except (RestoreError, CommandError, OSError) as second:
                raise Failed(
                    f"{error}; and the old data could not be put back: {second}. They are in "
                    f"{self.journal.values.get('aside')}; run state=put_back when the cause is gone"
                ) from error
            raise Failed(
                f"{error}; the old data are back in {self.directory} and the services run as before"
            ) from error
        finally:
            self.downtime = round(time.monotonic() - began, 3)

    def put_back(self) -> None:
        """Have the data in production that were there before the restore.

        :raises RestoreError: when that cannot be done.
        """
        if not self.journal.stage:
            raise RestoreError(f"there is no restore of {self.request.source} to put back")
        aside = str(self.journal.values.get("aside", ""))
        self.journal.write(PUTTING_BACK)
        if not self.journal.values.get("swaps", True):
            self._stop()
            self._put_files_back(aside)
        elif aside and os.path.isdir(aside):
            self._stop()
            if os.path.lexists(self.directory):
                failed = self._free(f"{self.directory}.failed-{_stamp(self.clock())}")
                os.rename(self.directory, failed)
                self.journal.values["failed"] = failed
                self.say(f"the restored data are in {failed}")
            os.rename(aside, self.directory)
            files.sync_directory(os.path.dirname(self.directory))
        self._start()
        self._tidy()
        self.journal.write(PUT_BACK)
        self.say(f"the data from before are in {self.directory}")

    def _build(self) -> None:
        for path in scratch.clean(self.root):
            self.say(f"removed {path}, which an interrupted restore has left")
        self._tidy()
        self.journal.values.clear()
        self.journal.write(
            BUILDING, source=self.request.source, wanted=self._wanted(), began=utc(self.clock()), host=platform.node()
        )
        ready = False
        root = self.root if self.swaps else self.request.scratch
        with scratch.directory(root, self.request.source, keep=lambda: ready) as place:
            with job.restored(self.request, place, self.say) as (result, _session):
                pass
            if not result.good:
                reasons = "; ".join(finding.message for finding in result.examined.findings)
                raise RestoreError(f"what was restored is not what was recorded, production was not touched: {reasons}")
            self._look_at_dump(result)
            self.findings += job.findings_of(result)
            ready = True
            self.journal.write(BUILT, built=result.path, place=place, swaps=self.swaps, **result.as_dict())

    def _look_at_dump(self, result: job.Restored) -> None:
        """Refuse a dump that does not hold all databases: the others would be gone."""
        if result.plan.base.last.manifest.kind != DUMP:
            return
        names = (set(_directories(self.directory)) - set(_directories(result.path))) - {"#rocksdb", "lost+found"}
        if names:
            raise RestoreError(
                f"the dump {result.plan.base.last.path} does not hold {', '.join(sorted(names))}, which would be gone; "
                "nothing was touched. Load it into the running server by hand, or restore from a full backup"
            )

    def _swap(self) -> None:
        values = self.journal.values
        if self.journal.stage in (BUILT, STOPPING):
            aside = values.get("aside") or self._free(self._aside())
            self.journal.write(STOPPING, aside=aside)
            self._stop()
            self.journal.write(SWAPPING)
        if self.journal.stage == SWAPPING:
            self._stop()
            self._exchange(str(values["built"]), str(values["aside"]))
            self.say(f"the data from before are kept in {values['aside']}; remove them when nobody misses them")
            self.journal.write(STARTING)
        if self.journal.stage == STARTING:
            self._start(only_service=True)
            self.journal.write(CHECKING)
        self._check()
        self._start()
        self._tidy()
        self.journal.write(DONE, ended=utc(self.clock()))

    def _tidy(self) -> None:
        """Remove what is left of the place in which the data were made ready."""
        place = str(self.journal.values.get("place", ""))
        if place:
            shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(self.root)

    def _exchange(self, built: str, aside: str) -> None:
        """Give the two directories each other's part; every state in between is known by what is there."""
        if not self.journal.values.get("swaps", True):
            return self._exchange_files(built, aside)
        if os.path.isdir(self.directory) and not os.path.lexists(aside):
            os.rename(self.directory, aside)
        if os.path.isdir(built):
            before = os.stat(aside)
            scratch.chown_tree(built, before.st_uid, before.st_gid)
            os.chmod(built, stat.S_IMODE(before.st_mode))
            os.rename(built, self.directory)
        if not os.path.isdir(self.directory):
            raise RestoreError(f"neither {built} nor {self.directory} is there: the restored data are gone")
        files.sync_directory(os.path.dirname(self.directory))
        if which("restorecon"):
            self.run(["restorecon", "-R", self.directory], timeout=600)

    def _aside(self) -> str:
        stamp = _stamp(self.clock())
        if self.swaps:
            return f"{self.directory}.before-{stamp}"
        return os.path.join(os.path.dirname(self.journal.path), f"{self.request.source}.before-{stamp}")

    def _exchange_files(self, built: str, aside: str) -> None:
        """Replace the single files that are to be restored; each one that was there is kept before it goes."""
        os.makedirs(aside, mode=0o700, exist_ok=True)
        created = list(self.journal.values.get("created", []))
        for place, _directories, names in os.walk(built):
            for name in names:
                source = os.path.join(place, name)
                target = os.path.join(os.sep, os.path.relpath(source, built))
                if not f"{target}{os.sep}".startswith(f"{self.directory.rstrip(os.sep)}{os.sep}"):
                    continue
                kept = os.path.join(aside, target.lstrip(os.sep))
                if os.path.lexists(target) and target not in created:
                    if not os.path.lexists(kept):
                        _copy(target, kept)
                elif target not in created:
                    created.append(target)
                    self.journal.write(self.journal.stage, created=created)
                _copy(source, target)

    def _put_files_back(self, aside: str) -> None:
        for place, _directories, names in os.walk(aside):
            for name in names:
                kept = os.path.join(place, name)
                _copy(kept, os.path.join(os.sep, os.path.relpath(kept, aside)))
        for path in self.journal.values.get("created", []):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _check(self) -> None:
        """Ask the running service for what was counted before it was started."""
        counts: Mapping[str, Any] = self.journal.values.get("counts") or {}
        backups, _troubles = Store(self.request.root, self.request.source).backups()
        work = Work(self.directory, self.request.timeout, self.run, self.say, Parts())
        restorer = restorer_of(backups[-1], self.request.options)
        found = restorer.ask_running(self.production.client, counts, work)
        self.findings += found
        if worst(found) == "critical":
            raise RestoreError("; ".join(finding.message for finding in found if finding.severity == "critical"))

    def _sockets(self) -> list[str]:
        """Return the units that would wake the service up, such as a socket."""
        if not self.production.service:
            return []
        argv = ["systemctl", "show", "--property=TriggeredBy", "--value", self.production.service]
        return self.run(argv, timeout=60).stdout.split()

    def _stop(self) -> None:
        running = self.journal.values.get("running")
        units = [*self.production.applications, *self._sockets(), self.production.service]
        if running is None:
            running = [unit for unit in units if unit and self._active(unit)]
            self.journal.write(self.journal.stage, running=running)
        for unit in filter(None, units):
            self.say(f"stopping {unit}")
            done = self.run(["systemctl", "stop", unit], timeout=600)
            if not done.ok or self._active(unit):
                raise RestoreError(f"{unit} could not be stopped: {done.describe()}")

    def _start(self, only_service: bool = False) -> None:
        running = self.journal.values.get("running") or []
        for unit in self._sockets():
            # It cannot be started when its service runs already, which does no harm: then the service listens itself.
            if unit in running and not self._active(self.production.service):
                self.run(["systemctl", "start", unit], timeout=60)
        units = [self.production.service]
        if not only_service:
            units += [unit for unit in reversed(self.production.applications) if unit in running]
        for unit in filter(None, units):
            if self._state(unit) == "active":  # one that is being started, as by a run that was killed, is waited for
                continue
            self.say(f"starting {unit}")
            self.run(["systemctl", "reset-failed", unit], timeout=60)
            done = self.run(["systemctl", "start", unit], timeout=600)
            if not done.ok or not self._active(unit):
                said = self.run(["journalctl", "--unit", unit, "--lines=5", "--no-pager", "--output=cat"], timeout=60)
                words = " ".join(said.stdout.split())[-800:]
                raise RestoreError(f"{unit} could not be started: {done.describe()} {words}".strip())

    def _active(self, unit: str) -> bool:
        return self._state(unit) in ("active", "activating", "reloading")

    def _state(self, unit: str) -> str:
        return self.run(["systemctl", "is-active", unit], timeout=60).stdout.strip()

    def _wanted(self) -> dict[str, Any]:
        return {
            "time": self.request.time,
            "gtid": self.request.gtid,
            "event": self.request.event,
            "backup": self.request.backup,
            "directory": self.directory,
            "service": self.production.service,
        }

    @staticmethod
    def _free(path: str) -> str:
        number, free = 1, path
        while os.path.lexists(free):
            number += 1
            free = f"{path}-{number}"
        return free


@contextlib.contextmanager
def held(source: str, state: str = STATE) -> Iterator[Journal]:
    """Hold the restore of a source for one process, and give its journal.

    :raises RestoreError: when another process restores it.
    """
    path = os.path.join(state, f"{source}.json")
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RestoreError(f"cannot use {state}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RestoreError(
                f"{source} is being restored by another process on this host; wait until it has ended"
            ) from None
        values = {}
        if os.path.lexists(path):
            try:
                values = json.loads(files.read(path))
            except (ValueError, files.FileError) as error:
                raise RestoreError(
                    f"the journal {path} cannot be read: {error}; look at the data, then remove it"
                ) from error
        yield Journal(path, values)
    finally:
        os.close(descriptor)


def confirmed(given: str, source: str, host: str = "") -> None:
    """Refuse a restore in place whose confirmation does not name the source and this host.

    :param host: its name, by default what the system says. Of a host that knows its short name only, and of one that is
        named by its short name, the domain is not compared.
    :raises RestoreError: with what to give.
    """
    host = host or platform.node()
    named, _at, at = given.rpartition("@")
    short = host.partition(".")[0]
    if named != source or (at not in (host, short) and not (host == short == at.partition(".")[0])):
        raise RestoreError(
            f"a restore in place replaces the data of {source} on this host: confirm it with {source}@{host}"
            + (f", not '{given}'" if given else "")
        )


def _copy(source: str, target: str) -> None:
    """Have a file or a link at another place in one step, with its owner, mode, times and attributes."""
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    temporary = f"{target}.worklog-restore"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    shutil.copy2(source, temporary, follow_symlinks=False)
    before = os.lstat(source)
    os.chown(temporary, before.st_uid, before.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(before.st_mode):
        os.chmod(temporary, stat.S_IMODE(before.st_mode))
    os.replace(temporary, target)
    files.sync_directory(os.path.dirname(target))


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _stamp(now: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
