# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes the packages of a host to exact versions, proves it by what dpkg tells, and takes it back."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import needs, transaction
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.apt import Apt, units_of
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import (
    Change,
    Installed,
    PackageError,
    matches,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.transaction import Transaction

#: What cannot go back by putting an older package in its place, and why.
ONE_WAY = {
    "mariadb-server*": "the server may have changed the format of its data on disk",
    "mysql-server*": "the server may have changed the format of its data on disk",
    "postgresql-[0-9]*": "the server may have changed the format of its data on disk",
    "mongodb*-server*": "the server may have changed the format of its data on disk",
    "mongodb-org*": "the server may have changed the format of its data on disk",
    "redis-server": "an older server cannot read a newer dump file",
}


@dataclass(frozen=True)
class Request:
    """What is asked of a host.

    :param changes: the versions that are wanted, of :mod:`state`.
    :param owner: the run that asks.
    :param dead: a run that is known to have ended.
    :param hold: patterns of packages to hold for good.
    :param anyway: whether to begin also when no package changes, as for a reboot.
    :param without_rollback: whether to go on when an old package cannot be kept.
    :param one_way: patterns of packages that may be taken back although that is not safe.
    :param lease: seconds for which no other run may take over.
    :param keep: how many transactions stay, with their packages.
    :param unfinished: whether only a change that is not finished may be taken back.
    :param finish: whether a change that leaves nothing to start again is compared and finished by the same call.
    :param compare: whether the services are compared with those before, and watched, before the change is finished.
    :param settle: seconds that they may take to come up.
    :param watch: how long they are watched after that.
    """

    changes: Sequence[Change] = ()
    owner: str = ""
    dead: str = ""
    hold: Sequence[str] = ()
    anyway: bool = False
    without_rollback: bool = False
    one_way: Sequence[str] = ()
    lease: float = 900.0
    timeout: float = 3600.0
    lock_timeout: float = 60.0
    keep: int = 3
    unfinished: bool = False
    finish: bool = False
    compare: bool = False
    settle: float = 60.0
    watch: float = 0.0
    check_mode: bool = False


class Unwell(PackageError):
    """The services are not as well as before the change.

    :param findings: which, and why.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(one.message for one in findings), refused=False)
        self.findings = findings


@dataclass
class Outcome:
    """What came of it."""

    changed: bool = False
    message: str = ""
    current: Transaction | None = None
    findings: list[Finding] = field(default_factory=list)
    restart: dict[str, str] = field(default_factory=dict)
    reboot: list[str] = field(default_factory=list)
    conffiles: dict[str, list[str]] = field(default_factory=dict)


class Worker:
    """Does the work on this host."""

    def __init__(
        self, apt: Apt, run: command.Runner, clock: Callable[[], float] = time.time, root: str = transaction.ROOT
    ) -> None:
        self.apt = apt
        self._run = run
        self._clock = clock
        self._root = root

    def prepare(self, request: Request, *, fetch: bool = True) -> Outcome:
        """Hold what is to be held, keep the old packages, load the new ones, and write down what is there."""
        outcome = Outcome(current=transaction.last(self._root))
        if outcome.current and outcome.current.open:
            transaction.take(outcome.current, request.owner, request.dead, self._clock())
            if outcome.current.stage not in ("prepared", "rolled_back"):
                outcome.message = (
                    f"the run of {outcome.current.created} was cut off ({outcome.current.stage}) and goes on"
                )
                return self._taken_over(outcome, request)
        if self.apt.audit():
            raise PackageError("dpkg has not finished an earlier change: dpkg --configure -a names the cause")
        installed = self.apt.installed()
        held = [one for one in installed.values() if matches(one.name, request.hold) and not one.held]
        told = {one.key: one for one in request.changes}
        wanted = [one for one in request.changes if not matches(one.name, request.hold)]
        changes = [replace(one, cves=told.get(one.key, one).cves) for one in self.apt.closure(wanted)]
        against = [f"{one.key} {one.after}" for one in changes if one.before and matches(one.name, request.hold)]
        if against:
            raise PackageError(
                f"what is chosen needs {', '.join(against)}, which is to be held; deny what needs it, or do not hold it"
            )
        outcome.findings += _one_way(changes) + _kernels(changes)
        if request.check_mode:
            outcome.changed = bool(changes or held or request.anyway)
            outcome.message = f"{_count(changes)} would change"
            return outcome
        if held:
            self.apt.mark("hold", [one.key for one in held])
            outcome.changed = True
            installed = self.apt.installed()
        if not changes and not request.anyway:
            if outcome.current and outcome.current.stage == "prepared":
                outcome.current.save("dropped", self._clock(), 0, "nothing was left to change")
            outcome.message = "nothing is to be changed"
            return outcome
        if outcome.current and outcome.current.stage == "prepared":
            outcome.current.save("dropped", self._clock(), 0, "another run has prepared anew")
        transaction.prune(max(0, request.keep - 1), self._root)
        current = transaction.new(request.owner, self._clock(), self._root)
        os.makedirs(current.directory, mode=0o700, exist_ok=True)
        current.changes = [one.as_dict() for one in changes]
        lost = []
        for one, change in zip(current.changes, changes):
            old = installed.get(change.key)
            one["kept"] = self.apt.keep(old, current.directory, request.timeout) if old else ""
            one["sha256"] = _digest(one["kept"]) if one["kept"] else ""
            if old and not one["kept"]:
                lost.append(f"{old.key} {old.version}")
        if lost:
            words = f"{', '.join(lost)} is neither in the cache nor in a repository, so it could not be put back"
            advice = "install dpkg-repack, which makes it from the installed files, or accept it with without_rollback"
            if not request.without_rollback:
                raise PackageError(f"{words}; {advice}")
            outcome.findings.append(Finding("packages.kept", ", ".join(lost), "warning", words, advice=advice))
        if fetch:
            self.apt.fetch(changes, request.timeout)
        current.before = _versions(installed)
        current.automatic = sorted(one.key for one in installed.values() if one.automatic)
        current.services = needs.services(self._run)
        current.conffiles = self._conffile_digests(installed, changes)
        current.boot = transaction.boot_identity()
        current.save("prepared", self._clock(), request.lease)
        outcome.current, outcome.changed = current, True
        outcome.message = f"{_count(changes)} can be changed"
        return outcome

    def change(self, request: Request) -> Outcome:
        """Prepare and apply, for who has nothing to do between; apt-get loads everything before it has dpkg begin.

        :raises PackageError: as those do; when dpkg has not begun, nothing was touched, and nothing is left open.
        """
        ready = self.prepare(request, fetch=False)
        if request.check_mode or ready.current is None or ready.current.stage not in transaction.OPEN:
            return ready
        stage, status = ready.current.stage, self.apt.status()
        try:
            done = self.apply(request)
        except transaction.Locked:
            raise
        except (PackageError, command.CommandError) as error:
            if getattr(error, "refused", False) or stage != "prepared" or self.apt.status() != status:
                raise
            ready.current.save("dropped", self._clock(), 0, str(error))
            raise PackageError(f"nothing was changed: {error}") from error
        done.findings = ready.findings + done.findings
        done.changed |= ready.changed
        return done

    def apply(self, request: Request) -> Outcome:
        """Make the change that was prepared, or what is missing of it."""
        current = transaction.last(self._root)
        if current is None or current.stage not in transaction.OPEN:
            raise PackageError("nothing was prepared on this host; begin with state=prepared")
        transaction.take(current, request.owner, request.dead, self._clock())
        if current.stage == "rolling_back":
            raise PackageError(
                "taking back was cut off on this host; finish it with the playbook patch_rollback", refused=False
            )
        outcome = Outcome(current=current)
        changes = [_change(one) for one in current.changes]
        installed = self.apt.installed()
        missing = _missing(changes, installed)
        if request.check_mode:
            outcome.changed, outcome.message = bool(missing), f"{_count(missing)} would change"
            return outcome
        if missing:
            current.save("applying", self._clock(), request.lease + request.timeout)
            outcome.changed = True
            if self.apt.audit():
                self.apt.configure(request.timeout)
            done = self.apt.install(changes, request.timeout, request.lock_timeout)
            # apt-get marks what it is told to install as manual; what is new came only because others need it
            self.apt.mark("auto", [one.key for one in changes if one.key in current.automatic or not one.before])
            installed = self.apt.installed()
            missing = _missing(changes, installed)
            audit = self.apt.audit()
            if missing or audit:
                words = "; ".join(missing) or " ".join(audit.split())[:500]
                current.save("applying", self._clock(), request.lease, words)
                raise PackageError(f"the change has failed: {words}. {_reason(done)}", refused=False)
        others = _others(current, changes, installed)
        if others:
            outcome.findings.append(
                Finding("packages.others", "dpkg", "warning", f"more has changed than was planned: {'; '.join(others)}")
            )
        current.save("applied", self._clock(), request.lease)
        said = f"{_count(changes)} changed to exactly what was asked for, as dpkg tells"
        outcome.message = said if changes else "no package was to be changed"
        self._after(outcome, changes, installed)
        if request.finish and not outcome.restart and not outcome.reboot:
            outcome.current = self.finish(replace(request, compare=True)).current
        return outcome

    def finish(self, request: Request) -> Outcome:
        """Say that all is well with the change, or with its having been taken back or not begun."""
        current = transaction.last(self._root)
        if current is None or not current.open or current.stage in ("applying", "rolling_back"):
            return Outcome(current=current, message="nothing was under way")
        transaction.take(current, request.owner, request.dead, self._clock())
        if request.compare:
            now, found = needs.watch(self._run, current.services, request.settle, request.watch)
            if found:
                raise Unwell(found)
        else:
            now = needs.services(self._run)
        outcome = Outcome(True, "the change is finished", current)
        if not request.check_mode:
            current.restarts = needs.restarts(now)
            ends = {"applied": "finished", "prepared": "dropped", "rolled_back": "rolled_back"}
            current.settled = True
            current.save(ends[current.stage], self._clock(), 0)
        return outcome

    def roll_back(self, request: Request) -> Outcome:
        """Put the versions back that were there before the last change, and prove it."""
        last = transaction.last(self._root)
        if last and last.open:
            transaction.take(last, request.owner, request.dead, self._clock())
        elif request.unfinished:
            raise PackageError("no change was begun, or it is finished already, so nothing is put back")
        current = last if request.unfinished else transaction.last_change(self._root)
        if current is None:
            words = "no change of packages was recorded on this host, so there is nothing to go back to"
            return Outcome(message=words)
        current.owner = request.owner
        outcome = Outcome(current=current)
        installed = self.apt.installed()
        wrong = transaction.differences(current.before, _versions(installed))
        if not wrong:
            outcome.message = "every package has the version that was recorded"
            if not request.check_mode and current.stage != "rolled_back":
                self._mark_as_before(current, installed)
                current.settled = False
                transaction.drop_newer(current)
                current.save("rolled_back", self._clock(), request.lease, outcome.message)
                outcome.changed = True
            return self._after(outcome, [], installed)
        if current.stage == "rolled_back":
            raise PackageError(f"it was taken back before, and this has changed since: {'; '.join(wrong[:5])}")
        changes = [_change(one) for one in current.changes]
        ours = {one.key for one in changes}
        strangers = [one for one in wrong if one.partition(" is ")[0] not in ours]
        if strangers:
            raise PackageError(f"other packages were changed since, by somebody else: {'; '.join(strangers[:5])}")
        for one_way in _one_way(changes):
            if not matches(one_way.subject, request.one_way):
                raise PackageError(f"{one_way.message}; name it in one_way when that was seen to")
            outcome.findings.append(one_way)
        for change in changes:
            if not change.before and change.name.endswith(os.uname().release) and change.name.startswith("linux-"):
                raise PackageError(f"{change.name} is the kernel that runs; boot the older one, then take it back")
        kept, new = [], []
        for one, change in zip(current.changes, changes):
            if not change.before:
                new.append(change.key)
            elif not one["kept"] or _digest(one["kept"]) != one["sha256"]:
                raise PackageError(
                    f"the package of {change.key} {change.before} was not kept, or is not what it was: {one['kept']}; "
                    "have that file again, or install the version by hand"
                )
            else:
                kept.append(one["kept"])
        if request.check_mode:
            outcome.changed, outcome.message = True, f"{_count(wrong)} would be taken back"
            return outcome
        cut_off = self.apt.interrupted() or (current.stage == "rolling_back" and self.apt.audit())
        current.settled = False  # until the host is back in service
        transaction.drop_newer(current)
        current.held = sorted({*current.held, *(key for key, one in installed.items() if one.held)})
        current.save("rolling_back", self._clock(), request.lease + request.timeout)
        outcome.changed = True
        if cut_off:
            self.apt.configure(request.timeout)
        there = [name for name in new if name in installed]
        done = self.apt.put_back(kept, there, request.timeout, request.lock_timeout)
        after = self.apt.installed()
        self._mark_as_before(current, after)
        wrong = transaction.differences(current.before, _versions(after))
        if wrong:
            current.save("rolling_back", self._clock(), request.lease, "; ".join(wrong))
            raise PackageError(f"taking back has failed: {'; '.join(wrong[:5])}. {_reason(done)}", refused=False)
        current.save("rolled_back", self._clock(), request.lease, "taken back")
        names = ", ".join(sorted(change.name for change in changes if change.before))
        outcome.message = f"every package has the version that was recorded before {current.created}"
        advice = "deny what was wrong (patch_deny) until there is a better version, else the next run installs it again"
        outcome.findings.append(Finding("packages.taken_back", names, "warning", f"taken back: {names}", advice=advice))
        return self._after(outcome, changes, after)

    def _mark_as_before(self, current: Transaction, installed: Mapping[str, Installed]) -> None:
        """Mark packages as they were: automatic or manual, and held."""
        old = sorted({_change(one).key for one in current.changes} & installed.keys() & current.before.keys())
        self.apt.mark("auto", [name for name in old if name in current.automatic])
        self.apt.mark("manual", [name for name in old if name not in current.automatic])
        self.apt.mark("hold", [name for name in current.held if name in installed])

    def _taken_over(self, outcome: Outcome, request: Request) -> Outcome:
        if outcome.current and not request.check_mode:
            outcome.current.save(outcome.current.stage, self._clock(), request.lease)
        return outcome

    def _after(self, outcome: Outcome, changes: Sequence[Change], installed: Mapping[str, Installed]) -> Outcome:
        """Say which services and whether the host have to start again, and which configuration files were touched."""
        after = needs.read(self._run)
        current = outcome.current
        outcome.reboot, outcome.restart = after.reboot, after.services
        keys = [change.key for change in changes if change.key in installed]
        if current and current.services:
            services = needs.services(self._run)
            for unit in units_of(self.apt.contents(keys)) & services.keys() & current.services.keys():
                same = services[unit]["invocation"] == current.services[unit]["invocation"]
                if same and not services[unit]["once"]:
                    outcome.restart.setdefault(unit, "its package was changed, and it was not started since")
        if current and keys:
            now = self._conffile_digests(installed, changes)
            kept = [path for path in now if any(os.path.exists(f"{path}.{end}") for end in ("dpkg-dist", "ucf-dist"))]
            changed = [path for path, digest in now.items() if current.conffiles.get(path) != digest]
            outcome.conffiles = {"changed": sorted(changed), "kept": sorted(kept)}
            outcome.findings += [
                Finding(
                    "packages.conffile", path, "warning",
                    f"{path} was changed on this host, so it was kept; the new one is beside it",
                    advice=f"compare it with {path}.dpkg-dist, and remove that",
                )
                for path in kept
            ]  # fmt: skip
        return outcome

    def _conffile_digests(self, installed: Mapping[str, Installed], changes: Sequence[Change]) -> dict[str, str]:
        names = [change.key for change in changes if change.key in installed]
        return {path: _digest(path) for path in self.apt.conffiles(names)}


def _missing(changes: Sequence[Change], installed: Mapping[str, Installed]) -> list[str]:
    found = []
    for change in changes:
        one = installed.get(change.key)
        if one is None or one.version != change.after:
            found.append(f"{change.key} is {one.version if one else 'not there'}, {change.after} was asked for")
        elif one.state != "ok":
            found.append(f"{change.key} {one.version}: {one.state}")
    return found


def _others(current: Transaction, changes: Sequence[Change], installed: Mapping[str, Installed]) -> list[str]:
    ours = {change.key for change in changes}
    wrong = transaction.differences(current.before, _versions(installed))
    return [one for one in wrong if one.partition(" is ")[0] not in ours]


def _count(packages: Sequence[Any]) -> str:
    return f"{len(packages)} package{'' if len(packages) == 1 else 's'}"


def _change(value: Mapping[str, Any]) -> Change:
    return Change(value["name"], value["architecture"], value["from"] or "", value["to"])


def _one_way(changes: Sequence[Change]) -> list[Finding]:
    """Return what cannot go back safely by putting an older package in its place, with the reason."""
    found = []
    for change in changes:
        why = next((why for pattern, why in ONE_WAY.items() if matches(change.name, [pattern])), "")
        if why and change.before:
            words = f"{change.name} cannot be taken back safely: {why}"
            found.append(Finding("packages.one_way", change.name, "warning", words, advice="back up its data first"))
    return found


def _kernels(changes: Sequence[Change]) -> list[Finding]:
    """Return the kernels that come, which cannot go back while they run."""
    advice = "to take it back then, boot the older kernel first, which stays installed"
    new = [one.name for one in changes if one.name.startswith("linux-image-") and not one.before]
    words = "cannot be taken back while it runs"
    return [Finding("packages.one_way", name, "warning", f"{name} {words}", advice=advice) for name in new]


def _versions(installed: Mapping[str, Installed]) -> dict[str, list[str]]:
    return {key: [one.version, one.state] for key, one in installed.items()}


def _digest(path: str) -> str:
    """Return the SHA-256 of a file; empty when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while True:
                block = stream.read(1 << 20)
                if not block:
                    return digest.hexdigest()
                digest.update(block)
    except OSError:
        return ""


def _reason(done: command.Result) -> str:
    """Return the words of apt and dpkg that say why."""
    lines = (done.stdout + "\n" + done.stderr).splitlines()
    marks = ("E: ", "dpkg: error", "error ", "subprocess", "installed ", "Job for")
    told = []
    for before, line in zip(["", *lines], lines):
        # dpkg names the package on one line, and says why on the next
        if line.strip().startswith(marks) or "error processing" in line or "error processing" in before:
            told.append(line.strip())
    return "apt-get says: " + ("; ".join(dict.fromkeys(told))[-1500:] or done.describe()[-1500:])


def diff(request: Request, outcome: Outcome, state: str) -> dict[str, str]:
    """Return the versions before and after, one line a package."""
    changes = request.changes
    if outcome.current is not None and (outcome.current.open or state == "rolled_back"):
        changes = [_change(one) for one in outcome.current.changes]
    before = [f"{one.key} {one.before}\n" for one in changes if one.before]
    after = [f"{one.key} {one.after}\n" for one in changes]
    if state == "rolled_back":
        before, after = after, before
    return {"before": "".join(before), "after": "".join(after)}
