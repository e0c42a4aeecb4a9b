# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of the packages of one host: what is there, what would change, and what stands in the way of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import debian, manifest, needs, rpm
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.apt import ARCHIVES, Apt, release, units_of
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.cves import Data
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import (
    Change,
    Installed,
    Needs,
    PackageError,
    Wish,
    choose,
    matches,
)

#: Free space that a new kernel with its initial ramdisk needs.
_KERNEL = 200 * 1024 * 1024


@dataclass
class State:
    """What was read of a host."""

    manager: str
    release: Mapping[str, str]
    installed: Mapping[str, Installed] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    kept_back: Sequence[str] = ()
    needs: Needs = field(default_factory=Needs)
    foreseen: Needs = field(default_factory=Needs)
    findings: list[Finding] = field(default_factory=list)
    differences: Sequence[Mapping[str, Any]] = ()

    def as_dict(self, with_installed: bool) -> dict[str, Any]:
        """Return it as the module returns it."""
        return {
            "manager": self.manager,
            "release": dict(self.release),
            "installed": [asdict(one) for one in self.installed.values()] if with_installed else [],
            "changes": [one.as_dict() for one in self.changes if not one.left_out],
            "left_out": [one.as_dict() for one in self.changes if one.left_out],
            "kept_back": list(self.kept_back),
            "reboot": {"required": bool(self.needs.reboot), "reasons": self.needs.reboot},
            "restart": self.needs.services,
            "foreseen": asdict(self.foreseen),
            "differences": list(self.differences),
            "findings": [one.as_dict() for one in self.findings],
        }


@dataclass(frozen=True)
class Question:
    """What is asked of a host.

    :param refresh: whether the lists of the repositories are loaded first.
    :param lock_timeout: seconds to wait for another package manager.
    :param disk_free: bytes to be left free after the change.
    :param promoted: the manifest whose versions are wanted.
    """

    wish: Wish = field(default_factory=Wish)
    refresh: bool = False
    refresh_timeout: float = 300.0
    lock_timeout: float = 60.0
    disk_free: int = 0
    data: str = ""
    promoted: manifest.Manifest | None = None


def read(question: Question, run: command.Runner = command.run) -> State:
    """Read the state of this host.

    :raises PackageError: when that cannot be done.
    :raises command.CommandError: when a program is missing or does not end.
    """
    if command.which("dpkg-query") and command.which("apt-get"):
        return read_apt(question, Apt(run), run)
    if command.which("dnf"):
        return read_dnf(question, run)
    raise PackageError("this host has neither apt nor dnf; leave it out of the inventory of what is patched here")


def read_apt(question: Question, apt: Apt, run: command.Runner) -> State:
    """Read the state of a host with apt."""
    state = State("apt", {**release(), "architecture": apt.native})
    for holder in apt.wait_for_locks(question.lock_timeout):
        state.findings.append(
            Finding(
                "packages.lock", holder.path, "critical",
                f"{holder.path} is held by process {holder.pid} ({holder.words})",
                advice="wait until it has ended; find out what it does before it is ended by hand",
            )
        )  # fmt: skip
    if question.refresh and not state.findings:
        state.findings += apt.refresh(question.refresh_timeout)
    state.installed = apt.installed()
    state.findings += _unfinished(apt.audit(), debian.broken(state.installed.values()))
    wish = question.wish
    if question.promoted is None:
        try:
            changes, state.kept_back = apt.upgrades()
        except PackageError:
            if not any(
                one.severity == "critical" for one in state.findings
            ):  # else what was found already says why apt-get cannot tell
                raise
            changes = []
    else:
        versions = question.promoted.versions_for(state.release)
        wish = replace(wish, security_only=False, minimum_age=0.0)
        state.differences = manifest.differences(versions, state.installed)
        changes, found = _proven(apt, versions, state.installed)
        state.findings += found
    data = Data(_content(question.data)) if question.data else None
    changes = choose(apt.explain(changes, dict(state.installed), data, time.time()), wish)
    wanted = [one for one in changes if not one.left_out]
    if len(wanted) < len(changes):
        closure = apt.closure([one for one in wanted if one.before])  # what is new comes only where it is needed
        changes, found = _with_needed(changes, closure, wish)
        state.findings += found
        wanted = [one for one in changes if not one.left_out]
    state.changes = changes
    state.needs = needs.read(run)
    state.foreseen = _foreseen(apt, wanted, run)
    state.findings += _disk(apt.details(wanted), wanted, question.disk_free)
    if state.kept_back:
        state.findings.append(
            Finding(
                "packages.kept_back", ", ".join(state.kept_back), "info",
                f"{len(state.kept_back)} packages stay: they are held, or something would be removed for them",
                len(state.kept_back),
            )
        )  # fmt: skip
    return state


def _foreseen(apt: Apt, wanted: Sequence[Change], run: command.Runner) -> Needs:
    """Return what will have to start again after the change, as far as that can be told before it."""
    names = [one.key for one in wanted if one.before]
    kernels = [
        one.name for one in wanted if one.name.startswith(("linux-image-", "intel-microcode", "amd64-microcode"))
    ]
    found = Needs([f"{name} changes" for name in kernels])
    if names:
        owned = apt.contents(names)
        # /lib is a link to /usr/lib on a merged system, and dpkg may know a file by either name
        found.services = needs.users_of(lambda path: path in owned or path.removeprefix("/usr") in owned)
        for unit in units_of(owned) & needs.services(run).keys():
            found.services.setdefault(unit, "its package changes")
    return found


def _proven(
    apt: Apt, versions: Mapping[str, str], installed: Mapping[str, Installed]
) -> tuple[list[Change], list[Finding]]:
    """Return the changes to the versions of a manifest, and what of it cannot be."""
    advice = "let the repository of this host offer what was proven, or prove again what it offers"
    try:
        changes = apt.closure(manifest.changes(versions, installed))
    except PackageError as error:
        words = f"the versions of the manifest cannot be had: {error}"
        return [], [Finding("packages.manifest", "versions", "critical", words, advice=advice)]
    found = []
    for one in changes:
        if versions.get(one.key) != one.after:
            words = f"what was proven would bring {one.key} {one.after}, which was not proven"
            found.append(Finding("packages.manifest", one.name, "critical", words, advice=advice))
    return changes, found


def _with_needed(changes: list[Change], closure: list[Change], wish: Wish) -> tuple[list[Change], list[Finding]]:
    """Return the changes with those that the chosen ones need, and what is needed but may not be."""
    known = {one.key: one for one in changes}
    found, result = [], []
    needed = {one.key for one in closure}
    for one in closure:
        old = known.get(one.key, one)
        if matches(one.name, wish.deny):
            found.append(
                Finding(
                    "packages.denied", one.name, "critical",
                    f"{one.name} is denied, but what is chosen needs its version {one.after}",
                    advice="deny what needs it too, or take it off the list",
                )
            )  # fmt: skip
        result.append(replace(old, after=one.after, left_out=""))
    rest = [one for one in changes if one.key not in needed]
    return [*result, *(replace(one, left_out=one.left_out or "nothing that is chosen needs it") for one in rest)], found


def _unfinished(audit: str, broken: Sequence[str]) -> list[Finding]:
    words = "; ".join(broken) or " ".join(audit.split())[:500]
    if not words:
        return []
    advice = "dpkg --configure -a names the cause; a run that was cut off finishes it when it is started again"
    return [Finding("packages.broken", "dpkg", "critical", f"dpkg has not finished: {words}", advice=advice)]


def _disk(details: Mapping[str, Mapping[str, str]], wanted: Sequence[Change], reserve: int) -> list[Finding]:
    """Return whether each file system has room for the packages, for those that are kept, and for what they unpack."""
    if not wanted:
        return []
    files = sum(_number(one.get("Size")) for one in details.values())
    unpacked = sum(_number(one.get("Installed-Size")) * 1024 for one in details.values())
    asked = {ARCHIVES: files, "/var/lib": files, "/usr": unpacked}
    if any(one.name.startswith("linux-image-") and not one.before for one in wanted):
        asked["/boot"] = _KERNEL
    found: list[Finding] = []
    devices: dict[int, tuple[list[str], int]] = {}
    for path, amount in asked.items():
        if os.path.isdir(path):
            paths, total = devices.get(os.stat(path).st_dev, ([], reserve))
            devices[os.stat(path).st_dev] = [*paths, path], total + amount
    for paths, total in devices.values():
        system = os.statvfs(paths[0])
        free = system.f_bavail * system.f_frsize
        if free < total:
            found.append(
                Finding(
                    "packages.disk", paths[0], "critical",
                    f"{', '.join(paths)}: {free // 1048576} MiB are free, {total // 1048576 + 1} are needed",
                    free, total, "bytes", "make room: apt-get clean, journalctl --vacuum-size=200M, old kernels",
                )
            )  # fmt: skip
    return found


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise PackageError(f"vulnerability_data: cannot read {path}: {error.strerror}") from error


def read_dnf(question: Question, run: command.Runner) -> State:
    """Read the state of a host with dnf."""

    def ask(*argv: str, codes: Sequence[int] = (0,), timeout: float = 300.0) -> str:
        done = run(list(argv), timeout=timeout)
        if done.rc not in codes:
            raise PackageError(done.describe())
        return done.stdout

    if question.promoted is not None:
        raise PackageError("a manifest is for hosts with apt; this one has dnf, which is only read")
    state = State("dnf", {**release(), "architecture": os.uname().machine})
    if question.refresh:
        ask("dnf", "-q", "makecache", timeout=question.refresh_timeout)
    locked = rpm.parse_locked(run(["dnf", "-q", "versionlock", "list"], timeout=60).stdout)
    chosen = frozenset(ask("dnf", "-q", "history", "userinstalled").split())
    state.installed = rpm.parse_installed(ask("rpm", "-qa", "--qf", rpm.FORMAT), locked, chosen)
    changes = rpm.parse_updates(ask("dnf", "-q", "check-update", codes=(0, 100)), state.installed)
    changes = rpm.with_cves(changes, ask("dnf", "-q", "updateinfo", "list", "cves", "--updates"))
    state.changes = choose(changes, question.wish)
    reboot = run(["dnf", "-q", "needs-restarting", "-r"], timeout=300)
    units = rpm.parse_needs_restarting(run(["dnf", "-q", "needs-restarting", "-s"], timeout=300).stdout)
    state.needs.services = dict.fromkeys(units, "runs on files that were replaced")
    if reboot.rc == 1:
        state.needs.reboot = [f"newer since the boot: {', '.join(rpm.parse_reboot(reboot.stdout)) or 'not said which'}"]
    return state
