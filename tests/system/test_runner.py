# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks by FQCN from an installed archive, with ansible-playbook and with ansible-runner, near and far."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml

from tests.system.conftest import Restore

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PLAYBOOK = "worklog.maintenance.upload_limit"


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the collection as an operator installs it: from the built archive, nothing else in it."""
    place = tmp_path_factory.mktemp("installed")
    galaxy = str(BIN / "ansible-galaxy")
    build = [galaxy, "collection", "build", "--output-path", str(place / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (archive,) = (place / "dist").glob("worklog-maintenance-*.tar.gz")
    install = [galaxy, "collection", "install", "--offline", str(archive), "-p", str(place / "collections")]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    return place / "collections"


@pytest.fixture
def private_data(lab: Any, collections: Path, tmp_path: Path) -> Path:
    """A private data directory as AWX makes it: project with its collections, inventory, variables."""
    directory = tmp_path / "private"
    (directory / "project").mkdir(parents=True)
    shutil.copytree(collections, directory / "project" / "collections")
    shutil.copytree(ROOT / "inventories" / "lab", directory / "inventory")
    (directory / "env").mkdir()
    # Survey answers arrive as strings.
    (directory / "env" / "extravars").write_text(json.dumps({"nginx_upload_limit_serial": "1"}), encoding="utf-8")
    (directory / "env" / "envvars").write_text(
        json.dumps(
            {
                "LAB_PREFIX": lab.prefix,
                "ANSIBLE_COLLECTIONS_PATH": "collections",
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_NOCOLOR": "1",
            }
        ),
        encoding="utf-8",
    )
    (directory / "env" / "cmdline").write_text("--check", encoding="utf-8")
    return directory


@pytest.mark.capability("J1")
def test_playbooks_run_by_name_from_an_installed_collection(lab: Any, collections: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LAB_PREFIX": lab.prefix, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    limit = "nginx_upload_limit_limit=33m"  # which no other test sets
    command = [str(BIN / "ansible-playbook"), "-i", str(ROOT / "inventories" / "lab"), PLAYBOOK, "-e", limit]
    done = subprocess.run(
        [*command, "--check", "--diff", "-vv"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(collections) in done.stdout, "it ran from somewhere else"
    assert "client_max_body_size 33m" in done.stdout


@pytest.mark.capability("J3")
def test_ansible_runner_runs_it_here(private_data: Path) -> None:
    outcome = ansible_runner.run(private_data_dir=str(private_data), playbook=PLAYBOOK, quiet=True, timeout=300)
    assert (outcome.status, outcome.rc) == ("successful", 0), outcome.stdout.read()
    assert outcome.stats["ok"]


@pytest.mark.capability("J3")
def test_ansible_runner_runs_it_on_a_worker(private_data: Path, tmp_path: Path) -> None:
    """transmit | worker | process: the worker has nothing but the stream and hands back nothing but a stream."""
    runner = str(BIN / "ansible-runner")
    result = tmp_path / "result"
    result.mkdir()
    work = tmp_path / "worker"
    sent = subprocess.run(
        [runner, "transmit", str(private_data), "-p", PLAYBOOK], check=True, capture_output=True, timeout=120
    ).stdout
    worked = subprocess.run(
        [runner, "worker", "--private-data-dir", str(work)], input=sent, check=True, capture_output=True, timeout=300
    ).stdout
    processed = subprocess.run(
        [runner, "process", str(result)], check=False, input=worked, capture_output=True, timeout=120
    )
    output = processed.stdout.decode("utf-8", "replace")
    assert processed.returncode == 0, output + processed.stderr.decode("utf-8", "replace")
    (status,) = result.glob("artifacts/**/status")
    assert status.read_text(encoding="utf-8") == "successful", output
    assert "PLAY RECAP" in output


@pytest.mark.capability("B5", "J3")
def test_the_plan_of_a_major_version_is_handed_on_to_an_approval(
    lab: Any, restore: Restore, private_data: Path, tmp_path: Path
) -> None:
    """The schema changes, and somebody has the lock of a load balancer."""
    restore.path("lb1", "/var/lib/worklog-maintenance/releases")
    held = {"application": "worklog-api", "action": "begin", "version": "1.1.0", "id": "hers", "owner": "ann"}
    assert lab.module("lb1", "release_state", **held)["changed"]
    applications = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/releases.yml").read_text(encoding="utf-8"))
    phases = {phase: str(tmp_path / f"{phase}.yml") for phase in ("expand", "contract")}
    for path in phases.values():
        Path(path).write_text("[]", encoding="utf-8")
    applications["release_applications"]["worklog-api"]["database"] = {"host": "db1", **phases}
    answers = {"release_application": "worklog-api", "release_version": "v2.0.0", "release_plan_schema_change": "true"}
    (private_data / "env" / "extravars").write_text(json.dumps({**applications, **answers}), encoding="utf-8")
    plan = "worklog.maintenance.release_plan"
    outcome = ansible_runner.run(private_data_dir=str(private_data), playbook=plan, quiet=True, timeout=300)
    output = outcome.stdout.read()
    assert outcome.status == "failed", output
    (stats,) = (event for event in outcome.events if event["event"] == "playbook_on_stats")
    made = stats["event_data"]["artifact_data"]
    steps = [step["what"]["en"].partition(";")[0] for step in made["release_plan"]["steps"]]
    assert "expand the schema" in steps and "contract the schema: after this there is no way back" in steps
    assert steps.index("expand the schema") < steps.index("idle side: put 2.0.0 there, start it, test its functions")
    assert made["release_plan"]["problems"][0].startswith("worklog-api on lb1: ann holds the lock for 1.1.0"), output
    for language, words in (("en", "1.0.0 -> 2.0.0 (major version)"), ("zh", "1.0.0 -> 2.0.0 (主版本)")):
        assert words in made["release_plan_text"][language].splitlines()[0]
    assert "Method: blue-green (worklog.maintenance.blue_green)" in output and "NOT READY" in output
    assert lab.exec("app1", ["test", "-e", "/var/lib/worklog-maintenance/releases"], check=False).returncode


@pytest.mark.capability("J3")
def test_a_failure_of_the_run_is_a_failure_here(private_data: Path) -> None:
    (private_data / "env" / "extravars").write_text(json.dumps({"target": "no-such-host"}), encoding="utf-8")
    outcome = ansible_runner.run(private_data_dir=str(private_data), playbook=PLAYBOOK, quiet=True, timeout=300)
    assert outcome.status == "failed"
    assert "no host of the inventory matches 'no-such-host'" in " ".join(outcome.stdout.read().split())
