# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out the plan of pruning on the backups of a source on this host.

What is about to go is written down first. After a crash only whole backups have a name, and the next run goes on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import prune
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Store, StoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

STATE = "prune.json"


@dataclass
class Outcome:
    """What was decided and done in one place.

    :param subject: the source, and the tier when it is not this host.
    :param plan: what becomes of each backup, and why.
    :param deleted: paths that are gone, or would be in a dry run.
    :param freed: bytes on disk that this freed, or would; None when that cannot be told.
    :param findings: what an operator must know.
    :param failed: why not everything went that was to go.
    """

    subject: str
    plan: prune.Plan
    deleted: list[str] = field(default_factory=list)
    freed: int | None = 0
    findings: list[Finding] = field(default_factory=list)
    failed: str | None = None

    @property
    def refused(self) -> str | None:
        """Return why nothing went that was to go, or may ever go as things are."""
        return "; ".join(self.plan.refusals.values()) or None

    def rows(self) -> list[dict[str, Any]]:
        """Return the plan as the module and the program return it."""
        return [
            {
                "subject": self.subject,
                "id": decision.backup.id,
                "path": decision.backup.path,
                "kind": decision.backup.manifest.kind,
                "sequence": decision.backup.manifest.sequence,
                "verdict": decision.backup.verdict,
                "size": decision.backup.size,
                "keep": decision.keep,
                "reason": decision.reason,
            }
            for decision in self.plan.decisions
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as the program prints it for other programs."""
        return {
            "subject": self.subject,
            "plan": self.rows(),
            "deleted": self.deleted,
            "freed": self.freed,
            "refused": self.refused,
            "failed": self.failed,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def local(
    store: Store,
    policy: prune.Policy,
    *,
    now: float,
    tiers: Iterable[prune.Holding] = (),
    allow: Collection[str] = (),
    dry: bool = False,
    say: Callable[[str], None],
) -> Outcome:
    """Prune the backups of a source on this host.

    :param now: seconds since the epoch.
    :param tiers: the tiers that must prove to hold what goes.
    :param allow: refusals to override.
    :param dry: plan only; nothing at all is written.
    :param say: tells the operator what is done now.
    :raises StoreError: when the backups cannot be read, or another program works on them.
    """
    if dry:
        outcome = _plan(store, policy, store.recall(STATE), now, tiers, allow)
        outcome.deleted = [kept.path for kept in outcome.plan.delete]
        outcome.freed = sum(map(disk_usage, outcome.deleted))
        return outcome
    with store.lock("pruning"):
        for path in store.clean():
            say(f"removed {path}, which an interrupted run has left")
        state = store.recall(STATE)
        outcome = _plan(store, policy, state, now, tiers, allow)
        doomed = outcome.plan.delete
        if not {"time", "clock"} & set(outcome.plan.refusals):
            state["seen"] = now
        state["held"] = {id: until for id, until in _held(state).items() if until > now}
        store.remember(STATE, {**state, "deleting": [kept.id for kept in doomed]})
        for kept in doomed:
            freed = disk_usage(kept.path)
            try:
                store.discard(kept.path)
            except StoreError as error:
                outcome.failed = str(error)
                outcome.findings.append(Finding("backup.prune.remove", kept.path, "critical", str(error)))
                break
            outcome.deleted.append(kept.path)
            outcome.freed = (outcome.freed or 0) + freed
            say(f"removed {kept.path}, {freed} bytes")
        if outcome.failed is None:
            store.remember(STATE, {**state, "deleting": []})
    return outcome


def hold(store: Store, id: str, until: float) -> None:
    """Have a backup kept until a moment, whatever the policy says.

    :raises StoreError: when it cannot be written down.
    """
    state = store.recall(STATE)
    store.remember(STATE, {**state, "held": {**_held(state), id: until}})


def disk_usage(path: str) -> int:
    """Return the bytes on disk that removing a directory frees: files that others share do not count."""
    inodes: dict[tuple[int, int], list[int]] = {}
    for place, subdirectories, names in os.walk(path):
        for name in [*subdirectories, *names]:
            status = os.lstat(os.path.join(place, name))
            links = 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            entry = inodes.setdefault((status.st_dev, status.st_ino), [links, 0, status.st_blocks * 512])
            entry[1] += 1
    return sum(size for links, seen, size in inodes.values() if seen == links)


def _plan(
    store: Store,
    policy: prune.Policy,
    state: Mapping[str, Any],
    now: float,
    tiers: Iterable[prune.Holding],
    allow: Collection[str],
) -> Outcome:
    backups, troubles = store.backups()
    plan = prune.plan(
        store.source,
        backups,
        policy,
        now=now,
        seen=state.get("seen"),
        tiers=tiers,
        held=_held(state),
        approved=state.get("deleting") or (),
        allow=allow,
    )
    foreign = [
        Finding("backup.prune.foreign", store.source, "warning", f"{trouble}; its directory is not touched")
        for trouble in troubles
    ]
    return Outcome(store.source, plan, findings=[*plan.findings(store.source), *foreign])


def _held(state: Mapping[str, Any]) -> dict[str, float]:
    held = state.get("held")
    return {str(id): float(until) for id, until in held.items()} if isinstance(held, Mapping) else {}
