# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The classes of damage: where each can come from, and what it does to a backup."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.backup_mutations import damage
from tests.bench.backup_mutations.subjects import LISTING, LOGS, MANIFEST, TREE, Mutant, Stage, payload

Change = Callable[[bytes, random.Random], "bytes | None"]


@dataclass(frozen=True)
class Kind:
    """A class of damage.

    :param name: as the table calls it.
    :param birth: whether it comes before the manifest is written.
    :param applies: whether a subject can have it.
    :param break_it: does it, and returns false when it would change nothing.
    :param told: whether the manifest of a subject says anything about it; the others are verified without one only.
    :param meanwhile: whether it comes while the backup is being read.
    """

    name: str
    birth: bool
    applies: Callable[[Stage], bool]
    break_it: Callable[[Mutant], bool]
    told: Callable[[Stage], bool] = lambda stage: not stage.subject.repository
    meanwhile: bool = False


def _changed(mutant: Mutant, name: str, change: Change) -> bool:
    """Change the bytes of a file."""
    old = mutant.read(name)
    new = change(old, mutant.source)
    if new is None or new == old:
        return False
    mutant.write(name, new)
    return True


def _any(change: Change) -> Callable[[Mutant], bool]:
    """Change any file."""
    return lambda mutant: _changed(mutant, mutant.chosen(), change)


def _inside(change: Change, fits: Callable[[str], object], *, at_source: bool = True) -> Callable[[Mutant], bool]:
    """Change what is inside the compression of a file, before the manifest is written.

    :param at_source: whether that came from the source, else it was changed on the way from there.
    """

    def break_it(mutant: Mutant) -> bool:
        name = mutant.source.choice([name for name in mutant.names if fits(name)])
        old = damage.expand(name, mutant.read(name))
        new = change(old, mutant.source)
        if new is None or new == old:
            return False
        mutant.write(name, damage.compress(name, new))
        mutant.born(at_source=at_source)
        return True

    return break_it


def _missing(mutant: Mutant) -> bool:
    mutant.remove(mutant.source.choice(mutant.names))
    return True


def _member(mutant: Mutant) -> bool:
    (name,) = (name for name in mutant.names if ".tar" in name)
    old = damage.expand(name, mutant.read(name))
    new = damage.without_member(old, mutant.source)
    if new is None:
        return False
    mutant.write(name, damage.compress(name, new))
    return True


def _swapped(mutant: Mutant) -> bool:
    """Another file is in the place of one: of another state, or another one of the same backup."""
    name = mutant.chosen()
    new = mutant.other(name) if len(mutant.names) == 1 or mutant.source.random() < 0.5 else mutant.read(mutant.chosen())
    if new is None or new == mutant.read(name):
        return False
    mutant.write(name, new)
    return True


def _manifest(mutant: Mutant) -> bool:
    place = os.path.relpath(mutant.manifest, mutant.root)
    new = mutant.other(place)
    if new is None:
        return False
    mutant.write(place, new)
    return True


def _shared(mutant: Mutant) -> bool:
    """Flip a bit in a file that two snapshots share."""
    names = [name for name in mutant.names if os.stat(f"{mutant.root}/{name}").st_nlink > 1]
    return _changed(mutant, mutant.source.choice(names), damage.flip)


def _lost_log(mutant: Mutant) -> bool:
    logs = [name for name in mutant.names if _is_log(name)]
    mutant.remove(mutant.source.choice(logs))
    mutant.born(at_source=True)
    return True


def _other_state(mutant: Mutant) -> bool:
    """The files are those of another host or time, the rest of the manifest is what the source said."""
    for name in mutant.names:
        mutant.remove(name)
    for name in payload(f"{mutant.stage.root}/b"):
        mutant.write(name, mutant.other(name) or b"")
    mutant.born(at_source=True)
    return True


def _is_log(name: str) -> bool:
    return os.path.basename(name).startswith("binlog.") and ".tar" not in name


def _is_sql(name: str) -> bool:
    return ".sql" in os.path.basename(name) and "schema" not in name


def _is_bson(name: str) -> bool:
    return ".bson" in name


def _is_archive(name: str) -> bool:
    return "archive" in os.path.basename(name)


def _has(fits: Callable[[str], bool]) -> Callable[[Stage], bool]:
    return lambda stage: not stage.subject.repository and any(map(fits, _names(stage)))


def _names(stage: Stage) -> list[str]:
    return [
        os.path.join(directory, name)
        for directory, _subdirectories, names in os.walk(f"{stage.root}/a")
        for name in names
        if name != MANIFEST and f"/{LOGS}" not in os.path.join(directory, name)
    ]


def _single(stage: Stage) -> bool:
    """Whether it is one stream that a program wrote."""
    return stage.subject.format in _STREAMS


_STREAMS = ("mariadb-dump", "mongodump --archive", "mariadb-backup --stream", "tar", "logs (tar)")


def _tree(stage: Stage) -> bool:
    return any(f"/{TREE}" in name for name in _names(stage)) or stage.subject.several


def _counted(stage: Stage) -> bool:
    return stage.subject.ours or bool(stage.subject.counts)


def _ours(stage: Stage) -> bool:
    return stage.subject.ours


def _everywhere(stage: Stage) -> bool:
    return not stage.subject.several


def _with_manifest(stage: Stage) -> bool:
    return not stage.subject.repository and _everywhere(stage)


def _compressed(stage: Stage) -> bool:
    names = [name for name in _names(stage) if os.path.basename(name) != LISTING]
    return not stage.subject.repository and any(damage.ending(name) for name in names) and not _tree(stage)


KINDS = (
    Kind("one bit flipped", False, _everywhere, _any(damage.flip)),
    Kind("cut", False, _everywhere, _any(damage.cut)),
    Kind("4 KiB read as zeros", False, _everywhere, _any(damage.zeroed)),
    Kind("something behind the end", False, _everywhere, _any(damage.garbage)),
    Kind("a file missing", False, _everywhere, _missing),
    Kind("a member of an archive missing", False, lambda stage: stage.subject.format in ("tar", "logs (tar)"), _member),
    Kind("another file in its place", False, _with_manifest, _swapped),
    Kind("the manifest of another backup", False, _with_manifest, _manifest),
    Kind("a bit flipped in a file that snapshots share", False, lambda stage: not _everywhere(stage), _shared),
    Kind("written during the check", False, _with_manifest, lambda mutant: True, meanwhile=True),
    Kind("one bit flipped before the compression", True, _compressed,
         _inside(damage.flip, damage.ending, at_source=False), _ours),
    Kind("the program killed", True, _single, _inside(damage.killed, lambda name: LISTING not in name)),
    Kind("a dump cut between two statements", True, lambda stage: stage.subject.format == "mariadb-dump",
         _inside(damage.between_statements, _is_sql), _counted),
    Kind("a table empty", True, _has(_is_sql), _inside(damage.table_empty, _is_sql), _counted),
    Kind("a collection empty", True, _has(_is_archive), _inside(damage.archive_collection_empty, _is_archive),
         _counted),
    Kind("cut between two documents", True, _has(_is_archive),
         _inside(damage.archive_between_documents, _is_archive), _counted),
    Kind("a file cut between two documents", True, _has(_is_bson), _inside(damage.between_documents, _is_bson),
         _counted),
    Kind("a binary log cut between two events", True, _has(_is_log),
         _inside(damage.between_events, _is_log, at_source=False), _ours),
    Kind("a binary log missing", True, _has(_is_log), _lost_log, _ours),
    Kind("the data of another host or time", True,
         lambda stage: stage.subject.format in (*_STREAMS[:3], "Redis", "binary logs"), _other_state, _counted),
)  # fmt: skip
