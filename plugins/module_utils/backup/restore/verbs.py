# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the program worklog-backup knows of recovery: the verbs status and restore."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command, record, units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import console, store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import Config, ConfigError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Catalogue, utc
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import inplace, job, scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding


def status(config: Config, options: argparse.Namespace) -> int:
    """Tell what can be recovered."""
    names = [options.source] if options.source else sorted({*config.sources, *store.sources(config.root)})
    statements = []
    for name in names:
        backups, troubles = store.Store(config.root, name).backups()
        for trouble in troubles:
            console.say(f"passed over: {trouble}")
        statements.append(Catalogue(name, backups, unverified=options.unverified).statement())
    if options.json:
        console.say(json.dumps([statement.as_dict() for statement in statements], indent=1, ensure_ascii=False))
    else:
        for statement in statements:
            console.say(statement.sentence())
            for line in statement.unusable if statement.windows else ():
                console.say(f"  {line}")
    return 0 if all(statement.windows for statement in statements) else 1


def restore(config: Config, options: argparse.Namespace) -> int:
    """Restore a source, and leave a record of it."""
    request = job.Request(
        config.root,
        options.source,
        time=job.parse_time(options.time),
        gtid=options.gtid,
        event=options.before_event,
        backup=options.backup,
        unverified=options.unverified,
        scratch=options.scratch or scratch.ROOT,
        options={"identity": options.identity, "directory": options.in_place},
    )
    if options.plan:
        with scratch.directory(request.scratch, options.source) as place:
            plan, _restorer, event = job.decide(request, job.work_in(place, request, _say))
        console.say(plan.sentence() + (f": {event}" if event else ""))
        return 0
    began, started = time.monotonic(), utc(time.time())
    findings: list[Finding] = []
    details: dict[str, Any] = {}
    result, downtime = "failed", None
    try:
        if options.in_place:
            inplace.confirmed(options.confirm, options.source)
            production = inplace.Production(options.in_place, options.service, tuple(options.application))
            with inplace.held(options.source) as journal:
                work = inplace.InPlace(request, production, journal, command.run, _say)
                try:
                    if options.put_back:
                        work.put_back()
                    else:
                        work.look()
                        work.restore()
                finally:
                    findings, downtime = work.findings, work.downtime
                    details = {key: value for key, value in journal.values.items() if key != "wanted"}
        else:
            try:
                serve = units.duration(options.serve) if options.serve else 0.0
            except ValueError as error:
                raise ConfigError(f"--serve is {options.serve!r}, but must be {error}") from None
            restored, how = job.to_scratch(request, _say, serve=serve)
            details, findings = restored.as_dict(), job.findings_of(restored)
            for text in (restored.event, restored.reached, restored.path, how and f"ask it with: {how}"):
                if text:
                    _say(text)
            if not restored.good:
                raise RestoreError("; ".join(finding.message for finding in restored.examined.findings))
        result = "ok"
    except RestoreError as error:
        findings.append(Finding("restore", options.source, "critical", str(error)))
        raise
    finally:
        record.append(
            config.records,
            record.line(
                what="restore",
                subject=options.source,
                result=result,
                started=started,
                by=os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.geteuid()),
                recovery_seconds=round(time.monotonic() - began, 3) if result == "ok" else None,
                downtime_seconds=downtime,
                findings=findings,
                details=details,
            ),
        )
    return 0


def _say(text: str) -> None:
    console.say(text)
