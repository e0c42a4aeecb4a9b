# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the days of the demo share: what an operator types, clients that count what they lose, the closing table."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

#: The copy of the lab.
PREFIX = os.environ.get("LAB_PREFIX") or "worklog"
STOP = "/run/demo-clients.stop"


def on(node: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run an argument list in a node."""
    command = ["docker", "exec", f"{PREFIX}-{node}", *argv]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=120)


def typed(*words: str) -> int:
    """Run what an operator types, with the command above its output."""
    print("\n$ " + " ".join(f"'{word}'" if set(word) & set(" {") else word for word in words), flush=True)
    return subprocess.run(words, check=False).returncode


@contextlib.contextmanager
def clients(host: str, path: str, *options: str) -> Iterator[dict[str, Any]]:
    """A client on each load balancer while the block runs; what they saw is there when it has ended.

    :param options: of tests/lab/client/strict_client.py.
    """
    on("ops1", "rm", "-f", STOP)
    seen: dict[str, Any] = {}
    watching = {}
    for name, balancer in (("nginx", "lb1"), ("HAProxy", "lb2")):
        argv = ["python3", "/opt/lab/strict_client.py", f"--url=http://{balancer}{path}", f"--host-header={host}"]
        argv += ["--seconds=300", f"--until-file={STOP}", *options]
        command = ["docker", "exec", f"{PREFIX}-ops1", *argv]
        watching[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1)
        yield seen
        time.sleep(1)
    finally:
        on("ops1", "touch", STOP)
        for name, process in watching.items():
            out, _none = process.communicate(timeout=330)
            seen[name] = json.loads(out)


class Report:
    """What a day has shown, and what of it is not as promised."""

    def __init__(self, what: str) -> None:
        self.rows = [(what, "result", "seconds", "client of", "requests", "failed")]
        self.bad: list[str] = []

    def add(self, what: str, said: str, seconds: float, seen: Mapping[str, Any], lossless: bool = True) -> None:
        """Add what came of a step, a row for each client."""
        took = f"{seconds:.0f}"
        if not seen:
            self.rows.append((what, said, took, "", "", ""))
        for client, result in seen.items():
            self.rows.append((what, said, took, client, str(result["requests"]), str(result["failed"])))
            if result["failed"] and lossless:
                self.bad.append(f"{what}: the client of {client} lost {result['failed']}: {result['failures']}")
            if not result["requests"]:
                self.bad.append(f"{what}: the client of {client} sent nothing")

    def close(self, note: str = "") -> int:
        """Print the table, and return 1 when something is not as promised."""
        widths = [max(len(row[column]) for row in self.rows) for column in range(len(self.rows[0]))]
        print()
        for row in self.rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
        if note:
            print(note)
        for trouble in self.bad:
            print(f"error: {trouble}", file=sys.stderr)
        return 1 if self.bad else 0
