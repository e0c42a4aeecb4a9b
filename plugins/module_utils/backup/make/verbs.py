# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the program worklog-backup does for each of its verbs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command, record
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import console, pruning, store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import (
    account,
    failure,
    job,
    keeping,
    trace,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import ResticError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import verbs as recovery
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.tiers import TierError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import ExpectationError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

OK, FAILED, USAGE, ALARM, BUSY = 0, 1, 2, 3, 75


def call(options: argparse.Namespace) -> int:
    """Do what the program is told, and return its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    os.umask(0o077)
    try:
        config = configuration.load(options.config or configuration.PATH)
        return ACTIONS[options.verb](config, options)
    except (configuration.ConfigError, ExpectationError) as error:
        return _fail(USAGE, str(error))
    except store.Busy as error:
        return _fail(BUSY, str(error))
    except (MakeError, RestoreError, ResticError, TierError, store.StoreError) as error:
        return _fail(FAILED, str(error))
    except (command.CommandError, record.RecordError) as error:
        return _fail(FAILED, str(error))
    except trace.Stopped:
        return _fail(FAILED, "stopped before the end; what was begun is removed")


def _run(config: configuration.Config, options: argparse.Namespace) -> int:
    """Make a backup, and verify it if the source asks for it."""
    # Opened by the account that was called: the owner of the backups may not enter its directory.
    progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT, 0o600) if options.progress else None
    source = _source(config, options.source)
    kind = options.kind or next(iter(source.engine.kinds))
    if options.dry_run:
        _say(job.outlook(config, source, kind))
        return OK
    subject = f"{source.name} {kind}"
    say = _say if progress is None else partial(_say_to, progress, subject)
    show = _show if options.json else None
    with _recorded(config, options, "backup", "backup.make", subject, show) as work:
        kept = job.make(config, source, kind, clock=time.time, say=say)
        work.details |= {"path": kept.path, "id": kept.id, "bytes": kept.size, "positions": kept.manifest.positions}
        work.details["unchanged"] = kept.unchanged is not None
        if kept.unchanged is None:
            say(f"made {kept.path}, {kept.size} bytes")
        else:
            say(f"unchanged since {kept.path}")
        for warning in kept.manifest.document.get("warnings", []):
            work.findings.append(Finding("backup.log", kept.path, "warning", str(warning)))
            say(f"warning: {warning}")
        alarms = [str(alarm) for alarm in kept.manifest.document.get("alarms", [])]
        work.findings += [Finding("backup.alarm", kept.path, "critical", alarm) for alarm in alarms]
        verdict = "not verified"
        if source.verify:
            found = job.verify(config, source, kept, clock=time.time)
            work.findings += found.findings
            work.details["verdict"] = verdict = found.verdict
            if verdict not in GOOD:
                raise MakeError(found.sentence())
        say(f"{kept.path} is {verdict}")
        if alarms:
            return _fail(ALARM, "; ".join(alarms))
    return OK


def _prune(config: configuration.Config, options: argparse.Namespace) -> int:
    """Tell the plan for each place, and remove what may go."""
    source = _source(config, options.source)
    say = _quiet if options.json else _say
    outcomes = []
    for place in [options.place] if options.place else keeping.prunable(source):
        arguments: dict[str, Any] = {"now": time.time(), "allow": options.allow, "dry": options.dry_run, "say": say}
        if options.dry_run:
            outcome = keeping.prune(config, source, place, **arguments)
        else:
            with _recorded(config, options, "backup_prune", "backup.prune", f"{source.name} {place}") as work:
                outcome = keeping.prune(config, source, place, **arguments)
                work.findings += outcome.findings
                work.details |= {"deleted": outcome.deleted, "freed": outcome.freed}
                work.result = "failed" if outcome.failed else "refused" if outcome.refused else "ok"
        outcomes.append(outcome)
        if not options.json:
            _tell(outcome, dry=options.dry_run)
    if options.json:
        console.say(json.dumps([outcome.as_dict() for outcome in outcomes], indent=1, ensure_ascii=False))
    return FAILED if any(outcome.failed or outcome.refused for outcome in outcomes) else OK


def _tell(outcome: pruning.Outcome, dry: bool) -> None:
    for decision in outcome.plan.decisions:
        _say(f"{'keep  ' if decision.keep else 'delete'}  {decision.backup.path}: {decision.reason}")
    for finding in outcome.findings:
        _say(f"{finding.severity}: {finding.message}{'; ' if finding.advice else ''}{finding.advice or ''}")
    freed = "" if outcome.freed is None else f", {outcome.freed} bytes"
    kept = len(outcome.plan.decisions) - len(outcome.plan.delete)
    _say(f"{outcome.subject}: {len(outcome.deleted)} {'would go' if dry else 'removed'}{freed}; {kept} kept")


def _copy(config: configuration.Config, options: argparse.Namespace) -> int:
    """Copy to each tier; one that fails does not keep the others from theirs."""
    source = _source(config, options.source)
    if not source.tiers:
        raise configuration.ConfigError(f"{source.name} has no tiers")
    errors: list[Exception] = []
    for name in [options.tier] if options.tier else source.tiers:
        try:
            with _recorded(config, options, "backup_copy", "backup.copy", f"{source.name} {name}") as work:
                copied = keeping.copy(config, source, name, clock=time.time, say=_say)
                work.findings += copied.findings
                work.details |= {"copied": copied.added, "proven": copied.proven}
                for finding in copied.findings:
                    _say(f"{finding.severity}: {finding.message}")
                _say(f"{copied.subject}: {len(copied.added)} copied, {len(copied.proven)} proven")
                if copied.failed:
                    raise TierError(copied.failed)
        except (ResticError, TierError, store.StoreError) as error:
            errors.append(error)
            _fail(FAILED, str(error))
    if not errors:
        return OK
    return BUSY if all(isinstance(error, store.Busy) for error in errors) else FAILED


def _fetch(config: configuration.Config, options: argparse.Namespace) -> int:
    """Bring a backup back from a tier."""
    source = _source(config, options.source)
    with _recorded(config, options, "backup_fetch", "backup.fetch", f"{source.name} {options.tier}") as work:
        kept = keeping.fetch(config, source, options.tier, options.backup, now=time.time(), say=_say)
        work.details |= {"path": kept.path, "id": kept.id, "bytes": kept.size}
    return OK


def _init(config: configuration.Config, options: argparse.Namespace) -> int:
    """Make the repository of a tier."""
    source = _source(config, options.source)
    _say(f"made the repository {keeping.create(source, options.tier)} for {source.name} {options.tier}")
    return OK


def _verify(config: configuration.Config, options: argparse.Namespace) -> int:
    """Read backups again and remember the verdicts."""
    source = _source(config, options.source)
    place = store.Store(config.root, source.name)
    with place.lock("verification"):
        backups, troubles = place.backups()
        chosen = [kept for kept in backups if not options.backup or options.backup in (kept.id, kept.path)]
        if not chosen:
            raise MakeError(f"{source.name} has no such backup; list them with: {trace.PROGRAM} list {source.name}")
        if not options.all and not options.backup:
            chosen = chosen[-1:]
        bad = 0
        for kept in chosen:
            found = job.verify(config, source, kept, clock=time.time)
            _say(found.sentence())
            bad += found.verdict not in GOOD
        for trouble in troubles:
            _say(f"passed over: {trouble}")
    return FAILED if bad else OK


def _list(config: configuration.Config, options: argparse.Namespace) -> int:
    """Show the backups, for people or as JSON."""
    names = [options.source] if options.source else sorted({*config.sources, *store.sources(config.root)})
    rows: list[dict[str, Any]] = []
    if options.tier:
        rows, names = keeping.catalog(config, _source(config, options.source or ""), options.tier), []
    for name in names:
        backups, troubles = store.Store(config.root, name).backups()
        for trouble in troubles:
            _say(f"passed over: {trouble}")
        rows += [
            {
                "source": name,
                "kind": kept.manifest.kind,
                "id": kept.id,
                "parent": kept.manifest.parent,
                "sequence": kept.manifest.sequence,
                "end": None if kept.manifest.ended is None else job.utc(kept.manifest.ended),
                "unchanged": None if kept.unchanged is None else job.utc(kept.unchanged),
                "size": kept.size,
                "verdict": kept.verdict,
                "verified": None if kept.verified is None else job.utc(kept.verified),
                "positions": kept.manifest.positions,
                "path": kept.path,
            }
            for kept in backups
        ]
    if options.json:
        console.say(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for row in rows:
            verdict = row["verdict"] or "unverified"
            size = row.get("size", row["id"])  # what a tier has is fetched by its id
            console.say(f"{row['end']}  {row['kind']:<11}  {verdict:<12}  {size:>14}  {row['path']}")
    return OK


def _check(config: configuration.Config, options: argparse.Namespace) -> int:
    """Say what the configuration means; that it can be used was found out when it was read."""
    for source in config.sources.values():
        owner = account.of(source)
        works = dict.fromkeys([*source.engine.kinds, *source.calendars])
        times = ", ".join(f"{work} ({source.calendars.get(work) or 'on demand'})" for work in works)
        watched = f"; when {', '.join(source.watch)} changes" if source.watch else ""
        _say(f"{source.name}: {source.engine.name} as {owner.pw_name}: {times}{watched}")
    if not config.sources:
        _say("there are no sources")
    return OK


def _failed(config: configuration.Config, options: argparse.Namespace) -> int:
    """Leave a record of a unit that has failed, and tell the site's own program of it."""
    try:
        found = failure.read(options.unit, command.run)
    except ValueError as error:
        raise configuration.ConfigError(str(error)) from error
    line = record.line(
        what="backup_unit",
        subject=found.unit,
        result="failed",
        run_id=f"{trace.PROGRAM}-{os.getpid()}-{int(time.time())}",
        by="systemd",
        findings=[found.finding()],
        details={"result": found.result, "status": found.status, "journal": list(found.lines)},
    )
    record.append(config.records, line)
    _say(found.sentence)
    if config.notify:
        told = command.run(config.notify, timeout=60, stdin=json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if not told.ok:
            raise command.CommandError(f"the failure is recorded, but {told.describe()}", list(config.notify))
    return OK


#: What is done, by verb.
ACTIONS: dict[str, Callable[[configuration.Config, argparse.Namespace], int]] = {
    "run": _run,
    "verify": _verify,
    "list": _list,
    "prune": _prune,
    "copy": _copy,
    "fetch": _fetch,
    "init": _init,
    "status": recovery.status,
    "restore": recovery.restore,
    "check": _check,
    "failed": _failed,
}


def _recorded(
    config: configuration.Config,
    options: argparse.Namespace,
    what: str,
    check: str,
    subject: str,
    show: Callable[[Mapping[str, Any]], None] | None = None,
) -> contextlib.AbstractContextManager[trace.Trace]:
    return trace.recorded(config.records, what, check, subject, options.run_id, show)


def _source(config: configuration.Config, name: str) -> configuration.Source:
    """Return a source and become the account that owns its backups, so that no file of another one gets among them."""
    source = configuration.find(config, name)
    account.become(source)
    return source


def _stop(*_unused: object) -> None:
    raise trace.Stopped


def _quiet(text: str) -> None:
    """Say nothing, where only JSON is wanted."""


def _say(text: str) -> None:
    console.say(text)


def _say_to(progress: int, subject: str, text: str) -> None:
    """Say it, and keep it for the one who looks at the run from outside."""
    _say(text)
    line = f"{subject}: {text}\n".encode("utf-8", "replace")
    os.ftruncate(progress, os.pwrite(progress, line, 0))


def _show(line: Mapping[str, Any]) -> None:
    console.say(json.dumps(line, ensure_ascii=False))


def _fail(code: int, text: str) -> int:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    console.complain(f"{trace.PROGRAM}: {line}")
    return code
