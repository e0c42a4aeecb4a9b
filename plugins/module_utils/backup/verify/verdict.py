# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what was seen of a backup with what was expected, and say how far it can be trusted."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Secret
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Inspection, Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import Expectation
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import NEEDED, History
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Share
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span

#: From the best to the worst.
VERDICTS = ("verified", "structure_ok", "inconclusive", "stale", "damaged", "missing")

#: The verdicts that a backup may have by default.
GOOD = ("verified", "structure_ok")

#: Seconds by which a backup may seem to come from the future.
_SKEW = 300.0

#: Notes that need no attention by themselves.
_INFO = ("binlog.in_use", "members.link", "members.repeated", "text.newline", "manifest.unlisted")


@dataclass(frozen=True)
class Backup:
    """What is to be verified.

    :param path: a file, a directory, or a pattern of which the newest match is taken.
    :param name: what it is called in the history.
    :param format: ``auto``, ``plain``, ``tree`` or a name of :data:`formats.NAMES`.
    :param expect: what must be true of it.
    :param manifest: where its manifest is; by default it is looked for.
    :param unchanged: when its source was last found to be as the backup holds it, in seconds since the epoch.
    :param every: whether every match of a pattern is verified, not the newest alone.
    :param log: what the program that made it said, a file or a pattern; our own backups bring theirs along.
    :param identity: file with the key for what age has encrypted.
    :param secret: where the password of a repository is.
    :param share: how much of it is read in one run; None: all of it.
    :param left: what belongs to it and is not verified in this run, in words.
    """

    path: str
    name: str
    format: str = "auto"
    expect: Expectation = field(default_factory=Expectation)
    manifest: str | None = None
    unchanged: float | None = None
    every: bool = False
    log: str | None = None
    identity: str | None = None
    secret: Secret = field(default_factory=Secret)
    share: Share | None = None
    left: tuple[str, ...] = ()


@dataclass
class Result:
    """What is known of one backup; the fields are those that the module returns."""

    name: str
    path: str
    verdict: str = "inconclusive"
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    format: str | None = None
    compression: list[str] = field(default_factory=list)
    size: int | None = None
    expanded: int | None = None
    sha256: str | None = None
    made: float | None = None
    made_from: str | None = None
    age: float | None = None
    members: int | None = None
    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """Return the verdict and the first reason for it."""
        reasons = [finding for finding in self.findings if finding.severity == "critical"]
        if not reasons:
            return f"{self.path} is {self.verdict}"
        where = reasons[0].subject[len(self.path) :].lstrip("/!")
        return f"{self.path} is {self.verdict}: {where + ': ' if where else ''}{reasons[0].message}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as Ansible returns it."""
        value: dict[str, Any] = {**vars(self), "findings": [finding.as_dict() for finding in self.findings]}
        value["sentence"] = self.sentence()
        value["age"] = None if self.age is None else round(self.age)
        value["made"] = None if self.made is None else _utc(self.made)
        return value


class Check:
    """One verification under way.

    :ivar closed: nothing can be said about the content, because it could not be looked into.
    :ivar limited: why it is not verified although what was expected is true.
    """

    def __init__(self, backup: Backup, limits: Limits) -> None:
        self.backup = backup
        self.expect = backup.expect
        self.result = Result(backup.name, backup.path)
        self.inspection = Inspection(limits, backup.expect.members, backup.identity)
        self.manifest: manifest.Manifest | None = None
        self.confirmed: list[str] = []
        self.missing = False
        self.stale = False
        self.closed = False
        self.limited: str | None = None

    def problem(
        self,
        check: str,
        message: str,
        damage: bool = True,
        advice: str | None = None,
        note: bool = False,
    ) -> None:
        """Keep a problem of the backup as a whole."""
        self.inspection.problem("", Problem(check, message, damage, None, advice, note))

    def finding(self, check: str, message: str, advice: str | None = None, **values: Any) -> None:
        """Keep a finding that decides the verdict by itself."""
        self.result.findings.append(Finding(check, self.result.path, "critical", message, advice=advice, **values))

    @property
    def serious(self) -> bool:
        """Whether there is a problem already."""
        return any(not problem.note for _subject, problem in self.inspection.problems)

    @property
    def doubtful(self) -> bool:
        """Whether something could not be told, so that what was not seen may be there all the same."""
        return any(not problem.damage and not problem.note for _subject, problem in self.inspection.problems)


def compare_related(check: Check) -> None:
    if any(problem.damage and not problem.note for _subject, problem in check.inspection.problems):
        return  # what is missing is missing because of that
    problems, unchecked = check.inspection.related.judge(check.inspection.counts, check.inspection.attributes)
    for subject, problem in problems:
        check.inspection.problem(subject, problem)
    for text in unchecked:
        check.inspection.not_checked(text)


def compare_content(check: Check) -> None:
    """Compare members, databases, tables and counts."""
    expect, inspection = check.expect, check.inspection
    if check.closed:
        return
    members = inspection.members
    for problem in members.problems():
        inspection.problem("", problem)
    if inspection.has_members:
        check.result.members = members.count
        if not members.names_compared:
            inspection.not_checked("whether more names occur twice: there are too many to compare")
        if members.sparse:
            inspection.not_checked(f"the content of {members.sparse} sparse members")
        if not members.count and expect.min_members != 0 and not check.serious:
            check.problem(
                "backup.empty",
                "it holds no file at all",
                advice="Find out what should have been in it; set min_members to 0 if this is right.",
            )
    elif expect.min_members is not None:
        check.problem("expect.min_members", "members cannot be counted: it is no archive or directory", damage=False)
    if expect.members and not inspection.has_members and inspection.format != "env":
        check.problem("expect.members", "members cannot be looked for: it is no archive or directory", damage=False)
    doubtful = check.doubtful
    if inspection.has_members or inspection.format == "env":
        if members.missing:
            names = ", ".join(printable(name) for name in members.missing[:10])
            more = f" and {len(members.missing) - 10} more" if len(members.missing) > 10 else ""
            check.problem("expect.members", f"not found: {names}{more}", damage=not doubtful)
        elif expect.members:
            check.confirmed.append("members")
        if inspection.has_members and expect.min_members is not None:
            if members.count < expect.min_members:
                check.problem(
                    "expect.min_members",
                    f"it holds {members.count} members, but at least {expect.min_members} are expected",
                    damage=not doubtful,
                )
            elif expect.min_members:
                check.confirmed.append("min_members")
    _compare_counts(check, doubtful)


def _compare_counts(check: Check, doubtful: bool) -> None:
    expect, counts = check.expect, check.inspection.counts
    recorded = manifest.counts_of(check.manifest.counts) if check.manifest else {}
    if not (expect.databases or expect.tables or expect.min_rows or recorded):
        return
    if not counts and not check.inspection.has_members and check.inspection.format in (None, "env", "text"):
        check.problem("expect.tables", "tables cannot be looked for: it is no dump that is understood", damage=False)
        return
    absent = [name for name in expect.databases if name not in counts]
    if absent:
        check.problem("expect.databases", f"not found: database {', '.join(absent)}", damage=not doubtful)
    elif expect.databases:
        check.confirmed.append("databases")
    wrong: list[str] = []
    unknown: list[str] = []
    names = [*expect.tables, *expect.min_rows, *recorded]
    absent = sorted({name for name in names if _rows(counts, name) is _ABSENT})
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        check.problem("expect.tables", f"not found: {', '.join(absent[:10])}{more}", damage=not doubtful)
    for name, least in expect.min_rows.items():
        rows = _rows(counts, name)
        if rows is None:
            unknown.append(name)
        elif rows is not _ABSENT and rows < least:
            wrong.append(f"{name} has {rows} rows, but at least {least} are expected")
    for name, exact in recorded.items():
        rows = _rows(counts, name)
        if rows is None:
            unknown.append(name)
        elif rows is not _ABSENT and rows != exact:
            wrong.append(f"{name} has {rows} rows, but the manifest says {exact}")
    for message in wrong:
        check.problem("expect.rows", message, damage=not doubtful)
    if unknown:
        check.problem("expect.rows", f"rows cannot be counted: {', '.join(sorted(set(unknown)))}", damage=False)
    if names and not absent and not wrong and not unknown:
        check.confirmed.append("tables" if not expect.min_rows and not recorded else "rows")


class _Absent(int):
    """Stands for a table that is not there."""


_ABSENT = _Absent(-1)


def _rows(counts: Mapping[str, Mapping[str, int | None]], name: str) -> int | None:
    database, _dot, table = name.partition(".")
    # A dump of one database need not say which.
    tables = counts.get(database, counts.get("", {}))
    return tables.get(table, _ABSENT)


def compare_size(check: Check) -> None:
    expect, size = check.expect, check.result.size
    if size is None:
        return
    if expect.min_size is not None and size < expect.min_size:
        check.problem("expect.min_size", f"it has {size} bytes, but at least {expect.min_size} are expected")
    if expect.max_size is not None and size > expect.max_size:
        check.problem(
            "expect.max_size", f"it has {size} bytes, but at most {expect.max_size} are expected", damage=False
        )


def compare_change(check: Check, history: History | None) -> None:
    """Compare the size with the backups made before."""
    expect, size, made = check.expect, check.result.size, check.result.made
    if expect.size_change is None or size is None or made is None:
        return
    median, number = history.median(check.backup.name, made) if history else (None, 0)
    if median is None:
        check.inspection.not_checked(f"its size against earlier ones: {number} are known, {NEEDED} are needed")
    elif abs(size - median) > expect.size_change * median:
        change = (size - median) / median * 100 if median else 100.0
        check.problem(
            "expect.size_change",
            f"it has {size} bytes, {change:+.0f} % against the {median:.0f} of the {number} before it, "
            f"and {expect.size_change * 100:g} % are allowed",
            damage=False,
            advice="Find out what was added or lost; raise size_change if this is right.",
        )


def compare_age(check: Check, status: os.stat_result | None, now: float) -> None:
    """Compare the age.

    :param status: of the file or directory, None when it is not on this host.
    """
    result, expect = check.result, check.expect
    if check.closed or (status is None and result.made is None):
        return
    written = result.made or 0.0 if status is None else status.st_mtime
    created = check.inspection.created
    if check.manifest is not None and check.manifest.ended is not None:
        result.made, result.made_from = check.manifest.ended, "manifest"
    elif created is not None and (result.made_from or created < written):
        # A dump tells the local time of its host, which may seem later than the file.
        result.made, result.made_from = created, "content"
    elif result.made is None:
        result.made, result.made_from = written, "modification time"
    if check.backup.unchanged is not None and check.backup.unchanged > result.made:
        result.made, result.made_from = check.backup.unchanged, "source unchanged"
    result.age = now - result.made
    if expect.max_age is None:
        check.inspection.not_checked("its age: no max_age is expected")
    elif result.age < -_SKEW:
        check.problem(
            "expect.max_age",
            f"its age cannot be told: it says it was made at {_utc(result.made)}, {span(-result.age)} from now",
            damage=False,
            advice="Set the clocks of both hosts right.",
        )
    elif result.age > expect.max_age:
        check.stale = True
        check.finding(
            "expect.max_age",
            f"it was made {span(result.age)} ago ({result.made_from}), but at most {span(expect.max_age)} are allowed",
            "Find out why there is no newer one.",
            observed=round(result.age),
            limit=round(expect.max_age),
            unit="seconds",
        )


def conclude(check: Check, now: float) -> Result:
    result, inspection = check.result, check.inspection
    damaged = doubtful = False
    for subject, problem in inspection.problems:
        if problem.note:
            severity = "info" if problem.check in _INFO else "warning"
        else:
            severity = "critical"
            damaged = damaged or problem.damage
            doubtful = doubtful or not problem.damage
        whole = result.path + ("" if subject.startswith("!") or not subject else "/") + subject
        result.findings.append(
            Finding(
                problem.check,
                whole,
                severity,
                problem.message,
                observed=problem.offset,
                unit=None if problem.offset is None else "bytes",
                advice=problem.advice,
            )
        )
    if inspection.more_problems:
        result.findings.append(
            Finding("backup.more", result.path, "warning", f"{inspection.more_problems} more problems were found")
        )
    if check.missing:
        result.verdict = "missing"
    elif damaged:
        result.verdict = "damaged"
    elif check.stale:
        result.verdict = "stale"
    elif doubtful:
        result.verdict = "inconclusive"
    elif check.confirmed and check.limited is None:
        result.verdict = "verified"
    else:
        result.verdict = "structure_ok"
    if not check.confirmed and not check.missing:
        inspection.not_checked("whether it holds what it should: nothing is expected of its content")
    result.unchecked = inspection.unchecked
    result.format = result.format or inspection.format
    result.compression = inspection.layers
    result.expanded = inspection.expanded if inspection.layers else result.size
    result.counts = inspection.counts
    result.attributes = inspection.attributes
    order = ("critical", "warning", "info", "ok")
    result.findings.sort(key=lambda finding: order.index(finding.severity))
    if result.verdict in GOOD:
        confirmed = result.verdict == "verified"
        evidence = f" ({', '.join(dict.fromkeys(check.confirmed))})" if check.confirmed else ""
        why = check.limited or "nothing says what it should hold"
        words = "verified" if confirmed else f"structure_ok: sound, but {why}"
        result.findings.insert(0, Finding("backup.verdict", result.path, "ok", f"{words}{evidence}"))
    return result


def _utc(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
