# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plugins that work on the controller, through ansible-playbook itself, on localhost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

INVENTORY: dict[str, Any] = {
    "all": {
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "children": {"app": {"hosts": {"app1": {}, "app2": {}}}},
    }
}


def play(tmp_path: Path, tasks: list[dict[str, Any]], *arguments: str, hosts: str = "localhost") -> tuple[int, str]:
    """Run the tasks and return the exit code and everything that was printed."""
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": hosts, "gather_facts": False, "tasks": tasks}]))
    return playbook(tmp_path, str(tmp_path / "play.yml"), *arguments)


def playbook(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Run a playbook on the inventory, and return the exit code and everything that was printed."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(INVENTORY))
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [str(program), "-i", str(tmp_path / "inventory.yml"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def validation(target: str = "app", **options: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"worklog.maintenance.validate_input": {"target": target, "options": options}}]


def test_good_input_passes(tmp_path: Path) -> None:
    code, output = play(tmp_path, validation(speed={"type": "int"}), "-e", "speed=3")
    assert code == 0, output


@pytest.mark.parametrize(
    ("target", "options", "extra", "sentence"),
    [
        ("ap1", {}, "{}", "no host of the inventory matches 'ap1'; did you mean 'app1'?"),
        ("app", {"speed": {"type": "int"}}, '{"speed": "fast"}', "app1, app2: speed is 'fast'; give a whole number"),
        ("app", {"speed": {"type": "int", "choices": [1, 2]}}, '{"speed": "3"}', "value of speed must be one of: 1, 2"),
        ("app", {"unit": {"type": "str", "required": True}}, "{}", "missing required arguments: unit"),
        ("app", {"unit": {"type": "str"}}, '{"unit": "{{ nowhere }}"}', "the value of 'unit' cannot be worked out"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    tmp_path: Path, target: str, options: dict[str, Any], extra: str, sentence: str
) -> None:
    code, output = play(tmp_path, validation(target, **options), "-e", extra)
    assert code != 0
    assert sentence in " ".join(output.split())


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("release_aplication", "-e: there is no variable 'release_aplication'; did you mean 'release_application'?"),
        ("targt", "-e: there is no variable 'targt'; did you mean 'target'?"),
        ("release_applications", ""),
        ("hosts", ""),
    ],
)
def test_what_was_typed_is_nearly_a_variable_of_another_name(tmp_path: Path, typed: str, sentence: str) -> None:
    """The name of no role or playbook is in front of it, so it could be a variable of the inventory."""
    code, output = play(tmp_path, validation(release_application={"type": "str"}), "-e", f"{typed}=app")
    assert (code != 0, sentence in " ".join(output.split())) == (bool(sentence), True), output


@pytest.mark.parametrize(
    ("variable", "accepted"),
    [("nginx_upload_limit_limti", False), ("nginx_upload_limit_result", True), ("nginx_upload_limits", True)],
)
def test_a_misspelt_variable_of_the_role_is_refused(tmp_path: Path, variable: str, accepted: bool) -> None:
    tasks = [{"worklog.maintenance.validate_input": {"role": "nginx_upload_limit", "target": "app"}}]
    needed = {"nginx_upload_limit_limit": "50m", "nginx_upload_limit_servers": [{"name": "a.example"}]}
    _unused, output = play(tmp_path, tasks, "-e", json.dumps({**needed, variable: "1m"}))
    assert (f"there is no variable '{variable}'" not in " ".join(output.split())) is accepted


@pytest.mark.parametrize(
    ("name", "typed"),
    [("upload_limit", "upload_limit_size"), ("patch_rollback", "patch_rollback_id"), ("patch", "patch_id")],
)
def test_what_looks_like_a_variable_of_the_playbook_that_runs_is_refused(tmp_path: Path, name: str, typed: str) -> None:
    code, output = playbook(tmp_path, f"worklog.maintenance.{name}", "-e", f"target=app {typed}=1", "--check")
    assert code != 0 and f"there is no variable '{typed}'" in " ".join(output.split()), output


def test_an_unknown_role_is_named(tmp_path: Path) -> None:
    code, output = play(tmp_path, [{"worklog.maintenance.validate_input": {"role": "nowhere"}}])
    assert code != 0
    assert "there is no role 'nowhere'" in output


def test_the_records_of_a_run_share_an_identifier_and_are_found_by_it(tmp_path: Path) -> None:
    path = str(tmp_path / "records.jsonl")
    finding = {"check": "host.disk", "subject": "/", "severity": "warning", "message": "磁盘 91 %"}
    tasks: list[dict[str, Any]] = [
        {"worklog.maintenance.record": {"what": "first", "result": "ok", "path": path}},
        {"worklog.maintenance.record": {"what": "second", "result": "failed", "findings": [finding], "path": path}},
        {"worklog.maintenance.record_info": {"run_id": "current", "path": path}, "register": "found"},
        {
            "ansible.builtin.debug": {"msg": "{{ found.records | worklog.maintenance.records_table }}"},
            "run_once": True,
        },
    ]
    for _unused in range(2):
        code, output = play(tmp_path, tasks, "-e", "awx_user_name=li", hosts="app")
        assert code == 0, output
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8
    assert len({line["run_id"] for line in lines}) == 2
    assert {line["by"] for line in lines} == {"li"}
    assert {(line["host"], line["what"], line["severity"]) for line in lines} == {
        (host, *rest) for host in ("app1", "app2") for rest in (("first", "ok"), ("second", "warning"))
    }
    assert output.count(" first ") == 2 and output.count(" second ") == 2


def test_check_mode_leaves_no_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tasks = [{"worklog.maintenance.record": {"what": "x", "result": "ok", "path": str(path)}}]
    code, output = play(tmp_path, tasks, "--check", "--diff")
    assert code == 0
    assert '"what": "x"' in output.replace("+  ", "")
    assert not path.exists()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"worklog.maintenance.record": {"what": "x", "result": "good"}}, "value of result must be one of"),
        ({"worklog.maintenance.record": {"what": "x", "result": "ok", "findings": [{"a": 1}]}}, "not a finding"),
        ({"worklog.maintenance.record": {"what": "x", "result": "ok", "path": "/dev/null/x"}}, "cannot write a record"),
        ({"worklog.maintenance.record_info": {"since": "yesterday"}}, "'yesterday' is not a time in ISO 8601"),
    ],
)
def test_wrong_records_are_refused(tmp_path: Path, task: dict[str, Any], sentence: str) -> None:
    code, output = play(tmp_path, [task])
    assert code != 0
    assert sentence in " ".join(output.split())


def test_variables_of_a_role_with_a_longer_name_are_not_misspelt_ones(tmp_path: Path) -> None:
    tasks = [{"worklog.maintenance.validate_input": {"role": "backup", "target": "app"}}]
    given = {"backup_verify_backups": [{"path": "/x"}], "backup_prune_sources": [], "backup_sorces": []}
    code, output = play(tmp_path, tasks, "-e", json.dumps(given))
    words = " ".join(output.split())
    assert code != 0
    assert "there is no variable 'backup_sorces'; did you mean 'backup_sources'?" in words
    assert "backup_verify_backups" not in words
    assert "backup_prune_sources" not in words
