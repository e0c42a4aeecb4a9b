# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that mean something only together: a directory of mongodump, the parts of a Redis append only file, logs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import binlogs
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import (
    formats,
    mariabackup,
    mongodump,
    mydumper,
    redis_aof,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import Space
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

_KEPT = ("prelude.json", ".metadata.json", ".aof.manifest", ".meta", ".frm", ".ren")
_FILES = (".bson", ".aof", ".rdb", ".ibd", ".new", ".delta", ".sql", ".dat", "ib_logfile0", "xtrabackup_logfile")
_NAMED = (*_KEPT, *_FILES, ".mbstream", ".xbstream", ".xb")

#: No compression makes more of nothing, in bytes.
_EMPTY = 40

#: Of a table's definition only the beginning is kept.
_BEGINNING = 64

#: Names that are remembered, and bytes of one file and of all together whose content is.
_MAX_NAMES = 50_000
_MAX_FILE = 256 * 1024
_MAX_CONTENT = 8 * 1024 * 1024


class Related:
    """Take the names, keep the content of the small files that describe the others, and judge them at the end."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._contents: dict[str, bytearray] = {}
        self._kept = 0
        self._full = False
        self._logs: dict[str, binlogs.Log | None] = {}
        self._spaces: dict[str, Space] = {}
        self._unended: dict[str, mydumper.Unended] = {}

    def add(self, path: str, size: int) -> Keep | None:
        """Take a file; return what wants its content, if anything does."""
        base = path[:-3] if path.endswith(".gz") else path
        described = mariabackup.DESCRIPTION.match(base) is not None or _last(base) in mydumper.METADATA
        base = formats.promised_codec(path)[1]
        if not base.endswith(_NAMED) and not described:
            name = formats.promised_codec(path)[1]
            if binlogs.NAME.match(name) and len(self._logs) < _MAX_NAMES:
                self._logs.setdefault(name, None)
            return None
        if len(self._names) >= _MAX_NAMES:
            self._full = True
            return None
        self._names[path] = size
        if not base.endswith(_KEPT) and not described:
            return None
        longest = _BEGINNING if base.endswith(".frm") else _MAX_FILE
        size = min(size, longest) if longest == _BEGINNING else size
        if size > longest and _last(base) in mydumper.METADATA:
            return None  # many programs have a file of this name
        if size > longest or self._kept + size > _MAX_CONTENT:
            self._full = True
            return None
        self._kept += size
        content = self._contents[path] = bytearray()
        return Keep(content, longest)

    def part(self, path: str, part: object) -> None:
        """Take what a walker tells about one of the files, by its path without compression."""
        if isinstance(part, binlogs.Log) and len(self._logs) < _MAX_NAMES:
            self._logs[path] = part
        elif isinstance(part, Space) and len(self._spaces) < _MAX_NAMES:
            self._spaces[path] = part
        elif isinstance(part, mydumper.Unended):
            self._unended[path] = part

    def judge(
        self, counts: dict[str, dict[str, int | None]], attributes: dict[str, Any]
    ) -> tuple[list[tuple[str, Problem]], list[str]]:
        """Return the problems with the path they belong to, and what could not be checked.

        :param counts: what was counted; namespaces that only descriptions name are added, and names that a file name
            could not hold are put right.
        :param attributes: what else the formats told; what the files together tell is added.
        """
        problems = [("", problem) for problem in self._judge_logs(attributes)]
        if self._full:
            problems += self._judge_sql({}, counts)
            return problems, ["the descriptions of tables and collections: there are too many to be kept"]
        unchecked: list[str] = []
        dumps = {}
        for path in self._contents:
            folder = path[: -len(_last(path))]
            if _last(path) in mydumper.METADATA and folder not in dumps:
                tables = mydumper.judge(folder, self._sizes(), self._read(path), self._unended)
                if tables is not None:
                    dumps[folder] = tables
                    unchecked += tables.unchecked
                    attributes.setdefault("mydumper", []).append({"path": folder.rstrip("/"), **tables.values})
        problems += self._judge_sql(dumps, counts)
        for root in sorted({found["root"] for found in map(mariabackup.DESCRIPTION.match, self._contents) if found}):
            backup = mariabackup.judge(root, self._names, self._read, self._spaces)
            if backup is not None:
                problems += [("", problem) for problem in backup.problems]
                unchecked += backup.unchecked
                for database, table in (formats.table(f"{name}.ibd") for name in backup.tables):
                    counts.setdefault(database, {}).setdefault(table, None)
                attributes.setdefault("mariabackup", []).append({"path": root.rstrip("/"), **backup.values})
        dump = mongodump.read_directory(self._names, self._read)
        if dump is not None:
            problems += [("", problem) for problem in dump.problems]
            _rename(counts, dump.streams)
            for database, collections in dump.counts.items():
                for collection in collections:
                    counts.setdefault(database, {}).setdefault(collection, None)
        for path in self._names:
            if path.endswith(".aof.manifest"):
                folder = path[: path.rfind("/") + 1]
                beside = [name[len(folder) :] for name in self._names if name.startswith(folder)]
                parts = redis_aof.read_manifest(self._read(path) or b"", beside)
                problems += [("", problem) for problem in parts.problems]
        return problems, unchecked

    def _sizes(self) -> dict[str, int]:
        """Return the files without the endings of compression, and 0 for the size of those that hold nothing."""
        sizes = {}
        for path, size in self._names.items():
            codec, name = formats.promised_codec(path)
            sizes[name] = 0 if codec is not None and size <= _EMPTY else size
        return sizes

    def _judge_sql(
        self, dumps: dict[str, mydumper.Dump], counts: dict[str, dict[str, int | None]]
    ) -> list[tuple[str, Problem]]:
        """Return what is wrong with files of SQL that have no end mark: those of mydumper need none."""
        problems = [("", problem) for dump in dumps.values() for problem in dump.problems]
        found = [dump.counts for dump in dumps.values()]
        for path, file in self._unended.items():
            if path[: -len(_last(path))] not in dumps:
                problems.append((file.subject, file.problem))
                found.append(file.counts)
        for part in found:
            for database, tables in part.items():
                known = counts.setdefault(database, {})
                for table, rows in tables.items():
                    before = known.get(table, 0)
                    known[table] = None if rows is None or before is None else before + rows
        return problems

    def _judge_logs(self, attributes: dict[str, Any]) -> list[Problem]:
        """Return what is wrong with binary logs one after the other; those of one folder and name belong together."""
        groups: dict[str, dict[str, binlogs.Log | None]] = {}
        for path, log in self._logs.items():
            groups.setdefault(path.rpartition(".")[0], {})[path] = log
        problems = []
        for group in groups.values():
            logs = [log for log in group.values() if log is not None]
            if not logs:
                continue
            attributes.setdefault("binlogs", []).extend(
                log.as_dict() for log in sorted(logs, key=lambda log: (len(log.name), log.name))
            )
            for path, log in group.items():
                if log is None:
                    text = f"{formats.base_name(path)} is named like the logs beside it, but does not begin like one"
                    problems.append(Problem("binlog.magic", text))
            problems += [
                Problem("binlog.gap", gap.message, damage=bool(gap.lost), note=gap.lost is False)
                for gap in binlogs.continuity(logs)
            ]
        return problems

    def _read(self, path: str) -> bytes | None:
        content = self._contents.get(path)
        if content is None:
            return None
        if not path.endswith(".gz"):
            return bytes(content)
        inflater = zlib.decompressobj(31)
        try:
            inflated = inflater.decompress(bytes(content), 16 * _MAX_FILE)
        except zlib.error:
            return None
        return inflated if inflater.eof else None


class Keep:
    """Keeps the content of one file."""

    def __init__(self, content: bytearray, longest: int) -> None:
        self._content = content
        self._longest = longest

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if len(self._content) <= self._longest:
            self._content += data[: self._longest + 1]

    def close(self, complete: bool = True) -> None:
        """Take the end."""


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _rename(counts: dict[str, dict[str, int | None]], streams: Mapping[str, tuple[str, str]]) -> None:
    for path, (database, collection) in streams.items():
        base = path[:-3] if path.endswith(".gz") else path
        told, name = formats.namespace(base)
        if (told, name) != (database, collection) and name in counts.get(told, {}):
            counts.setdefault(database, {})[collection] = counts[told].pop(name)
            if not counts[told]:
                del counts[told]
