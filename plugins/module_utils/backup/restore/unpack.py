# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the files of a backup out of it, each held against its recorded hash before anything of it is used."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import reading
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import pipeline
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

_DECOMPRESS = {".zst": ("zstd", "-dcq"), ".gz": ("gzip", "-dc")}


def decompressor(path: str) -> list[str]:
    """Return the command that writes the plain content of a file."""
    return [*_DECOMPRESS.get(os.path.splitext(path)[1], ("cat", "--")), path]


def plain_name(name: str) -> str:
    """Return the name of a file without its compression."""
    base, suffix = os.path.splitext(name)
    return base if suffix in _DECOMPRESS else name


def named(kept: Kept, *names: str) -> str:
    """Return the file of a backup that has one of these names, compressed or not.

    :raises RestoreError: when it has none.
    """
    for name in kept.manifest.files:
        if plain_name(name) in names:
            return name
    raise RestoreError(f"{kept.path} has no file {' or '.join(names)}: it is not a backup that can be restored")


def unpack(
    kept: Kept,
    name: str,
    target: str | None,
    work: Work,
    *,
    then: Sequence[pipeline.Stage] = (),
    part: str = "decompress",
) -> None:
    """Decompress a file of a backup into a file, or into the last of some programs.

    :param name: the file, as the manifest lists it.
    :param target: the file to write, None when the last program keeps what it gets.
    :param then: programs after the decompression.
    :param part: what the time is counted as.
    :raises RestoreError: when a program fails, or the bytes are not those that were written.
    """
    path = _path(kept, name)
    stages = [pipeline.Stage(decompressor(path)), *then]
    out = target or os.path.join(work.directory, "out")
    found: list[Entry | Exception] = []
    thread = threading.Thread(target=lambda: found.append(_hash(path)))
    trouble = ""
    with work.parts.part(part):
        thread.start()
        try:
            pipeline.run(stages, out, logs=work.logs, timeout=work.timeout)
        except pipeline.PipelineError as error:
            trouble = str(error)
        finally:
            thread.join()
    if target is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(out)
    _compare(path, found[0], kept.manifest.files[name])
    if trouble:
        raise RestoreError(f"{path} could not be unpacked: {trouble}")


def verify(kept: Kept, names: Sequence[str], work: Work) -> None:
    """Hold files of a backup against their recorded hashes.

    :raises RestoreError: when one is not what was written.
    """
    with work.parts.part("verify"):
        for name in names:
            path = _path(kept, name)
            _compare(path, _hash(path), kept.manifest.files[name])


def _path(kept: Kept, name: str) -> str:
    """Return where a file of a backup is; one that would be elsewhere is refused."""
    if name not in kept.manifest.files or os.path.isabs(name) or ".." in name.split("/"):
        raise RestoreError(f"{kept.path} has no file {name!r} in it that could be restored")
    return os.path.join(kept.path, name)


def _hash(path: str) -> Entry | Exception:
    try:
        descriptor = reading.open_file(path)
        try:
            seen = reading.read_file(
                descriptor, lambda blocks, threaded: None, hashed=True, progress=lambda amount: None
            )
        finally:
            os.close(descriptor)
    except (reading.Unreadable, OSError) as error:
        return error
    return Entry(seen.size, seen.sha256)


def _compare(path: str, found: Entry | Exception, recorded: Entry) -> None:
    if isinstance(found, Exception):
        raise RestoreError(f"{path} cannot be read: {found}")
    if recorded.sha256 is not None and found.sha256 != recorded.sha256:
        raise RestoreError(
            f"{path} is not what was written when the backup was made: its SHA-256 is not the one in the manifest; "
            "restore from another tier, or from the backup before it"
        )
