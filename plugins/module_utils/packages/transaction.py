# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change of packages that can be finished after a crash and taken back: its state, and the old packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import PackageError

#: Where transactions are kept, newest last by name.
ROOT = "/var/lib/worklog-maintenance/packages"
SCHEMA = 1
#: The stages in which a run has begun and not ended.
OPEN = ("prepared", "applying", "applied", "rolling_back")
TIME = "%Y-%m-%dT%H:%M:%SZ"


class Locked(PackageError):
    """Another run may still work on the packages of this host.

    :param owner: that run.
    """

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message)
        self.owner = owner


@dataclass
class Transaction:
    """One change of packages on this host.

    :param stage: one of :data:`OPEN`, ``finished``, ``rolled_back`` or ``dropped``.
    :param owner: the run that works on it, and until when others keep their hands off, in seconds since 1970.
    :param changes: the changes, as :meth:`Change.as_dict` gives them, each with the file ``kept`` of the old version.
    :param before: every installed version by ``name:architecture``, with its state.
    :param automatic: the packages among them that only came because others need them.
    :param held: the packages that were held when it was begun to be taken back, since apt-get takes the hold off them.
    :param services: how the services were.
    :param restarts: how often systemd had started services again by itself when the change was finished.
    :param conffiles: SHA-256 of the configuration files of the packages that change.
    :param settled: whether the host was put back into service after the change was taken back.
    :param boot: what tells this boot from the next.
    """

    name: str
    stage: str
    owner: str
    until: float
    changes: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, list[str]] = field(default_factory=dict)
    automatic: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    conffiles: dict[str, str] = field(default_factory=dict)
    boot: str = ""
    created: str = ""
    updated: str = ""
    message: str = ""
    settled: bool = False
    root: str = ROOT

    @property
    def directory(self) -> str:
        """Where its state and the old packages are."""
        return os.path.join(self.root, self.name)

    @property
    def open(self) -> bool:
        """Whether it has begun and not ended, so that nobody else may work on the packages."""
        return self.stage in OPEN or (self.stage == "rolled_back" and not self.settled)

    def save(self, stage: str, now: float, lease: float, message: str = "") -> None:
        """Write the state durably before what it says is begun, or after it was done.

        :param lease: seconds for which no other run may take it over.
        :raises PackageError: when it cannot be written.
        """
        self.stage, self.message = stage, message or self.message
        self.until = now + lease if self.open else 0.0
        self.updated = time.strftime(TIME, time.gmtime(now))
        self.created = self.created or self.updated
        content = {"schema": SCHEMA, **{name: value for name, value in asdict(self).items() if name != "root"}}
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            text = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
            files.replace(os.path.join(self.directory, "state.json"), text, mode=0o600)
        except (OSError, files.FileError) as error:
            raise PackageError(f"cannot write down what is about to be done in {self.directory}: {error}") from error

    def summary(self) -> dict[str, Any]:
        """Return what the modules tell of it."""
        names = ("name", "stage", "owner", "created", "updated", "changes", "message", "open")
        return {**{name: getattr(self, name) for name in names}, "directory": self.directory}


def new(owner: str, now: float, root: str = ROOT) -> Transaction:
    """Return a transaction that is not written yet."""
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}.{int(now % 1 * 1000):03d}"
    return Transaction(name=stamp, stage="prepared", owner=owner, until=0.0, root=root)


def read(root: str = ROOT) -> list[Transaction]:
    """Return the transactions of this host, oldest first.

    :raises PackageError: when one cannot be read.
    """
    found = []
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    for name in names:
        path = os.path.join(root, name, "state.json")
        if not re.fullmatch(r"\d{8}T\d{6}Z\.\d{3}", name) or not os.path.exists(path):
            continue  # a directory whose state was never written: nothing was done yet
        try:
            content = json.loads(files.read(path))
            if content.pop("schema") != SCHEMA:
                raise ValueError("it is of another version of this collection")
            found.append(Transaction(root=root, **content))
        except (files.FileError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise PackageError(f"{path} cannot be used: {error}; look into it, and move its directory away") from error
    return found


def last(root: str = ROOT) -> Transaction | None:
    """Return the newest transaction; ``None`` when there is none."""
    found = read(root)
    return found[-1] if found else None


def last_change(root: str = ROOT) -> Transaction | None:
    """Return the newest transaction that can be taken back; what was dropped or was a mere reboot has nothing."""
    return next((one for one in reversed(read(root)) if one.changes and one.stage != "dropped"), None)


def drop_newer(current: Transaction) -> None:
    """Remove the transactions after one that is taken back; none of them has changed a package."""
    for one in read(current.root):
        if one.name > current.name:
            shutil.rmtree(one.directory, ignore_errors=True)


def take(current: Transaction, owner: str, dead: str, now: float) -> None:
    """Make a run the owner of an open transaction.

    :param dead: a run that is known to have ended.
    :raises Locked: when another run may still work on it.
    """
    if current.owner not in (owner, dead) and now < current.until:
        left = (current.until - now) / 60
        raise Locked(
            f"the run {current.owner} works on the packages of this host since {current.created} "
            f"(stage {current.stage}); "
            f"when it is known to be dead, say so with take_over, or wait {left:.0f} min",
            current.owner,
        )
    current.owner = owner


def prune(keep: int, root: str = ROOT) -> None:
    """Remove all but the newest transactions, never one that is open, and what was begun and never written."""
    known = read(root)
    old = {one.name for one in known[: max(0, len(known) - keep)] if not one.open}
    written = {one.name for one in known}
    for name in os.listdir(root) if os.path.isdir(root) else []:
        if name in old or (re.fullmatch(r"\d{8}T\d{6}Z\.\d{3}", name) and name not in written):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)


def boot_identity() -> str:
    """Return what changes when this host starts again; in a container only the first process does."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
        with open("/proc/1/stat", encoding="ascii", errors="replace") as stream:
            return f"{boot} {stream.read().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""


def differences(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    """Return where the installed packages are not those of before, one sentence each."""
    found = []
    for name in sorted({*before, *now}):
        old, new_ = _words(before.get(name)), _words(now.get(name))
        if old != new_:
            found.append(f"{name} is {new_}, it was {old}")
    return found


def since(last: Transaction | None, versions: Mapping[str, str]) -> list[str]:
    """Return where installed versions are not those that a change has left, one sentence each.

    :param versions: what is installed, by ``name:architecture``.
    """
    if last is None:
        return []
    left = {name: one[0] for name, one in last.before.items()}
    left.update({f"{one['name']}:{one['architecture']}": one["to"] for one in last.changes})
    return [
        f"{name} is {versions.get(name, 'not there')}, it was {left.get(name, 'not there')}"
        for name in sorted({*left, *versions})
        if left.get(name) != versions.get(name)
    ]


def _words(one: Sequence[str] | None) -> str:
    if one is None:
        return "not there"
    version, state = one[:2]  # an older one has a third, whether it was held, which is no part of a version
    return version if state == "ok" else f"{version} {state}"
