# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program worklog-backup: makes, verifies and lists the backups of this host, with or without a controller.

Exit codes: 0 done; 1 failed, nothing that looks like a backup was left; 2 wrong usage or configuration, nothing was
touched; 3 the backup was made, but something needs an operator now; 75 another program works on the source, try again
later.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import record
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import job
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import ExpectationError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

PROGRAM = "worklog-backup"

OK, FAILED, USAGE, ALARM, BUSY = 0, 1, 2, 3, 75


class _Stopped(BaseException):
    """The program was told to end."""


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
    except (MakeError, store.StoreError, record.RecordError) as error:
        return _fail(FAILED, str(error))
    except _Stopped:
        return _fail(FAILED, "stopped before the end; what was begun is removed")


def _run(config: configuration.Config, options: argparse.Namespace) -> int:
    """Make a backup, verify it if the source asks for it, and leave a record of both, also when they fail."""
    source = _source(config, options.source)
    started, subject = job.utc(time.time()), f"{source.name} {options.kind}"
    findings: list[Finding] = []
    details: dict[str, Any] = {}
    result = "failed"
    try:
        kept = job.make(config, source, options.kind, clock=time.time, say=_say)
        details = {"path": kept.path, "id": kept.id, "bytes": kept.size, "positions": kept.manifest.positions}
        details["unchanged"] = kept.unchanged is not None
        if kept.unchanged is None:
            _say(f"made {kept.path}, {kept.size} bytes")
        else:
            _say(f"unchanged since {kept.path}")
        for warning in kept.manifest.document.get("warnings", []):
            findings.append(Finding("backup.log", kept.path, "warning", str(warning)))
            _say(f"warning: {warning}")
        alarms = [str(alarm) for alarm in kept.manifest.document.get("alarms", [])]
        findings += [Finding("backup.alarm", kept.path, "critical", alarm) for alarm in alarms]
        verdict = "not verified"
        if source.verify:
            found = job.verify(config, source, kept, clock=time.time)
            findings += found.findings
            details["verdict"] = verdict = found.verdict
            if verdict not in GOOD:
                raise MakeError(found.sentence())
        result = "ok"
        _say(f"{kept.path} is {verdict}")
        if alarms:
            return _fail(ALARM, "; ".join(alarms))
    except store.Busy as error:
        result = "refused"
        findings.append(Finding("backup.busy", subject, "warning", str(error)))
        raise
    except (MakeError, store.StoreError) as error:
        findings.append(Finding("backup.make", subject, "critical", str(error)))
        raise
    except _Stopped:
        findings.append(Finding("backup.make", subject, "critical", "it was stopped before the end"))
        raise
    finally:
        by = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.geteuid())
        line = record.line(
            what="backup",
            subject=subject,
            result=result,
            started=started,
            run_id=options.run_id or f"{PROGRAM}-{os.getpid()}-{int(time.time())}",
            by=by,
            findings=findings,
            details=details,
        )
        record.append(config.records, line)
    return OK


def _verify(config: configuration.Config, options: argparse.Namespace) -> int:
    """Read backups again and remember the verdicts."""
    source = _source(config, options.source)
    place = store.Store(config.root, source.name)
    with place.lock("verification"):
        backups, troubles = place.backups()
        chosen = [kept for kept in backups if not options.backup or options.backup in (kept.id, kept.path)]
        if not chosen:
            raise MakeError(f"{source.name} has no such backup; list them with: {PROGRAM} list {source.name}")
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
    rows = []
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
            print(f"{row['end']}  {row['kind']:<11}  {verdict:<12}  {row['size']:>14}  {row['path']}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    return parser


def _source(config: configuration.Config, name: str) -> configuration.Source:
    if name not in config.sources:
        raise configuration.ConfigError(f"there is no source '{name}'; there are {', '.join(config.sources) or 'none'}")
    return config.sources[name]


def _stop(*_unused: object) -> None:
    raise _Stopped


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(code: int, text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
    return code
