# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record that every work of the backup program leaves, also when it fails or is stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import record
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import job
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Busy
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

PROGRAM = "worklog-backup"


class Stopped(BaseException):
    """The program was told to end."""


@dataclass
class Trace:
    """What a work adds to its record while it goes on."""

    findings: list[Finding] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    result: str = "failed"


@contextlib.contextmanager
def recorded(
    path: str,
    what: str,
    check: str,
    subject: str,
    run_id: str | None,
    show: Callable[[Mapping[str, Any]], None] | None = None,
) -> Iterator[Trace]:
    """Leave a record when the block ends.

    :param path: file of the records.
    :param what: kind of work.
    :param check: name of the finding that tells of a failure.
    :param subject: what is worked on.
    :param run_id: names the run.
    :param show: is given the record once it is written.
    """
    trace, started = Trace(), job.utc(time.time())
    try:
        yield trace
        trace.result = "ok" if trace.result == "failed" else trace.result
    except Busy as error:
        trace.result = "refused"
        trace.findings.append(Finding("backup.busy", subject, "warning", str(error)))
        raise
    except Stopped:
        trace.findings.append(Finding(check, subject, "critical", "it was stopped before the end"))
        raise
    except Exception as error:
        if not any(str(error) == finding.message for finding in trace.findings):
            trace.findings.append(Finding(check, subject, "critical", str(error)))
        raise
    finally:
        line = record.line(
            what=what,
            subject=subject,
            result=trace.result,
            started=started,
            run_id=run_id or f"{PROGRAM}-{os.getpid()}-{int(time.time())}",
            by=os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.geteuid()),
            findings=trace.findings,
            details=trace.details,
        )
        record.append(path, line)
        if show is not None:
            show(line)
