# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What mongodump writes: a directory of BSON files, or one archive.

Directory: ``<database>/<collection>.bson`` beside ``<collection>.metadata.json``, with ``.gz`` under ``--gzip``, and
``oplog.bson`` and ``prelude.json`` at the top. Neither a checksum nor a count is written anywhere.

Archive (mongo-tools, ``common/archive``): a magic number, a header document, one document for every collection, and
then blocks. A block is a document with database and collection, documents of that collection, and ``ff ff ff ff``;
the collection's last block is empty and carries the CRC-64 of all its documents. Nothing marks the end of the archive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import bson
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import XZ, Crc64
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import PullWalker, Step, Stop
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

MAGIC = b"\x6d\xe2\x99\x81"
#: What the archives of our own backups are called, without compression.
ARCHIVE = re.compile(r"(.*/)?archive(-[^/]+)?\Z")
_TERMINATOR = b"\xff\xff\xff\xff"
#: A document larger than this is followed by its frame only, so that memory stays small.
_DEEP = 1 << 20
#: How large a header document may be: it holds a collection's indexes and options as text.
_HEADER = 1 << 22
#: How many collections are remembered, and how many may have begun and not ended at a time.
_COLLECTIONS = 100_000
_OPEN = 256
_BUCKETS = "system.buckets."


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is an archive of mongodump, uncompressed."""
    return head.startswith(MAGIC)


def looks_like_bson(head: bytes) -> bool:
    """Return whether a stream that begins like this is a file of BSON documents."""
    if len(head) < 5:
        return False
    size = int.from_bytes(head[:4], "little")
    if not 5 <= size <= bson.MAX_SIZE:
        return False
    if size <= len(head):
        return not head[size - 1] and bson.broken(head, 0) is None
    return head[4] in b"\x01\x02\x03\x04\x05\x07\x08\x09\x0a\x10\x11\x12\x13" and b"\0" in head[5:133]


class BsonWalker(PullWalker):
    """Follows a file of BSON documents, such as mongodump writes for a collection.

    :param database: the database of the collection; empty for the oplog.
    :param collection: the collection.
    """

    format = "bson"

    def __init__(self, database: str, collection: str) -> None:
        self._documents = 0
        self._oplog = not database and collection == "oplog"
        self._first: bytes | None = None
        self._latest = b""
        self._database, self._collection = database, collection
        super().__init__()

    def walk(self) -> Step:
        while True:
            yield from self.need(0)
            self._pass_whole()
            have = len(self.data) - self.at
            if not have and self.ended:
                return
            if have >= 4:
                size = self._size()
                if size > _DEEP:
                    yield from self._pass_large(size)
                    continue
            if self.ended:
                self.cut()
                return
            yield from self.more()

    def _size(self) -> int:
        size = int.from_bytes(self.data[self.at : self.at + 4], "little")
        if not 5 <= size <= bson.MAX_SIZE:
            self._break(f"{size} is not the length of a document")
        return size

    def _break(self, reason: str) -> None:
        self.problem(
            "mongodump.document", f"the document after {self._documents} good ones is broken: {reason}", advice=_ADVICE
        )
        raise Stop

    def _pass_whole(self) -> None:
        """Go over all documents that have arrived."""
        data = self.data
        end = len(data)
        from_bytes, broken = int.from_bytes, bson.broken
        while end - self.at >= 5:
            at = self.at
            size = from_bytes(data[at : at + 4], "little")
            if not 5 <= size <= _DEEP:
                return
            if at + size > end:
                return
            if data[at + size - 1]:
                self._break("its last byte is not zero")
            reason = broken(data, at)
            if reason:
                self._break(reason)
            if self._oplog:
                self._latest = data[at : at + size]
                self._first = self._first or self._latest
            self.at = at + size
            self._documents += 1

    def _pass_large(self, size: int) -> Step:
        yield from self.skip(size - 1)
        yield from self.need(1)
        if self.data[self.at]:
            self._break("its last byte is not zero")
        self.at += 1
        self._documents += 1

    def cut(self) -> None:
        self.problem("mongodump.cut", f"the file ends inside the document after {self._documents} whole ones")

    def close(self) -> None:
        super().close()
        if self._oplog:
            self.facts.attributes["oplog_documents"] = self._documents
            for name, document in (("oplog_first", self._first), ("oplog_last", self._latest)):
                stamp = (bson.flat(document) or {}).get("ts") if document else None
                if isinstance(stamp, int):
                    self.facts.attributes[name] = stamp >> 32
        else:
            self.facts.counts = {self._database: {self._collection: self._documents}}
        self.facts.unchecked.append(
            "a BSON file has no checksum and no count: changed values and whole missing documents are not seen"
        )


_ADVICE = "restore from another backup; make this one again and compare its document counts with the source"


@dataclass
class _Namespace:
    view: bool
    documents: int = 0
    ended: bool = False
    begun: bool = False
    checksum: Crc64 = field(default_factory=lambda: Crc64(XZ))


class MongoArchiveWalker(PullWalker):
    """Follows what ``mongodump --archive`` writes."""

    format = "mongodump_archive"

    def __init__(self) -> None:
        self._namespaces: dict[tuple[str, str], _Namespace] = {}
        self._open = 0
        self._where = "the header"
        self._whole = False
        super().__init__()

    def walk(self) -> Step:
        yield from self.need(4)
        if not self.data.startswith(MAGIC):
            self._stop("mongodump.magic", "this is not an archive of mongodump")
        self.at += 4
        header = yield from self._header()
        for name in ("server_version", "tool_version"):
            if isinstance(header.get(name), str):
                self.facts.attributes[name] = header[name]
        self._where = "the list of collections"
        while True:
            yield from self.need(4)
            if self.data.startswith(_TERMINATOR, self.at):
                self.at += 4
                break
            self._declare((yield from self._header()))
        while True:
            self._where = "the head of a block"
            if len(self.data) == self.at:
                yield from self.more()
                if len(self.data) == self.at:
                    self._whole = True
                    return
            header = yield from self._header()
            yield from self._block(header)

    def _stop(self, check: str, message: str, damage: bool = True) -> None:
        self.problem(check, message, damage=damage, advice=_ADVICE)
        raise Stop

    def _header(self) -> Any:
        """Return the next document, one that belongs to the archive itself."""
        yield from self.need(4)
        size = int.from_bytes(self.data[self.at : self.at + 4], "little")
        if not 5 <= size <= _HEADER:
            self._stop("mongodump.frame", f"{self._where} is broken: {size} is not the length of a document")
        yield from self.need(size)
        values = bson.flat(self.data[self.at : self.at + size])
        if values is None:
            self._stop("mongodump.frame", f"{self._where} is broken")
        self.at += size
        return values

    def _name(self, header: dict[str, Any]) -> tuple[str, str]:
        database, collection = header.get("db"), header.get("collection")
        if not isinstance(database, str) or not isinstance(collection, str):
            self._stop("mongodump.frame", f"{self._where} names no collection")
        return str(database), str(collection)

    def _declare(self, header: dict[str, Any]) -> None:
        database, collection = self._name(header)
        kind, metadata = header.get("type"), str(header.get("metadata") or "")
        attributes, counts = self.facts.attributes, self.facts.counts
        if len(self._namespaces) >= _COLLECTIONS:
            self._stop("mongodump.collections", f"more than {_COLLECTIONS} collections: not followed", damage=False)
        tables = counts.setdefault(database, {}) if database else {}
        view = kind == "view" or '"viewOn"' in metadata
        description = _json(metadata.encode()) if metadata else {}
        if description is None or description.get("collectionName", collection) != collection:
            self.problem("mongodump.metadata", f"the description of {database}.{collection} is broken", advice=_ADVICE)
        if kind == "timeseries":
            attributes.setdefault("timeseries", []).append(f"{database}.{collection}")
            tables[collection] = None
            collection = _BUCKETS + collection
        if view:
            attributes.setdefault("views", []).append(f"{database}.{collection}")
        elif database:
            tables[collection] = 0
        self._namespaces[database, collection] = _Namespace(view)

    def _block(self, header: dict[str, Any]) -> Step:
        name = self._name(header)
        if not header.keys() >= {"EOF", "CRC"}:
            self._stop("mongodump.frame", f"{self._where} is broken")
        shown = ".".join(filter(None, name))
        namespace = self._namespaces.get(name)
        if namespace is None:
            self._stop("mongodump.undeclared", f"documents of {shown}, which the archive does not announce")
            return
        if namespace.ended:
            self._stop("mongodump.order", f"{shown} goes on after its end")
        self._where = f"a block of {shown}"
        if not namespace.begun:
            namespace.begun = True
            self._open += 1
            if self._open > _OPEN:
                self._stop("mongodump.collections", f"more than {_OPEN} collections at a time: not followed", False)
        if header.get("EOF") is True:
            yield from self.need(4)
            if not self.data.startswith(_TERMINATOR, self.at):
                self._stop("mongodump.frame", f"the end of {shown} is broken")
            self.at += 4
            self._end(namespace, shown, header.get("CRC"))
        else:
            if header.get("CRC"):
                self._stop("mongodump.frame", f"the head of a block of {shown} is broken")
            yield from self._documents(namespace, shown)

    def _documents(self, namespace: _Namespace, shown: str) -> Step:
        checksum = namespace.checksum
        from_bytes = int.from_bytes
        while True:
            data, begin = self.data, self.at
            at, end = begin, len(data)
            while end - at >= 4:
                size = from_bytes(data[at : at + 4], "little")
                if size < 5 or size > bson.MAX_SIZE or at + size > end:
                    break
                if data[at + size - 1]:
                    self.at = at
                    self._stop("mongodump.document", f"document {namespace.documents + 1} of {shown} is broken")
                at += size
                namespace.documents += 1
            if at > begin:
                checksum.update(data[begin:at] if begin or at < end else data)
                self.at = at
            if end - at < 4:
                yield from self.need(4)
                continue
            size = from_bytes(data[at : at + 4], "little")
            if size == 0xFFFFFFFF:
                self.at += 4
                return
            if not 5 <= size <= bson.MAX_SIZE:
                self._stop("mongodump.document", f"document {namespace.documents + 1} of {shown} is broken")
            if size <= _DEEP:
                yield from self.need(size)
            else:
                yield from self._large(checksum, size, namespace, shown)

    def _large(self, checksum: Crc64, size: int, namespace: _Namespace, shown: str) -> Step:
        last = 0
        while size:
            yield from self.need(1)
            piece = self.data[self.at : self.at + size]
            checksum.update(piece)
            last = piece[-1]
            size -= len(piece)
            self.at += len(piece)
        if last:
            self._stop("mongodump.document", f"document {namespace.documents + 1} of {shown} is broken")
        namespace.documents += 1

    def _end(self, namespace: _Namespace, shown: str, expected: Any) -> None:
        namespace.ended = True
        self._open -= 1
        value = namespace.checksum.value()
        namespace.checksum = Crc64(XZ)
        if not isinstance(expected, int) or value != expected & 0xFFFFFFFFFFFFFFFF:
            self.problem("mongodump.checksum", f"the checksum of {shown} does not match its documents", advice=_ADVICE)

    def cut(self) -> None:
        self.problem("mongodump.cut", f"the archive ends inside {self._where}")

    def close(self) -> None:
        super().close()
        missing = []
        for (database, collection), namespace in self._namespaces.items():
            if database and (not namespace.view or namespace.documents):
                self.facts.counts.setdefault(database, {})[collection] = namespace.documents
            elif not database:
                self.facts.attributes[f"{collection}_documents"] = namespace.documents
            if not namespace.ended and (not namespace.view or namespace.documents):
                missing.append(".".join(filter(None, (database, collection))))
        if missing and self._whole:
            self.problems.append(
                Problem(
                    "mongodump.unfinished",
                    f"{len(missing)} of {len(self._namespaces)} collections have no end: {', '.join(missing[:5])}",
                    advice=_ADVICE,
                )
            )
        self.facts.unchecked.append(
            "whether the archive announces every collection of the source: compare with expected counts"
        )
        self.facts.unchecked.append("indexes and options of the collections: checksums cover the documents alone")


@dataclass
class Directory:
    """What the names in a directory of mongodump tell.

    :param streams: for each file of documents, its database and collection, for :class:`BsonWalker`.
    :param counts: the databases and collections; ``None`` for one whose documents cannot be counted.
    :param attributes: views, time series, versions.
    :param problems: partners that are missing, and descriptions that cannot be read.
    """

    streams: dict[str, tuple[str, str]] = field(default_factory=dict)
    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_directory(names: Iterable[str], read: Callable[[str], bytes | None]) -> Directory | None:
    """Return what a listing tells about a dump directory, ``None`` when it is not one.

    :param names: the files below the directory, as relative paths with ``/``; leading directories that all have in
        common are allowed, so a listing of a tar archive can be given as it is.
    :param read: returns a small file's content, decompressed; ``None`` when it cannot.
    """
    listed = [name for name in names if _kind(name)]
    if not any(_kind(name) == "bson" for name in listed) and not any(_kind(name) == "metadata" for name in listed):
        return None
    found = Directory()
    bodies: dict[tuple[str, str, str], str] = {}
    descriptions: dict[tuple[str, str, str], str] = {}
    for name in sorted(listed):
        parent, database, stem = _split(name)
        kind = _kind(name)
        if kind == "prelude":
            _read_prelude(found, name, read)
        elif kind == "oplog":
            found.streams[name] = ("", "oplog")
        elif kind == "bson":
            bodies[parent, database, stem] = name
        else:
            descriptions[parent, database, stem] = name
    described = set()
    for key, name in descriptions.items():
        described.add(key)
        _describe(found, key, name, bodies, described, read)
    for (parent, database, stem), name in bodies.items():
        if name not in found.streams:
            collection = unquote(stem)
            found.streams[name] = (database, collection)
            found.counts.setdefault(database, {})[collection] = None
        if (parent, database, stem) not in described:
            text = f"{name} has no metadata.json: the indexes and options of the collection are lost"
            found.problems.append(Problem("mongodump.metadata", text))
    return found


def _kind(name: str) -> str:
    """Return what a file of a dump directory is: bson, metadata, oplog, prelude, or nothing of it."""
    base = name[:-3] if name.endswith(".gz") else name
    last = base.rpartition("/")[2]
    if last == "oplog.bson":
        # A collection may be called oplog: then it has a description beside it, which is the caller's last resort.
        return "oplog"
    if last == "prelude.json":
        return "prelude"
    if base.endswith(".metadata.json"):
        return "metadata" if "/" in base else ""
    return "bson" if base.endswith(".bson") and "/" in base else ""


def _split(name: str) -> tuple[str, str, str]:
    base = name[:-3] if name.endswith(".gz") else name
    folder, _slash, last = base.rpartition("/")
    parent, _slash, database = folder.rpartition("/")
    for ending in (".metadata.json", ".bson"):
        if last.endswith(ending):
            last = last[: -len(ending)]
            break
    return parent, database, last


def _read_prelude(found: Directory, name: str, read: Callable[[str], bytes | None]) -> None:
    values = _json(read(name))
    if values is None:
        found.problems.append(Problem("mongodump.prelude", f"{name} cannot be read"))
        return
    for key, attribute in (("ServerVersion", "server_version"), ("ToolVersion", "tool_version")):
        if isinstance(values.get(key), str):
            found.attributes[attribute] = values[key]


def _describe(
    found: Directory,
    key: tuple[str, str, str],
    name: str,
    bodies: dict[tuple[str, str, str], str],
    described: set[tuple[str, str, str]],
    read: Callable[[str], bytes | None],
) -> None:
    parent, database, stem = key
    values = _json(read(name))
    collection = unquote(stem)
    if values is None:
        found.problems.append(Problem("mongodump.metadata", f"{name} cannot be read: it is not a JSON document"))
        values = {}
    if isinstance(values.get("collectionName"), str):
        collection = values["collectionName"]
    options = values.get("options")
    options = options if isinstance(options, dict) else {}
    tables = found.counts.setdefault(database, {})
    body = bodies.get(key)
    if values.get("type") == "timeseries" or "timeseries" in options:
        found.attributes.setdefault("timeseries", []).append(f"{database}.{collection}")
        tables[collection] = None
        bucket = (parent, database, _BUCKETS + stem)
        described.add(bucket)
        body, collection = bodies.get(bucket), _BUCKETS + collection
    elif values.get("type") == "view" or "viewOn" in options:
        found.attributes.setdefault("views", []).append(f"{database}.{collection}")
        if body is None:
            return
    if body is None:
        if values:
            text = f"{name} describes {database}.{collection}, but its documents (.bson) are not there"
            found.problems.append(Problem("mongodump.missing", text, advice=_ADVICE))
        return
    tables[collection] = None
    found.streams[body] = (database, collection)


def _json(content: bytes | None) -> dict[str, Any] | None:
    try:
        values = json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
