# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which change is taken back, and what stays as it is to be held, on a host whose packages are a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import transaction
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.apt import Apt
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, Installed, PackageError
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.work import Request, Worker

NOTHING = command.Result((), 0, "", "", 0.0)


def run(argv: Sequence[str], **_options: Any) -> command.Result:
    return NOTHING


class Table(Apt):
    """Packages of which each version can be had; some need another one in the same version."""

    def __init__(self, versions: dict[str, str], needs: dict[str, str] | None = None) -> None:
        super().__init__(run)
        self.table = {f"{name}:all": Installed(name, "all", now, name, now) for name, now in versions.items()}
        self.needs = needs or {}
        self.offline = self.breaks = self.killed = False

    def audit(self) -> str:
        return ""

    def interrupted(self) -> bool:
        return False

    def installed(self) -> dict[str, Installed]:
        return dict(self.table)

    def closure(self, wanted: Iterable[Change]) -> list[Change]:
        found = list(wanted)
        for one in found:
            if one.name in self.needs:
                found.append(change(self.needs[one.name], self.table[f"{self.needs[one.name]}:all"].version, one.after))
        return found

    def keep(self, one: Installed, directory: str, timeout: float) -> str:
        path = Path(directory, f"{one.name} {one.version}")
        path.touch()
        return str(path)

    def fetch(self, changes: Sequence[Change], timeout: float) -> None:
        if self.offline:
            raise command.CommandError("it did not end", ["apt-get"])

    def status(self) -> tuple[int, int]:
        return 1, hash(tuple(self.table.values()))

    def install(self, changes: Sequence[Change], timeout: float, lock_timeout: float) -> command.Result:
        if self.offline:
            return command.Result(("apt-get",), 100, "", "E: Unable to fetch some archives", 1.0)
        for one in changes[: 1 if self.breaks else None]:
            self._set(one.name, one.after)
        return NOTHING

    def put_back(
        self, files: Sequence[str], purge: Sequence[str], timeout: float, lock_timeout: float
    ) -> command.Result:
        for path in files:
            name, version = Path(path).name.split()
            self._set(name, version)
            self.table[f"{name}:all"] = replace(self.table[f"{name}:all"], held=False)  # as apt-get does
        if self.killed:
            raise KeyboardInterrupt
        return NOTHING

    def _set(self, name: str, version: str) -> None:
        self.table[f"{name}:all"] = replace(self.table[f"{name}:all"], version=version)

    def mark(self, mark: str, names: Sequence[str]) -> None:
        if mark == "hold":
            self.table.update({name: replace(self.table[name], held=True) for name in names})

    def versions(self) -> dict[str, str]:
        return {one.name: one.version for one in self.table.values()}


def change(name: str, before: str, after: str) -> Change:
    return Change(name, "all", before, after)


class Host:
    """Runs on one host, an hour after each other."""

    def __init__(self, root: Path, apt: Table) -> None:
        self.apt, self.root, self.now = apt, str(root / "packages"), 1000.0
        self.worker = Worker(apt, run, lambda: self.now, self.root)

    def begin(self, *changes: Change, **options: Any) -> None:
        self.now += 3600
        self.worker.change(Request(changes, "run", **options))

    def patch(self, *changes: Change, **options: Any) -> None:
        self.begin(*changes, **options)
        self.worker.finish(Request(owner="run"))

    def roll_back(self, owner: str = "back", **options: Any) -> str:
        return self.worker.roll_back(Request(owner=owner, **options)).message

    def stages(self) -> list[str]:
        return [one.stage for one in transaction.read(self.root)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose last change is finished."""
    made = Host(tmp_path, Table({"a": "1", "b": "1"}))
    made.patch(change("a", "1", "2"))
    return made


def test_a_run_that_failed_before_it_began_takes_nothing_back(host: Host) -> None:
    host.apt.offline = True
    with pytest.raises(command.CommandError):
        host.worker.prepare(Request([change("b", "1", "2")], "run"))
    with pytest.raises(PackageError, match=r"nothing was changed: .*Unable to fetch some archives") as caught:
        host.patch(change("b", "1", "2"))
    assert caught.value.refused
    with pytest.raises(PackageError, match="so nothing is put back"):
        host.roll_back(unfinished=True)
    assert host.apt.versions() == {"a": "2", "b": "1"} and host.stages() == ["finished", "dropped"]


def test_a_change_that_dpkg_has_begun_is_open_when_it_fails(host: Host) -> None:
    host.apt.breaks = True
    with pytest.raises(PackageError, match="the change has failed: b:all is 1") as caught:
        host.begin(change("a", "2", "3"), change("b", "1", "2"))
    assert not caught.value.refused and host.stages() == ["finished", "applying"]
    host.roll_back("run", unfinished=True)
    assert host.apt.versions() == {"a": "2", "b": "1"}


def test_a_run_that_failed_on_the_way_takes_its_own_change_back(host: Host) -> None:
    host.begin(change("b", "1", "2"))
    host.roll_back("run", unfinished=True)
    assert host.apt.versions() == {"a": "2", "b": "1"} and host.stages() == ["finished", "rolled_back"]


@pytest.mark.parametrize("dropped", [False, True])
def test_what_changed_nothing_does_not_hide_the_change_before_it(host: Host, dropped: bool) -> None:
    host.patch(anyway=True)  # as for a reboot
    if dropped:
        host.now += 3600
        host.worker.prepare(Request([change("b", "1", "2")], "run"))
        host.worker.finish(Request(owner="run"))
    host.roll_back()
    assert host.apt.versions() == {"a": "1", "b": "1"} and host.stages() == ["rolled_back"]
    assert host.worker.finish(Request(owner="back")).changed, "the run that takes back owns it"
    assert host.roll_back() == "every package has the version that was recorded"
    assert host.stages() == ["rolled_back"]


def test_a_reboot_that_is_not_finished_does_not_hide_it_either(host: Host) -> None:
    host.begin(anyway=True)
    with pytest.raises(transaction.Locked):
        host.roll_back()
    host.roll_back("run")
    assert host.apt.versions() == {"a": "1", "b": "1"} and host.stages() == ["rolled_back"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_package_that_was_held_since_is_held_after_it_was_taken_back(host: Host, killed: bool) -> None:
    host.apt.mark("hold", ["a:all", "b:all"])
    host.apt.killed = killed
    with pytest.raises(KeyboardInterrupt) if killed else contextlib.nullcontext():
        host.roll_back()
    host.apt.killed = False
    host.roll_back()
    assert host.apt.versions() == {"a": "1", "b": "1"} and host.stages() == ["rolled_back"]
    assert all(one.held for one in host.apt.installed().values())


def test_nothing_to_go_back_to_is_no_failure(tmp_path: Path) -> None:
    fresh = Host(tmp_path, Table({"a": "1"}))
    fresh.worker.prepare(Request([change("a", "1", "2")], "run"))
    fresh.worker.finish(Request(owner="run"))
    assert fresh.stages() == ["dropped"]
    assert fresh.worker.roll_back(Request(owner="back")).current is None
    assert fresh.roll_back() == ("no change of packages was recorded on this host, so there is nothing to go back to")


def test_what_is_to_be_held_is_not_changed(tmp_path: Path) -> None:
    here = Host(tmp_path, Table({"a": "1", "b": "1", "c": "1"}, needs={"c": "a"}))
    wanted = [change(name, "1", "2") for name in ("a", "b")]
    assert here.worker.prepare(Request(wanted, "run", hold=["a"], check_mode=True)).message == "1 package would change"
    here.patch(*wanted, hold=["a"])
    assert here.apt.versions() == {"a": "1", "b": "2", "c": "1"} and here.apt.installed()["a:all"].held
    with pytest.raises(PackageError, match="needs a:all 2, which is to be held"):
        here.patch(change("c", "1", "2"), hold=["a"])
