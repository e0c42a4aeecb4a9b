# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One backup from beginning to end: lock, clean up, look, make, write down, verify."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command, units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest, reading
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import pipeline
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import Config, Source
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    Made,
    MakeError,
    Unchanged,
    Work,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept, Store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check, expect
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD, Backup, Result

#: Directory in a backup for what the programs said.
LOGS = "log"

#: Seconds between two words on a long stream.
_TELL_EVERY = 10.0

Clock = Callable[[], float]


def make(config: Config, source: Source, kind: str, *, clock: Clock, say: Callable[[str], None]) -> Kept:
    """Make one backup of a source and return it, or the one that holds all of it already: that says ``unchanged``.

    :param clock: returns seconds since the epoch.
    :param say: tells the operator what is done now.
    :raises MakeError: when it could not be made; nothing that looks like a backup is left.
    :raises StoreError: when the directory of the backups cannot be used, or another program works on the source.
    """
    _look_at_kind(source, kind)
    store = Store(config.root, source.name)
    with store.lock(f"backup {kind}"):
        for path in store.clean():
            say(f"removed {path}, which an interrupted run has left")
        earlier, troubles = store.backups()
        for trouble in troubles:
            say(f"passed over: {trouble}")
        usable = [kept for kept in earlier if kept.verdict in (None, *GOOD)]
        other = source.engine.instead(kind, usable, command.run)
        if other is not None:
            say(f"makes a {other[0]} backup instead of the {kind} one: {other[1]}")
            kind = other[0]
        began = clock()
        directory = store.begin(kind, began)
        try:
            os.mkdir(os.path.join(directory, LOGS), 0o700)
            work = Work(
                kind=kind,
                directory=directory,
                earlier=usable,
                last=earlier[-1] if earlier else None,
                state=store.path,
                timeout=source.timeout,
                run=command.run,
                stream=partial(_stream, directory, source.timeout, say),
                say=say,
            )
            try:
                _look_for_space(config, source.engine.needed(work), directory)
                made = source.engine.make(work)
            except (pipeline.PipelineError, command.CommandError, OSError) as error:
                raise MakeError(str(error)) from error
            if other is not None:
                made.warnings.insert(0, f"a {kind} backup was made instead of another kind: {other[1]}")
            entries = _entries(directory, made)
            kept = store.finish(directory, _document(kind, made, entries, began, clock()))
        except Unchanged as same:
            store.discard(directory)
            kept = store.set_unchanged(same.kept, began)
        except BaseException:
            if os.path.lexists(directory):
                store.discard(directory)
            raise
    return kept


def verify(config: Config, source: Source, kept: Kept, *, clock: Clock) -> Result:
    """Read a backup again and remember the verdict, which pruning and restoring go by.

    :raises StoreError: when the verdict cannot be kept.
    """
    name = f"{source.name}/{kept.manifest.kind}"
    backup = Backup(kept.path, name, expect=expect.parse(name, source.expect), unchanged=kept.unchanged)
    result = check.verify(backup, now=clock(), limits=Limits())
    Store(config.root, source.name).set_verdict(kept, result.verdict, clock())
    return result


def outlook(config: Config, source: Source, kind: str) -> str:
    """Return what a run would do.

    :raises MakeError: when there is no such kind.
    """
    _look_at_kind(source, kind)
    backups, _troubles = Store(config.root, source.name).backups()
    newest = next((kept for kept in reversed(backups) if kept.manifest.kind == kind), None)
    last = f"the newest one is {newest.path}, {newest.verdict or 'unverified'}" if newest else "there is none yet"
    return f"would make a backup of {source.name} ({source.engine.name} {kind}) in {config.root}; {last}"


def _look_at_kind(source: Source, kind: str) -> None:
    if kind not in source.engine.kinds:
        raise MakeError(f"{source.name} has no backups of kind '{kind}'; possible are {', '.join(source.engine.kinds)}")


def _stream(
    directory: str,
    timeout: float,
    say: Callable[[str], None],
    stages: list[pipeline.Stage],
    name: str,
    **options: Any,
) -> pipeline.Output:
    target = os.path.join(directory, name)
    with _telling(target, say):
        return pipeline.run(stages, target, logs=os.path.join(directory, LOGS), timeout=timeout, **options)


@contextlib.contextmanager
def _telling(path: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say from time to time how large a file is."""
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(_TELL_EVERY):
            with contextlib.suppress(FileNotFoundError):
                size, seconds = os.path.getsize(path), time.monotonic() - began
                say(f"{os.path.basename(path)}: {size / 1e6:.0f} MB after {units.span(seconds)}")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _look_for_space(config: Config, needed: int | None, directory: str) -> None:
    usage = shutil.disk_usage(directory)
    spare = usage.free - int(usage.total * config.min_free)
    if spare < (needed or 0):
        raise MakeError(
            f"not enough space in {config.root}: {usage.free} bytes are free, the backup takes about {needed or 0} and "
            f"{config.min_free:.0%} must stay free; make room, prune older backups or give it a larger file system"
        )


def _entries(directory: str, made: Made) -> dict[str, manifest.Entry]:
    """Return size and hash of every regular file; those that are known or have a list of their own are not read."""
    entries = {}
    listed = None if made.listing is None else os.path.join(directory, made.listing.root)
    for place, subdirectories, names in os.walk(directory):
        subdirectories[:] = [name for name in subdirectories if os.path.join(place, name) != listed]
        for name in names:
            path = os.path.join(place, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            below = os.path.relpath(path, directory)
            entries[below] = made.files.get(below) or _hash(path)
    return dict(sorted(entries.items()))


def _hash(path: str) -> manifest.Entry:
    descriptor = reading.open_file(path)
    try:
        found = reading.read_file(descriptor, lambda blocks, threaded: None, hashed=True, progress=lambda amount: None)
    finally:
        os.close(descriptor)
    return manifest.Entry(found.size, found.sha256)


def _document(
    kind: str, made: Made, entries: Mapping[str, manifest.Entry], began: float, ended: float
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": kind,
        "method": made.method,
        "engine": made.engine,
        "host": platform.node(),
        "parent": made.parent,
        "start": utc(began),
        "end": utc(ended),
        "positions": made.positions,
        "counts": made.counts,
        "checksums": made.checksums,
        "exits": made.exits,
        "warnings": made.warnings,
        "alarms": made.alarms,
        "listing": made.listing
        and {
            "path": made.listing.path,
            "root": made.listing.root,
            "files": made.listing.files,
            "bytes": made.listing.size,
        },
        **made.more,
        "files": [{"path": path, **entry.as_dict()} for path, entry in entries.items()],
    }
    return {key: value for key, value in document.items() if value not in ({}, [], None)} | {"files": document["files"]}


def utc(moment: float) -> str:
    """Return a time as it stands in manifests and records."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
