# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller knows about the run that a task belongs to."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any


def run_id(variables: Mapping[str, Any]) -> str:
    """Return the identifier that all tasks of a run share: the job of AWX, or the controller's process."""
    for name in ("awx_job_id", "tower_job_id"):
        if name in variables:
            return f"job-{variables[name]}"
    return f"{platform.node()}-{os.getppid()}-{_ticks() or 0}"


def user(variables: Mapping[str, Any]) -> str:
    """Return who started the run: the user of AWX, or the account on the controller."""
    named = next((str(variables[name]) for name in ("awx_user_name", "tower_user_name") if name in variables), None)
    return named or os.environ.get("SUDO_USER") or getpass.getuser()


def about(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of the run, as the options of M(worklog.maintenance.record)."""
    return {
        "run_id": run_id(variables),
        "started_at": f"{started():%Y-%m-%dT%H:%M:%SZ}",
        "by": user(variables),
        "controller": platform.node(),
        "host": variables.get("inventory_hostname"),
    }


def ended(identifier: str) -> bool:
    """Tell whether a run was started by a process of this controller that is no longer there."""
    node, _dash, process = identifier.rpartition("-")[0].rpartition("-")
    ticks = identifier.rpartition("-")[2]
    if node != platform.node() or not process.isdigit() or not ticks.isdigit():
        return False
    return str(_ticks(int(process))) != ticks


def started() -> datetime:
    """Return when the run began, in UTC; on a controller that is not Linux, the time of the call."""
    began = time.time()
    ticks = _ticks()
    if ticks is not None:
        began += ticks / os.sysconf("SC_CLK_TCK") - time.clock_gettime(time.CLOCK_BOOTTIME)
    return datetime.fromtimestamp(began, timezone.utc)


def _ticks(process: int | None = None) -> int | None:
    """Return when a process began, in clock ticks since the boot (proc(5)); by default the parent of all workers."""
    try:
        with open(f"/proc/{process or os.getppid()}/stat", encoding="ascii", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
