# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program worklog-backup: the backups of this host, made, verified, copied, pruned, fetched, without a controller.

Exit codes: 0 done; 1 failed or refused, nothing that looks like a backup was left; 2 wrong usage or configuration,
nothing was touched; 3 the backup was made, but something needs an operator now; 75 another program works on the source,
try again later.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import record
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import pruning, store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import job, keeping, trace
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.prune import OVERRIDES
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import ResticError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import cli as recovery
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.tiers import TierError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import ExpectationError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

OK, FAILED, USAGE, ALARM, BUSY = 0, 1, 2, 3, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    os.umask(0o077)
    try:
        config = configuration.load(options.config)
        return int(options.action(config, options))
    except (configuration.ConfigError, ExpectationError) as error:
        return _fail(USAGE, str(error))
    except store.Busy as error:
        return _fail(BUSY, str(error))
    except (MakeError, RestoreError, ResticError, TierError, store.StoreError, record.RecordError) as error:
        return _fail(FAILED, str(error))
    except trace.Stopped:
        return _fail(FAILED, "stopped before the end; what was begun is removed")


def _run(config: configuration.Config, options: argparse.Namespace) -> int:
    """Make a backup, and verify it if the source asks for it."""
    source = configuration.find(config, options.source)
    with _recorded(config, options, "backup", "backup.make", f"{source.name} {options.kind}") as work:
        kept = job.make(config, source, options.kind, clock=time.time, say=_say)
        work.details |= {"path": kept.path, "id": kept.id, "bytes": kept.size, "positions": kept.manifest.positions}
        work.details["unchanged"] = kept.unchanged is not None
        if kept.unchanged is None:
            _say(f"made {kept.path}, {kept.size} bytes")
        else:
            _say(f"unchanged since {kept.path}")
        for warning in kept.manifest.document.get("warnings", []):
            work.findings.append(Finding("backup.log", kept.path, "warning", str(warning)))
            _say(f"warning: {warning}")
        alarms = [str(alarm) for alarm in kept.manifest.document.get("alarms", [])]
        work.findings += [Finding("backup.alarm", kept.path, "critical", alarm) for alarm in alarms]
        verdict = "not verified"
        if source.verify:
            found = job.verify(config, source, kept, clock=time.time)
            work.findings += found.findings
            work.details["verdict"] = verdict = found.verdict
            if verdict not in GOOD:
                raise MakeError(found.sentence())
        _say(f"{kept.path} is {verdict}")
        if alarms:
            return _fail(ALARM, "; ".join(alarms))
    return OK


def _prune(config: configuration.Config, options: argparse.Namespace) -> int:
    """Tell the plan for each place, and remove what may go."""
    source = configuration.find(config, options.source)
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
        print(json.dumps([outcome.as_dict() for outcome in outcomes], indent=1, ensure_ascii=False))
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
    source = configuration.find(config, options.source)
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
    source = configuration.find(config, options.source)
    with _recorded(config, options, "backup_fetch", "backup.fetch", f"{source.name} {options.tier}") as work:
        kept = keeping.fetch(config, source, options.tier, options.backup, now=time.time(), say=_say)
        work.details |= {"path": kept.path, "id": kept.id, "bytes": kept.size}
    return OK


def _init(config: configuration.Config, options: argparse.Namespace) -> int:
    """Make the repository of a tier."""
    source = configuration.find(config, options.source)
    _say(f"made the repository {keeping.create(source, options.tier)} for {source.name} {options.tier}")
    return OK


def _verify(config: configuration.Config, options: argparse.Namespace) -> int:
    """Read backups again and remember the verdicts."""
    source = configuration.find(config, options.source)
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
        rows, names = keeping.catalog(config, configuration.find(config, options.source or ""), options.tier), []
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
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for row in rows:
            verdict = row["verdict"] or "unverified"
            size = row.get("size", row["id"])  # what a tier has is fetched by its id
            print(f"{row['end']}  {row['kind']:<11}  {verdict:<12}  {size:>14}  {row['path']}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=trace.PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=configuration.PATH, help=f"default: {configuration.PATH}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, action: Callable[[configuration.Config, argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        return sub

    sub = verb("run", _run, "make one backup of a source, and verify it")
    sub.add_argument("source")
    sub.add_argument("kind", help="full, incremental, log, ...; an unknown one is answered with what there is")
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("verify", _verify, "read backups again and remember the verdict; by default the newest")
    sub.add_argument("source")
    sub.add_argument("backup", nargs="?", help="its id or path")
    sub.add_argument("--all", action="store_true", help="every backup of the source")
    sub = verb("list", _list, "show the backups of a source, or of all")
    sub.add_argument("source", nargs="?")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument("--tier", help="what a tier has, as its repository tells")
    sub = verb("prune", _prune, "remove what newer verified backups make redundant, here and in the remote tier")
    sub.add_argument("source")
    sub.add_argument("place", nargs="?", help="local, or a tier; by default all that are not kept for ever")
    sub.add_argument("--dry-run", action="store_true", help="tell the plan and change nothing")
    sub.add_argument("--allow", action="append", default=[], choices=list(OVERRIDES), help="override a refusal once")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("copy", _copy, "copy what the tiers lack, read it back, and check the repositories")
    sub.add_argument("source")
    sub.add_argument("--tier", help="by default all of the source")
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("fetch", _fetch, "bring a backup back from a tier, and verify it")
    sub.add_argument("source")
    sub.add_argument("backup", help="its id")
    sub.add_argument("--tier", required=True)
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("init", _init, "make the repository of a tier")
    sub.add_argument("source")
    sub.add_argument("tier")
    recovery.add_verbs(verb)
    return parser


def _recorded(
    config: configuration.Config, options: argparse.Namespace, what: str, check: str, subject: str
) -> contextlib.AbstractContextManager[trace.Trace]:
    return trace.recorded(config.records, what, check, subject, options.run_id)


def _stop(*_unused: object) -> None:
    raise trace.Stopped


def _quiet(text: str) -> None:
    """Say nothing, where only JSON is wanted."""


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(code: int, text: str) -> int:
    print(f"{trace.PROGRAM}: {text}", file=sys.stderr, flush=True)
    return code
