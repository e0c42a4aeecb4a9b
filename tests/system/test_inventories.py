# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventories, with the lab's nodes in the place of their hosts: two applications, two load balancers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Lab, Restore

#: Which node of the lab stands for which hosts. Both load balancers of production divide by HAProxy, as lb2 does.
HOSTS = {
    "staging": {"lb2": ["lb1"], "app1": ["app1"], "app2": ["app2"], "db1": ["db1"], "ops1": ["ops1"]},
    "production": {
        "lb2": ["lb1", "lb2"], "app1": ["app1", "app3"], "app2": ["app2", "app4"],
        "db1": ["db1", "db2"], "ops1": ["ops1"],
    },
}  # fmt: skip
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
    version = {"worklog-api": "v1.1.0", "lowcode-platform": "v2.4.0"}[application]
    given = ["-e", f"release_application={application}", "-e", f"release_version={version}"]
    done = lab.playbook("worklog.maintenance.release_plan", *given, inventory=example)
    plan = done.stdout + done.stderr
    assert done.returncode != 0 and "Method: canary" in plan, plan
    for host in (host for names in HOSTS[example.name].values() for host in names if host[:2] in ("lb", "ap")):
        assert f"{host}.{DOMAIN[example.name]}" in plan, plan
    against = {
        line.split("[critical]")[1].split(": ")[0].strip() for line in plan.splitlines() if "  [critical]" in line
    }
    assert against and all(one.startswith("/var/backups/worklog/") for one in against), against


@pytest.mark.capability("B1", "B3")
@pytest.mark.parametrize(
    ("example", "playbook", "application"),
    [("staging", "upgrade_in_place", "lowcode-platform"), ("production", "canary", "worklog-api")],
    indirect=["example"],
)
def test_check_mode_refuses_a_release_without_backups_and_touches_nothing(
    lab: Lab, example: Path, playbook: str, application: str
) -> None:
    version = {"worklog-api": "v1.1.0", "lowcode-platform": "v2.4.0"}[application]
    given = ["-e", f"release_application={application}", "-e", f"release_version={version}", "--check", "--diff"]
    done = lab.playbook(f"worklog.maintenance.{playbook}", *given, inventory=example)
    assert done.returncode != 0 and "there is no verified full backup of" in done.stdout + done.stderr, done.stdout
    assert lab.exec("app1", ["test", "-e", "/var/lib/worklog-maintenance/releases"], check=False).returncode
