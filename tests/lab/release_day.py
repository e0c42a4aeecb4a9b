# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of releases on the lab, as an operator types it, while a client on each load balancer counts what it loses.

A version that fails one request in five is tried as a canary and has to be refused by the gate; a good one takes over
blue-green; another application is upgraded in place and rolled back. Can be run again: it begins by putting the lab
back to where it began. LAB_PREFIX names the copy of the lab.
"""

from __future__ import annotations

import json
import sys
import time

from tests.lab.day import Report, clients, on, typed

INVENTORY = "inventories/lab"
#: A state of its own, so that an earlier day does not stand in the way.
STATE = "/var/lib/worklog-maintenance/release-day"
WORKLOG, PLATFORM = "worklog-api", "lowcode-platform"
#: Host header and path of the clients of each application.
SITES = {WORKLOG: ("worklog.example.test", "/whoami"), PLATFORM: ("lowcode.example.test", "/api/stats")}

#: Bring a node of the applications back to the start: release, services, and a version that fails one request in five.
BEGIN = r"""
set -eu
rm -rf "$STATE"
cd /srv/worklog/releases
rm -rf 1.1.1 && cp -a 1.1.0 1.1.1 && echo 1.1.1 > 1.1.1/VERSION && echo '{"error_rate": 0.2}' > 1.1.1/switches.json
if [ "$(readlink /srv/worklog/current)" != releases/1.0.0 ]; then
    ln -sfn releases/1.0.0 /srv/worklog/current && systemctl restart worklog-api
fi
if [ "$(readlink /srv/lowcode/current)" != releases/2.3.0 ]; then
    ln -sfn releases/2.3.0 /srv/lowcode/current && systemctl restart pm2-lowcode
fi
"""


def playbook(name: str, application: str, **variables: str) -> int:
    """Run a playbook of releases."""
    given = {"release_application": application, "release_state_directory": STATE, **variables}
    extra = [word for pair in given.items() for word in ("-e", json.dumps(dict([pair])))]
    return typed("ansible-playbook", "-i", INVENTORY, f"worklog.maintenance.{name}", *extra)


def why_bad(node: str, application: str, version: str) -> str:
    """Why a version is known as bad on a node, as its state says; empty when it is not."""
    state = json.loads(on(node, "cat", f"{STATE}/{application}.json", check=False).stdout or '{"bad": []}')
    return "; ".join(entry["reason"] for entry in state["bad"] if entry["version"] == version)


def divide(blue: int) -> None:
    """Divide the requests of the worklog API between app1, the blue side, and app2."""
    options = {
        "balancer": f"{{{{ release_applications['{WORKLOG}'].balancers[inventory_hostname] }}}}",
        "members": {"blue": ["app1"], "green": ["app2"]},
        "shares": {"blue": blue, "green": 100 - blue},
    }
    arguments = ["load_balancers", "-m", "worklog.maintenance.release_split", "-a", json.dumps(options)]
    if typed("ansible", "-i", INVENTORY, *arguments) != 0:
        sys.exit("error: the requests could not be divided; see above")


def main() -> int:
    """Run the day and print the table; 1 when something is not as promised."""
    for node in ("app1", "app2"):
        on(node, "env", f"STATE={STATE}", "bash", "-c", BEGIN)
    for node in ("lb1", "lb2"):
        on(node, "rm", "-rf", STATE)
    divide(100)

    quick = {"blue_green_steps": "25, 50, 100", "blue_green_holding_minutes": "0.1"}
    day: list[tuple[str, str, str, dict[str, str], bool]] = [
        ("canary that fails one request in five", "canary", WORKLOG, {"release_version": "v1.1.1"}, False),
        ("blue-green", "blue_green", WORKLOG, {"release_version": "v1.1.0", **quick}, True),
        ("upgrade in place", "upgrade_in_place", PLATFORM, {"release_version": "v2.4.0"}, True),
        ("rollback", "rollback", PLATFORM, {"release_reason": "search is slow"}, True),
    ]
    report = Report("release")
    for what, name, application, variables, good in day:
        if name == "canary":
            divide(50)
            variables = {**variables, "canary_steps": "25"}
        elif name == "blue_green":
            divide(100)
        begin = time.monotonic()
        with clients(*SITES[application]) as seen:
            ended = playbook(name, application, **variables)
        seconds = time.monotonic() - begin
        blamed = why_bad("app2", application, variables.get("release_version", "")[1:])
        said = "done" if ended == 0 else "aborted by its gate, undone" if blamed.startswith("abort") else "failed"
        if said != ("done" if good else "aborted by its gate, undone"):
            report.bad.append(f"{what}: {name} ended with {ended}; {blamed or 'no version is to blame'}")
        report.add(what, said, seconds, seen, lossless=good)
    divide(50)
    if playbook("release_report", WORKLOG) != 0:
        report.bad.append("the report was not made")
    return report.close(
        "A canary that fails shows its errors to the share of the clients that it gets, until the gate has decided."
    )


if __name__ == "__main__":
    sys.exit(main())
