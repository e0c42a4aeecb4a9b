# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the role: the hosts make, verify and record their backups by themselves; nothing here goes through Ansible."""
# capabilities: A1, A2, A3, A4, A5, A6

from __future__ import annotations

import json
import os
import shlex
import time
from typing import Any

import pytest
import testinfra

PREFIX = os.environ.get("LAB_PREFIX", "molecule")
RECORDS = "/var/log/worklog-maintenance/records.jsonl"
SOURCES = {
    "app1": {"uploads": "snapshot", "configuration": "snapshot", "logs": "archive"},
    "app2": {"uploads": "snapshot", "configuration": "snapshot", "logs": "archive"},
    "db1": {"mariadb": "full incremental log dump", "mongodb": "full", "redis": "full"},
}
ALL = [(node, source, kind) for node in SOURCES for source, kinds in SOURCES[node].items() for kind in kinds.split()]


def node(name: str) -> Any:
    return testinfra.get_host(f"docker://{PREFIX}-{name}")


def backups(host: Any, source: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.check_output(f"worklog-backup list --json {source}"))
    return found


def records(host: Any, what: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in host.file(RECORDS).content_string.splitlines()]
    return [line for line in lines if line["what"] == what]


@pytest.mark.parametrize("name", SOURCES)
def test_the_program_and_its_configuration(name: str) -> None:
    host = node(name)
    program, config = host.file("/usr/local/sbin/worklog-backup"), host.file("/etc/worklog-maintenance/backup.json")
    root = host.file("/var/backups/worklog")
    others = name.startswith("app")  # where an account other than root makes backups
    assert (program.user, program.mode) == ("root", 0o755)
    assert (config.user, config.mode) == ("root", 0o640 if others else 0o600)
    assert config.group == root.group == ("worklog-backup" if others else "root")
    assert root.mode == (0o710 if others else 0o700)
    assert host.run("worklog-backup check").rc == 0


@pytest.mark.parametrize("name", SOURCES)
def test_every_timer_is_enabled_and_has_its_next_time(name: str) -> None:
    host = node(name)
    timers = json.loads(host.check_output("systemctl list-timers --output=json 'worklog-backup-*'"))
    assert {timer["unit"] for timer in timers if timer["next"]} == {
        f"worklog-backup-{source}-{kind}.timer"
        for source, kinds in SOURCES[name].items()
        for kind in [*kinds.split(), "prune"]
    }
    assert all(host.service(timer["unit"]).is_enabled for timer in timers)
    assert host.run("systemd-analyze verify /etc/systemd/system/worklog-backup-*").stderr == ""


@pytest.mark.parametrize(("name", "source", "kind"), ALL)
def test_systemd_makes_a_verified_backup(name: str, source: str, kind: str) -> None:
    host = node(name)
    changed = {"configuration": "/srv/lowcode/shared/.env", "logs": "/srv/lowcode/shared/logs/test.log"}
    if source in changed:  # of which one is made only when something has changed
        host.check_output("sh -c 'echo >> %s'", changed[source])
    before = len(backups(host, source))
    done = host.run(f"systemctl start worklog-backup-{source}-{kind}.service")
    assert done.rc == 0, host.run(f"journalctl --no-pager -n 30 -u worklog-backup-{source}-{kind}").stdout
    after = backups(host, source)
    assert len(after) > before or source == "configuration"  # whose change was watched
    assert (after[-1]["kind"], after[-1]["verdict"]) == (kind, "verified")
    last = records(host, "backup")[-1]
    assert (last["subject"], last["result"], last["details"]["path"]) == (f"{source} {kind}", "ok", after[-1]["path"])


def test_another_account_owns_its_backups() -> None:
    host = node("app1")
    newest = host.file(backups(host, "uploads")[-1]["path"])
    assert (newest.user, newest.mode) == ("worklog", 0o700)
    assert host.file("/var/backups/worklog/configuration").user == "root"
    # Started by root by hand, it is still the account's: no file of root gets among them.
    assert host.run("worklog-backup run uploads snapshot").rc == 0
    assert host.run("find /var/backups/worklog/uploads ! -user worklog").stdout == ""


def test_a_change_of_a_watched_file_makes_a_snapshot() -> None:
    host = node("app2")
    before = len(backups(host, "configuration"))
    host.check_output("sh -c 'echo >> /srv/lowcode/shared/.env'")
    limit = time.monotonic() + 120
    while len(backups(host, "configuration")) == before and time.monotonic() < limit:
        time.sleep(1)
    assert len(backups(host, "configuration")) == before + 1


def test_a_failure_is_recorded_and_the_site_is_told() -> None:
    host = node("app1")
    unit = "worklog-backup-logs-archive.service"
    host.check_output("mv /srv/lowcode/shared/logs /srv/lowcode/shared/logs.away")
    try:
        assert host.run(f"systemctl start {unit}").rc != 0
    finally:
        host.check_output("mv /srv/lowcode/shared/logs.away /srv/lowcode/shared/logs")
    last = wait_for_failure(host, unit)
    assert "ended with exit code 1; it said: " in last["findings"][0]["message"]
    assert last["details"]["status"] == 1
    assert any("Failed with result 'exit-code'" in line for line in last["details"]["journal"])
    assert json.loads(host.file("/run/molecule-notified.json").content_string) == last
    assert host.run(f"systemctl start {unit}").rc == 0


def test_a_killed_run_is_recorded_and_the_next_one_goes_on() -> None:
    host = node("app1")
    unit = "worklog-backup-uploads-snapshot.service"
    before = len(backups(host, "uploads"))
    # Something that takes its time: the program is stopped as soon as systemd has started it.
    host.check_output(
        shlex.join(["sh", "-c", f"systemctl start --no-block {unit}; systemctl kill --signal=KILL {unit}; sleep 1"])
    )
    last = wait_for_failure(host, unit)
    assert f"{unit} was ended by signal 9" in last["findings"][0]["message"]
    assert host.run(f"systemctl start {unit}").rc == 0
    assert len(backups(host, "uploads")) == before + 1
    assert host.run("find /var/backups/worklog -name '*.partial'").stdout == ""


def test_two_starts_at_once_are_not_a_failure() -> None:
    host = node("db1")
    lock = "/var/backups/worklog/redis/.lock"
    unit = "worklog-backup-redis-full.service"
    done = host.run(shlex.join(["flock", lock, "systemctl", "start", unit]))
    assert done.rc == 0
    assert "ExecMainStatus=75" in host.run(f"systemctl show {unit}").stdout
    last = records(host, "backup")[-1]
    assert (last["result"], last["findings"][0]["check"]) == ("refused", "backup.busy")


def wait_for_failure(host: Any, unit: str) -> dict[str, Any]:
    """Return the newest record of a failed unit, once the unit that leaves it has ended."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        state = host.run(f"systemctl is-active 'worklog-backup-failed@{unit}.service'").stdout.strip()
        found = [record for record in records(host, "backup_unit") if record["subject"] == unit]
        if state in ("inactive", "failed") and found:
            return found[-1]
        time.sleep(0.5)
    raise AssertionError(f"there is no record of {unit}: {host.run('journalctl --no-pager -n 50').stdout}")
