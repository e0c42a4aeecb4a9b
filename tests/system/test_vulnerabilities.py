# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vulnerability_scan with real debsecan, apt and npm on app1, and its report of several hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import package_repository
from tests.system.npm_platform import ADDRESS, CURRENT, HOME, Platform

pytestmark = [pytest.mark.capability("C4")]
ROOT = Path(__file__).resolve().parents[2]
DATA = f"{HOME}/debsecan"
STATE = "/var/lib/worklog-maintenance/vulnerability_scan"

#: What debsecan loads; the letters: source or binary package, urgency, remote, whether there is a fix.
DEBSECAN = """VERSION 1
CVE-2099-0001,,a hole in tar that lets archives write anywhere
CVE-2099-0002,,a hole in bash without a fix

tar,0, HRF,99.0-1,
bash,1, M  ,,

tar,tar

"""
PIP_AUDIT = {
    "dependencies": [
        {"name": "idna", "version": "3.4", "vulns": [
            {"id": "PYSEC-2024-60", "fix_versions": ["3.7"], "aliases": ["CVE-2024-3651"], "description": "=slow()"}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def platform(lab: Any) -> Iterator[Platform]:
    found = Platform(lab)
    found.up()
    server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", HOME, "4874"]
    lab.exec("app1", ["systemd-run", "--quiet", "--collect", "--unit=lab-data", *server])
    yield found
    lab.exec("app1", ["systemctl", "stop", "lab-data"])
    found.down()
    for node in ("app1", "db1"):
        lab.exec(node, ["rm", "-rf", STATE])


def put(lab: Any, path: str, content: bytes, age_days: int = 0) -> None:
    """Write bytes to a file of app1, as if so many days ago."""
    lab.exec("app1", ["python3", "-c", f"open({path!r}, 'wb').write(bytes.fromhex('{content.hex()}'))"])
    lab.exec("app1", ["touch", f"--date={age_days} days ago", path])


def scan(lab: Any, *options: str, node_name: str = "app1", **arguments: Any) -> dict[str, Any]:
    """Call the module on a node."""
    given = {"system": "none", "state_file": f"{STATE}/test.json", **arguments}
    program = [str(Path(sys.executable).parent / "ansible"), "-i", str(ROOT / "inventories" / "lab"), node_name]
    done = subprocess.run(
        [*program, "-m", "worklog.maintenance.vulnerability_scan", "-a", json.dumps(given), *options],
        cwd=ROOT, env={**os.environ, "LAB_PREFIX": lab.prefix, "ANSIBLE_NOCOLOR": "1"}, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert "=> {" in done.stdout, done.stdout + done.stderr
    result: dict[str, Any] = {"failed": "FAILED!" in done.stdout, **json.loads("{" + done.stdout.partition("=> {")[2])}
    return result


def test_no_data_are_never_no_vulnerabilities(lab: Any, platform: Platform) -> None:
    """Each of these tools would end well and find nothing."""
    platform.publish(greet=["1.0.0"], format=["1.0.0"], advisories=False)
    put(lab, DATA, zlib.compress(b"VERSION 1\n\n\n\n"))
    put(lab, f"{HOME}/pip.json", json.dumps(PIP_AUDIT).encode(), age_days=9)
    result = scan(
        lab, system="debsecan", debsecan_data=DATA, node=[{"path": CURRENT, "registry": ADDRESS}],
        python=[{"path": "/srv/venv", "report": f"{HOME}/pip.json"}, {"path": "/srv/none"}],
    )  # fmt: skip
    assert result["failed"] and result["verdict"] == "inconclusive", result
    problems = [scope["problem"] for scope in result["scopes"]]
    assert "no vulnerability at all" in problems[0] and "npm audit got no answer: 404" in problems[1]
    assert "pip.json are 9 d old, more than 7 d" in problems[2] and "no environment of Python" in problems[3]


def test_apt_tells_security_updates_and_nothing_without_their_source(lab: Any, restore: Any, tmp_path: Path) -> None:
    sources, target = "/etc/apt/sources.list.d/wl.list", package_repository.TARGET
    package_repository.make(tmp_path, "1.0", "1.7")
    restore.run("ops1", ["apt-get", "update", "--quiet=2", "--option", f"Dir::Etc::sourcelist={sources}"])
    restore.path("ops1", sources)
    restore.run("ops1", ["rm", "-rf", target, STATE])
    restore.run("ops1", ["apt-get", "purge", "--yes", "--quiet=2", "wl-demo", "wl-demo-data"])

    without = scan(lab, node_name="ops1", system="apt", accept_inconclusive=True)
    assert not without["failed"] and without["verdict"] == "inconclusive", "of the lab's own sources"
    assert "apt knows no source of security updates" in without["msg"]

    for path, place in ((tmp_path / "repository", target), (tmp_path / "wl.list", sources)):
        subprocess.run(["docker", "cp", "--quiet", str(path), f"{lab.container('ops1')}:{place}"], check=True)
    own = ["--option", f"Dir::Etc::sourcelist={sources}", "--option", "APT::Get::List-Cleanup=false"]
    lab.exec("ops1", ["apt-get", "update", "--quiet=2", *own])
    lab.exec("ops1", ["apt-get", "install", "--yes", "--quiet=2", "wl-demo=1.0"])
    found = scan(lab, node_name="ops1", system="apt")
    (one,) = found["vulnerabilities"]
    assert (one["package"], one["installed"], one["fixed_in"], one["severity"]) == ("wl-demo", "1.0", "1.7", "unknown")
    lab.exec("ops1", ["apt-get", "install", "--yes", "--quiet=2", "wl-demo"])
    after = scan(lab, node_name="ops1", system="apt")
    assert after["verdict"] == "clean" and [one["status"] for one in after["vulnerabilities"]] == ["fixed"]


def test_bad_input_is_refused_before_anything_is_asked(lab: Any, platform: Platform) -> None:
    lab.exec("app1", ["rm", "-rf", STATE])
    result = scan(lab, node=[{"path": CURRENT}], exceptions=[{"id": "CVE-1", "until": "soon", "reason": "x"}])
    assert result["failed"] and "'soon' is no day; write it as 2026-12-31" in result["msg"]
    assert "until found in exceptions" in scan(lab, exceptions=[{"id": "CVE-1", "reason": "x"}], system="apt")["msg"]
    assert "there is nothing to scan" in scan(lab)["msg"]
    assert lab.exec("app1", ["test", "-e", STATE], check=False).returncode


def test_a_scan_is_compared_with_the_one_before_and_reported(lab: Any, platform: Platform) -> None:
    platform.publish(greet=["1.0.0", "1.1.0"], format=["1.0.0"])
    put(lab, DATA, zlib.compress(DEBSECAN.encode()))
    put(lab, f"{HOME}/pip.json", json.dumps(PIP_AUDIT).encode())
    given = {
        "system": "auto", "debsecan_data": "http://127.0.0.1:4874/debsecan",
        "node": [{"path": CURRENT, "registry": ADDRESS}],
        "python": [{"path": "/srv/venv", "report": f"{HOME}/pip.json"}],
    }  # fmt: skip
    assert scan(lab, "--check", **given)["counts"]["new"] == 3
    first = scan(lab, **given)
    assert first["changed"] and not first["failed"] and first["counts"]["new"] == 3, first
    found = {one["id"]: one for one in first["vulnerabilities"]}
    assert found.keys() == {"CVE-2099-0001", "GHSA-lab1-gree-t100", "PYSEC-2024-60"}
    assert found["CVE-2099-0001"]["fixed_in"] == "99.0-1" and found["CVE-2099-0001"]["severity"] == "high"
    greet = found["GHSA-lab1-gree-t100"]
    assert (greet["installed"], greet["fixed_in"], greet["path"]) == ("1.0.0", "1.1.0", CURRENT)
    assert [scope["unfixed"] for scope in first["scopes"]] == [1, 0, 0], "bash has no fix yet"
    again = scan(lab, fail_severity="high", **given)
    assert not again["changed"] and again["failed"] and again["counts"]["open"] == 3

    # the next month: tar was updated, the registry is down, the other has an exception
    put(lab, DATA, zlib.compress(DEBSECAN.replace("HRF,99.0-1", "HRF,1.0-1").encode()))
    lab.exec("app1", ["systemctl", "stop", "lab-registry"])
    variables = {
        "target": "app1,db1",
        **{f"vulnerability_scan_{name}": value for name, value in given.items()},
        "vulnerability_scan_state_file": f"{STATE}/test.json",
        "vulnerability_scan_exceptions": [{"id": "CVE-2024-3651", "until": "2999-12-31", "reason": "<b>no input</b>"}],
        "vulnerability_scan_report_host": "app1",
    }
    done = lab.playbook("worklog.maintenance.vulnerability_scan", "--extra-vars", json.dumps(variables))
    assert done.returncode != 0 and "app1: inconclusive, nothing can be said of node:npm" in done.stdout
    assert "db1: inconclusive" in done.stdout, "db1 has none of it, and the first failure hides nothing"
    state = json.loads(lab.read("app1", f"{STATE}/test.json"))["vulnerabilities"]
    assert {one["id"] for one in state} == {"GHSA-lab1-gree-t100", "PYSEC-2024-60"}, "not looked at is not fixed"
    table = lab.read("app1", f"{STATE}/report.en.csv")
    assert "app1,high,fixed,tar," in table and "app1,high,not checked,lab-greet" in table and "'=slow()" in table
    page = lab.read("app1", f"{STATE}/report.zh.html")
    assert "&lt;b&gt;no input&lt;/b&gt;" in page and "已修复" in page and "未能检查" in page and "<td>db1</td>" in page
    assert lab.exec("app1", ["stat", "--format=%a", f"{STATE}/report.en.html"]).stdout == "640\n"
    record = json.loads(lab.read("app1", "/var/log/worklog-maintenance/records.jsonl").splitlines()[-1])
    assert (record["what"], record["result"], record["severity"]) == ("vulnerability_scan", "failed", "critical")
    assert record["details"]["counts"]["fixed"] == 1
