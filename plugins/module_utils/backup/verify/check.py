# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify one backup: find it, read it once, and have what was seen compared with what was expected."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import tree
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Content, Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import History
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
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


def locate(pattern: str) -> tuple[str | None, int]:
    """Return the newest path that a pattern matches and the number of matches; a plain path matches itself.

    Names that end in ``.partial`` are not finished and are passed over.
    """
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return (pattern, 1) if os.path.lexists(pattern) else (None, 0)
    matches = []
    for path in glob.glob(pattern):
        try:
            if not path.rstrip("/").endswith(".partial"):
                matches.append((os.stat(path).st_mtime_ns, path))
        except OSError:
            continue
    return (max(matches)[1], len(matches)) if matches else (None, 0)


def verify(
    backup: Backup,
    *,
    now: float,
    limits: Limits,
    history: History | None = None,
    progress: Callable[[int], None] = lambda amount: None,
    started: Callable[[str, int], None] = lambda path, size: None,
) -> Result:
    """Verify one backup and return what is known of it. Nothing is written, and nothing is raised for bad backups.

    :param now: seconds since the epoch.
    :param limits: what it may expand to.
    :param history: sizes of earlier backups; the size of a good one is added.
    :param progress: is told how many bytes were read.
    :param started: is told the path that is read now and its size in bytes, 0 for a directory.
    """
    check = Check(backup, limits)
    path, matches = locate(backup.path)
    if path is None:
        check.missing = True
        what = "no file matches the pattern" if glob.has_magic(backup.path) else "there is no such file or directory"
        check.finding("backup.missing", what, "Find out whether the backup job ran, and whether the path is right.")
        return conclude(check, now)
    check.result.path = path
    if matches > 1:
        check.inspection.not_checked(f"{matches - 1} older backups that match {backup.path}")
    if path.rstrip("/").endswith(".partial"):
        check.problem("backup.partial", "its name says that it was never completed")
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
    except OSError as error:
        if os.path.islink(path):
            check.missing = True
            check.finding("backup.missing", "it is a link to something that does not exist")
        else:
            check.problem("backup.unreadable", f"it cannot be looked at: {error.strerror}", damage=False)
        return conclude(check, now)
    directory = stat.S_ISDIR(status.st_mode)
    try:
        check.manifest = manifest.find(real, directory, backup.manifest)
    except manifest.ManifestError as error:
        check.problem("manifest.unusable", str(error), damage=False, advice="Repair or remove the manifest.")
    if directory:
        started(path, 0)
        _read_tree(check, real, progress)
    elif stat.S_ISREG(status.st_mode):
        started(path, status.st_size)
        _read_single(check, real, progress)
    else:
        check.problem("backup.special", "it is neither a file nor a directory", damage=False)
    compare_related(check)
    compare_content(check)
    compare_size(check)
    compare_age(check, status, now)
    compare_change(check, history)
    result = conclude(check, now)
    if history is not None and result.verdict in GOOD and result.size is not None:
        history.add(backup.name, result.made or status.st_mtime, result.size)
    return result


def exceeds(backups: Iterable[Backup], limit: int) -> bool:
    """Return whether there are more bytes than this to read in all backups."""
    total = 0
    for backup in backups:
        path, _matches = locate(backup.path)
        if path is None:
            continue
        try:
            total += os.stat(path).st_size
            for _directory, _subdirectories, names, dir_fd in os.fwalk(path):
                for name in names:
                    total += os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_size
                if total > limit:
                    return True
        except (OSError, RecursionError):
            continue  # the check itself will tell
    return total > limit


def _read_single(check: Check, path: str, progress: Callable[[int], None]) -> None:
    result, inspection = check.result, check.inspection
    if check.backup.format == "tree":
        check.problem("backup.format", "it is a file, but the format asked for is tree")
        return
    try:
        descriptor = open_file(path)
    except Unreadable as error:
        check.problem("backup.unreadable", str(error), damage=error.damage, advice="Run the check with become: true.")
        return
    try:
        before = os.fstat(descriptor)
        inspection.size = before.st_size
        content = Content(inspection, "", path, check.backup.format)
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
    check.files = inspection.members.count if inspection.has_members else 1
    entry = check.manifest.files.get("") if check.manifest else None
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


def _read_tree(check: Check, path: str, progress: Callable[[int], None]) -> None:
    if check.backup.format not in ("auto", "plain", "tree"):
        check.problem("backup.format", f"it is a directory, but the format asked for is {check.backup.format}")
        return
    listed = check.manifest.files if check.manifest else {}
    listing = check.manifest.listing if check.manifest else None
    seen = tree.walk(
        path,
        check.inspection,
        hashed=listed.__contains__ if listed else None,
        progress=progress,
        skip=frozenset({manifest.NAME, *([listing.root] if listing else [])}) if check.manifest else frozenset(),
    )
    extra = check.inspection.members.count - len(listed)
    check.result.size = seen.size
    if listing is not None:
        snapshot = compare(path, listing, check.inspection, progress=progress)
        check.result.size += snapshot.size
        extra += snapshot.unlisted
        if snapshot.sound:
            check.confirmed.append("sha256")
    check.result.format = "tree"
    check.result.made, check.result.made_from = seen.written, "directory change time"
    check.files = check.inspection.members.count
    if check.expect.sha256:
        check.problem("backup.sha256", "a directory has no SHA-256 to compare; use a manifest", damage=False)
    if check.manifest is None:
        check.inspection.not_checked("whether a byte of a file changed since it was made: there is no manifest")
        return
    good = 0
    for name, entry in listed.items():
        if name not in seen.sha256:
            check.problem("manifest.missing", f"{printable(name)} is in the manifest, but not there, or unreadable")
        elif entry.size is not None and entry.size != seen.sizes[name]:
            check.problem(
                "manifest.size", f"{printable(name)} has {seen.sizes[name]} bytes, but the manifest says {entry.size}"
            )
        elif entry.sha256 is not None and entry.sha256 != seen.sha256[name]:
            check.problem("backup.sha256", f"the bytes of {printable(name)} are not those that were written")
        else:
            good += entry.sha256 is not None
    if good:
        check.confirmed.append("sha256")
    if extra > 0:
        check.problem("manifest.unlisted", f"{extra} files are not in the manifest", note=True)


def _same(path: str, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), before)
    except OSError:
        return False
