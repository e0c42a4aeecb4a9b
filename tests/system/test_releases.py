# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades in place and rollbacks under a client that never repeats, with bad releases and killed controllers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.conftest import Client, Lab, Restore

ROOT = Path(__file__).resolve().parents[2]
STATE = "/var/lib/worklog-maintenance/releases"
HOST = "worklog.example.test"
APPS = ("app1", "app2")
CONFIGURATION = "/etc/worklog/worklog-api.json"
#: The steps that a host goes through, as its state tells them.
STEPS = ("keep", "configuration", "switch", "restart", "deployed")


WRITE_CONFIGURATION = """
- name: Write the configuration of the version
  ansible.builtin.replace:
    path: /etc/worklog/worklog-api.json
    regexp: '"port": 8080'
    replace: '"port":   8080'
"""
#: Notes on the host of the database when it ran.
MIGRATE = """
- name: Migrate
  ansible.builtin.lineinfile:
    path: /tmp/migration
    line: "PHASE while app1 has {{ hostvars['app1'].__release_state.release.under_way.step or 'nothing' }}"
    create: true
    mode: "0644"
"""
TELL = """
- name: Tell
  ansible.builtin.lineinfile:
    path: PATH
    line: "{{ notification.event }}"
    create: true
    mode: "0644"
"""


#: A repository of the low-code platform with a tag that is signed and one that is not; npm needs no network for it.
TAGGED = r"""
set -eu
mkdir -p /srv/incoming/repository/vendor /srv/incoming/dependency && cd /srv/incoming
export GNUPGHOME=$PWD/gnupg HOME=$PWD
mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key build@example.test ed25519 sign never
gpg --export build@example.test > keys.gpg
echo '{"name": "lab-dependency", "version": "1.0.0"}' > dependency/package.json
cd repository
cp /srv/lowcode/releases/2.4.0/server.js /srv/lowcode/releases/2.4.0/ecosystem.config.js .
npm pack --silent --offline --pack-destination vendor ../dependency > ../packed
cat > package.json <<'END'
{"name": "lowcode-platform", "version": "2.9.0",
 "dependencies": {"lab-dependency": "file:vendor/lab-dependency-1.0.0.tgz"},
 "scripts": {"build": "node -p \"require('lab-dependency/package.json').version\" > built"}}
END
npm install --silent --offline --package-lock-only
git init --quiet . && git config user.name t && git config user.email t@example.test && git config gpg.program gpg
git add . && git commit --quiet -m one
git tag -u build@example.test -m one v2.9.0 && git tag -a -m two v2.9.1
git bundle create --quiet ../platform.bundle --tags
"""


def applications(**changes: Any) -> dict[str, Any]:
    """The applications of the lab's inventory, without the gate and the backups, which a new lab does not have."""
    text = (ROOT / "inventories/lab/group_vars/all/releases.yml").read_text(encoding="utf-8")
    every: dict[str, Any] = yaml.safe_load(text)["release_applications"]
    del every["worklog-api"]["backup"]
    del every["worklog-api"]["gate"]  # test_rollout.py has it
    every["worklog-api"].update(changes)
    return every


class Site:
    """The worklog API on the lab, and the playbooks that release it."""

    def __init__(self, lab: Lab, log: Path) -> None:
        self.lab = lab
        self.log = log
        self.defined = applications()

    def _arguments(self, variables: dict[str, Any], more: tuple[str, ...]) -> list[str]:
        given = {"release_application": "worklog-api", "release_applications": self.defined, **variables}
        return ["-e", json.dumps(given), *more]

    def play(self, playbook: str, *more: str, **variables: Any) -> tuple[int, str]:
        done = self.lab.playbook(f"worklog.maintenance.{playbook}", *self._arguments(variables, more), timeout=400)
        return done.returncode, done.stdout + done.stderr

    def upgrade(self, version: str, *more: str, **variables: Any) -> tuple[int, str]:
        return self.play("upgrade_in_place", *more, release_version=version, **variables)

    def controller(
        self, version: str, playbook: str = "upgrade_in_place", *more: str, **variables: Any
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """A controller that releases, to be killed."""
        arguments = self._arguments({"release_version": version, **variables}, more)
        return self.lab.controller(f"worklog.maintenance.{playbook}", *arguments, log=self.log)

    def state(self, node: str) -> dict[str, Any]:
        done = self.lab.exec(node, ["cat", f"{STATE}/worklog-api.json"], check=False)
        return dict(json.loads(done.stdout or '{"under_way": null}'))

    def wait_for_step(self, node: str, step: str, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            held = self.state(node)["under_way"] or {"journal": []}
            if any(entry["step"] == step for entry in held["journal"]):
                return
            assert process.poll() is None, f"it ended before {step}: {self.log.read_text()}"
            time.sleep(0.1)
        raise AssertionError(f"{node} did not come to {step}")

    def versions(self) -> list[str]:
        return [json.loads(self.lab.wait_for(node, 8080))["version"] for node in APPS]

    def pid(self, node: str) -> str:
        return self.lab.exec(node, ["systemctl", "show", "worklog-api", "-p", "MainPID", "--value"]).stdout.strip()

    def in_service(self) -> list[str]:
        """What keeps a host out of a load balancer; empty when all are in."""
        flags = self.lab.exec("lb1", ["ls", "/var/lib/lab-rotation"]).stdout.split()
        pattern = "server app.*(disabled|weight 0)"
        weights = self.lab.exec("lb2", ["grep", "-E", pattern, "/etc/haproxy/haproxy.cfg"], check=False)
        return flags + weights.stdout.splitlines()

    def records(self, node: str = "app1") -> dict[str, Any]:
        last = self.lab.exec(node, ["tail", "-1", "/var/log/worklog-maintenance/records.jsonl"]).stdout
        return dict(json.loads(last))

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Client]]:
        """A strict client on each load balancer."""
        with (
            self.lab.strict_client("http://lb1/whoami", host=HOST, seconds=500, rate=15) as one,
            self.lab.strict_client("http://lb2/whoami", host=HOST, seconds=500, rate=15) as two,
        ):
            yield [one, two]


def at_first(lab: Lab, restore: Restore, log: Path) -> Site:
    """Return the lab where both hosts run 1.0.0, and nobody has ever released anything."""
    for node in (*APPS, "lb1", "lb2"):
        if node in APPS:
            restore.restart(node, "worklog-api")
            restore.path(node, "/srv/worklog/current")
            restore.path(node, "/etc/worklog/worklog-api.json")
            restore.path(node, "/srv/worklog/releases")
        restore.path(node, STATE)
    restore.restart("lb2", "haproxy")
    restore.path("lb2", "/etc/haproxy/haproxy.cfg")
    restore.path("lb1", "/var/lib/lab-rotation")
    return Site(lab, log)


@pytest.fixture
def site(lab: Lab, restore: Restore, tmp_path: Path) -> Site:
    return at_first(lab, restore, tmp_path / "controller.log")


def one_more(site: Site) -> None:
    """Put a version 1.1.1 there."""
    for node in APPS:
        site.lab.exec(node, ["cp", "-a", "/srv/worklog/releases/1.1.0", "/srv/worklog/releases/1.1.1"])
        site.lab.write(node, "/srv/worklog/releases/1.1.1/VERSION", "1.1.1\n")


def lost(clients: list[Client]) -> list[Any]:
    assert all(client.result["requests"] > 100 for client in clients)
    return [client.result["messages"] for client in clients if client.result["failed"]]


@pytest.mark.capability("B1", "B4")
def test_an_upgrade_and_a_rollback_lose_no_request_and_two_controllers_do_not_meet(
    site: Site, restore: Restore, tmp_path: Path
) -> None:
    restore.path("db1", "/tmp/migration")
    phases = {phase: str(tmp_path / f"{phase}.yml") for phase in ("expand", "contract")}
    for phase, path in phases.items():
        Path(path).write_text(MIGRATE.replace("PHASE", phase), encoding="utf-8")
    site.defined = applications(database={"host": "db1", **phases})
    with site.watched() as clients:
        with site.controller("v1.1.0") as first:
            site.wait_for_step("app1", "keep", first)
            code, output = site.upgrade("1.1.0", release_reason="also me")
            assert code != 0 and "is under way" in output and "lock until" in output, output
            assert first.wait(timeout=300) == 0, site.log.read_text()
        assert site.versions() == ["1.1.0", "1.1.0"] and not site.in_service()
        code, output = site.upgrade("1.1.0")
        assert code == 0 and "is there already; nothing is done" in output, output
        assert output.count("changed=0 ") == 2, output
        told = site.lab.read("db1", "/tmp/migration").splitlines()
        assert told == ["expand while app1 has nothing", "contract while app1 has deployed"]
        for playbook, version in (("rollback", {}), ("upgrade_in_place", {"release_version": "1.0.0"})):
            code, output = site.play(playbook, release_reason="search is slow", **version)
            assert code != 0 and "1.1.0 has contracted the database" in output, output
        code, output = site.play("rollback", release_reason="search is slow", release_past_contract="worklog-api")
        assert code == 0, output
    assert not lost(clients)
    assert site.versions() == ["1.0.0", "1.0.0"] and not site.in_service()
    for node in APPS:
        state = site.state(node)
        assert (state["current"]["version"], state["under_way"]) == ("1.0.0", None)
        assert [(entry["version"], entry["reason"]) for entry in state["bad"]] == [("1.1.0", "search is slow")]
        record = site.records(node)
        assert (record["what"], record["result"], record["details"]["reason"]) == ("rollback", "ok", "search is slow")
        assert record["recovery_seconds"] > 0
    code, output = site.play("rollback", release_reason="again")
    assert code != 0 and "no good release before 1.0.0 is recorded" in output, output
    code, output = site.upgrade("1.1.0")
    assert code != 0 and "1.1.0 is known as bad on app1: search is slow" in output, output


@pytest.mark.soak
@pytest.mark.capability("B1", "B4")
def test_a_release_that_crashes_on_the_second_host_takes_the_first_one_back(
    site: Site, restore: Restore, tmp_path: Path
) -> None:
    """Everything goes back, also the configuration; nobody but those that are told notices."""
    restore.path("app2", "/srv/worklog/releases/1.1.0/switches.json")
    site.lab.write("app2", "/srv/worklog/releases/1.1.0/switches.json", '{"crash_after": 1}')
    before = [site.lab.read(node, CONFIGURATION) for node in APPS]
    write, told, broken = (tmp_path / name for name in ("configuration.yml", "notify.yml", "broken.yml"))
    broken.write_text("- name: Break\n  ansible.builtin.fail:\n    msg: the mail server is down\n", encoding="utf-8")
    write.write_text(WRITE_CONFIGURATION, encoding="utf-8")
    told.write_text(TELL.replace("PATH", str(tmp_path / "told")), encoding="utf-8")
    site.defined = applications(configuration=str(write), notify=[str(broken), str(told)])
    with site.watched() as clients:
        code, output = site.upgrade("1.1.0")
    assert code != 0 and "1.0.0 runs on all hosts" in output, output
    assert not lost(clients)
    assert site.versions() == ["1.0.0", "1.0.0"] and not site.in_service()
    assert [site.lab.read(node, CONFIGURATION) for node in APPS] == before
    for node in APPS:
        state = site.state(node)
        assert (state["under_way"], [entry["version"] for entry in state["bad"]]) == (None, ["1.1.0"])
        record = site.records(node)
        assert record["result"] == "failed" and record["details"]["restored"] == {"code": "releases/1.0.0"}
    assert (tmp_path / "told").read_text(encoding="utf-8").split() == ["announced", "failed"]
    assert "release.notify" in json.dumps(site.records("app1")["findings"]), (
        "a hook that fails does not fail the release"
    )


@pytest.mark.soak
@pytest.mark.capability("B1")
def test_a_new_host_whose_first_release_fails_is_as_it_was_and_takes_the_next(site: Site) -> None:
    site.lab.exec("app1", ["systemctl", "stop", "worklog-api"])
    site.lab.exec("app1", ["rm", "/srv/worklog/current"])
    with site.watched() as clients:
        code, output = site.upgrade("1.2.0")  # which crashes
        assert code != 0 and "As before: app1 runs nothing, app2 runs 1.0.0" in " ".join(output.split()), output
        assert not site.in_service() and site.state("app1")["under_way"] is None
        assert site.lab.exec("app1", ["test", "-L", "/srv/worklog/current"], check=False).returncode
        code, output = site.upgrade("1.1.0")
        assert code == 0, output
    print([client.result["failures"] for client in clients])
    assert site.versions() == ["1.1.0", "1.1.0"] and not site.in_service()


@pytest.mark.soak
@pytest.mark.capability("B1")
def test_a_first_release_on_all_hosts_says_what_to_add_and_then_takes_them_at_once(site: Site) -> None:
    text = (ROOT / "inventories/lab/group_vars/all/releases.yml").read_text(encoding="utf-8")
    site.defined["worklog-api"]["gate"] = yaml.safe_load(text)["release_applications"]["worklog-api"]["gate"]
    for node in APPS:
        site.lab.exec(node, ["systemctl", "stop", "worklog-api"])
        site.lab.exec(node, ["rm", "/srv/worklog/current"])
    code, output = site.upgrade("1.1.0")
    said = " ".join(output.split())
    assert code != 0 and "down by its check" in said and "release_serial=100%" in said, output
    assert "As before: app1 runs nothing, app2 runs nothing" in said and not site.in_service(), output
    code, output = site.upgrade("1.1.0", release_serial="100%")
    assert code == 0, output
    assert site.versions() == ["1.1.0", "1.1.0"] and not site.in_service()


def kill_and_resume(
    site: Site,
    node: str,
    step: str,
    way: str,
    playbook: str = "upgrade_in_place",
    old: str = "1.0.0",
    new: str = "1.1.0",
) -> None:
    """Kill the controller when a node has come to a step, and go on or back."""
    given = {"release_reason": "search is down"} if playbook == "rollback" else {}
    with site.watched() as clients:
        with site.controller(new, playbook, **given) as controller:
            site.wait_for_step(node, step, controller)
            os.killpg(controller.pid, signal.SIGKILL)
        before = site.pid("app1")
        journal = {one: [entry["step"] for entry in site.state(one)["under_way"]["journal"]] for one in APPS}
        # it takes them one at a time as before; all at once would lose requests
        more = {"release_version": new, "release_resume": way, "release_serial": "100%", **given}
        code, output = site.play(playbook, **more)
        assert code == 0, output
    assert not lost(clients), (node, step, way)
    assert site.versions() == [new if way == "on" else old] * 2 and not site.in_service()
    for one in APPS:
        state = site.state(one)
        steps = [entry["step"] for entry in state["finished"][-1]["journal"]]
        assert state["under_way"] is None and len(set(steps)) == len(steps)
        known = [old] if playbook == "rollback" and way == "on" else []
        assert state["finished"][-1]["resumed"] == 1 and [bad["version"] for bad in state["bad"]] == known
        assert steps[: len(journal[one])] == journal[one]
    if way == "on" and "deployed" in journal["app1"]:
        assert site.pid("app1") == before, "what was done is not done again"


#: Where a controller is killed. Load balancers are told first that the host of that name leaves.
EVERYWHERE = [(node, step) for node in APPS for step in STEPS] + [("lb1", "drain app1"), ("lb2", "drain app2")]


@pytest.mark.soak
@pytest.mark.parametrize("way", ["on", "back"])
@pytest.mark.parametrize(("node", "step"), EVERYWHERE)
def test_a_controller_is_killed_at_every_step(
    site: Site, restore: Restore, tmp_path: Path, node: str, step: str, way: str
) -> None:
    configure = tmp_path / "configuration.yml"
    configure.write_text(WRITE_CONFIGURATION, encoding="utf-8")
    site.defined = applications(configuration=str(configure))
    before = [site.lab.read(one, CONFIGURATION) for one in APPS]
    kill_and_resume(site, node, step, way)
    written = [one.replace('"port": 8080', '"port":   8080') for one in before]
    assert written != before
    assert [site.lab.read(one, CONFIGURATION) for one in APPS] == (written if way == "on" else before)


@pytest.mark.soak
@pytest.mark.capability("B1", "B6")
def test_an_old_release_that_cannot_be_removed_is_a_finding(site: Site, restore: Restore) -> None:
    old = "/srv/worklog/releases/0.9.0"
    site.lab.exec("app1", ["mkdir", old])
    site.lab.write("app1", "/srv/worklog/releases/.0.9.0.json", "{}")
    site.lab.exec("app1", ["mount", "--bind", old, old])
    restore.run("app1", ["umount", old])
    site.defined["worklog-api"]["artefact"]["keep"] = 1
    code, output = site.upgrade("1.1.0")
    assert code == 0 and site.versions() == ["1.1.0", "1.1.0"], output
    found = [one for one in site.records("app1")["findings"] if one["check"] == "release.prune"]
    assert len(found) == 1 and f"{old} cannot be removed" in found[0]["message"], found
    assert not [one for one in site.records("app2")["findings"] if one["check"] == "release.prune"]


@pytest.mark.soak
@pytest.mark.capability("B1", "B6")
def test_a_signed_tag_is_built_without_a_network_and_released_under_pm2(
    site: Site, restore: Restore, tmp_path: Path
) -> None:
    for node in APPS:
        restore.run(node, ["systemctl", "restart", "pm2-lowcode"])
        for path in ("/srv/lowcode/current", "/srv/lowcode/releases", "/srv/lowcode/node_modules", "/srv/incoming"):
            restore.path(node, path)
        site.lab.exec(node, ["ln", "-s", "shared/node_modules", "/srv/lowcode/node_modules"])
    site.lab.exec("app1", ["sh", "-c", TAGGED], timeout=120)
    site.lab.exec("app2", ["mkdir", "/srv/incoming"])
    for name in ("platform.bundle", "keys.gpg"):
        there = [f"{site.lab.container(node)}:/srv/incoming/{name}" for node in APPS]
        for places in ([there[0], str(tmp_path / name)], [str(tmp_path / name), there[1]]):
            subprocess.run(["docker", "cp", "--quiet", *places], check=True)
    platform = site.defined["lowcode-platform"]
    del platform["backup"], platform["gate"]
    shared = {".env": "/srv/lowcode/shared/.env", "logs": "/srv/lowcode/shared/logs"}
    platform["artefact"].update(
        kind="git", source="/srv/incoming/platform.bundle", keyring="/srv/incoming/keys.gpg", shared=shared,
        commands=[["npm", "ci", "--offline", "--no-audit"], ["npm", "run", "build"]],
    )  # fmt: skip

    def versions() -> list[str]:
        return [json.loads(site.lab.wait_for(node, 3002))["version"] for node in APPS]

    before = versions()
    with (
        site.lab.strict_client("http://lb1/whoami", host="lowcode.example.test", seconds=500, rate=15) as one,
        site.lab.strict_client("http://lb2/whoami", host="lowcode.example.test", seconds=500, rate=15) as two,
    ):
        code, output = site.upgrade("2.9.1", release_application="lowcode-platform")
        assert code != 0 and "the tag v2.9.1 is not signed" in " ".join(output.split()), output
        assert versions() == before == ["2.3.0", "2.3.0"]
        assert "2.9" not in site.lab.exec("app2", ["ls", "-A", "/srv/lowcode/releases"]).stdout
        code, output = site.upgrade("v2.9.0", release_application="lowcode-platform")
        assert code == 0 and versions() == ["2.9.0", "2.9.0"], output
        built = site.lab.exec("app2", ["stat", "-c", "%U %n", "/srv/lowcode/current/built"]).stdout
        assert built == "lowcode /srv/lowcode/current/built\n"
        assert site.lab.read("app2", "/srv/lowcode/current/built") == "1.0.0\n"
        code, output = site.play("rollback", release_application="lowcode-platform", release_reason="forms are slow")
        assert code == 0 and versions() == before, output
    assert not lost([one, two])


@pytest.mark.soak
@pytest.mark.capability("B4")
@pytest.mark.parametrize("way", ["on", "back"])
@pytest.mark.parametrize(("node", "step"), EVERYWHERE)
def test_a_controller_that_rolls_back_is_killed_at_every_step(
    site: Site, tmp_path: Path, node: str, step: str, way: str
) -> None:
    configure = tmp_path / "configuration.yml"
    configure.write_text(WRITE_CONFIGURATION, encoding="utf-8")
    site.defined = applications(configuration=str(configure))
    before = [site.lab.read(one, CONFIGURATION) for one in APPS]
    code, output = site.upgrade("1.1.0")
    assert code == 0, output
    written = [site.lab.read(one, CONFIGURATION) for one in APPS]
    assert written != before
    kill_and_resume(site, node, step, way, "rollback", old="1.1.0", new="1.0.0")
    assert [site.lab.read(one, CONFIGURATION) for one in APPS] == (before if way == "on" else written)


@pytest.mark.capability("B4")
def test_the_kept_configuration_comes_back_also_when_nothing_can_be_noted(site: Site, restore: Restore) -> None:
    """The state is on a disk that is full, the configuration is not."""
    config, kept = CONFIGURATION, "/root/kept/1.0.0/config"
    restore.path("app1", "/root/kept")

    def copy(source: str, target: str, *flags: str, **more: Any) -> dict[str, Any]:
        given = {"application": "worklog-api", "copies": [{"src": source, "dest": target}], **more}
        return site.lab.module("app1", "release_state", *flags, **given)

    assert copy(config, kept, "--check")["changed"] and not site.lab.exec("app1", ["ls", "/root"]).stdout
    assert copy(config, kept)["changed"] and not copy(config, kept)["changed"]
    assert not copy("/nowhere", kept)["changed"]
    before = site.lab.read("app1", config)
    site.lab.write("app1", config, "{}")
    site.lab.exec("app1", ["mkdir", "-p", STATE])
    restore.run("app1", ["umount", STATE])
    site.lab.exec("app1", ["mount", "-t", "tmpfs", "-o", "size=4k,mode=750", "tmpfs", STATE])
    site.lab.exec("app1", ["sh", "-c", f"cat /dev/zero > {STATE}/full; true"], check=False)
    given = {"action": "begin", "version": "1.1.0", "id": "x", "owner": "ann"}
    refused = copy(kept, config, **given)
    assert refused["failed"] and "No space left" in refused["msg"] and site.lab.read("app1", config) == "{}", refused
    assert copy(kept, config)["changed"] and site.lab.read("app1", config) == before
    told = site.lab.module("app1", "release_state", application="worklog-api", copies=[{"src": config}])
    assert told["failed"] and "missing required arguments: dest" in told["msg"], told


@pytest.mark.soak
@pytest.mark.capability("B1")
def test_a_controller_that_is_killed_while_it_ends_or_goes_back_is_gone_on_with(site: Site) -> None:
    def free(node: str) -> bool:
        return site.state(node)["under_way"] is None

    with site.controller("1.1.0") as controller:
        site.wait_for_step("app2", "deployed", controller)
        while not free("lb1"):
            assert controller.poll() is None, site.log.read_text()
        os.killpg(controller.pid, signal.SIGKILL)
    assert not free("app1"), "the hosts are the last to be free, else nobody could go on"
    pids = [site.pid(node) for node in APPS]
    code, output = site.upgrade("1.1.0", release_resume="on")
    assert code == 0 and [site.pid(node) for node in APPS] == pids, output
    assert all(free(node) for node in (*APPS, "lb1", "lb2")) and not site.in_service()

    one_more(site)
    with site.controller("1.1.1") as controller:
        site.wait_for_step("app1", "deployed", controller)
        os.killpg(controller.pid, signal.SIGKILL)
    with site.controller("1.1.1", release_resume="back") as controller:
        site.wait_for_step("app1", "undo", controller)
        os.killpg(controller.pid, signal.SIGKILL)
    broken = site.state("app1")["under_way"]["id"]
    code, output = site.upgrade("1.1.1", release_break_lock=broken)
    assert code != 0 and "1.1.1 has begun to go back; finish that with release_resume=back" in output, output
    code, output = site.upgrade("1.1.1", release_break_lock=broken, release_resume="back")
    assert code == 0 and site.versions() == ["1.1.0", "1.1.0"] and not site.in_service(), output
    assert all(free(node) for node in (*APPS, "lb1", "lb2"))


@pytest.mark.soak
@pytest.mark.capability("B1")
def test_a_load_balancer_that_does_not_give_its_lock_back_can_be_gone_on_with(site: Site, tmp_path: Path) -> None:
    state, away = f"{STATE}/worklog-api.json", f"{STATE}/away"
    move = {"ansible.builtin.command": {"argv": ["mv", state, away], "creates": away}}
    (tmp_path / "contract.yml").write_text(json.dumps([move]), encoding="utf-8")  # the last that is done before that
    site.defined = applications(database={"host": "lb2", "contract": str(tmp_path / "contract.yml")})
    code, output = site.upgrade("1.1.0")
    assert "worklog-api 1.1.0 is not finished: " in output, output
    assert code != 0 and "every host runs 1.1.0. When the cause is gone, run the same with release_resume=on" in (
        " ".join(output.split())
    ), output
    assert site.versions() == ["1.1.0", "1.1.0"] and not site.in_service()
    assert [site.state(node)["under_way"] is None for node in (*APPS, "lb1")] == [False, False, True]
    assert [site.records(node)["result"] for node in APPS] == ["failed", "failed"]
    site.lab.exec("lb2", ["cp", away, state])
    pids = [site.pid(node) for node in APPS]
    code, output = site.upgrade("1.1.0", release_resume="on")
    assert code == 0 and [site.pid(node) for node in APPS] == pids, output
    assert all(site.state(node)["under_way"] is None for node in (*APPS, "lb1", "lb2"))


@pytest.mark.soak
@pytest.mark.capability("B4")
def test_a_load_balancer_that_cannot_be_reached_stops_an_upgrade_and_no_rollback(site: Site, tmp_path: Path) -> None:
    code, output = site.upgrade("1.1.0")
    assert code == 0, output
    one_more(site)
    inventory = tmp_path / "lost.yml"
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    inventory.write_text(json.dumps({"all": {"hosts": {"lb2": gone}}}), encoding="utf-8")
    code, output = site.upgrade("1.1.1", "-i", str(inventory))
    assert code != 0 and "lb2 cannot be reached" in output, output
    assert site.versions() == ["1.1.0", "1.1.0"]
    assert all(site.state(node)["under_way"] is None for node in (*APPS, "lb1"))
    code, output = site.play("rollback", "-i", str(inventory), release_reason="search is down")
    assert code == 0 and site.versions() == ["1.0.0", "1.0.0"] and not site.in_service(), output
    assert all(site.state(node)["under_way"] is None for node in (*APPS, "lb1", "lb2"))
    assert "lb2 could not be told" in json.dumps(site.records()["findings"])


@pytest.mark.soak
@pytest.mark.capability("B1")
def test_a_controller_whose_lock_was_taken_over_does_nothing_more(site: Site) -> None:
    """It stands still while somebody else takes over, and goes on when app1 is out of service for them."""
    nodes = (*APPS, "lb1", "lb2")

    def seen() -> list[Any]:
        link = site.lab.exec("app1", ["readlink", "/srv/worklog/current"]).stdout
        return [site.in_service(), link, *(site.state(node) for node in nodes)]

    with site.controller("1.1.0") as controller:
        site.wait_for_step("app1", "restart", controller)
        os.killpg(controller.pid, signal.SIGSTOP)
        owner = site.state("app1")["under_way"]["owner"]
        given = {"application": "worklog-api", "version": "1.1.0", "id": "other", "owner": owner, "resume": "back"}
        for node in nodes:
            assert site.lab.module(node, "release_state", action="begin", **given)["resumed"]
        before = seen()
        os.killpg(controller.pid, signal.SIGCONT)
        assert controller.wait(timeout=200) != 0
    assert "has lost its lock" in site.log.read_text()
    assert len(before[0]) == 2 and seen() == before


@pytest.mark.capability("B1", "B4")
@pytest.mark.parametrize(
    ("playbook", "more", "variables", "sentences"),
    [
        (
            "upgrade_in_place",
            ["--limit", "app1"],
            {"release_version": "1.1", "release_serial": "all", "balancers": {"lb9": {"strategy": "haproxy"}}},
            [
                "release_serial is 'all'; give a number of hosts or a percentage",
                "--limit leaves out app2: worklog-api would run in two versions",
                "give MAJOR.MINOR.PATCH",
                "names lb9, which the inventory",
            ],
        ),
        (
            "upgrade_in_place",
            [],
            {"release_version": "1.9.0", "notify": True},
            ["put it there whole, or name a source"],
        ),
        ("upgrade_in_place", [], {"release_reson": "x"}, ["did you mean 'release_reason'?"]),
        ("upgrade_in_place", [], {"release_resume": "on"}, ["no release of worklog-api is under way"]),
        ("upgrade_in_place", [], {"backup": {"host": "db1", "backups": [{"path": "/srv/none/2*"}]}}, ["/srv/none/2*"]),
        ("rollback", [], {}, ["release_reason must say why"]),
    ],
)
def test_what_cannot_work_is_one_sentence_before_anything_is_touched(
    site: Site, playbook: str, more: list[str], variables: dict[str, Any], sentences: list[str], tmp_path: Path
) -> None:
    told = tmp_path / "notify.yml"
    told.write_text(TELL.replace("PATH", str(tmp_path / "told")), encoding="utf-8")
    notifies = variables.pop("notify", False)
    site.defined = applications(**{name: variables.pop(name) for name in ("backup", "balancers") if name in variables})
    if notifies:
        site.defined["worklog-api"]["notify"] = [str(told)]
    given = {"release_version": "1.1.0", **variables} if playbook == "upgrade_in_place" else variables
    code, output = site.play(playbook, *more, **given)
    words = " ".join(output.replace('\\"', '"').split())
    assert code != 0 and all(sentence in words for sentence in sentences), output
    assert site.versions() == ["1.0.0", "1.0.0"] and not site.in_service()
    assert not any(site.state(node)["under_way"] for node in (*APPS, "lb1", "lb2"))
    if notifies:
        assert (tmp_path / "told").read_text(encoding="utf-8").split() == ["announced", "failed"]
