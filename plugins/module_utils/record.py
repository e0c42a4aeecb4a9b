# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trace that every maintenance run leaves: one JSON object a line, appended under a lock and synced to disk."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding, worst

#: Where the records of a host are kept.
PATH = "/var/log/worklog-maintenance/records.jsonl"

#: Version of the fields of a record.
SCHEMA = 1


class RecordError(Exception):
    """The record could not be written."""


def line(
    *,
    what: str,
    result: str,
    subject: str | None,
    run_id: str | None = None,
    host: str | None = None,
    by: str | None = None,
    controller: str | None = None,
    started: str | None = None,
    downtime_seconds: float | None = None,
    recovery_seconds: float | None = None,
    findings: Sequence[Finding] = (),
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a record that ends now; the module ``record`` documents the fields."""
    ended = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "what": what,
        "subject": subject,
        "host": host or platform.node(),
        "by": by,
        "controller": controller,
        "started": started or ended,
        "ended": ended,
        "result": result,
        "severity": worst(findings),
        "downtime_seconds": downtime_seconds,
        "recovery_seconds": recovery_seconds,
        "findings": [item.as_dict() for item in findings],
        "details": dict(details or {}),
    }


def append(path: str, record: Mapping[str, Any], *, timeout: float = 10.0) -> None:
    """Append one record and return when it is on disk.

    A line that a crash left unfinished is closed first, so that it spoils itself and nothing after it.

    :param path: the file; it is created with mode 0640 and its directory with 0750.
    :param record: what to write; must be representable as JSON.
    :param timeout: seconds to wait for another writer.
    :raises RecordError: when it cannot be written or the lock is not free in time.
    """
    line = json.dumps(record, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace") + b"\n"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o750, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            _lock(descriptor, path, timeout)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, size)
                raise RecordError(f"cannot write a record to {path}: the file system is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordError(f"cannot write a record to {path}: {error.strerror}") from error


def read(path: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, oldest first; lines that a crash left unfinished are passed over.

    :raises FileNotFoundError: when there is no such file.
    """
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _lock(descriptor: int, path: str, timeout: float) -> None:
    if not files.lock(descriptor, timeout):
        raise RecordError(f"cannot write a record to {path}: it is locked by another process")
