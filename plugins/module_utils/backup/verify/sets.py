# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the backups of a source, taken together, recover what they must: a full one, its chain, the logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import recoverable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept, Store, StoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span


@dataclass(frozen=True)
class Wanted:
    """What must be recoverable of some sources.

    :param root: directory of all backups.
    :param sources: their names.
    :param full_within: seconds at most since the newest verified backup that stands on its own.
    :param recoverable_within: seconds at most between now and the last moment that can be recovered.
    """

    root: str
    sources: tuple[str, ...]
    full_within: float
    recoverable_within: float | None = None


@dataclass(frozen=True)
class Answer:
    """What is recoverable of one source, and what is wrong with that."""

    statement: recoverable.Statement
    findings: list[Finding]

    @property
    def good(self) -> bool:
        """Return whether all that is wanted is there."""
        return all(finding.severity != "critical" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return it as Ansible returns it."""
        return {
            **self.statement.as_dict(),
            "good": self.good,
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def reasons(self) -> str:
        """Return what is wrong, in one sentence."""
        wrong = "; ".join(finding.message for finding in self.findings if finding.severity == "critical")
        return f"{self.statement.source}: {wrong}"


def answer(wanted: Iterable[Wanted], now: float) -> list[Answer]:
    """Return the answer for every source of every set, from what lies on disk.

    :param now: seconds since the epoch.
    """
    answers = []
    for entry in wanted:
        for source in entry.sources:
            try:
                backups, troubles = Store(entry.root, source).backups()
            except StoreError as error:
                backups, troubles = [], [str(error)]
            answers.append(judge(entry, source, backups, troubles, now))
    return answers


def judge(wanted: Wanted, source: str, backups: Sequence[Kept], troubles: Sequence[str], now: float) -> Answer:
    """Compare what can be recovered of one source with what must be.

    :param backups: in the order in which they were made.
    :param troubles: what cannot be read beside them.
    """
    catalogue = recoverable.Catalogue(source, backups)
    statement = catalogue.statement()
    subject = f"{wanted.root}/{source}"
    findings = [Finding("recovery.unreadable", subject, "warning", text) for text in troubles]

    def wrong(check: str, message: str, advice: str, **values: Any) -> None:
        findings.append(Finding(check, subject, "critical", message, advice=advice, **values))

    fulls = [
        base
        for base in catalogue.bases
        if len(base.chain) == 1 and base.last.verdict in GOOD and base.last.manifest.ended is not None
    ]
    newest = max(fulls, key=lambda base: base.moment, default=None)
    if newest is None:
        wrong(
            "recovery.full",
            f"there is no verified full backup of {source}: {statement.sentence()}",
            "Make one, or verify those that are there.",
        )
    elif (age := now - (newest.last.current or newest.moment)) > wanted.full_within:
        wrong(
            "recovery.full",
            f"the newest verified full backup is {span(age)} old, but at most {span(wanted.full_within)} are allowed",
            "Find out why there is no newer one.",
            observed=round(age),
            limit=round(wanted.full_within),
            unit="seconds",
        )
    last = statement.windows[-1] if statement.windows else None
    # What was found unchanged since it was backed up is recoverable to that moment.
    behind = 0.0 if last is None else now - max(last.until, last.base.last.current or last.until)
    if last is not None and wanted.recoverable_within is not None and behind > wanted.recoverable_within:
        wrong(
            "recovery.until",
            f"it is recoverable to {span(behind)} ago, but at most {span(wanted.recoverable_within)} are "
            f"allowed: {last.ends}",
            "Find out why the backups do not go on from there.",
            observed=round(behind),
            limit=round(wanted.recoverable_within),
            unit="seconds",
        )
    for since, until, reason in statement.gaps:
        # What lies before the newest full backup is lost, but the way from it to now is what must hold.
        severe = newest is None or until > newest.moment
        message = f"it cannot be recovered from {recoverable.utc(since)} to {recoverable.utc(until)}: {reason}"
        advice = "Make a full backup now, and find out why the logs have a gap."
        findings.append(Finding("recovery.gap", subject, "critical" if severe else "warning", message, advice=advice))
    findings += [Finding("recovery.unusable", subject, "warning", text) for text in statement.unusable]
    if all(finding.severity != "critical" for finding in findings):
        findings.insert(0, Finding("recovery.statement", subject, "ok", statement.sentence()))
    return Answer(statement, findings)
