# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify a repository of restic or borg through its own program, and compare what it holds with what was expected.

No lock is taken, so that a check never makes a backup fail and works on what may only be read. When the program finds
damage while somebody else was at work there, that is inconclusive.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Closed, Secret
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Rotation
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

#: Seconds for one command: as long as a check in the background may take.
TIMEOUT = 24 * 3600.0

_RESTIC = ("config", "data", "index", "keys", "snapshots")
_REMOTE = {
    "restic": re.compile(r"(?:sftp|rest|s3|b2|azure|gs|swift|rclone):"),
    "borg": re.compile(r"ssh://|[^/:]+:"),
}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of restic or an archive of borg; ``tags`` is None where there are none to have."""

    id: str
    time: float
    host: str = ""
    tags: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Runner:
    """What runs programs: to the end, and with the output read meanwhile."""

    run: Callable[..., command.Result] = command.run
    stream: Callable[..., command.Result] = command.stream


class Tool(Protocol):
    """The program of one kind of repository."""

    #: The format's and the program's name.
    name: str

    def look(self) -> Problem | None:
        """Return what is wrong with the files alone; after that the program had better not touch them."""

    def snapshots(self) -> list[Snapshot]:
        """Return what is in it, the oldest first.

        :raises Closed: when that cannot be told.
        """

    def check(self, rotation: Rotation | None) -> tuple[list[Problem], str | None]:
        """Check it and read its data, those whose turn it is; return the problems and what was not read, in words."""

    def names(self, snapshot: Snapshot, take: Callable[[str, bool], None]) -> list[Problem]:
        """Hand over every path in a snapshot, and whether it is a directory."""

    def in_use(self) -> bool:
        """Return whether somebody works on it now."""


@dataclass
class Given:
    """Everything that a tool needs to begin."""

    path: str
    secret: Secret = field(default_factory=Secret)
    runner: Runner = field(default_factory=Runner)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def kind_of(path: str) -> str | None:
    """Return the kind of repository that a directory is by what lies in it, None when it is none."""
    try:
        names = set(os.listdir(path))
    except OSError:
        return None
    if len(names.intersection(_RESTIC)) >= len(_RESTIC) - 1 and {"keys", "snapshots"} & names:
        return "restic"
    if "data" in names and (
        _begins(os.path.join(path, "README"), b"This is a Borg Backup repository")
        or _begins(os.path.join(path, "config"), b"[repository]")
    ):
        return "borg"
    return None


def is_remote(format: str, path: str) -> bool:
    """Return whether a repository is not a directory of this host."""
    return format in _REMOTE and bool(_REMOTE[format].match(path)) and not os.path.lexists(path)


def verify(check: Check, tool: Tool, rotation: Rotation | None) -> None:
    """Verify a repository; everything goes into the check."""
    inspection, expect = check.inspection, check.expect
    check.result.format = tool.name
    inspection.has_members = True
    problem = tool.look()
    if problem is not None:
        inspection.problem("", problem)
        return
    try:
        snapshots, chosen, problems, left = _look(check, tool, rotation)
    except Closed as closed:
        check.closed = True
        inspection.problem("", closed.problem)
        return
    except command.CommandError as error:
        check.closed = True
        inspection.problem("", Problem("repository.program", str(error), damage=False))
        return
    for entry in problems:
        inspection.problem("", entry)
    if left is not None:
        inspection.not_checked(left)
    seen = max((snapshot.time for snapshot in snapshots), default=0.0)
    if left is None or (rotation is not None and _all_read(rotation, seen)):
        check.confirmed.append("data")
    else:
        check.limited = "not all of its data was read since the newest snapshot was made"
    if expect.min_snapshots is not None and len(chosen) < expect.min_snapshots:
        check.problem(
            "expect.min_snapshots",
            f"{len(chosen)} snapshots are there, but at least {expect.min_snapshots} are expected",
        )
    elif chosen and (expect.min_snapshots or expect.snapshot_host or expect.snapshot_tags):
        check.confirmed.append("snapshots")


def _look(
    check: Check, tool: Tool, rotation: Rotation | None
) -> tuple[list[Snapshot], list[Snapshot], list[Problem], str | None]:
    """Return the snapshots, those that are asked for, the problems, and what was not read in words."""
    busy = tool.in_use()
    snapshots = tool.snapshots()
    problems, left = tool.check(rotation)
    chosen = _chosen(check, snapshots)
    check.inspection.attributes["snapshots"] = len(snapshots)
    if chosen:
        newest = chosen[-1]
        check.result.made, check.result.made_from = newest.time, "newest snapshot"
        check.inspection.attributes["newest_snapshot"] = newest.id
        members = check.inspection.members
        problems += tool.names(newest, lambda path, directory: members.add(path.lstrip("/"), directory))
    if any(entry.damage for entry in problems) and (busy or tool.in_use() or _changed(tool, snapshots)):
        problems = [Problem(entry.check, entry.message, damage=False) for entry in problems]
        problems.append(
            Problem(
                "repository.in_use",
                "somebody else was at work in it during the check, which may look like damage",
                damage=False,
                advice="Check again when the backup or the pruning has ended.",
            )
        )
    return snapshots, chosen, problems, left


def first_words(lines: Sequence[str]) -> str:
    """Return the first lines that say something, as one."""
    return "; ".join(line.strip() for line in lines if line.strip())[:500] or "it said nothing"


def moment(text: str) -> float:
    """Return a time as programs write it, of any precision, in seconds since the epoch.

    :raises ValueError: when it is none, or has no zone.
    """
    whole = re.sub(r"(\.[0-9]{1,6})[0-9]*", lambda found: found.group(1).ljust(7, "0"), text.strip())
    value = datetime.datetime.fromisoformat(whole.replace("Z", "+00:00"))
    if value.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    return value.timestamp()


def _chosen(check: Check, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the snapshots that are asked for, and say when there is none."""
    expect = check.expect
    words = []
    chosen = list(snapshots)
    if expect.snapshot_host is not None:
        words.append(f"of the host {expect.snapshot_host}")
        chosen = [snapshot for snapshot in chosen if snapshot.host == expect.snapshot_host]
    if expect.snapshot_tags:
        words.append(f"with the tags {', '.join(expect.snapshot_tags)}")
        if any(snapshot.tags is None for snapshot in snapshots):
            check.problem("expect.snapshot_tags", "archives of this kind have no tags", damage=False)
        else:
            chosen = [snapshot for snapshot in chosen if set(expect.snapshot_tags) <= set(snapshot.tags or ())]
    if not chosen:
        what = " ".join(["no snapshot", *words])
        others = f"; {len(snapshots)} others are there" if snapshots else ""
        check.problem("repository.empty", f"there is {what} in it{others}", advice="Find out whether the job ran.")
    return chosen


def _changed(tool: Tool, before: Sequence[Snapshot]) -> bool:
    try:
        return tool.snapshots() != list(before)
    except (Closed, command.CommandError):
        return False


def _all_read(rotation: Rotation, since: float) -> bool:
    return all(
        part in rotation.due or rotation.last.get(part, 0.0) >= max(since, rotation.now - rotation.share.within)
        for part in range(rotation.share.parts)
    )


def _begins(path: str, words: bytes) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(words)) == words
    except OSError:
        return False
