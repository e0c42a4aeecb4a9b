# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify one backup: find it, read it once, and have what was seen compared with what was expected."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    BLOCK,
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import (
    formats,
    recorded,
    repository,
    tree,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.borg import Borg
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Content, Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import History
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.inodes import Inodes
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.program_log import LogWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.restic import Restic
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Rotation, Turns
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.snapshot import compare
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import (
    GOOD,
    Backup,
    Check,
    Result,
    compare_age,
    compare_change,
    compare_content,
    compare_related,
    compare_size,
    conclude,
)

#: Programs that verify a repository, by its format.
_TOOLS: dict[str, Callable[[repository.Given], repository.Tool]] = {"restic": Restic, "borg": Borg}

#: Where our own backups keep what the programs said.
_LOGS = "log/"

#: The last bytes of a log that are looked at.
_MAX_LOG = 64 * 1024 * 1024


def locate(pattern: str) -> list[str]:
    """Return the paths that a pattern matches, the newest first; a plain path matches itself.

    Names that end in ``.partial`` are not finished and are passed over.
    """
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [pattern] if os.path.lexists(pattern) else []
    matches = []
    for path in glob.glob(pattern):
        try:
            if not path.rstrip("/").endswith(".partial"):
                matches.append((os.stat(path).st_mtime_ns, path))
        except OSError:
            continue
    return [path for _modified, path in sorted(matches, reverse=True)]


def verify_all(
    backups: Sequence[Backup],
    *,
    now: float,
    limits: Limits,
    history: History | None = None,
    turns: Turns | None = None,
    progress: Callable[[int], None] = lambda amount: None,
    started: Callable[[str, int], None] = lambda path, size: None,
) -> list[Result]:
    """Verify backups and return what is known of each; what several of them share is read once.

    :param turns: when the parts of those were read of which a share is read in one run.
    """
    inodes = Inodes()
    results = []
    for backup in backups:
        rotation = None if backup.share is None or turns is None else turns.begin(backup.name, backup.share, now)
        targets = _every(backup, rotation) if backup.every else [backup]
        found = [
            verify(
                target,
                now=now,
                limits=limits,
                history=history,
                rotation=None if backup.every else rotation,
                inodes=inodes,
                progress=progress,
                started=started,
            )
            for target in targets
        ]
        if rotation is not None and turns is not None:
            turns.end(backup.name, rotation, all(result.verdict in (*GOOD, "stale") for result in found))
        results += found
    return results


def verify(
    backup: Backup,
    *,
    now: float,
    limits: Limits,
    history: History | None = None,
    rotation: Rotation | None = None,
    inodes: Inodes | None = None,
    progress: Callable[[int], None] = lambda amount: None,
    started: Callable[[str, int], None] = lambda path, size: None,
) -> Result:
    """Verify one backup and return what is known of it. Nothing is written, and nothing is raised for bad backups.

    :param now: seconds since the epoch.
    :param limits: what it may expand to.
    :param history: sizes of earlier backups; the size of a good one is added.
    :param rotation: whose turn it is to be read; None: all of it is read.
    :param inodes: what was read in other backups of the same run.
    :param progress: is told how many bytes were read.
    :param started: is told the path that is read now and its size in bytes, 0 for a directory.
    """
    check = Check(backup, limits)
    for text in backup.left:
        check.inspection.not_checked(text)
    status: os.stat_result | None = None
    if repository.is_remote(backup.format, backup.path):
        started(backup.path, 0)
        _read_repository(check, backup.path, backup.format, rotation)
    else:
        status = _find(check)
        if status is None:
            return conclude(check, now)
        _read_local(check, status, rotation, inodes, progress, started)
    _review_logs(check)
    compare_related(check)
    if check.manifest is not None and check.manifest.id is not None:
        for problem in recorded.compare(check.manifest, check.inspection.attributes):
            check.inspection.problem("", problem)
    compare_content(check)
    compare_size(check)
    compare_age(check, status, now)
    compare_change(check, history)
    result = conclude(check, now)
    if history is not None and result.verdict in GOOD and result.size is not None and result.made is not None:
        history.add(backup.name, result.made, result.size)
    return result


def _every(backup: Backup, rotation: Rotation | None) -> list[Backup]:
    """Return the backups that a pattern matches, the newest first, without those whose turn it is not."""
    paths = locate(backup.path)
    if not paths:
        return [backup]
    # What must be true of the newest need not be true of those before it.
    expect = replace(backup.expect, max_age=None, size_change=None)
    older = [
        replace(backup, path=path, expect=expect)
        for path in paths[1:]
        if rotation is None or rotation.turn(path, os.stat(path))
    ]
    left = len(paths) - 1 - len(older)
    words = rotation.left_out(f"{left} older backups that match {backup.path}") if rotation is not None and left else ""
    return [replace(backup, path=paths[0], left=(words,) if words else ()), *older]


def _find(check: Check) -> os.stat_result | None:
    """Find the file or directory of a backup; None: that is told, and there is nothing to read."""
    backup = check.backup
    matches = locate(backup.path)
    if not matches:
        check.missing = True
        what = "no file matches the pattern" if glob.has_magic(backup.path) else "there is no such file or directory"
        check.finding("backup.missing", what, "Find out whether the backup job ran, and whether the path is right.")
        return None
    path = check.result.path = matches[0]
    if len(matches) > 1:
        check.inspection.not_checked(f"{len(matches) - 1} older backups that match {backup.path}")
    if path.rstrip("/").endswith(".partial"):
        check.problem("backup.partial", "its name says that it was never completed")
    try:
        return os.stat(os.path.realpath(path))
    except OSError as error:
        if os.path.islink(path):
            check.missing = True
            check.finding("backup.missing", "it is a link to something that does not exist")
        else:
            check.problem("backup.unreadable", f"it cannot be looked at: {error.strerror}", damage=False)
        return None


def _read_local(
    check: Check,
    status: os.stat_result,
    rotation: Rotation | None,
    inodes: Inodes | None,
    progress: Callable[[int], None],
    started: Callable[[str, int], None],
) -> None:
    backup, path = check.backup, check.result.path
    real = os.path.realpath(path)
    directory = stat.S_ISDIR(status.st_mode)
    kind = repository.kind_of(real) if directory and backup.format == "auto" else backup.format
    if directory and kind in _TOOLS:
        started(path, 0)
        _read_repository(check, real, str(kind), rotation)
        check.result.size = _size(real)
        return
    try:
        check.manifest = manifest.find(real, directory, backup.manifest)
    except manifest.ManifestError as error:
        check.problem("manifest.unusable", str(error), damage=False, advice="Repair or remove the manifest.")
    if directory:
        started(path, 0)
        _read_tree(check, real, rotation, inodes, progress)
    elif stat.S_ISREG(status.st_mode):
        started(path, status.st_size)
        _read_single(check, real, progress)
    else:
        check.problem("backup.special", "it is neither a file nor a directory", damage=False)
    expect = backup.expect
    if expect.min_snapshots is not None or expect.snapshot_host is not None or expect.snapshot_tags:
        check.problem("expect.min_snapshots", "snapshots cannot be looked for: it is no repository", damage=False)


def _read_repository(check: Check, path: str, kind: str, rotation: Rotation | None) -> None:
    repository.verify(check, _TOOLS[kind](repository.Given(path, check.backup.secret)), rotation)


def exceeds(backups: Iterable[Backup], limit: int) -> bool:
    """Return whether there are more bytes than this to read in all backups."""
    total = 0
    for backup in backups:
        if repository.is_remote(backup.format, backup.path):
            return True
        for path in locate(backup.path)[: None if backup.every else 1]:
            total += _size(path, limit)
            if total > limit:
                return True
    return False


def _size(path: str, limit: int | None = None) -> int:
    """Return the bytes of a file or of all files in a directory; above the limit it may be less."""
    total = 0
    try:
        total = os.stat(path).st_size
        for _directory, _subdirectories, names, dir_fd in os.fwalk(path):
            for name in names:
                total += os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_size
            if limit is not None and total > limit:
                break
    except (OSError, RecursionError):
        pass  # the check itself will tell
    return total


def _review_logs(check: Check) -> None:
    """Look into what the programs said that made it."""
    path = os.path.realpath(check.result.path)
    logs: list[tuple[str, str]] = []
    if check.manifest is not None and check.manifest.id is not None:
        # Beside them lie descriptions, such as the xtrabackup_info of mariadb-backup.
        names = [name for name in sorted(check.manifest.files) if name.startswith(_LOGS) and name.endswith(".log")]
        logs = [(name, os.path.join(path, name)) for name in names]
    if check.backup.log is not None:
        found = locate(check.backup.log)
        if found:
            logs.append((found[0], found[0]))
        else:
            text = f"there is no log {check.backup.log}"
            check.problem("log.missing", text, damage=False, advice="Find out whether the job ran.")
    for name, place in logs:
        walker = LogWalker(name)
        try:
            descriptor = open_file(os.path.realpath(place))
            with os.fdopen(descriptor, "rb") as stream:
                left = max(0, os.fstat(descriptor).st_size - _MAX_LOG)
                if left:
                    check.inspection.not_checked(f"the first {left} bytes of the log {name}")
                    stream.seek(left)
                for block in iter(lambda: stream.read(BLOCK), b""):
                    walker.feed(block)
        except (Unreadable, OSError) as error:
            check.problem("log.unreadable", f"the log {printable(name)} cannot be read: {error}", damage=False)
            continue
        walker.close()
        for problem in walker.problems:
            check.inspection.problem("", problem)


def _read_single(check: Check, path: str, progress: Callable[[int], None]) -> None:
    result, inspection = check.result, check.inspection
    if check.backup.format in ("tree", *_TOOLS):
        check.problem("backup.format", f"it is a file, but the format asked for is {check.backup.format}")
        return
    try:
        descriptor = open_file(path)
    except Unreadable as error:
        check.problem("backup.unreadable", str(error), damage=error.damage, advice="Run the check with become: true.")
        return
    try:
        before = os.fstat(descriptor)
        inspection.size = before.st_size
        entry = check.manifest.files.get("") if check.manifest else None
        content = Content(inspection, "", path, check.backup.format, source=entry.content if entry else None)
        reading = read_file(descriptor, content.consume, hashed=True, progress=progress)
        if reading.changed is None and not _same(path, before):
            reading.changed = "another file took its place"
    except Unreadable as error:
        check.problem("backup.unreadable", str(error), damage=error.damage)
        return
    finally:
        os.close(descriptor)
    if reading.changed:
        check.problem(
            "backup.changed",
            f"it was written during the check: {reading.changed}",
            damage=False,
            advice="Check again when the backup has ended.",
        )
    result.size = reading.size
    result.sha256 = reading.sha256
    wanted = [(check.expect.sha256, "the expected one")]
    if entry is not None and check.manifest is not None:
        wanted.append((entry.sha256, f"the one in {check.manifest.path}"))
        if entry.size is not None and entry.size != reading.size:
            check.problem("manifest.size", f"it has {reading.size} bytes, but the manifest says {entry.size}")
    for digest, where in wanted:
        if digest is not None and digest != reading.sha256:
            check.problem("backup.sha256", f"its bytes are not the ones that were written: its SHA-256 is not {where}")
        elif digest is not None:
            check.confirmed.append("sha256")
    if inspection.sealed:
        check.limited = "what is inside is encrypted"
    if "sha256" not in check.confirmed and all(digest is None for digest, _where in wanted):
        inspection.not_checked("whether a byte changed since it was made: no SHA-256 was written down")
    if inspection.format == "tar" and not inspection.layers and "sha256" not in check.confirmed:
        inspection.not_checked("the payload of the members: tar has no checksum for it")
    empty = reading.size == 0 or (inspection.layers and inspection.expanded == 0)
    if empty and check.expect.min_size != 0 and not check.serious:
        check.problem(
            "backup.empty",
            "it is empty" if not reading.size else "it decompresses to nothing",
            advice="Find out why the program that should write it failed; set min_size to 0 if this is right.",
        )
    if inspection.format is None and check.backup.format != "plain" and not empty and not check.serious:
        if check.confirmed:
            inspection.not_checked("what is inside: no format is recognised")
        else:
            check.problem(
                "backup.unknown",
                "no format is recognised, so nothing can be said about its content",
                damage=False,
                advice="Expect its sha256, or set format to plain to accept that.",
            )


def _read_tree(
    check: Check,
    path: str,
    rotation: Rotation | None,
    inodes: Inodes | None,
    progress: Callable[[int], None],
) -> None:
    if check.backup.format not in ("auto", "plain", "tree"):
        check.problem("backup.format", f"it is a directory, but the format asked for is {check.backup.format}")
        return
    listed = check.manifest.files if check.manifest else {}
    listing = check.manifest.listing if check.manifest else None
    inodes = inodes or Inodes()
    turn = rotation.turn if rotation is not None else lambda path, status: True
    seen = tree.walk(
        path,
        check.inspection,
        hashed=listed.__contains__ if listed else None,
        progress=progress,
        skip=frozenset({manifest.NAME, *([listing.root] if listing else [])}) if check.manifest else frozenset(),
        opened=frozenset(filter(formats.is_archive, listed)) if check.manifest and check.manifest.id else frozenset(),
        sources={name: entry.content for name, entry in listed.items() if entry.content is not None},
        inodes=inodes,
        turn=turn,
    )
    extra = seen.names - len(listed)
    check.result.size = seen.size
    if listing is not None:
        snapshot = compare(path, listing, check.inspection, progress=progress, inodes=inodes, turn=turn)
        check.result.size += snapshot.size
        extra += snapshot.unlisted
        if snapshot.sound:
            check.confirmed.append("sha256")
    check.result.format = "tree"
    check.result.made, check.result.made_from = seen.written, "directory change time"
    if rotation is not None and rotation.left:
        check.inspection.not_checked(rotation.left_out(f"the bytes of {rotation.left} files"))
        if rotation.unknown:
            check.limited = f"{rotation.unknown} files were not read since they were made"
    if check.expect.sha256:
        check.problem("backup.sha256", "a directory has no SHA-256 to compare; use a manifest", damage=False)
    if check.manifest is None:
        check.inspection.not_checked("whether a byte of a file changed since it was made: there is no manifest")
        return
    payload = sum(not name.startswith(_LOGS) for name in listed)
    if check.manifest.id is not None and payload and check.inspection.sealed >= payload:
        check.limited = "what is inside is encrypted"
    good = 0
    for name, entry in listed.items():
        if name not in seen.sha256:
            check.problem("manifest.missing", f"{printable(name)} is in the manifest, but not there, or unreadable")
        elif entry.size is not None and entry.size != seen.sizes[name]:
            check.problem(
                "manifest.size", f"{printable(name)} has {seen.sizes[name]} bytes, but the manifest says {entry.size}"
            )
        elif entry.sha256 is not None and seen.sha256[name] not in (entry.sha256, None):
            check.problem("backup.sha256", f"the bytes of {printable(name)} are not those that were written")
        else:
            good += entry.sha256 is not None and seen.sha256[name] is not None
    if good:
        check.confirmed.append("sha256")
    if extra > 0:
        check.problem("manifest.unlisted", f"{extra} files are not in the manifest", note=True)


def _same(path: str, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), before)
    except OSError:
        return False
