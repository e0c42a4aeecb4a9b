# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks as an operator types them: a wrong variable is one sentence, and nothing is touched; the whole day."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

FILES = {"name": "x", "engine": "files", "options": {"paths": ["/x"]}}
FOR_EVER = {"repository": "/x", "password_file": "/x", "keep": {"age": "1d"}}
RESTORE = {"target": "db1", "restore_source": "mariadb"}
PLAN = {"release_application": "worklog-api", "release_version": "v1.1.0"}
DRILL = {"target": "app1", "drill_sources": "redis"}


def play(lab: Any, name: str, *arguments: str, timeout: float = 120) -> tuple[int, str]:
    """Run a playbook by FQCN on the lab and return its exit code and what it printed."""
    done = lab.playbook(f"worklog.maintenance.{name}", *arguments, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def touched(output: str) -> list[str]:
    """The tasks that have changed something, but for the record of it."""
    tasks = re.split(r"(?m)^TASK \[", output)
    return [task for task in tasks if "\nchanged: " in task and not task.startswith("Leave a record")]


@pytest.mark.parametrize(
    ("playbook", "variables", "sentence"),
    [
        ("backup_verify", {"target": "databse"}, "matches 'databse'; did you mean 'database'?"),
        ("backup_verify", {"target": "lb1"}, "no host that 'lb1' matches has backup_verify_backups"),
        ("backup_verify", {"backup_verify_acept": "stale"}, "did you mean 'backup_verify_accept'?"),
        ("backup_verify", {"backup_verify_backups": [{"pth": "/x"}]}, "pth"),
        ("backup_verify", {"backup_verify_expect": {"max_age": "yesterday"}}, "max_age"),
        ("backup_setup", {"target": "databse"}, "matches 'databse'; did you mean 'database'?"),
        ("backup_setup", {"backup_minfree": "5%"}, "did you mean 'backup_min_free'?"),
        ("backup_setup", {"backup_sources": [{"name": "x", "engine": "mysql"}]}, "value of engine must be one of"),
        ("backup_setup", {"backup_sources": [FILES | {"schedul": {}}]}, "schedul"),
        ("backup_setup", {"backup_sources": [FILES | {"options": {"paths": ["x"]}}]}, "a list of absolute paths"),
        ("backup_setup", {"backup_sources": [FILES | {"schedule": {"full": "daily"}}]}, "there are snapshot, prune"),
        ("backup_setup", {"backup_sources": [FILES | {"tiers": {"remote": {}}}]}, "missing required arguments"),
        ("backup_setup", {"backup_sources": [FILES | {"tiers": {"offsite": FOR_EVER}}]}, "tiers.offsite.keep"),
        ("backup_setup", {"backup_sources": [FILES | {"keep": {"age": "long"}}]}, "keep: age is 'long'"),
        ("backup", {"target": "databse"}, "matches 'databse'; did you mean 'database'?"),
        ("backup", {"target": "lb1"}, "no host that lb1 matches has backup_sources"),
        ("backup", {"backup_only": "mariadb, rediss"}, "no host has the source rediss; there are configuration, logs,"),
        ("backup", {"backup_knd": "full"}, "there is no variable 'backup_knd'; did you mean 'backup_kind'?"),
        ("backup_prune", {"target": "databse"}, "matches 'databse'; did you mean 'database'?"),
        ("backup_prune", {"target": "lb1"}, "no host that 'lb1' matches has backup_sources"),
        ("backup_prune", {"backup_prune_places": "offsite"}, "must be one or more of: local, remote"),
        ("backup_prune", {"backup_prune_allow": "all"}, "must be one or more of: share, clock"),
        ("backup_prune", {"backup_prune_alow": "all"}, "did you mean 'backup_prune_allow'?"),
        ("restore", {"target": "db1"}, "missing required arguments: restore_source"),
        ("restore", {"target": "app", "restore_source": "uploads"}, "target must name the one host"),
        ("restore", RESTORE | {"restore_tme": "now"}, "did you mean 'restore_time'?"),
        ("restore", RESTORE | {"restore_time": "yesterday"}, "'yesterday' is no point in time"),
        ("restore", RESTORE | {"restore_source": "mariadbb"}, "mariadbb has no backups"),
        ("restore", RESTORE | {"restore_target": "inplace"}, "value of restore_target must be one of"),
        ("restore", RESTORE | {"restore_target": "in_place"}, "restore_confirm=mariadb@db1"),
        ("restore", RESTORE | {"restore_application_hosts": "ap"}, "matches 'ap'; did you mean 'app'?"),
        ("restore", RESTORE | {"restore_application_hosts": "app"}, "missing required arguments: service_restart_name"),
        ("restore_drill", {"target": "app1"}, "missing required arguments: drill_sources"),
        ("restore_drill", {"drill_sources": "redis", "target": "operation"}, "did you mean 'operations'?"),
        ("restore_drill", DRILL | {"drill_buget": "5m"}, "did you mean 'drill_budget'?"),
        ("restore_drill", DRILL | {"drill_budget": "soon"}, "budget and limit must be a number of seconds"),
        ("restore_drill", DRILL | {"drill_fetch": {"from": "x", "prt": 1}}, "drill_fetch.prt"),
        ("restore_drill", DRILL, "redis has no backups"),
        ("release_plan", {"release_application": "worklog"}, "has worklog-api, lowcode-platform"),
        ("release_plan", PLAN | {"release_version": "1.1"}, "give MAJOR.MINOR.PATCH"),
        ("release_plan", PLAN | {"release_plan_methd": "canary"}, "did you mean 'release_plan_method'?"),
        ("blue_green", PLAN | {"blue_green_steps": "10, 5"}, "give percentages that grow and end with 100"),
        ("blue_green", PLAN | {"blue_green_retir": "stop"}, "did you mean 'blue_green_retire'?"),
        ("blue_green", PLAN | {"release_resume": "on"}, "is under way, so there is nothing to go on with"),
        ("canary", PLAN | {"canary_hosts": "app"}, "must be some of app1, app2, but not all"),
        ("release_report", {"release_report_sinc": "2026-11-01"}, "did you mean 'release_report_since'?"),
        ("release_report", {"release_report_since": "yesterday"}, "is not a time in ISO 8601"),
        ("upload_limit", {"target": "nginxx"}, "did you mean 'nginx'?"),
        ("upload_limit", {"nginx_upload_limit_limt": "50m"}, "did you mean 'nginx_upload_limit_limit'?"),
        ("upload_limit", {"nginx_upload_limit_limit": "fifty"}, "fifty"),
        ("upload_limit", {"nginx_upload_limit_level": "top"}, "value of nginx_upload_limit_level must be one of"),
        ("upload_limit", {"nginx_upload_limit_servers": "worklog.exmple.test"}, "worklog.example.test"),
        ("restart", {}, "missing required arguments: service_restart_name"),
        ("restart", {"service_restart_name": "worklog-api", "target": "ap"}, "did you mean 'app'?"),
        ("restart", {"service_restart_name": "worklog-ap"}, "worklog-api"),
        ("restart", {"service_restart_name": "worklog-api", "service_restart_wach": "3"}, "did you mean"),
        ("restart", {"service_restart_name": "worklog-api", "service_restart_watch": "long"}, "service_restart_watch"),
        ("restart", {"service_restart_name": "worklog-api", "service_restart_pre_tasks": "/none.yml"}, "/none.yml"),
        ("rehearse_faults", {"rehearse_faults_config": {"file": "/etc/x"}}, "missing required arguments"),
        ("rehearse_faults", {"rehearse_faults_backupp": "/x"}, "did you mean 'rehearse_faults_backup'?"),
        ("maintenance_day", {"maintenance_day_kind": "x"}, "did you mean 'maintenance_day_kinds'?"),
        ("maintenance_day", {"target": "app"}, "target cannot be set"),
        ("maintenance_day", {"maintenance_day_services": []}, "must name one or two services"),
        ("maintenance_day", {"maintenance_day_upload": {"url": "http://lb1/"}}, "missing required arguments: bytes"),
    ],
)
def test_a_wrong_variable_is_one_sentence_before_anything_is_touched(
    lab: Any, playbook: str, variables: dict[str, Any], sentence: str
) -> None:
    code, output = play(lab, playbook, "-e", json.dumps(variables))
    words = " ".join(output.replace('\\"', '"').replace("\\n", " ").split())
    assert code != 0, output
    assert sentence in words, output
    assert "Traceback" not in output
    assert not touched(output), output


@pytest.mark.parametrize(
    ("playbook", "variables", "sentence"),
    [
        ("restart", {"service_restart_name": "worklog-api", "service_restart_wach": "3"}, "did you mean"),
        ("release_report", {"release_aplication": "worklog-api"}, "did you mean 'release_application'?"),
        ("canary", PLAN, "app2, lb1, lb2 would be left out of the release; run it without --limit"),
        ("blue_green", PLAN, "app2, lb1, lb2 would be left out of the release; run it without --limit"),
        ("rollback", PLAN | {"release_reason": "slow"}, "app1: no good release before the one that runs is recorded"),
    ],
)
def test_limit_does_not_leave_the_validation_out(
    lab: Any, playbook: str, variables: dict[str, Any], sentence: str
) -> None:
    code, output = play(lab, playbook, "--limit", "app1", "-e", json.dumps(variables))
    assert code != 0 and sentence in " ".join(output.split()), output
    assert not touched(output), output


def newest(lab: Any, source: str) -> list[str]:
    """What the host says of the backups of a source: kind and verdict of each."""
    rows = json.loads(lab.exec("db1", ["worklog-backup", "list", "--json", source]).stdout)
    return [f"{row['kind']} {row['verdict']}" for row in rows]


@pytest.mark.capability("A1", "A3", "A6", "A7", "A9")
def test_backups_from_set_up_to_drill_with_answers_of_a_survey(lab: Any) -> None:
    """Every value is a text, as AWX hands it over; what was asked for in check mode is told and not done."""

    def asked(name: str, *arguments: str, **answers: str) -> str:
        code, output = play(lab, name, "-e", json.dumps({"target": "db1", **answers}), *arguments)
        assert code == 0, output
        return output

    asked("backup_setup", backup_install_packages="true")
    assert "changed=1 " in asked("backup_setup", backup_install_packages="true"), "only the record"
    before = newest(lab, "redis")
    assert "would make a backup of redis (redis full)" in asked("backup", "--check", backup_only="redis")
    assert newest(lab, "redis") == before
    said = asked("backup", target="all", backup_only="mariadb, redis", backup_kind="full, log")
    for done in ("mariadb full ok: ", "mariadb log ok: ", "redis full ok: "):
        assert done in said
    assert newest(lab, "mariadb")[-2:] == ["full verified", "log verified"]
    assert newest(lab, "redis") == [*before, "full verified"]
    asked("backup", "--check", backup_only="", backup_kind="")  # a question that was not answered
    code, said = play(lab, "backup", "-e", "target=db1", "-e", "backup_kind=fulll")
    assert code != 0 and "no source has backups of the kind 'fulll'" in said

    kept = len(newest(lab, "redis"))
    said = asked("backup_prune", "--check", backup_prune_sources="redis", backup_prune_places="local,remote")
    assert len(re.findall(r'"keep +db1 +redis +verified +full/', said)) == kept
    code, said = play(lab, "backup_prune", "-e", "target=db1", "-e", "backup_prune_sources=mariadbb")
    assert code != 0 and "there is no source 'mariadbb'" in said

    planned = asked("restore", "--check", restore_source="mariadb", restore_time="", restore_application_hosts="")
    assert re.search(r'"full of \S+ \+ \d+ log backups? to ', planned)
    asked("restore", restore_source="redis", restore_keep="false", restore_unverified="false")
    assert "redis is recoverable" in asked("restore_drill", "--check", drill_sources="redis")
    said = asked("restore_drill", drill_sources="redis", drill_budget="5m", drill_seed="7", drill_unverified="false")
    assert "Passed" in said
    record = json.loads(lab.exec("db1", ["tail", "-1", "/var/log/worklog-maintenance/records.jsonl"]).stdout)
    assert (record["what"], record["subject"], record["result"]) == ("restore_drill", "redis", "ok")


@pytest.mark.soak
@pytest.mark.capability("A7")
def test_a_tier_from_the_inventory_is_kept_by_the_units_of_the_host(lab: Any, restore: Any) -> None:
    password, repository = "/etc/worklog-maintenance/test.password", "/srv/test-repository"
    for path in (password, repository, "/srv/test-tiered", "/var/backups/worklog/tiered"):
        restore.path("db1", path)
    lab.exec("db1", ["mkdir", "-p", "/srv/test-tiered", "/etc/worklog-maintenance"])
    lab.write("db1", "/srv/test-tiered/upload", "content")
    lab.write("db1", password, "a-password-of-the-test\n")
    lab.exec("db1", ["chmod", "600", password])
    tier = {"repository": repository, "password_file": password, "keep": {"age": "90d", "monthly": 12}}
    source = {
        "name": "tiered", "engine": "files", "options": {"paths": ["/srv/test-tiered"]}, "keep": {"age": "7d"},
        "tiers": {"remote": tier}, "schedule": {"copy": "*:0/30"},
    }  # fmt: skip
    variables = {"target": "db1", "backup_sources": [source]}
    try:
        code, output = play(lab, "backup_setup", "-e", json.dumps(variables))
        assert code == 0, output
        timers = lab.exec("db1", ["systemctl", "list-timers", "worklog-backup-tiered-*"]).stdout
        assert all(f"worklog-backup-tiered-{work}.timer" in timers for work in ("snapshot", "copy", "prune"))
        lab.exec("db1", ["worklog-backup", "init", "tiered", "remote"])
        for work in ("snapshot", "copy", "prune"):
            lab.exec("db1", ["systemctl", "start", f"worklog-backup-tiered-{work}.service"])
        there = json.loads(lab.exec("db1", ["worklog-backup", "list", "tiered", "--tier", "remote", "--json"]).stdout)
        assert [(entry["kind"], entry["verdict"]) for entry in there] == [("snapshot", "verified")]
    finally:
        code, output = play(lab, "backup_setup", "-e", "target=db1")
        assert code == 0, output


@pytest.mark.capability("A8", "F3", "F4")
def test_the_maintenance_day(lab: Any, restore: Any) -> None:
    """What `make demo` runs, without its drill; it ends well, loses no request, and says what it found and did."""
    restore.run("lb1", ["systemctl", "reload", "nginx"])
    restore.path("lb1", "/etc/nginx")
    code, output = play(lab, "maintenance_day", "-e", "maintenance_day_drill=false", timeout=580)
    assert code == 0, output
    assert output.count(" requests, 0 failed") == 2, output
    assert "20971520 bytes accepted" in output
    for done in ("backup", "backup_verify", "upload_limit", "restart", "witness", "rehearsal"):
        assert f" {done} " in output, done


@pytest.mark.capability("F4")
def test_a_fault_that_goes_unnoticed_fails_and_everything_is_put_back(lab: Any) -> None:
    """The rehearsal itself can fail: a configuration test that accepts everything, a release that does not crash."""
    config = "/etc/worklog/worklog-api.json"
    before = lab.exec("app1", ["stat", "--format=%a %U:%G %s", config]).stdout
    broken = {
        "file": config,
        "content": lab.read("app1", config),
        "service": "worklog-api",
        "config_test": ["/bin/true"],
    }
    extra: dict[str, Any] = {"rehearse_faults_backup": "", "rehearse_faults_config": broken}
    code, output = play(lab, "rehearse_faults", "-e", json.dumps(extra), timeout=300)
    assert code != 0
    assert "the restart with a broken configuration was not refused" in " ".join(output.split())
    assert lab.exec("app1", ["stat", "--format=%a %U:%G %s", config]).stdout == before
    assert lab.exec("app1", ["tail", "-1", "/var/log/worklog-maintenance/records.jsonl"]).stdout.count('"failed"') == 1

    healthy = {
        "link": "/srv/worklog/current",
        "target": "releases/1.1.0",
        "service": "worklog-api",
        "ready": ["http://127.0.0.1:8080/health"],
    }
    extra = {"rehearse_faults_backup": "", "rehearse_faults_config": None, "rehearse_faults_release": healthy}
    code, output = play(lab, "rehearse_faults", "-e", json.dumps(extra), timeout=300)
    assert code != 0
    assert "the release that crashes was not caught and undone" in " ".join(output.split())
    assert lab.exec("app1", ["readlink", "/srv/worklog/current"]).stdout == "releases/1.0.0\n"
    assert '"version": "1.0.0"' in lab.exec("app1", ["curl", "-s", "http://127.0.0.1:8080/health"]).stdout
