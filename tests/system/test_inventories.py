# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories, with the lab's nodes in the place of their hosts: two applications, two load balancers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.system.conftest import ROOT, Lab, Restore

#: Which node of the lab stands for which hosts. Both load balancers of production divide by HAProxy, as lb2 does.
HOSTS = {
    "staging": {"lb2": ["lb1"], "app1": ["app1"], "app2": ["app2"], "db1": ["db1"], "ops1": ["ops1"]},
    "production": {
        "lb2": ["lb1", "lb2"], "app1": ["app1", "app3"], "app2": ["app2", "app4"],
        "db1": ["db1", "db2"], "ops1": ["ops1"],
    },
}  # fmt: skip
STATE = "/var/lib/worklog-maintenance/releases"
VERSIONS = {"worklog-api": "v1.1.0", "lowcode-platform": "v2.4.0"}
DOMAIN = {"staging": "staging.example.test", "production": "prod.example.test"}


@pytest.fixture
def example(lab: Lab, restore: Restore, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An example inventory, its hosts in the lab and known to HAProxy by their names."""
    name: str = request.param
    hosts = {f"{host}.{DOMAIN[name]}": node for node, names in HOSTS[name].items() for host in names}
    way = {"ansible_connection": "community.docker.docker", "ansible_user": "root", "ansible_become": False}
    there = {host: {"ansible_host": lab.container(node)} for host, node in hosts.items()}
    shutil.copytree(ROOT / "inventories" / name, tmp_path / name)
    (tmp_path / name / "lab.json").write_text(json.dumps({"all": {"vars": way, "hosts": there}}), encoding="utf-8")
    restore.restart("lb2", "haproxy")
    restore.path("lb2", "/etc/haproxy/haproxy.cfg")
    lines = []
    for line in lab.read("lb2", "/etc/haproxy/haproxy.cfg").splitlines(keepends=True):
        words = line.split()
        named = [host for host, node in hosts.items() if words[:2] == ["server", node]]
        lines += [line.replace(words[1], host, 1) for host in named] or [line]
    lab.write("lb2", "/etc/haproxy/haproxy.cfg", "".join(lines))
    lab.exec("lb2", ["systemctl", "restart", "haproxy"])
    return tmp_path / name


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_every_playbook_can_be_read_with_an_example(lab: Lab, name: str) -> None:
    first, *others = [f"worklog.maintenance.{path.stem}" for path in sorted((ROOT / "playbooks").glob("*.yml"))]
    done = lab.playbook(first, *others, "--syntax-check", inventory=ROOT / "inventories" / name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("playbook: ") == len(others) + 1


@pytest.mark.capability("B5")
@pytest.mark.parametrize(
    ("example", "application"),
    [("staging", "worklog-api"), ("production", "lowcode-platform")],
    indirect=["example"],
)
def test_a_release_is_planned_for_all_hosts_of_an_example(lab: Lab, example: Path, application: str) -> None:
    """All that stands against it is what the lab does not have: the backups of the example."""
    given = ["-e", f"release_application={application}", "-e", f"release_version={VERSIONS[application]}"]
    done = lab.playbook("worklog.maintenance.release_plan", *given, inventory=example)
    plan = done.stdout + done.stderr
    assert done.returncode != 0 and "Method: canary" in plan, plan
    for host in (host for names in HOSTS[example.name].values() for host in names if host[:2] in ("lb", "ap")):
        assert f"{host}.{DOMAIN[example.name]}" in plan, plan
    against = {
        line.split("[critical]")[1].split(": ")[0].strip() for line in plan.splitlines() if "  [critical]" in line
    }
    assert against and all(one.startswith("/var/backups/worklog/") for one in against), against


@pytest.mark.capability("B1")
@pytest.mark.parametrize("example", ["staging"], indirect=True)
def test_check_mode_refuses_a_release_without_backups_and_touches_nothing(lab: Lab, example: Path) -> None:
    given = ["-e", "release_application=lowcode-platform", "-e", f"release_version={VERSIONS['lowcode-platform']}"]
    done = lab.playbook("worklog.maintenance.upgrade_in_place", *given, "--check", "--diff", inventory=example)
    assert done.returncode != 0 and "there is no verified full backup of" in done.stdout + done.stderr, done.stdout
    assert lab.exec("app1", ["test", "-e", STATE], check=False).returncode


@pytest.mark.capability("B1", "B2", "B3")
@pytest.mark.parametrize(
    ("example", "playbook", "application"),
    [
        ("production", "canary", "worklog-api"),
        pytest.param("production", "upgrade_in_place", "lowcode-platform", marks=pytest.mark.soak),
        pytest.param("production", "blue_green", "worklog-api", marks=pytest.mark.soak),
        pytest.param("staging", "canary", "lowcode-platform", marks=pytest.mark.soak),
        pytest.param("staging", "blue_green", "worklog-api", marks=pytest.mark.soak),
    ],
    indirect=["example"],
)
def test_check_mode_says_what_would_be_done_and_touches_nothing(
    lab: Lab, example: Path, playbook: str, application: str
) -> None:
    """Where the backups would be good and the version is there: the lab has neither of an example."""
    text = (example / "group_vars/all/releases.yml").read_text(encoding="utf-8")
    every = yaml.safe_load(text)["release_applications"]
    one = every[application]
    del one["backup"]
    one["artefact"] = {"kind": "directory", "root": one["artefact"]["root"]}
    given = {"release_application": application, "release_version": VERSIONS[application]}
    if playbook == "blue_green":  # all of the traffic on one side, which the example's hosts do not have yet
        sides = {side: members["hosts"].split(":") for side, members in one["sides"].items()}
        idle = [{"hosts": "load_balancers", "gather_facts": False, "tasks": [{"worklog.maintenance.release_split": {
            "balancer": "{{ release_applications[release_application].balancers[inventory_hostname] }}",
            "members": sides, "shares": {"blue": 100, "green": 0}}}]}]  # fmt: skip
        (example / "idle.json").write_text(json.dumps(idle), encoding="utf-8")
        done = lab.playbook(example / "idle.json", "-e", json.dumps(given), inventory=example)
        assert done.returncode == 0, done.stdout + done.stderr
    words = ["-e", json.dumps({"release_applications": every, **given}), "--check", "--diff"]
    done = lab.playbook(f"worklog.maintenance.{playbook}", *words, inventory=example)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"-> {VERSIONS[application][1:]}" in done.stdout, done.stdout
    if playbook == "upgrade_in_place":
        assert f"{application} {VERSIONS[application][1:]} would run on " in done.stdout, done.stdout
    else:
        assert done.stdout.count("changed=0 ") == done.stdout.count("unreachable=0"), done.stdout
    assert lab.exec("app1", ["test", "-e", STATE], check=False).returncode
