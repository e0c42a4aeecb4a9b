# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units of systemd: one service a source and kind, and a way from any state to the wanted one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import schedule
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Engine


class Database(Engine):
    name = "mariadb"
    kinds: ClassVar = {"full": "", "incremental": "", "log": "", "dump": ""}


class Secrets(Engine):
    name = "secrets"
    kinds: ClassVar = {"snapshot": ""}


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ENGINES", {"mariadb": Database, "secrets": Secrets})


def units(root: str = "/var/backups/worklog", **sources: Any) -> dict[str, str]:
    return schedule.units(config.parse({"root": root, "sources": sources}, "test"))


def section(text: str, name: str) -> dict[str, str]:
    lines = text.partition(f"[{name}]\n")[2].partition("\n[")[0].splitlines()
    return dict(line.partition("=")[::2] for line in lines if line)


def test_every_kind_can_be_started_and_those_with_a_calendar_start_by_themselves() -> None:
    found = units(db={"engine": "mariadb", "schedule": {"dump": "", "log": "*:0/15"}, "delay": "30s"})
    assert sorted(found) == [
        "worklog-backup-db-dump.service",
        "worklog-backup-db-full.service",
        "worklog-backup-db-full.timer",
        "worklog-backup-db-incremental.service",
        "worklog-backup-db-incremental.timer",
        "worklog-backup-db-log.service",
        "worklog-backup-db-log.timer",
        "worklog-backup-db-prune.service",
        "worklog-backup-db-prune.timer",
        "worklog-backup-failed@.service",
    ]
    timer = section(found["worklog-backup-db-log.timer"], "Timer")
    assert timer == {"OnCalendar": "*:0/15", "RandomizedDelaySec": "30", "Persistent": "yes"}
    assert section(found["worklog-backup-db-full.timer"], "Timer")["OnCalendar"] == "Sun *-*-* 01:30"
    assert all(text.startswith(schedule.MARKER + "\n[Unit]\n") for text in found.values())
    assert all(schedule.NAME.fullmatch(name) for name in found)


def test_a_service_is_gentle_restricted_and_tells_of_its_failure() -> None:
    found = units(db={"engine": "mariadb", "timeout": "1h"})["worklog-backup-db-full.service"]
    assert section(found, "Unit")["OnFailure"] == "worklog-backup-failed@%n.service"
    service = section(found, "Service")
    assert service["ExecStart"].endswith(" run db full")
    assert (service["SuccessExitStatus"], service["Nice"], service["IOSchedulingClass"]) == ("75", "10", "idle")
    assert (service["User"], service["TimeoutStartSec"]) == ("root", "7800")
    assert (service["ProtectSystem"], service["ProtectHome"]) == ("strict", "read-only")
    assert service["ReadWritePaths"] == "/var/backups/worklog /var/log/worklog-maintenance"
    assert "SupplementaryGroups" not in service


def test_another_account_and_a_root_with_odd_characters() -> None:
    found = units("/srv/back ups/100%", db={"engine": "mariadb", "user": "worklog"})
    service = section(found["worklog-backup-db-full.service"], "Service")
    assert (service["User"], service["SupplementaryGroups"]) == ("worklog", "worklog-backup")
    assert service["ReadWritePaths"] == '"/srv/back ups/100%%" /var/log/worklog-maintenance'


def test_what_is_watched() -> None:
    found = units(conf={"engine": "secrets", "watch": ["/etc/app/.env", "/etc/app/100%.json"]})
    path = found["worklog-backup-conf-snapshot.path"]
    assert "PathChanged=/etc/app/.env\nPathChanged=/etc/app/100%%.json\n" in path
    service = found["worklog-backup-conf-snapshot.service"]
    assert section(service, "Unit")["StartLimitIntervalSec"] == "0"
    assert section(service, "Service")["ExecStartPre"] == "sleep 5"


def test_copies_and_pruning_may_write_to_the_tiers() -> None:
    tier = {"password_file": "/etc/worklog-maintenance/restic"}
    tiers = {
        "remote": {**tier, "repository": "/mnt/remote", "timeout": "1h"},
        "offsite": {**tier, "repository": "sftp:far:/backups", "timeout": "1h"},
    }
    found = units(db={"engine": "mariadb", "timeout": "1h", "tiers": tiers})
    service = section(found["worklog-backup-db-copy.service"], "Service")
    assert service["ExecStart"].endswith(" copy db")
    assert service["ReadWritePaths"] == "/var/backups/worklog /var/log/worklog-maintenance -/mnt/remote"
    assert (service["TimeoutStartSec"], service["CacheDirectory"]) == ("15000", "worklog-maintenance")
    assert section(found["worklog-backup-db-copy.timer"], "Timer")["OnCalendar"] == "*-*-* 04:00"
    assert section(found["worklog-backup-db-prune.service"], "Service")["ExecStart"].endswith(" prune db")


def test_no_source_no_unit() -> None:
    assert units() == {}


OURS = schedule.MARKER + "\n[Unit]\n"


@pytest.mark.parametrize(
    ("present", "wanted", "write", "remove"),
    [
        ({}, {"a": OURS}, ["a"], []),
        ({"a": OURS}, {"a": OURS}, [], []),
        ({"a": OURS + "changed"}, {"a": OURS}, ["a"], []),
        ({"a": OURS, "b": OURS}, {"b": OURS}, [], ["a"]),
        ({"a": "[Unit]\n"}, {"b": OURS}, ["b"], []),  # somebody else's stays
        ({"a": "[Unit]\n"}, {}, [], []),
    ],
)
def test_the_plan(present: dict[str, str], wanted: dict[str, str], write: list[str], remove: list[str]) -> None:
    plan = schedule.plan(present, wanted)
    assert (list(plan.write), plan.remove, plan.empty) == (write, remove, not write and not remove)


def test_a_foreign_unit_is_never_replaced() -> None:
    with pytest.raises(schedule.ForeignUnit, match="a in /etc/systemd/system was not made by this collection"):
        schedule.plan({"a": "[Unit]\n"}, {"a": OURS})
