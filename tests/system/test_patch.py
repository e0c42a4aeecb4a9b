# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patching of the lab's nodes from a signed repository of good and bad packages, behind both balancers."""

from __future__ import annotations

import concurrent.futures
import contextlib
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
from tests.system.conftest import QUICK_CONNECTION, ROOT, Lab, Restore, call

NODES = ("lb1", "lb2", "app1", "app2", "db1", "ops1")
KILLS = int(os.environ.get("KILLS", "1"))
SEED = int(os.environ.get("SEED", "1"))
STATE = package_repository.STATE
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
        package_repository.offer(self.directory, self.containers(nodes), *versions, signed=signed)

    def install(self, *nodes: str) -> None:
        package_repository.shell(self.containers(nodes), f"rm -f {RECORDS}\n{package_repository.INSTALL}")

    def containers(self, nodes: Sequence[str]) -> list[str]:
        return [self.lab.container(node) for node in nodes]

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
        self, target: str, playbook: str = "patch", *flags: str, inventory: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"target": target, **QUICK, **options})
        more = [*flags, *(["--inventory", str(inventory)] if inventory else [])]
        return self.lab.playbook(f"worklog.maintenance.{playbook}", *more, "--extra-vars", given)


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    here = Site(lab, tmp_path_factory.mktemp("packages"))
    try:
        yield here
    finally:
        package_repository.shell(here.containers(NODES), package_repository.REMOVE)


@pytest.fixture
def fresh(site: Site) -> Site:
    """The nodes with 1.0 and nothing recorded, in service."""
    site.offer("1.0")
    site.install(*NODES)
    assert site.drained() == ""
    return site


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.capability("C1", "C3")
def test_six_nodes_are_patched_without_a_lost_request_and_taken_back(fresh: Site) -> None:
    fresh.offer("1.0", "1.1")
    before = fresh.each(["app1", "app2"], fresh.packages)
    fresh.sh("db1", "sh", "-c", "echo greeting=mine > /etc/wl-demo.conf")
    host = "worklog.example.test"
    with (  # requests that take a while, so that some are under way whenever the application is ended
        fresh.lab.strict_client("http://lb1/hold?seconds=0.3", host=host, seconds=400, rate=30) as nginx,
        fresh.lab.strict_client("http://lb2/hold?seconds=0.3", host=host, seconds=400, rate=30) as haproxy,
    ):
        done = fresh.patch("all", patch_canary="ops1", patch_batches=[1, 4])
        assert done.returncode == 0, tail(done)
        assert fresh.each(NODES, fresh.version) == dict.fromkeys(NODES, "ii 1.1")
        records = fresh.each(NODES, fresh.record)
        kept = fresh.each(NODES, lambda node: len(fresh.sh(node, "cat", RECORDS).splitlines()))
        back = fresh.patch("app", "patch_rollback")
    assert back.returncode == 0, tail(back)
    for client in (nginx, haproxy):
        assert client.result["failed"] == 0 and client.result["requests"] > 500, client.result
    assert {node: one["details"]["batch"] for node, one in records.items()} == {
        "ops1": 1, "app1": 2, "app2": 3, "db1": 3, "lb1": 3, "lb2": 3,
    }  # fmt: skip
    assert kept == dict.fromkeys(NODES, 1), "one record each, whoever leaves it"
    assert len({tuple(sorted(one["details"])) for one in records.values()}) == 1, records
    assert len({(one["run_id"], one["by"], one["what"], one["subject"]) for one in records.values()}) == 1, records
    change = {one["name"]: one for one in records["app1"]["details"]["changes"]}
    assert change["wl-demo"]["cves"] == ["CVE-2026-10001"] and change["wl-demo-data"]["from"] is None
    assert records["app1"]["details"]["conffiles"] == {"changed": ["/etc/wl-demo.conf"], "kept": []}
    assert records["db1"]["details"]["conffiles"] == {"changed": [], "kept": ["/etc/wl-demo.conf"]}
    assert "; /etc/wl-demo.conf was changed on this host, so it was kept" in told(done, "db1"), tail(done)
    assert fresh.sh("db1", "cat", "/etc/wl-demo.conf", "/etc/wl-demo.conf.dpkg-dist") == GREETINGS
    change = {one["name"]: one for one in fresh.record("app2")["details"]["changes"]}
    assert (change["wl-demo-data"]["from"], change["wl-demo-data"]["to"]) == ("1.0", None)
    assert fresh.each(["app1", "app2"], fresh.packages) == before
    assert fresh.version("db1") == "ii 1.1" and fresh.drained() == ""
    assert fresh.record("app2")["result"] == "ok"


#: What was changed on the host, and what the new version brings.
GREETINGS = "greeting=mine\ngreeting=welcome\n"

#: Versions that are bad, and what the record must say of each.
BAD = {
    "answers 500": ("1.2", "500"),
    "does not start": ("1.4", "wl-demo.service was running before and is failed"),
    "crashes": ("1.5", "wl-demo.service ended by itself and was started again by systemd while it was watched"),
    "cannot be configured": ("1.3", "installed wl-demo package post-installation script subprocess returned error"),
    "no room": ("1.7", "No space left on device"),
}


def bad_versions(fresh: Site, tmp_path: Path, restore: Restore, given: dict[str, str]) -> None:
    """Have the canary's hosts get bad versions, each its own; they are taken back, and app2 is not begun."""
    fresh.offer("1.0", "1.1", nodes=["app2"])
    for node, what in given.items():
        fresh.offer("1.0", BAD[what][0], nodes=[node])
    before = fresh.each([*given, "app2"], fresh.packages)
    inventory: dict[str, Any] = {}
    for node, what in given.items():
        if what == "answers 500":
            inventory[node] = {
                "patch_services": [{"name": "wl-demo", "ready": ["http://127.0.0.1:9300/"], "timeout": 3}]
            }
        elif what == "cannot be configured":
            fresh.sh(node, "touch", "/etc/wl-demo-bad")
        elif what == "no room":
            fresh.sh(node, "sh", "-ec", FULL, "sh", "/usr/lib/wl-demo")
            restore.run(node, ["umount", "/usr/lib/wl-demo"])
    canary = ",".join(given)
    done = fresh.patch(f"{canary},app2", inventory=hosts(tmp_path, **inventory), patch_canary=canary, patch_watch=5)
    assert done.returncode == 2 and "1 hosts were not begun: app2" in done.stdout, tail(done)
    for node, what in given.items():
        record = fresh.record(node)
        assert record["result"] == "failed" and record["details"]["outcome"] == "taken_back", (node, record)
        assert BAD[what][1] in record["details"]["message"], (node, record["details"]["message"])
        assert "It was taken back to the versions before" in record["details"]["message"]
        assert fresh.sh(node, "systemctl", "is-active", "wl-demo").strip() == "active"
    assert fresh.each([*given, "app2"], fresh.packages) == before and fresh.drained() == ""
    assert not fresh.stage("app2")


@pytest.mark.capability("C1")
def test_bad_versions_are_taken_back_in_the_canary_and_the_rest_is_untouched(
    fresh: Site, tmp_path: Path, restore: Restore
) -> None:
    bad_versions(fresh, tmp_path, restore, {"app1": "cannot be configured", "lb2": "crashes"})


@pytest.mark.soak
@pytest.mark.capability("C1")
def test_other_bad_versions_are_taken_back_too(fresh: Site, tmp_path: Path, restore: Restore) -> None:
    bad_versions(fresh, tmp_path, restore, {"ops1": "answers 500", "lb1": "does not start", "db1": "no room"})


@pytest.mark.capability("C1")
def test_it_stops_when_more_have_failed_than_may(fresh: Site, tmp_path: Path) -> None:
    """Two whole batches fail, one as its host cannot be reached; one may, so the second is begun, not the third."""
    fresh.offer("1.0", "1.3", nodes=["app1", "app2"])
    fresh.sh("app1", "touch", "/etc/wl-demo-bad")
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    options = {"patch_canary": "gone", "patch_batches": "1", "patch_max_failures": 1}
    done = fresh.patch("gone:app", inventory=hosts(tmp_path, gone=gone), **options)
    assert done.returncode == 2 and "2 hosts failed: gone: " in done.stdout, tail(done)
    assert "it cannot be reached, so nothing was touched. No record could be left on it" in done.stdout, tail(done)
    assert "1 hosts were not begun: app2" in done.stdout and not fresh.stage("app2"), tail(done)
    assert fresh.each(["app1", "app2"], fresh.version) == dict.fromkeys(["app1", "app2"], "ii 1.0")
    assert fresh.record("app1")["details"]["outcome"] == "taken_back" and fresh.drained() == ""


#: A directory of a node becomes a file system that is as large as what is in it.
FULL = """
cp -a "$1" /tmp/wl-full
mount -t tmpfs -o "size=$(du -sb --apparent-size /tmp/wl-full | awk '{print int($1 / 4096) * 4096 + 4096}')" none "$1"
cp -a /tmp/wl-full/. "$1"
rm -rf /tmp/wl-full
"""
HOLD = (
    "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
    "open('/run/wl-locked', 'w'); time.sleep(1000)"
)
ANNOUNCE = """
- ansible.builtin.lineinfile:
    path: /var/tmp/wl-announced
    line: "{{ patch_event }} {{ patch_result.outcome | default('') }}"
    create: true
    mode: "0644"
"""


def hosts(directory: Path, **variables: dict[str, Any]) -> Path:
    """An inventory with variables of single hosts."""
    path = directory / "hosts.json"
    path.write_text(json.dumps({"all": {"hosts": variables}}), encoding="utf-8")
    return path


def told(done: subprocess.CompletedProcess[str], host: str) -> str:
    """What the closing table says of a host, its packages first, with single spaces."""
    table = done.stdout.rpartition("Show what was done")[2].splitlines()
    lines = [" ".join(line.strip(' ",').split()) for line in table]
    return "\n".join(line for line in lines if line.startswith((f"{host} ", f"{host}: ")) and "ok=" not in line)


@pytest.mark.capability("C1")
def test_the_plan_tells_all_of_each_host_and_what_cannot_go_back_is_named_and_refused(
    fresh: Site, tmp_path: Path, restore: Restore
) -> None:
    database, kernel = package_repository.DATABASE, package_repository.KERNEL
    fresh.offer("1.0", "1.1", nodes=["app1"])
    for node, version in {"ops1": "1.9", "lb1": "1.10"}.items():
        fresh.offer("1.0", version, nodes=[node])
        restore.run(node, ["dpkg", "--purge", "wl-demo", database, kernel])
    fresh.sh("ops1", "apt-get", "-q", "update")
    fresh.sh("ops1", "apt-get", "-q", "-y", "install", f"{database}=1.0")
    fresh.sh("lb2", "touch", "/run/reboot-required")
    nodes = ["app1", "lb1", "lb2", "ops1"]
    before = fresh.each(nodes, fresh.packages)
    day = time.strftime("%a", time.gmtime(time.time() + 2 * 86400))
    inventory = hosts(tmp_path, app1={"patch_windows": [f"{day} 02:00-05:00"]})
    done = fresh.patch(",".join(nodes), "patch", "--check", inventory=inventory, patch_canary="ops1", patch_batches=[9])
    assert done.returncode == 0, tail(done)
    plan = {node: told(done, node).split("\n") for node in nodes}
    assert plan["app1"][:2] == ["app1 2 wl-demo-data new 1.0", "app1 2 wl-demo 1.0 1.1 CVE-2026-10001"], tail(done)
    assert "; restarts wl-demo.service; " in plan["app1"][2], plan["app1"]
    assert f"outside every window; the next window opens on {day} " in plan["app1"][2], plan["app1"]
    assert f"reboot: {kernel} changes" in plan["lb1"][-1] and f"{kernel} cannot be taken back while" in plan["lb1"][-1]
    assert plan["lb2"] == ["lb2: nothing: nothing is to be done; reboot needed: packages ask for it: not said which"]
    assert f"ops1 1 {database} 1.0 1.9" in plan["ops1"], plan["ops1"]
    one_way = f"{database} cannot be taken back safely: the server may have changed the format of its data on disk"
    assert f"{one_way}: back up its data first" in plan["ops1"][-1], plan["ops1"]
    assert fresh.each(nodes, fresh.packages) == before and fresh.drained() == ""
    for node in nodes:
        assert fresh.lab.exec(node, ["ls", STATE, RECORDS], check=False).stdout == "", node

    def apply(node: str) -> None:
        changes = fresh.lab.module(node, "package_state", include_installed=False)["changes"]
        done = fresh.lab.module(node, "package_apply", state="applied", prepare=True, finish=True, changes=changes)
        assert not done["failed"] and fresh.lab.module(node, "package_apply", state="finished"), done

    fresh.each(["lb1", "ops1"], apply)
    refused = fresh.lab.module("ops1", "package_apply", "--check", state="rolled_back")
    assert refused["msg"] == f"{one_way}; name it in one_way when that was seen to" and refused["refused"], refused
    refused = fresh.lab.module("lb1", "package_apply", "--check", state="rolled_back")
    assert refused["msg"] == f"{kernel} is the kernel that runs; boot the older one, then take it back", refused


@pytest.mark.capability("C1")
def test_what_stands_in_the_way_is_named_with_its_cure(fresh: Site, tmp_path: Path, restore: Restore) -> None:
    """Another thing on each node, in one run."""
    fresh.offer("1.0", "1.1")
    changes = fresh.lab.module("ops1", "package_state", refresh=True, include_installed=False)["changes"]
    fresh.sh("ops1", "mkdir", "-p", STATE)
    fresh.sh("ops1", "sh", "-ec", FULL, "sh", STATE)
    restore.run("ops1", ["umount", STATE])
    for _again in range(2):  # room for the old package, but not for what is written down; then for neither
        done = fresh.lab.module("ops1", "package_apply", state="prepared", changes=changes)
        assert done["failed"] and done["refused"] and "No space left on device" in done["msg"], done
        fresh.sh("ops1", "sh", "-c", f"rm -rf {STATE}/*; cat /dev/zero > {STATE}/zero", check=False)

    day = time.strftime("%a", time.gmtime(time.time() + 2 * 86400))
    given = {
        "ops1": {"patch_windows": [f"{day} 02:00-05:00"]},
        "lb2": {"patch_disk_free": "9000T"},
        "app2": {"patch_services": [{"name": "wl-demo", "ready": ["http://127.0.0.1:9300/"], "timeout": 2}]},
    }
    fresh.sh("app2", "systemctl", "stop", "wl-demo")
    restore.restart("app2", "wl-demo")
    fresh.sh("app1", "dpkg", "--unpack", f"{package_repository.TARGET}/wl-demo_1.0_all.deb")
    restore.run("app1", ["dpkg", "--configure", "-a"])
    fresh.sh("db1", "sed", "-i", "s/^Label: Worklog/Label: Other/", f"{package_repository.TARGET}/InRelease")
    fresh.sh("lb1", "rm", "-r", package_repository.TARGET)
    before = fresh.each(NODES, fresh.packages)
    done = fresh.patch("all", inventory=hosts(tmp_path, **given), patch_canary="all")
    assert done.returncode == 2 and "6 hosts failed" in done.stdout, tail(done)
    assert fresh.each(NODES, fresh.packages) == before
    for node, (words, cure) in {
        "ops1": ("outside every window", f"the next window opens on {day}"),
        "lb2": ("MiB are free, ", "make room: apt-get clean"),
        "app2": ("wl-demo does not run", "start it, or take it out of patch_services"),
        "app1": ("dpkg has not finished: wl-demo:all 1.0: unpacked", "dpkg --configure -a names the cause"),
        "db1": ("signature", "do not install from it before it is known why"),
        "lb1": ("apt-get update says: The repository ", "make it reachable, or take it out of the sources"),
    }.items():
        message = fresh.record(node)["details"]["message"]
        assert words in message and cure in message, (node, message)
        assert f"{node}: refused: nothing was touched: " in told(done, node), told(done, node)
        assert not fresh.stage(node), node
    assert "Take the node out of rotation" not in done.stdout and fresh.drained() == ""


@pytest.mark.capability("C1")
def test_hosts_are_refused_before_they_are_out_of_service(fresh: Site, tmp_path: Path, restore: Restore) -> None:
    """An old package that is nowhere to be had, a black-out date, no backup, a change of another run, a lock of dpkg.

    ops1 has a good backup. Then its change is taken back, when neither repository nor network can give anything.
    """
    database = package_repository.DATABASE
    fresh.offer("1.0", "1.1")
    fresh.offer("1.1", nodes=["app1"])
    fresh.offer("1.0", "1.9", nodes=["ops1"])
    restore.run("ops1", ["dpkg", "--purge", "wl-demo", database])
    fresh.sh("ops1", "apt-get", "-q", "update")
    fresh.sh("ops1", "apt-get", "-q", "-y", "install", f"{database}=1.0")
    before = fresh.packages("ops1")
    changes = fresh.lab.module("lb2", "package_state", refresh=True, include_installed=False)["changes"]
    done = fresh.lab.module("lb2", "package_apply", state="prepared", owner="job-17", changes=changes)
    assert not done["failed"], done
    restore.run("db1", ["rm", "-f", "/run/wl-locked"])
    fresh.sh("db1", "systemd-run", "--unit=wl-lock", "--quiet", "python3", "-c", HOLD)
    restore.run("db1", ["systemctl", "stop", "wl-lock"])
    fresh.sh("db1", "sh", "-c", "until [ -e /run/wl-locked ]; do sleep 0.1; done")
    (tmp_path / "announce.yml").write_text(ANNOUNCE, encoding="utf-8")
    days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() + ahead)) for ahead in (0, 86400)]
    verified = {"patch_verify_backups": True, "backup_verify_backups": [{"path": "/srv/wl-backup.tar.gz"}]}
    restore.run("ops1", ["rm", "-f", "/srv/wl-backup.tar.gz", "/var/tmp/wl-announced"])
    fresh.sh("ops1", "tar", "-czf", "/srv/wl-backup.tar.gz", "/etc/hostname")
    inventory = hosts(tmp_path, app2={"patch_blackout": ["/".join(days)]}, lb1=verified, ops1=verified)
    options = {"patch_announce_tasks": str(tmp_path / "announce.yml"), "patch_lock_timeout": 1}
    done = fresh.patch("all", inventory=inventory, patch_canary="all", **options)
    assert done.returncode == 2 and "5 hosts failed" in done.stdout, tail(done)
    for node, words in {
        "app1": "wl-demo:all 1.0 is neither in the cache nor in a repository",
        "app2": "a black-out date; the first day after it is",
        "lb1": "/srv/wl-backup.tar.gz",
        "lb2": "the run job-17 works on the packages of this host since ",
        "db1": "lock-frontend is held by process ",
    }.items():
        record = fresh.record(node)
        assert record["result"] == "refused" and words in record["details"]["message"], (node, record)
        assert fresh.version(node) == "ii 1.0"
    assert "Take the node out of rotation" not in done.stdout and fresh.drained() == ""
    assert "when it is known to be dead, say so with take_over, or wait " in fresh.record("lb2")["details"]["message"]
    assert "wait until it has ended; find out what it does" in fresh.record("db1")["details"]["message"]
    assert fresh.version("ops1") == "ii 1.9" and fresh.record("ops1")["result"] == "ok"
    assert fresh.sh("ops1", "cat", "/var/tmp/wl-announced") == "begin \nend patched\n"
    assert fresh.lab.exec("lb1", ["test", "-e", "/var/tmp/wl-announced"], check=False).returncode == 1
    # lb1 has nothing to go back to, which keeps nobody from going back; nor does it that packages were held since
    fresh.sh("ops1", "apt-mark", "hold", "wl-demo", "tar")
    fresh.sh("ops1", "rm", "-r", package_repository.TARGET, "/var/lib/apt/wl-lists")
    kept = fresh.stage("ops1")["changes"][0]["kept"]
    fresh.sh("ops1", "mv", kept, f"{kept}.away")
    lost = fresh.lab.module("ops1", "package_apply", "--check", state="rolled_back", one_way=[database])
    assert lost["refused"] and f"not kept, or is not what it was: {kept}; have that file again" in lost["msg"], lost
    fresh.sh("ops1", "mv", f"{kept}.away", kept)
    done = fresh.patch("lb1:ops1", "patch_rollback", patch_one_way=database, patch_windows="nightly")  # none count
    assert done.returncode == 0 and fresh.sh("ops1", "apt-mark", "showhold").split() == ["tar", "wl-demo"], tail(done)
    fresh.sh("ops1", "apt-mark", "unhold", "wl-demo", "tar")
    assert fresh.packages("ops1") == before
    one_way = f"{database} cannot be taken back safely: the server may have changed the format of its data on disk"
    assert f"[WARNING]: {one_way}" in " ".join(done.stderr.split()) and one_way in told(done, "ops1"), tail(done)
    assert "lb1: nothing: no change of packages was recorded on this host" in told(done, "lb1"), tail(done)
    change = {one["name"]: one for one in fresh.record("ops1")["details"]["changes"]}
    assert (change[database]["from"], change[database]["to"]) == ("1.9", "1.0")


@pytest.mark.capability("C1")
def test_a_host_that_is_lost_around_the_change_ends_the_run(fresh: Site, tmp_path: Path) -> None:
    """A load balancer before the change and after it, then the host itself; db1 is not begun."""
    fresh.offer("1.0", "1.1", nodes=["db1", "ops1"])
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    options: dict[str, Any] = {"patch_canary": "ops1", "inventory": hosts(tmp_path, gone=gone)}
    asks, loses = tmp_path / "asks.yml", tmp_path / "loses.yml"
    asks.write_text("[{ansible.builtin.ping: {}, delegate_to: gone}]", encoding="utf-8")
    loses.write_text(json.dumps([{"ansible.builtin.set_fact": gone}]), encoding="utf-8")
    for given, version, stage in (
        ({"patch_pre_tasks": str(asks)}, "ii 1.0", "prepared"),
        ({"patch_post_tasks": str(asks)}, "ii 1.1", "applied"),
        ({"patch_post_tasks": str(loses)}, "ii 1.1", "applied"),
    ):
        done = fresh.patch("ops1:db1", **options, **given)
        assert done.returncode and "UNREACHABLE" in done.stdout, tail(done)
        assert (fresh.version("ops1"), fresh.stage("ops1")["stage"]) == (version, stage), tail(done)
        assert not fresh.stage("db1")
    assert "1 hosts were not begun: db1" in done.stdout and "so its change is not finished" in done.stdout, tail(done)
    done = fresh.patch("ops1")
    assert done.returncode == 0 and fresh.stage("ops1")["stage"] == "finished", tail(done)


@pytest.mark.capability("C1")
def test_a_run_that_fails_before_it_begins_leaves_the_change_before_it_alone(fresh: Site) -> None:
    fresh.offer("1.0", "1.1", nodes=["ops1"])
    changes = fresh.lab.module("ops1", "package_state", include_installed=False, refresh=True)["changes"]
    done = fresh.lab.module("ops1", "package_apply", state="applied", prepare=True, finish=True, changes=changes)
    assert done["transaction"]["stage"] == "finished", done
    fresh.offer("1.0", "1.1", "1.2", nodes=["ops1"])
    failed = fresh.patch("ops1", patch_timeout=0.001)  # apt-get does not end in time
    message = fresh.record("ops1")["details"]["message"]
    assert failed.returncode == 2 and "so nothing is put back" in message, message
    assert fresh.version("ops1") == "ii 1.1"


@pytest.mark.capability("C1")
def test_what_is_to_be_held_or_not_chosen_stays_and_the_rest_is_changed(fresh: Site, tmp_path: Path) -> None:
    """The versions are ten days old."""
    fresh.offer("1.0", "1.1")
    given: dict[str, Any] = {
        "ops1": {"patch_hold": "wl-demo"},
        "lb1": {"patch_deny": "nodejs,wl-demo"},
        "lb2": {"patch_allow": ["nodejs", "wl-demo-*"]},
        "db1": {"patch_minimum_age": "11d"},
        "app2": {"patch_minimum_age": "9d", "patch_allow": "wl-*", "patch_deny": ["nodejs"]},
    }
    done = fresh.patch(",".join(given), inventory=hosts(tmp_path, **given), patch_canary=",".join(given))
    assert done.returncode == 0, tail(done)
    for node in ("ops1", "lb1", "lb2", "db1"):
        assert told(done, node) == f"{node}: nothing: nothing is to be done", tail(done)
    assert fresh.sh("ops1", "apt-mark", "showhold").split() == ["wl-demo"]
    fresh.sh("ops1", "apt-mark", "unhold", "wl-demo")
    assert fresh.each(list(given), fresh.version) == {**dict.fromkeys(given, "ii 1.0"), "app2": "ii 1.1"}


@pytest.mark.capability("C1", "C3")
def test_a_host_in_nobodys_way_is_refused_too_and_a_cut_rollback_gets_its_marks(fresh: Site) -> None:
    """Without load balancer and announcements it is prepared and changed in one call."""
    before = fresh.packages("ops1")
    fresh.offer("1.1", nodes=["ops1"])
    done = fresh.patch("ops1")
    record = fresh.record("ops1")
    assert done.returncode == 2 and record["result"] == "refused", tail(done)
    assert "neither in the cache nor in a repository" in record["details"]["message"], record
    assert fresh.packages("ops1") == before

    fresh.offer("1.0", "1.1", nodes=["ops1"])
    done = fresh.patch("ops1")
    assert done.returncode == 0 and fresh.version("ops1") == "ii 1.1", tail(done)
    # cut off when dpkg had put the old versions back, but before they were marked as they were
    changes = fresh.stage("ops1")["changes"]
    automatic = "wl-demo" in fresh.sh("ops1", "apt-mark", "showauto").split()
    fresh.sh("ops1", "dpkg", "-i", *[one["kept"] for one in changes if one["kept"]])
    for one in changes:
        if not one["kept"]:
            fresh.sh("ops1", "dpkg", "--purge", one["name"])
    fresh.sh("ops1", "apt-mark", "manual" if automatic else "auto", "wl-demo")
    assert fresh.packages("ops1") != before
    taken = fresh.lab.module("ops1", "package_apply", state="rolled_back")
    assert taken["changed"] and taken["message"] == "every package has the version that was recorded", taken
    assert fresh.packages("ops1") == before


@pytest.mark.capability("C1")
def test_the_call_that_makes_a_change_finishes_it_only_when_all_is_well_and_nothing_has_to_start_again(
    fresh: Site,
) -> None:
    def apply(version: str, watch: float, *, lost: bool = False) -> dict[str, Any]:
        fresh.offer("1.0", "1.1", version, nodes=["ops1"])
        changes = fresh.lab.module("ops1", "package_state", refresh=True, include_installed=False)["changes"]
        if lost:
            fresh.sh("ops1", "rm", f"{package_repository.TARGET}/wl-demo_{version}_all.deb")
        given = {"prepare": True, "finish": True, "changes": changes, "settle": 5, "watch": watch}
        given["record"] = {"what": "patch", "details": {"batch": 7}}
        return dict(fresh.lab.module("ops1", "package_apply", state="applied", **given))

    done = apply("1.1", 0.5, lost=True)
    assert done["refused"] and "nothing was changed: " in done["msg"] and "Failed to fetch" in done["msg"], done
    assert fresh.stage("ops1")["stage"] == "dropped" and fresh.version("ops1") == "ii 1.0"
    done = apply("1.1", 0.5)
    assert done["transaction"]["stage"] == "finished" == fresh.stage("ops1")["stage"], done
    left = fresh.record("ops1")
    assert left == done["record"] and (left["details"]["batch"], left["details"]["message"]) == (7, done["message"])
    done = apply("1.5", 6)  # its service crashes three seconds after it is up
    assert done["failed"] and not done["refused"] and "wl-demo" in done["msg"], done
    assert fresh.stage("ops1")["stage"] == "applied" and fresh.version("ops1") == "ii 1.5"
    for state in ("rolled_back", "finished"):
        fresh.lab.module("ops1", "package_apply", state=state)
    done = apply("1.6", 0.5)
    assert done["reboot"] and done["transaction"]["stage"] == "applied" and "record" not in done, done
    assert fresh.record("ops1") == left
    done = fresh.lab.module("ops1", "package_apply", state="finished")
    assert done["transaction"]["stage"] == "finished", done


@pytest.mark.capability("C1")
def test_needrestart_is_asked_where_it_is_and_restarts_nothing_by_itself(fresh: Site, restore: Restore) -> None:
    """A service runs on a program that was replaced; needrestart is told to restart such ones whenever apt has run."""
    program = "/usr/lib/wl-old/sleep"
    replace = f"cp {program} {program}.new && mv {program}.new {program}"
    names = "for file in /opt/needrestart/*.deb; do dpkg-deb --field $file Package; done"
    restore.run("ops1", ["sh", "-c", f"dpkg --purge $({names})"])
    restore.run("ops1", ["rm", "-rf", "/usr/lib/wl-old"])
    restore.run("ops1", ["systemctl", "stop", "wl-old"])
    fresh.sh("ops1", "sh", "-c", "mkdir -p /usr/lib/wl-old && cp /bin/sleep /usr/lib/wl-old")
    fresh.sh("ops1", "systemd-run", "--quiet", "--unit=wl-old", program, "3600")
    fresh.sh("ops1", "sh", "-c", replace)
    words = fresh.lab.module("ops1", "package_state", gather=["packages"], include_installed=False)["restart"]
    assert words["wl-old.service"] == f"runs on {program}, which was replaced", words
    fresh.sh("ops1", "sh", "-c", "dpkg -i /opt/needrestart/*.deb")
    fresh.sh("ops1", "sh", "-c", "echo '$nrconf{restart} = q(a);' > /etc/needrestart/conf.d/by-itself.conf")
    words = fresh.lab.module("ops1", "package_state", gather=["packages"], include_installed=False)["restart"]
    assert words["wl-old.service"] == "runs on files that were replaced", words
    before = fresh.sh("ops1", "systemctl", "show", "--property=MainPID", "wl-old")
    fresh.offer("1.0", "1.1", nodes=["ops1"])
    changes = fresh.lab.module("ops1", "package_state", refresh=True, include_installed=False)["changes"]
    done = fresh.lab.module("ops1", "package_apply", state="applied", prepare=True, finish=True, changes=changes)
    assert done["transaction"]["stage"] == "applied" and "wl-old.service" in done["restart"], done
    assert fresh.sh("ops1", "systemctl", "show", "--property=MainPID", "wl-old") == before
    fresh.lab.module("ops1", "package_apply", state="finished")
    fresh.sh("ops1", "sh", "-c", "apt-get -q -y install --reinstall wl-demo")
    assert fresh.sh("ops1", "systemctl", "show", "--property=MainPID", "wl-old") != before, (
        "it would have been restarted"
    )


@pytest.mark.capability("C3")
def test_a_dependency_that_is_dropped_stays_and_goes_back_with_the_rest(fresh: Site) -> None:
    """An upgrade removes nothing. What somebody has removed since has to be put back before the rest can go back."""
    fresh.offer("1.0", "1.1", "1.7", nodes=["ops1"])
    fresh.sh("ops1", "apt-get", "-q", "update")
    fresh.sh("ops1", "apt-get", "-q", "-y", "install", "wl-demo=1.1")
    before = fresh.packages("ops1")
    changes = fresh.lab.module("ops1", "package_state", gather=["packages"], include_installed=False)["changes"]
    assert [(one["name"], one["from"], one["to"]) for one in changes] == [("wl-demo", "1.1", "1.7")]
    for state in ("prepared", "applied", "finished"):
        done = fresh.lab.module("ops1", "package_apply", state=state, changes=changes)
        assert done["changed"], done
    assert fresh.version("ops1") == "ii 1.7"
    assert fresh.sh("ops1", "apt-mark", "showauto", "wl-demo-data").strip() == "wl-demo-data"
    fresh.sh("ops1", "apt-get", "-q", "-y", "autoremove")
    done = fresh.lab.module("ops1", "package_apply", state="rolled_back")
    assert done["failed"] and "wl-demo-data:all is not there, it was 1.0" in done["msg"], done
    fresh.sh("ops1", "apt-get", "-q", "-y", "install", "wl-demo-data")
    fresh.sh("ops1", "apt-mark", "auto", "wl-demo-data")
    done = fresh.lab.module("ops1", "package_apply", state="rolled_back")
    assert done["changed"] and fresh.packages("ops1") == before, done


@pytest.mark.capability("C2")
def test_what_staging_has_proven_is_what_production_gets(fresh: Site, tmp_path: Path) -> None:
    """app1 is the staging of its release here, lb1 the production; app2 has another release."""
    fresh.offer("1.0", "1.1")
    changes = fresh.lab.module("app1", "package_state", include_installed=False, refresh=True)["changes"]
    for state in ("prepared", "applied", "finished"):
        fresh.lab.module("app1", "package_apply", state=state, changes=changes)
    manifest = tmp_path / "manifest.json"
    promote = {"patch_promote_file": str(manifest), "patch_promote_watch": 0.5}
    done = fresh.patch("app1", "patch_promote", patch_promote_soak="1h", **promote)
    assert done.returncode == 2 and '"msg": "nothing was proven: app1: its run ended at ' in done.stdout, tail(done)
    assert "less than 1 h ago" in done.stdout and not manifest.exists()
    fresh.sh("app1", "apt-get", "-q", "-y", "--allow-downgrades", "install", "wl-demo=1.0")
    fresh.sh("app1", "systemctl", "kill", "--signal=KILL", "wl-demo")
    restarts = ["systemctl", "show", "--value", "--property=NRestarts", "wl-demo"]
    fresh.sh("app1", "sh", "-c", f"until [ $({' '.join(restarts)}) = 1 ]; do sleep 0.1; done")
    done = fresh.patch("app1", "patch_promote", patch_promote_soak="1s", **promote)
    crashed = "app1: wl-demo.service ended by itself and was started again by systemd since the last change"
    assert crashed in done.stdout, tail(done)
    assert done.returncode == 2 and "after its run: wl-demo:all is 1.0, it was 1.1; put them back" in done.stdout, tail(
        done
    )
    assert not manifest.exists()
    fresh.sh("app1", "apt-get", "-q", "-y", "install", "wl-demo=1.1")
    done = fresh.patch("app1", "patch_promote", patch_promote_soak="1s", **promote)
    assert done.returncode == 0, tail(done)
    fresh.offer("1.0", "1.1", "1.2")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["releases"]["debian 12 amd64"]["wl-demo:all"] = "1.2"
    altered = fresh.lab.module("lb1", "package_state", manifest=content)
    assert altered["failed"] and "it was altered after it was made" in altered["msg"], altered
    done = fresh.patch("lb1", patch_manifest="/nowhere/manifest.json")
    assert done.returncode == 2 and "/nowhere/manifest.json is not on the controller" in done.stdout, tail(done)
    shown = fresh.patch("lb1", "patch", "--check", patch_manifest=str(manifest), patch_deny="wl-demo")
    words = "lb1: nothing: nothing is to be done; not what was proven (in brackets): wl-demo:all 1.0 (1.1)"
    assert shown.returncode == 0 and told(shown, "lb1") == words, tail(shown)
    done = fresh.patch("lb1:app2", patch_canary="lb1", patch_manifest=str(manifest))
    message = fresh.record("app2")["details"]["message"]
    assert done.returncode == 2 and fresh.record("app2")["result"] == "refused", tail(done)
    assert message == "manifest: it was proven on debian 12 amd64, and this host is debian 13 amd64", message
    assert fresh.each(["lb1", "app2"], fresh.version) == {"lb1": "ii 1.1", "app2": "ii 1.0"}
    differences = {one["package"]: one for one in fresh.record("lb1")["details"]["differences"]}
    assert differences["wl-demo:all"] == {"package": "wl-demo:all", "here": "1.0", "proven": "1.1", "kind": "older"}


class Killed:
    """A run that is killed with its node's power, as a whole."""

    def __init__(self, site: Site, target: str, playbook: str = "patch", **more: Any) -> None:
        self.site, self.target = site, target
        argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(ROOT / "inventories" / "lab")]
        options = json.dumps({"target": target, **QUICK, **more})
        environment = {**os.environ, **QUICK_CONNECTION, "LAB_PREFIX": site.lab.prefix}
        self.process = subprocess.Popen(
            [*argv, f"worklog.maintenance.{playbook}", "--extra-vars", options],
            cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def when(self, condition: Callable[[], bool], after: float = 0.0) -> None:
        deadline = time.monotonic() + 120
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
        self.site.lab.wait_for(self.target, 8080, timeout=120)


def goes_on(site: Site, version: str) -> None:
    """Start the same again; it ends with the host patched, in service and with nothing left open."""
    site.sh("app1", "touch", "/etc/wl-demo-fast")
    done = site.patch("app1")
    assert done.returncode == 0, tail(done)
    assert site.version("app1") == f"ii {version}" and site.drained() == ""
    assert site.stage("app1")["stage"] == "finished", site.stage("app1")
    assert site.sh("app1", "dpkg", "--audit") == ""


@pytest.mark.soak
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
@pytest.mark.capability("C1")
def test_runs_killed_in_every_stage_are_finished_by_the_next(fresh: Site) -> None:
    """In the stages that the host's journal tells, at random moments of them, with and without its power."""
    chance = random.Random(SEED)
    stages = ("prepared", "applying", "applied")
    seen: dict[str, int] = {}
    for number in range(KILLS):
        fresh.install("app1")
        fresh.offer("1.0", "1.1", nodes=["app1"])
        run = Killed(fresh, "app1")
        begun = stages[number % len(stages)]
        run.when(lambda begun=begun: fresh.stage("app1").get("stage") == begun, after=chance.uniform(0, 1))
        stage = fresh.stage("app1")["stage"]
        seen[stage] = seen.get(stage, 0) + 1
        if number // len(stages) % 2:
            run.cut_the_power()
        goes_on(fresh, "1.1")
    print(f"killed in the stages {seen}, seed {SEED}")


@pytest.mark.soak
@pytest.mark.capability("C1")
@pytest.mark.parametrize("step", ["look", "keep", "pre", "post"])
def test_a_run_killed_in_a_step_around_the_change_is_finished_by_the_next(fresh: Site, step: str) -> None:
    fresh.offer("1.0", "1.1", nodes=["app1"])
    if step == "look":  # waits for the lock then
        fresh.sh("app1", "systemd-run", "--unit=wl-lock", "--quiet", "python3", "-c", HOLD)
        fresh.sh("app1", "sh", "-c", "until [ -e /run/wl-locked ]; do sleep 0.1; done; rm /run/wl-locked")
    processes = int(fresh.sh("app1", "pgrep", "-c", "-x", "python3"))
    steps: dict[str, Callable[[], bool]] = {
        "look": lambda: int(fresh.sh("app1", "pgrep", "-c", "-x", "python3")) > processes,
        "keep": lambda: fresh.sh("app1", "ls", STATE, check=False) != "" and not fresh.stage("app1"),
        "pre": lambda: "app1.drain" in fresh.drained(),
        "post": lambda: fresh.stage("app1").get("stage") == "applied" and fresh.drained() == "",
    }
    Killed(fresh, "app1").when(steps[step], after=1.0 if step == "look" else 0.0)
    fresh.sh("app1", "systemctl", "stop", "wl-lock", check=False)
    assert fresh.stage("app1").get("stage") == {"pre": "prepared", "post": "applied"}.get(step), step
    goes_on(fresh, "1.1")


@pytest.mark.soak
@pytest.mark.capability("C1")
def test_a_run_killed_while_it_takes_a_change_back_is_finished_by_the_next(fresh: Site) -> None:
    before = fresh.packages("app1")
    fresh.offer("1.0", "1.3", nodes=["app1"])
    fresh.sh("app1", "touch", "/etc/wl-demo-bad")
    Killed(fresh, "app1").when(lambda: fresh.stage("app1").get("stage") == "rolling_back")
    assert "app1.drain" in fresh.drained()
    done = fresh.patch("app1")
    assert done.returncode == 2 and fresh.record("app1")["details"]["outcome"] == "taken_back", tail(done)
    assert fresh.packages("app1") == before and fresh.drained() == ""


@pytest.mark.soak
@pytest.mark.capability("C3")
@pytest.mark.parametrize("after", [0.2, 0.4, 0.6])
@pytest.mark.parametrize("cut", [False, True])
def test_a_killed_rollback_is_finished_by_the_next(fresh: Site, cut: bool, after: float) -> None:
    before = fresh.packages("app1")
    fresh.offer("1.0", "1.1", nodes=["app1"])
    done = fresh.patch("app1")
    assert done.returncode == 0, tail(done)
    run = Killed(fresh, "app1", "patch_rollback")
    run.when(lambda: fresh.stage("app1").get("stage") == "rolling_back", after=after)
    if cut:
        run.cut_the_power()
    done = fresh.patch("app1", "patch_rollback")
    assert done.returncode == 0, tail(done)
    assert fresh.packages("app1") == before and fresh.drained() == ""
    assert (fresh.stage("app1")["stage"], fresh.stage("app1")["settled"]) == ("rolled_back", True)


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_reboot_is_made_when_it_is_required_and_allowed(fresh: Site) -> None:
    fresh.offer("1.0", "1.6", nodes=["app2"])
    done = fresh.patch("app2")
    assert done.returncode == 0 and fresh.record("app2")["details"]["rebooted"] is False, tail(done)
    assert "has to be rebooted: packages ask for it: wl-demo" in fresh.record("app2")["findings"][0]["message"]
    assert "reboot needed: packages ask for it: wl-demo" in told(done, "app2"), tail(done)
    with restarted(fresh, "app2"):
        done = fresh.patch("app2", patch_reboot=True)
    assert done.returncode == 0 and fresh.record("app2")["details"]["rebooted"] is True, tail(done)
    assert fresh.version("app2") == "ii 1.6" and fresh.drained() == ""
    fresh.lab.wait_for("app2", 8080)


@contextlib.contextmanager
def restarted(site: Site, node: str) -> Iterator[None]:
    """Have Docker start a node again that has ended, as firmware does with a machine that reboots."""
    container = site.lab.container(node)
    assert not call(["docker", "update", "--restart=always", container]).returncode
    try:
        yield
    finally:
        call(["docker", "update", "--restart=no", container])


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_run_killed_while_the_host_reboots_is_finished_by_the_next(fresh: Site) -> None:
    fresh.offer("1.0", "1.6", nodes=["app2"])
    begun = ["docker", "inspect", "--format", "{{.State.StartedAt}}", fresh.lab.container("app2")]
    before = call(begun).stdout
    with restarted(fresh, "app2"):
        Killed(fresh, "app2", patch_reboot=True).when(lambda: call(begun).stdout != before)
        fresh.lab.wait_for("app2", 8080)
        assert "app2.drain" in fresh.drained() and fresh.stage("app2")["stage"] == "applied"
        done = fresh.patch("app2", patch_reboot=True)
    assert done.returncode == 0 and fresh.stage("app2")["stage"] == "finished", tail(done)
    assert fresh.version("app2") == "ii 1.6" and fresh.drained() == ""


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_reboot_that_is_not_made_is_taken_back(fresh: Site, restore: Restore) -> None:
    fresh.offer("1.0", "1.6", nodes=["app2"])
    fresh.sh("app2", "systemctl", "mask", "--runtime", "reboot.target")
    restore.run("app2", ["systemctl", "unmask", "--runtime", "reboot.target"])
    done = fresh.patch("app2", patch_reboot=True, patch_reboot_timeout=10)
    message = fresh.record("app2")["details"]["message"]
    assert done.returncode == 2 and "reboot" in message.lower(), message
    assert "It was taken back to the versions before, and its services are well" in message, message
    assert fresh.version("app2") == "ii 1.0" and fresh.drained() == ""


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_host_that_stays_away_is_out_of_service_until_the_next_run(fresh: Site) -> None:
    fresh.offer("1.0", "1.6", nodes=["app2"])
    done = fresh.patch("app2:ops1", patch_canary="app2", patch_reboot=True, patch_reboot_timeout=10)
    assert not call(["docker", "start", fresh.lab.container("app2")]).returncode
    assert done.returncode == 2 and "1 hosts were not begun: ops1" in done.stdout, tail(done)
    assert "Timed out waiting for last boot time check (timeout=10). It could not be taken back" in told(done, "app2")
    assert "It was not put back into service" in told(done, "app2") and "app2.drain" in fresh.drained(), tail(done)
    fresh.lab.wait_for("app2", 8080)
    done = fresh.patch("app2", patch_reboot=True)
    assert done.returncode == 0 and fresh.stage("app2")["stage"] == "finished", tail(done)
    assert fresh.version("app2") == "ii 1.6" and fresh.drained() == ""


@pytest.mark.capability("C1")
@pytest.mark.soak
def test_a_host_whose_services_do_not_come_back_from_a_reboot_stays_out_of_service(
    fresh: Site, restore: Restore
) -> None:
    """Neither with the new packages nor with the old ones."""
    fresh.offer("1.0", "1.6", nodes=["app2"])
    condition = "/etc/systemd/system/wl-demo.service.d/once.conf"
    restore.run("app2", ["rm", "-rf", str(Path(condition).parent)])
    fresh.sh("app2", "mkdir", "-p", str(Path(condition).parent))
    fresh.lab.write("app2", condition, "[Unit]\nConditionPathExists=/run/wl-once\n")
    fresh.sh("app2", "sh", "-c", "touch /run/wl-once && systemctl daemon-reload")
    with restarted(fresh, "app2"):
        done = fresh.patch("app2", patch_reboot=True)
    message = fresh.record("app2")["details"]["message"]
    assert done.returncode == 2 and "wl-demo.service was running before and is inactive (dead). It could not" in message
    assert "It was not put back into service" in message and "app2.drain" in fresh.drained(), message
    fresh.sh("app2", "sh", "-c", "touch /run/wl-once && systemctl start wl-demo")
    done = fresh.patch("app2")
    assert done.returncode == 0 and fresh.version("app2") == "ii 1.6" and fresh.drained() == "", tail(done)
