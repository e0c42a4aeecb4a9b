# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of patching on the lab, as an operator types it: what staging has proven is what production gets.

The nodes have a signed repository of small packages as their only source meanwhile. A version that crashes after a
while comes up in it, and is stopped in the canary of production; a manifest that was altered is refused; the one that
staging has proven is installed behind both load balancers, and taken back. Can be run again, also when it was
interrupted: it begins by putting the nodes right. LAB_PREFIX names the copy of the lab.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.lab import package_repository
from tests.lab.day import PREFIX, Report, clients, on, typed

STAGING, PRODUCTION = ("db1", "ops1"), ("app1", "lb1", "lb2")
CONTAINERS = [f"{PREFIX}-{node}" for node in STAGING + PRODUCTION]
HERE = Path("build") / "patch-day"  # of the root, where every command is typed
PROVEN, ALTERED = HERE / "proven.json", HERE / "altered.json"
RECORDS = "/var/log/worklog-maintenance/records.jsonl"
#: Requests that take a while, so that some are under way whenever the application is ended.
SITE = ("worklog.example.test", "/hold?seconds=0.3", "--rate=30")


def put_right() -> None:
    """Have every node in service, with 1.0 of wl-demo, and with nothing left of a day that was cut off."""
    on("lb1", "sh", "-c", "rm -f /var/lib/lab-rotation/*.drain")
    on("lb2", "systemctl", "reload", "haproxy")
    HERE.mkdir(parents=True, exist_ok=True)
    for path in (PROVEN, ALTERED):
        path.unlink(missing_ok=True)
    package_repository.offer(HERE, CONTAINERS, "1.0", "1.1")
    package_repository.shell(CONTAINERS, package_repository.INSTALL)


def versions(nodes: Sequence[str]) -> set[str]:
    """The versions of wl-demo on nodes, with what dpkg says of its state."""
    argv = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "wl-demo")
    return {on(node, *argv).stdout for node in nodes}


def packages() -> dict[str, str]:
    """What dpkg and apt say of all packages of production."""
    return {node: on(node, "sh", "-c", "dpkg -l; apt-mark showauto").stdout for node in PRODUCTION}


def last(node: str) -> dict[str, Any]:
    """What the last run on a node says of itself."""
    record: dict[str, Any] = json.loads(on(node, "tail", "-n1", RECORDS).stdout)["details"]
    return record


def main() -> int:
    """Run the day and print the table; 1 when something is not as promised."""
    report = Report("patching")

    def step(what: str, promised: str, words: str, proof: Callable[[], bool], fails: bool = False) -> None:
        environment, name, *options = words.split()
        began, seen = time.monotonic(), {}
        with contextlib.ExitStack() as stack:
            if environment == "production":
                seen = stack.enter_context(clients(*SITE))
            argv = ["-i", f"inventories/lab-{environment}", f"worklog.maintenance.{name}", *options]
            ended = typed("ansible-playbook", *argv)
        if (ended != 0) != fails or not proof():
            report.bad.append(f"{what}: it was not '{promised}': {name} ended with {ended}, see above")
        report.add(what, promised, time.monotonic() - began, seen)

    def untouched() -> bool:
        return packages() == first

    try:
        put_right()
        first = packages()
        step("plan for staging", "nothing changed", "staging patch --check", lambda: versions(STAGING) == {"ii 1.0"})
        step("staging", "1.0 -> 1.1", "staging patch", lambda: versions(STAGING) == {"ii 1.1"})
        soak = "-e patch_promote_soak=1s"  # in earnest it is a day or more
        step("promotion", "written", f"staging patch_promote -e patch_promote_file={PROVEN} {soak}", PROVEN.exists)

        package_repository.offer(HERE, CONTAINERS, "1.0", "1.1", "1.5")
        content = json.loads(PROVEN.read_text(encoding="utf-8"))
        content["releases"]["debian 12 amd64"]["wl-demo:all"] = "1.5"
        ALTERED.write_text(json.dumps(content), encoding="utf-8")

        def stopped() -> bool:
            begun = on("lb1", "ls", package_repository.STATE, check=False).stdout
            return untouched() and last("app1")["outcome"] == "taken_back" and not begun

        def refused() -> bool:
            return untouched() and "was altered" in last("app1")["message"]

        step("production, the newest", "stopped in the canary, taken back", "production patch", stopped, fails=True)
        altered = f"production patch -e patch_manifest={ALTERED}"
        step("production, manifest altered", "refused, untouched", altered, refused, fails=True)
        proven = f"production patch -e patch_manifest={PROVEN}"
        step("production, as proven", "1.0 -> 1.1", proven, lambda: versions(PRODUCTION) == {"ii 1.1"})
        step("rollback of production", "dpkg -l as before", "production patch_rollback", untouched)
    finally:
        package_repository.shell(CONTAINERS, package_repository.REMOVE)
    return report.close("The newest is 1.5, which has come up since: its service crashes three seconds after it is up.")


if __name__ == "__main__":
    sys.exit(main())
