# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a full backup of mariadb-backup and its incremental ones follow each other, from what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Backup:
    """What is known of one backup; the figures are those of its ``xtrabackup_checkpoints`` and ``xtrabackup_info``.

    :param name: how it is told to the operator.
    :param uuid: its own; None when it is not known.
    :param parent: the uuid of the backup that it was made against, written down when it was made; None when it was not.
    :param prepared: whether it has been prepared.
    """

    name: str
    incremental: bool
    from_lsn: int
    to_lsn: int
    uuid: str | None = None
    parent: str | None = None
    prepared: bool = False


@dataclass(frozen=True)
class Problem:
    """A link that does not hold.

    :param name: the backup that does not follow the one before it.
    :param message: one sentence for the operator.
    :param sure: whether it is broken; else it cannot be told.
    """

    name: str
    message: str
    sure: bool = True


def chain(backups: Sequence[Backup]) -> list[Problem]:
    """Return what is wrong with backups that are to be restored in this order, the full one first.

    Without a checkpoint between them, several backups end at the same LSN: then only the recorded parent tells which of
    them comes first.
    """
    found = []
    for number, backup in enumerate(backups):
        earlier = backups[:number]
        if not earlier:
            if backup.incremental or backup.from_lsn:
                found.append(Problem(backup.name, f"{backup.name} is no full backup: the chain has no beginning"))
            continue
        before = earlier[-1]
        if not backup.incremental:
            found.append(Problem(backup.name, f"{backup.name} is a full backup in the middle of a chain"))
        elif backup.prepared:
            found.append(Problem(backup.name, f"{backup.name} was prepared and cannot be applied any more"))
        elif backup.from_lsn != before.to_lsn:
            found.append(
                Problem(
                    backup.name,
                    f"{backup.name} begins at LSN {backup.from_lsn}, but {before.name} ends at {before.to_lsn}",
                )
            )
        elif backup.parent is not None and before.uuid is not None and backup.parent != before.uuid:
            other = next((entry.name for entry in earlier if entry.uuid == backup.parent), "a backup that is not here")
            found.append(Problem(backup.name, f"{backup.name} was made against {other}, not against {before.name}"))
        elif (backup.parent is None or before.uuid is None) and any(
            entry.to_lsn == before.to_lsn for entry in earlier[:-1]
        ):
            text = f"{backup.name} may follow more than one backup that ends at LSN {before.to_lsn}"
            found.append(Problem(backup.name, f"{text}: its parent was not written down", sure=False))
    return found
