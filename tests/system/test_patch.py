# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patching of the lab's nodes from a signed repository of good and bad packages, behind both balancers."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab import package_repository
from tests.system.conftest import ROOT, Lab, Restore, call

NODES = ("lb1", "lb2", "app1", "app2", "db1", "ops1")
KILLS = int(os.environ.get("KILLS", "1"))
SEED = int(os.environ.get("SEED", "1"))
STATE = "/var/lib/worklog-maintenance/packages"
RECORDS = "/var/log/worklog-maintenance/records.jsonl"
QUICK = {"patch_watch": 1, "patch_settle": 5, "patch_lock_timeout": 60}


class Site:
    """The nodes, with the repository as their only source of packages."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory

    def each(self, nodes: Sequence[str], work: Callable[[str], Any]) -> dict[str, Any]:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return dict(zip(nodes, pool.map(work, nodes)))

    def sh(self, node: str, *argv: str, check: bool = True) -> str:
        return self.lab.exec(node, list(argv), check=check, timeout=120).stdout

    def offer(self, *versions: str, nodes: Sequence[str] = NODES, signed: bool = True) -> None:
        """Have the nodes' repository hold these versions of wl-demo and no others."""
        package_repository.make(self.directory, *versions, signed=signed)
        self.each(nodes, self.copy)

    def copy(self, node: str) -> None:
        self.sh(node, "rm", "-rf", package_repository.TARGET)
        target = f"{self.lab.container(node)}:{package_repository.TARGET}"
        assert not call(["docker", "cp", "--quiet", str(self.directory / "repository"), target]).returncode

    def install(self, node: str) -> None:
        """Install 1.0, whatever is there, and forget what was recorded."""
        self.sh(node, "sh", "-c", f"rm -rf {STATE} {RECORDS} /run/reboot-required* /etc/wl-demo-bad /etc/wl-demo-fast")
        self.sh(node, "dpkg", "--configure", "-a", check=False)
        self.sh(node, "apt-get", "-q", "update")
        argv = ["apt-get", "-q", "-y", "--allow-downgrades", "-o", "Dpkg::Options::=--force-confnew", "install"]
        self.sh(node, *argv, "wl-demo=1.0", "wl-demo-data-")

    def version(self, node: str) -> str:
        return self.sh(node, "dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "wl-demo")

    def packages(self, node: str) -> str:
        return self.sh(node, "dpkg", "-l") + self.sh(node, "apt-mark", "showauto")

    def record(self, node: str) -> dict[str, Any]:
        return dict(json.loads(self.sh(node, "tail", "-n1", RECORDS)))

    def stage(self, node: str) -> dict[str, Any]:
        """What the last change of a node says of itself."""
        text = self.sh(node, "sh", "-c", f"cat $(ls -d {STATE}/* | tail -n1)/state.json", check=False)
        return dict(json.loads(text)) if text else {}

    def drained(self) -> str:
        return self.sh("lb1", "ls", "/var/lib/lab-rotation")

    def patch(
        self, target: str, playbook: str = "patch", inventory: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"target": target, **QUICK, **options})
        more = ["--inventory", str(inventory)] if inventory else []
        return self.lab.playbook(f"worklog.maintenance.{playbook}", *more, "--extra-vars", given)


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    here = Site(lab, tmp_path_factory.mktemp("packages"))
    away = "for one in /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists; do "
    here.offer("1.0")

    def begin(node: str) -> None:
        here.sh(node, "sh", "-c", away + "if [ -e $one ]; then mv $one $one.kept; fi; done")
        here.sh(node, "mkdir", "-p", "/etc/apt/sources.list.d", "/var/lib/apt/lists/partial")
        here.lab.write(node, "/etc/apt/sources.list.d/wl.list", (here.directory / "wl.list").read_text())

    def end(node: str) -> None:
        here.sh(node, "apt-get", "-q", "-y", "purge", "wl-demo", "wl-demo-data")
        here.sh(node, "sh", "-c", away + "rm -rf $one; if [ -e $one.kept ]; then mv $one.kept $one; fi; done")
        here.sh(node, "sh", "-c", f"rm -rf {package_repository.TARGET} {STATE} /run/reboot-required*")

    here.each(NODES, begin)
    try:
        yield here
    finally:
        here.each(NODES, end)


@pytest.fixture
def fresh(site: Site) -> Site:
    """The nodes with 1.0 and nothing recorded, in service."""
    site.offer("1.0")
    site.each(NODES, site.install)
    assert site.drained() == ""
    return site


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.capability("C1", "C3")
def test_six_nodes_are_patched_without_a_lost_request_and_taken_back(fresh: Site) -> None:
    fresh.offer("1.0", "1.1")
    before = fresh.each(["app1", "app2"], fresh.packages)
    host = "worklog.example.test"
    with (  # requests that take a while, so that some are under way whenever the application is ended
        fresh.lab.strict_client("http://lb1/hold?seconds=0.3", host=host, seconds=400, rate=30) as nginx,
        fresh.lab.strict_client("http://lb2/hold?seconds=0.3", host=host, seconds=400, rate=30) as haproxy,
    ):
        done = fresh.patch("all", patch_canary="ops1", patch_batches=[1, 2])
        assert done.returncode == 0, tail(done)
        assert fresh.each(NODES, fresh.version) == dict.fromkeys(NODES, "ii 1.1")
        records = fresh.each(NODES, fresh.record)
        back = fresh.patch("app", "patch_rollback")
    assert back.returncode == 0, tail(back)
    for client in (nginx, haproxy):
        assert client.result["failed"] == 0 and client.result["requests"] > 500, client.result
    assert {node: one["details"]["batch"] for node, one in records.items()} == {
        "ops1": 1, "app1": 2, "app2": 3, "db1": 3, "lb1": 4, "lb2": 4,
    }  # fmt: skip
    change = {one["name"]: one for one in records["app1"]["details"]["changes"]}
    assert change["wl-demo"]["cves"] == ["CVE-2026-10001"] and change["wl-demo-data"]["from"] is None
    assert records["app1"]["details"]["conffiles"]["changed"] == ["/etc/wl-demo.conf"]
    assert fresh.each(["app1", "app2"], fresh.packages) == before
    assert fresh.version("db1") == "ii 1.1" and fresh.drained() == ""
    assert fresh.record("app2")["result"] == "ok"


@pytest.mark.capability("C1")
def test_a_bad_version_is_stopped_in_the_canary_and_after_the_threshold(fresh: Site, tmp_path: Path) -> None:
    """A service that crashes three seconds after it is up; then a package that cannot be configured on one host."""
    fresh.offer("1.0", "1.5")
    before = fresh.each(["app1", "app2"], fresh.packages)
    done = fresh.patch("app", patch_watch=6)
    assert done.returncode == 2 and "1 hosts were not begun: app2" in done.stdout, tail(done)
    assert "was started again by systemd while it was watched" in done.stdout
    assert fresh.each(["app1", "app2"], fresh.packages) == before and fresh.drained() == ""
    assert fresh.record("app1")["result"] == "failed" and not fresh.stage("app2")
    # one host of the second batch fails: with no failure allowed the third is not begun, with one it is
    fresh.offer("1.0", "1.3")
    fresh.sh("app1", "touch", "/etc/wl-demo-bad")
    done = fresh.patch("lb2:app", patch_canary="lb2", patch_batches=[1])
    assert done.returncode == 2 and "1 hosts were not begun: app2" in done.stdout, tail(done)
    assert "post-installation script" in done.stdout and "It was taken back to the versions before" in done.stdout
    assert fresh.each(["lb2", "app1", "app2"], fresh.version) == {"lb2": "ii 1.3", "app1": "ii 1.0", "app2": "ii 1.0"}
    # two whole batches fail, one as its host cannot be reached; two may, so it goes on
    inventory = tmp_path / "gone.ini"
    inventory.write_text("gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n", encoding="utf-8")
    options = {"patch_canary": "gone", "patch_batches": "1", "patch_max_failures": 2}
    done = fresh.patch("gone:app", inventory=inventory, **options)
    assert done.returncode == 2 and "0 hosts were not begun" in done.stdout, tail(done)
    assert "it cannot be reached, so nothing was touched. No record could be left on it" in done.stdout, tail(done)
    assert fresh.each(["app1", "app2"], fresh.version) == {"app1": "ii 1.0", "app2": "ii 1.3"}
    assert fresh.packages("app1") == before["app1"] and fresh.drained() == ""


OBSTACLES = """
- hosts: ops1
  gather_facts: false
  tasks:
    - ansible.builtin.command:
        argv: [systemd-run, --unit=wl-lock, --quiet, python3, -c, "{{ hold }}"]
    - ansible.builtin.wait_for: {path: /run/wl-locked, timeout: 10}
    - worklog.maintenance.package_state: &ask {include_installed: false, refresh: true, lock_timeout: 1}
      register: locked
    - ansible.builtin.command: {argv: [systemctl, stop, wl-lock]}
    - worklog.maintenance.package_state: {include_installed: false, refresh: true, disk_free: 9000T}
      register: full
    - ansible.builtin.command: {argv: [sed, -i, "s/^Label: Worklog/Label: Other/", /srv/wl-repository/InRelease]}
    - worklog.maintenance.package_state: *ask
      register: forged
    - ansible.builtin.command: {argv: [mv, /srv/wl-repository, /srv/wl-away]}
    - worklog.maintenance.package_state: *ask
      register: gone
    - ansible.builtin.command: {argv: [mv, /srv/wl-away, /srv/wl-repository]}
    - ansible.builtin.copy:
        dest: /tmp/obstacles.json
        mode: "0600"
        content: >-
          {{ {'locked': locked.findings, 'full': full.findings, 'forged': forged.findings, 'gone': gone.findings}
          | to_json }}
"""
HOLD = (
    "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
    "open('/run/wl-locked', 'w'); time.sleep(100)"
)


@pytest.mark.capability("C1")
def test_what_stands_in_the_way_is_named_and_nothing_is_touched(fresh: Site, tmp_path: Path, restore: Restore) -> None:
    fresh.offer("1.0", "1.1")
    play = tmp_path / "play.yml"
    play.write_text(OBSTACLES, encoding="utf-8")
    restore.run("ops1", ["rm", "-f", "/run/wl-locked", "/tmp/obstacles.json"])
    done = fresh.lab.playbook(play, "--extra-vars", json.dumps({"hold": HOLD}))
    assert done.returncode == 0, tail(done)
    found = json.loads(fresh.lab.read("ops1", "/tmp/obstacles.json"))
    for name, check, words in (
        ("locked", "packages.lock", "lock-frontend is held by process"),
        ("full", "packages.disk", "MiB are free"),
        ("forged", "packages.repository", "signature"),
        ("gone", "packages.repository", "apt-get update says"),
    ):
        assert found[name], name
        assert found[name][0]["check"] == check and words in found[name][0]["message"], found[name]
        assert found[name][0]["severity"] == "critical" and found[name][0]["advice"]
    # an old package that is nowhere to be had, and a window that is closed: refused before the host is out of service
    fresh.offer("1.1", nodes=["app1"])
    done = fresh.patch("app1")
    assert done.returncode == 2 and "wl-demo:all 1.0 is neither in the cache nor in a repository" in done.stdout, tail(
        done
    )
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400))
    today = time.strftime("%Y-%m-%d", time.gmtime())
    done = fresh.patch("app1", patch_blackout=[f"{today}/{tomorrow}"])
    assert done.returncode == 2 and "a black-out date; the first day after it is" in done.stdout, tail(done)
    assert "Take the node out of rotation" not in done.stdout and fresh.version("app1") == "ii 1.0"
    assert fresh.record("app1")["result"] == "refused" and fresh.drained() == ""


@pytest.mark.capability("C2")
def test_what_staging_has_proven_is_what_production_gets(fresh: Site, tmp_path: Path) -> None:
    """app1 and app2 are the staging of their releases here; lb1 is the production of one of them."""
    fresh.offer("1.0", "1.1")
    manifest = tmp_path / "manifest.json"
    promote = {"patch_promote_file": str(manifest), "patch_promote_watch": 0.5}
    done = fresh.patch("app1", patch_services=[])
    assert done.returncode == 0, tail(done)
    done = fresh.patch("app1", "patch_promote", patch_promote_soak="1h", **promote)
    assert done.returncode == 2 and "less than 1 h ago" in done.stdout and not manifest.exists(), tail(done)
    done = fresh.patch("app1", "patch_promote", patch_promote_soak="1s", **promote)
    assert done.returncode == 0, tail(done)
    fresh.offer("1.0", "1.1", "1.2")
    given = {"patch_manifest": str(manifest)}
    content = json.loads(manifest.read_text())
    content["releases"]["debian 12 amd64"]["wl-demo:all"] = "1.2"
    altered = tmp_path / "altered.json"
    altered.write_text(json.dumps(content))
    done = fresh.patch("lb1", patch_manifest=str(altered))
    assert done.returncode == 2 and "it was altered after it was made" in done.stdout, tail(done)
    done = fresh.patch("app2", **given)
    assert done.returncode == 2 and "it was proven on debian 12 amd64, and this host is debian 13" in done.stdout, tail(
        done
    )
    assert fresh.each(["lb1", "app2"], fresh.version) == {"lb1": "ii 1.0", "app2": "ii 1.0"}
    done = fresh.patch("lb1", **given)
    assert done.returncode == 0 and fresh.version("lb1") == "ii 1.1", tail(done)
    differences = {one["package"]: one for one in fresh.record("lb1")["details"]["differences"]}
    assert differences["wl-demo:all"] == {"package": "wl-demo:all", "here": "1.0", "proven": "1.1", "kind": "older"}


class Killed:
    """A run that is killed with its node's power, as a whole."""

    def __init__(self, site: Site, target: str) -> None:
        self.site, self.target = site, target
        argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(ROOT / "inventories" / "lab")]
        options = json.dumps({"target": target, **QUICK})
        environment = {**os.environ, "LAB_PREFIX": site.lab.prefix}
        self.process = subprocess.Popen(
            [*argv, "worklog.maintenance.patch", "--extra-vars", options],
            cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def when(self, condition: Callable[[], bool], after: float = 0.0) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, "the run ended before it was killed"
            time.sleep(0.1)
        time.sleep(after)
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cut_the_power(self) -> None:
        container = self.site.lab.container(self.target)
        for verb in ("kill", "start"):
            assert not call(["docker", verb, container]).returncode
        self.site.lab.wait_for(self.target, 8080, timeout=60)


def goes_on(site: Site, version: str) -> None:
    """Start the same again; it ends with the host patched, in service and with nothing left open."""
    site.sh("app1", "touch", "/etc/wl-demo-fast")
    done = site.patch("app1")
    assert done.returncode == 0, tail(done)
    assert site.version("app1") == f"ii {version}" and site.drained() == ""
    assert site.stage("app1")["stage"] == "finished", site.stage("app1")
    assert site.sh("app1", "dpkg", "--audit") == ""


@pytest.mark.capability("C1")
def test_a_run_that_is_killed_with_the_power_is_finished_by_the_next(fresh: Site) -> None:
    """In the middle of dpkg, the package half configured and the node out of service."""
    fresh.offer("1.0", "1.8")
    run = Killed(fresh, "app1")
    run.when(lambda: fresh.version("app1") != "ii 1.0" and "sleep 20" in fresh.sh("app1", "ps", "-eo", "args"))
    assert "app1.drain" in fresh.drained() and fresh.stage("app1")["stage"] == "applying"
    run.cut_the_power()
    assert "iF" in fresh.version("app1")
    goes_on(fresh, "1.8")


@pytest.mark.soak
def test_runs_killed_at_any_moment_are_finished_by_the_next(fresh: Site) -> None:
    chance = random.Random(SEED)
    seen: dict[str, int] = {}
    for number in range(KILLS):
        fresh.install("app1")
        fresh.offer("1.0", "1.1", nodes=["app1"])
        run = Killed(fresh, "app1")
        begun = chance.choice(["prepared", "applying", "applied"])
        run.when(lambda begun=begun: fresh.stage("app1").get("stage") == begun, after=chance.uniform(0, 2))
        stage = fresh.stage("app1").get("stage", "none")
        seen[stage] = seen.get(stage, 0) + 1
        if number % 2:
            run.cut_the_power()
        goes_on(fresh, "1.1") if stage != "none" else None
    print(f"killed in the stages {seen}, seed {SEED}")


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_reboot_is_made_when_it_is_required_and_allowed(fresh: Site) -> None:
    fresh.offer("1.0", "1.6", nodes=["app2"])
    done = fresh.patch("app2")
    assert done.returncode == 0 and fresh.record("app2")["details"]["rebooted"] is False, tail(done)
    assert "has to be rebooted: packages ask for it: wl-demo" in fresh.record("app2")["findings"][0]["message"]
    container = fresh.lab.container("app2")
    assert not call(["docker", "update", "--restart=always", container]).returncode
    try:
        done = fresh.patch("app2", patch_reboot=True)
    finally:
        call(["docker", "update", "--restart=no", container])
    assert done.returncode == 0 and fresh.record("app2")["details"]["rebooted"] is True, tail(done)
    assert fresh.version("app2") == "ii 1.6" and fresh.drained() == ""
    fresh.lab.wait_for("app2", 8080)
