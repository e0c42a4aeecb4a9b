# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""npm packages of the low-code platform are updated in a new release by real npm and PM2, or nothing has changed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.npm_platform import ADDRESS, CURRENT, HOME, Platform

pytestmark = [pytest.mark.capability("C5")]
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "lab-token-4711"
MODULE = "worklog.maintenance.npm_update"
PROCESSES = "AnsiballZ_npm_update|^npm "
GOOD = {"greet": ["1.0.0", "1.1.0", "2.0.0"], "format": ["1.0.0", "1.1.0"], "script": ["1.0.0", "1.0.1"]}


@pytest.fixture
def platform(lab: Any) -> Iterator[Platform]:
    found = Platform(lab)
    found.up()
    yield found
    found.down()


def update(lab: Any, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the playbook on app1."""
    given = {
        "target": "app1",
        "npm_update_path": CURRENT,
        "npm_update_user": "lowcode",
        "npm_update_registry": ADDRESS,
        "npm_update_token_file": f"{HOME}/token",
        "service_restart_name": "lowcode-platform",
        "service_restart_manager": "pm2",
        "service_restart_user": "lowcode",
        "service_restart_ready": ["http://127.0.0.1:3002/health"],
        "service_restart_watch": "2",
        **variables,
    }
    done: subprocess.CompletedProcess[str] = lab.playbook(
        "worklog.maintenance.npm_update", "--extra-vars", json.dumps(given), *options
    )
    return done


def module(lab: Any, **arguments: Any) -> subprocess.Popen[str]:
    """Begin a call of the module on app1, in a process group of its own, and there under its name."""
    program = [str(Path(sys.executable).parent / "ansible"), "-i", str(ROOT / "inventories" / "lab"), "app1"]
    given = {"path": CURRENT, "user": "lowcode", "registry": ADDRESS, **arguments}
    return subprocess.Popen(
        [*program, "-m", MODULE, "-a", json.dumps(given), "-e", '{"ansible_pipelining": false}'],
        cwd=ROOT, env={**os.environ, "LAB_PREFIX": lab.prefix, "ANSIBLE_NOCOLOR": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def call(lab: Any, **arguments: Any) -> dict[str, Any]:
    """Call the module and return its result."""
    out, _unused = module(lab, **arguments).communicate(timeout=120)
    assert "=> {" in out, out
    result: dict[str, Any] = json.loads("{" + out.partition("=> {")[2])
    return result


def test_an_update_is_shown_made_and_not_repeated(lab: Any, platform: Platform) -> None:
    before = platform.tree("/srv/lowcode/releases")
    platform.publish(**GOOD, token=TOKEN)
    assert f"cannot read {HOME}/token" in call(lab, token_file=f"{HOME}/token")["msg"]
    assert "401" in call(lab)["msg"], "without the token the registry gives nothing"
    lab.write("app1", f"{HOME}/token", TOKEN + "\n")

    given = {"path": CURRENT, "user": "lowcode", "registry": ADDRESS, "token_file": f"{HOME}/token"}
    fixed = lab.module("app1", "npm_update", "--check", update=False, **given)
    (change,) = fixed["changes"]
    assert (change["package"], change["before"], change["after"]) == ("node_modules/lab-greet", "1.0.0", "1.1.0")
    assert len(fixed["vulnerabilities_before"]) == 1 and fixed["vulnerabilities_after"] == [], "npm audit fix, in range"

    shown = update(lab, "--check", "--diff")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "lab-greet 1.0.0 1.1.0 2.0.0" in " ".join(shown.stdout.split())
    assert "-node_modules/lab-format 1.0.0" in shown.stdout and "+node_modules/lab-format 1.1.0" in shown.stdout
    assert platform.tree("/srv/lowcode/releases") == before and platform.target() == "releases/3.0.0"

    done = update(lab, "-vvv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert platform.versions() == {"lab-greet": "1.1.0", "lab-format": "1.1.0"}, "in the range, not 2.0.0"
    after = platform.tree("/srv/lowcode/releases")
    assert {path: after.get(path) for path in before} == before, "the release before is as it was"
    new = platform.target()
    assert new.startswith("releases/3.0.0-npm-") and platform.releases() == ["3.0.0", new.rpartition("/")[2]]
    assert {entry[1] for path, entry in after.items() if path.startswith(new.rpartition("/")[2])} == {0}
    assert not any(path.endswith("installed.txt") for path in after), "scripts of packages are not run"
    lock = json.loads(lab.read("app1", f"{CURRENT}/package-lock.json"))
    assert lock["packages"]["node_modules/lab-greet"]["version"] == "1.1.0"
    as_lowcode = ["setpriv", "--reuid=lowcode", "--regid=lowcode", "--clear-groups"]
    works_in = lab.exec("app1", [*as_lowcode, "readlink", f"/proc/{platform.pid()}/cwd"]).stdout.strip()
    assert works_in == f"/srv/lowcode/{new}", "the process runs on the new release"

    pid = platform.pid()
    again = update(lab)
    assert again.returncode == 0 and "no package changes" in again.stdout and "changed=1 " in again.stdout, again.stdout
    assert platform.pid() == pid and platform.target() == new
    records = [json.loads(line) for line in lab.read("app1", "/var/log/worklog-maintenance/records.jsonl").splitlines()]
    mine = [record for record in records if record["what"] == "npm_update"]
    assert [record["result"] for record in mine[-2:]] == ["ok", "ok"]
    assert mine[-2]["details"]["vulnerabilities_before"] == ["lab-greet GHSA-lab1-gree-t100 (high)"]
    assert mine[-2]["details"]["vulnerabilities_after"] == []

    lab.exec("app1", ["systemctl", "stop", "lab-registry"])
    lab.exec("app1", ["ln", "-sfn", "releases/3.0.0", CURRENT])
    assert lab.exec("app1", ["curl", "--silent", ADDRESS], check=False).returncode == 7, "there is no network now"
    cached = lab.module("app1", "npm_update", offline=True, audit_fix=False, **given)
    assert cached["changed"], cached
    lab.exec("app1", ["ln", "-sfn", cached["candidate"], CURRENT])
    assert platform.versions() == {"lab-greet": "1.1.0", "lab-format": "1.1.0"}


def test_what_fails_leaves_lock_file_and_tree_as_they_were(lab: Any, platform: Platform) -> None:
    lab.write("app1", f"{HOME}/token", TOKEN)
    before = platform.tree("/srv/lowcode/releases")
    pid = platform.pid()

    def untouched(done: str, words: str) -> None:
        assert words in done, done
        assert platform.target() == "releases/3.0.0" and platform.tree("/srv/lowcode/releases") == before
        assert platform.health()["version"] == "3.0.0"

    platform.publish(greet=["1.0.0"], format=["1.0.0", "1.2.0"])
    untouched(call(lab)["msg"], "the greeting is wrong: hello x")
    platform.publish(greet=["1.0.0"], advisories=False)
    untouched(call(lab)["msg"], "npm audit got no answer")
    assert platform.pid() == pid, "the application was not restarted"

    platform.publish(greet=["1.0.0"], format=["1.0.0", "1.3.0"])
    done = update(lab)
    assert done.returncode != 0
    untouched(done.stdout, "the update was undone, /srv/lowcode/current is releases/3.0.0 again")


@pytest.mark.soak
def test_what_fails_its_gate_is_undone(lab: Any, platform: Platform) -> None:
    lab.write("app1", f"{HOME}/token", TOKEN)
    before = platform.tree("/srv/lowcode/releases")
    platform.publish(**GOOD)
    requests = [{"path": "/health", "matches": '"version":"4'}]
    done = update(lab, npm_update_gate_targets=["http://127.0.0.1:3002"], npm_update_gate_requests=requests)
    assert done.returncode != 0 and "the update was undone" in done.stdout, done.stdout
    assert platform.target() == "releases/3.0.0" and platform.tree("/srv/lowcode/releases") == before
    assert platform.health()["version"] == "3.0.0"


@pytest.mark.soak
def test_a_run_that_was_interrupted_after_the_switch_is_gone_on_with(lab: Any, platform: Platform) -> None:
    lab.write("app1", f"{HOME}/token", TOKEN)
    platform.publish(**GOOD)
    built = call(lab)
    assert platform.target() == "releases/3.0.0"
    way = {"candidate": built["candidate"], "previous": built["previous"]}
    assert call(lab, state="switched", **way)["changed"] and not call(lab, state="switched", **way)["changed"]
    pid = platform.pid()  # the controller died here: the link is switched, the old process runs
    done = update(lab)
    assert done.returncode == 0 and "was interrupted; it is gone on with" in done.stdout, done.stdout
    assert platform.target() == built["candidate"] and platform.pid() != pid
    assert call(lab)["msg"] == "no package changes", "the way back is forgotten"


def kills(lab: Any, platform: Platform, count: int, seed: int) -> None:
    """Kill an update at random moments, with all its processes, and see that the running tree is whole each time."""
    chance = random.Random(seed)
    platform.publish(**GOOD, delay=0.1)
    before = platform.tree("/srv/lowcode/releases/3.0.0")
    interrupted = 0
    for _unused in range(count):
        process = module(lab)
        while process.poll() is None and lab.exec("app1", ["pgrep", "-f", PROCESSES], check=False).returncode:
            time.sleep(0.1)
        time.sleep(chance.uniform(0.1, 3.0))
        interrupted += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lab.exec("app1", ["pkill", "-KILL", "-f", PROCESSES], check=False)
        assert platform.target() == "releases/3.0.0"
        assert platform.tree("/srv/lowcode/releases/3.0.0") == before
    assert interrupted, "no kill came in time"
    platform.publish(**GOOD)
    built = call(lab)
    assert built.get("candidate"), built
    assert not [name for name in platform.releases() if name.endswith(".partial")]
    tree = platform.tree(f"/srv/lowcode/{built['candidate']}")
    assert {"node_modules/lab-greet/index.js", "package-lock.json", "server.js"} <= tree.keys()


def test_a_killed_update_leaves_the_running_tree_whole(lab: Any, platform: Platform) -> None:
    kills(lab, platform, 2, 1)


@pytest.mark.soak
def test_updates_killed_again_and_again_leave_the_running_tree_whole(lab: Any, platform: Platform) -> None:
    kills(lab, platform, int(os.environ.get("KILLS", "5")), 2)
