# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was written down when the backup was made: ``manifest.json``, or ``<file>.sha256`` as sha256sum writes it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import Unreadable, open_file

NAME = "manifest.json"
SCHEMA = 1

#: Largest manifest that is read, in bytes.
MAX_SIZE = 32 * 1024 * 1024

_HASH = re.compile(r"[0-9a-fA-F]{64}")


class ManifestError(Exception):
    """A manifest that cannot be read or understood."""


@dataclass(frozen=True)
class Entry:
    """A file as it was written: its size in bytes and its SHA-256, None where it was not written down.

    :param content: the same of what came from the source, before it was compressed.
    """

    size: int | None = None
    sha256: str | None = None
    content: Entry | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a manifest, without its path."""
        content = {} if self.content is None else {"content": self.content.as_dict()}
        return {"size": self.size, "sha256": self.sha256, **content}


@dataclass(frozen=True)
class Listing:
    """A tree whose files are in a list of their own, because they may be a million: see ``listing.py``.

    :param path: the list, relative to the manifest; it is one of the files of the manifest.
    :param root: the directory whose files it lists.
    :param files: number of regular files.
    :param size: their bytes.
    """

    path: str
    root: str
    files: int
    size: int


@dataclass(frozen=True)
class Manifest:
    """What is known of a backup. Only backups of our own tell what stands behind ``ended``.

    :param path: where it stands.
    :param files: by path below the directory of the manifest.
    :param counts: rows or documents by database and table or collection.
    :param ended: when the backup was complete, in seconds since the epoch.
    :param id: names this backup for ever.
    :param source: what was backed up, as the configuration calls it.
    :param kind: ``full``, ``incremental``, ``log``, ...
    :param parent: id of the backup without which this one is worth nothing.
    :param sequence: rises by one with every backup of the source, whatever the clock does.
    :param started: when it began, in seconds since the epoch.
    :param positions: LSN range, binlog file and position, GTID, by name.
    :param listing: the tree of a snapshot of files.
    :param document: the whole document, for readers of one engine.
    :param sha256: of the document as it was read; two backups with equal ones have equal files.
    """

    path: str
    files: dict[str, Entry] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: float | None = None
    id: str | None = None
    source: str | None = None
    kind: str | None = None
    parent: str | None = None
    sequence: int = 0
    started: float | None = None
    positions: dict[str, Any] = field(default_factory=dict)
    listing: Listing | None = None
    document: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None


def parse(path: str, content: bytes) -> Manifest | None:
    """Return the manifest in a JSON document, None when it is some other program's document.

    ``{"schema": 1, "end": "2026-01-31T02:03:04Z", "files": [{"path": "dump.sql.gz", "size": 1, "sha256": "…"}],
    "counts": {"database": {"table": 1}}}``; docs/backup.md tells the keys that our own backups have besides.

    :raises ManifestError: when it is not JSON, or is one of ours with a wrong value.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestError(f"{path} is not valid JSON") from None
    if not isinstance(value, dict) or "schema" not in value or not isinstance(value.get("files"), list):
        return None
    if value["schema"] != SCHEMA:
        raise ManifestError(f"{path} has schema {value['schema']!r}, and only {SCHEMA} is known")
    try:
        files = {}
        for entry in value["files"]:
            inner = entry.get("content")
            files[str(entry["path"])] = _entry(path, entry, None if inner is None else _entry(path, inner))
        counts = {
            str(database): {str(table): int(rows) for table, rows in tables.items()}
            for database, tables in (value.get("counts") or {}).items()
        }
        ended = None if value.get("end") is None else _epoch(value["end"])
        started = None if value.get("start") is None else _epoch(value["start"])
        texts = {key: None if value.get(key) is None else str(value[key]) for key in ("id", "source", "kind", "parent")}
        sequence = int(value.get("sequence") or 0)
        positions = dict(value.get("positions") or {})
        given = value.get("listing")
        listing = Listing(given["path"], given["root"], int(given["files"]), int(given["bytes"])) if given else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{path} cannot be understood: {error}") from None
    return Manifest(
        path,
        files,
        counts,
        ended,
        **texts,
        sequence=sequence,
        started=started,
        positions=positions,
        listing=listing,
        document=value,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _entry(path: str, value: Mapping[str, Any], content: Entry | None = None) -> Entry:
    size, sha256 = value.get("size"), value.get("sha256")
    if sha256 is not None and not _HASH.fullmatch(sha256):
        raise ManifestError(f"{path} has a SHA-256 of {value.get('path', 'a content')} that is not one")
    return Entry(None if size is None else int(size), sha256.lower() if sha256 else None, content)


def load(path: str) -> Manifest:
    """Return the manifest of one of our own backups, where it is no link.

    :raises ManifestError: when there is none, or it cannot be used.
    """
    found = parse(path, _read(path, follow=False))
    if found is None or found.id is None:
        raise ManifestError(f"{path} is not the manifest of a backup that was made by this collection")
    return found


def render(document: Mapping[str, Any]) -> bytes:
    """Return a document as it is written: the schema first, readable, one newline at the end."""
    text = json.dumps({"schema": SCHEMA, **document}, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a name that is no UTF-8 becomes an escape of JSON


def parse_sha256(path: str, content: bytes, name: str) -> str:
    """Return the hash of a file from a document as sha256sum writes it.

    :raises ManifestError: when there is none.
    """
    for line in content.decode("utf-8", "replace").splitlines():
        digest, _space, listed = line.lstrip("\\").partition(" ")
        if _HASH.fullmatch(digest) and (not listed.strip() or os.path.basename(listed.lstrip(" *")) == name):
            return digest.lower()
    raise ManifestError(f"{path} holds no SHA-256 of {name}")


def find(path: str, is_directory: bool, explicit: str | None) -> Manifest | None:
    """Return the manifest of a backup, with the paths of its files relative to the backup.

    :param path: the backup: a directory, or a file, whose path in the manifest becomes the empty string.
    :param explicit: where the manifest is; by default it is looked for in the directory, or beside the file.
    :raises ManifestError: when there is one that cannot be used.
    """
    place = explicit or os.path.join(path if is_directory else os.path.dirname(path), NAME)
    name = os.path.basename(path)
    manifest = None
    if explicit or os.path.lexists(place):
        if explicit and not explicit.endswith(".json"):
            return Manifest(explicit, {"": Entry(None, parse_sha256(explicit, _read(explicit), name))})
        manifest = parse(place, _read(place))
        if manifest is None and explicit:
            raise ManifestError(f"{place} is not a manifest: it has no schema and files")
    if is_directory:
        return manifest
    entry = None if manifest is None else manifest.files.get(name)
    if manifest is not None and entry is not None:
        only = len(manifest.files) == 1
        return Manifest(place, {"": entry}, manifest.counts if only else {}, manifest.ended)
    if explicit:
        raise ManifestError(f"{place} does not list {name}")
    beside = path + ".sha256"
    if os.path.lexists(beside):
        return Manifest(beside, {"": Entry(None, parse_sha256(beside, _read(beside), name))})
    return None


def _read(path: str, follow: bool = True) -> bytes:
    try:
        descriptor = open_file(os.path.realpath(path) if follow else path)
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(MAX_SIZE + 1)
    except (Unreadable, OSError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from None
    if len(content) > MAX_SIZE:
        raise ManifestError(f"{path} is larger than {MAX_SIZE} bytes")
    return content


def _epoch(value: Any) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    moment = datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"the time {value!r} has no zone")
    return moment.timestamp()


def counts_of(value: Mapping[str, Mapping[str, int | None]]) -> dict[str, int | None]:
    """Return counts by ``database.table``."""
    return {f"{database}.{table}": rows for database, tables in value.items() for table, rows in tables.items()}
