# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks as an operator types them: a wrong variable is one sentence, and nothing is touched; the whole day."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest


def play(lab: Any, name: str, *arguments: str, timeout: float = 120) -> tuple[int, str]:
    """Run a playbook by FQCN on the lab and return its exit code and what it printed."""
    done = lab.playbook(f"worklog.maintenance.{name}", *arguments, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("playbook", "variables", "sentence"),
    [
        ("backup_verify", {"target": "databse"}, "matches 'databse'; did you mean 'database'?"),
        ("backup_verify", {"target": "lb1"}, "no host that 'lb1' matches has backup_verify_backups"),
        ("backup_verify", {"backup_verify_acept": "stale"}, "did you mean 'backup_verify_accept'?"),
        ("backup_verify", {"backup_verify_backups": [{"pth": "/x"}]}, "pth"),
        ("backup_verify", {"backup_verify_expect": {"max_age": "yesterday"}}, "max_age"),
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
    tasks = re.split(r"(?m)^TASK \[", output)
    touched = [task for task in tasks if "\nchanged: " in task and not task.startswith("Leave a record]")]
    assert not touched, output


@pytest.mark.capability("A8", "F3", "F4")
def test_the_maintenance_day(lab: Any, restore: Any) -> None:
    """What `make demo` runs; it ends well, loses no request, and says what it found and did."""
    restore.run("lb1", ["systemctl", "reload", "nginx"])
    restore.path("lb1", "/etc/nginx")
    code, output = play(lab, "maintenance_day", timeout=580)
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
