# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The maintenance modes of this load balancer, without a controller.

systemd starts 'expire' when the time of a mode is over and at each boot. Exit codes: 0 done; 1 failed, the journal and
a record say why.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.worklog.maintenance.plugins.module_utils import command, record
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance import work
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.host import Host
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import Memory, Site, iso
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="worklog-maintenance-mode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("status", help="tell which sites are in a mode, since when, until when, by whom and why")
    verbs.add_parser("expire", help="end the modes whose time is over")
    verbs.add_parser("off", help="end the mode of a site now").add_argument("site")
    options = parser.parse_args(arguments)
    host = Host(System(command.run))
    memories = host.memories()
    if options.verb == "status":
        for one in memories:
            say(f"{one.site}: {one.state.describe()}, since {iso(one.state.since)}: {one.state.reason}")
        return 0
    if options.verb == "expire":
        due = [one for one in memories if one.state.until is not None and one.state.until <= host.now()]
        return max([_end(host, one, "its time was over", "systemd", due=True) for one in due], default=0)
    chosen = [one for one in memories if one.site == options.site]
    if not chosen:
        say(f"no mode is on for {options.site}; 'status' tells which are")
    by = os.environ.get("SUDO_USER") or getpass.getuser()
    return max([_end(host, one, "by hand on the load balancer", by, due=False) for one in chosen], default=0)


def _end(host: Host, memory: Memory, how: str, by: str, *, due: bool) -> int:
    """End one mode, and leave a record; of a failure only when there is none yet."""
    site = Site(memory.site)
    state = memory.state
    failure, seconds, findings = "", None, []
    try:
        outcome = work.carry_out(site, memory.access, work.Ask("off", due=due), host)
        if not outcome.changed:
            return 0
        seconds, findings = outcome.seconds, outcome.findings
    except TrafficError as error:
        failure = str(error)
    say(f"{memory.site}: {failure or f'{state.describe()} has ended, {how}'}")
    if failure and memory.failed:
        return 1
    line = record.line(
        what="maintenance_mode",
        subject=memory.site,
        result="failed" if failure else "ok",
        run_id=state.run_id,
        by=by,
        downtime_seconds=seconds if state.mode == "page" else None,
        findings=findings,
        details={
            "asked": "off",
            "how": how,
            "before": state.as_dict(),
            "after": {"mode": state.mode if failure else "off"},
            "seconds": seconds,
            "message": failure,
        },
    )
    try:
        record.append(record.PATH, line)
        if failure:
            host.remember(site, replace(memory, failed=True))
    except (record.RecordError, TrafficError) as error:
        say(str(error))
        return 1
    return 1 if failure else 0


def say(text: str) -> None:
    """Tell the operator, or the journal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
