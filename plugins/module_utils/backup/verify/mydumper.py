# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What mydumper writes: a directory with one file for each table's definition and one or more for its rows.

``metadata`` is called ``metadata.partial`` until the dump has ended, and its last line says when that was. Newer
versions (0.12 and later) write into it how many rows each table has. The files of SQL have no end mark of their own:
the rows in them are counted, and compared with that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: The names of what describes a dump.
METADATA = ("metadata", "metadata.partial")

_STARTED = re.compile(r"(?:# )?Started dump at: ", re.MULTILINE)
_FINISHED = re.compile(r"(?:# )?Finished dump at: (\d+-\d+-\d+ \d+:\d+:\d+)")
_SECTION = re.compile(r"\[[`\"](.*)[`\"]\.[`\"](.*)[`\"]\]\Z")
_VALUE = re.compile(r"#? ?([A-Za-z_]+)\s*[=:]\s*[\"']?([^\"']*)[\"']?\Z")
#: Of a table: the definition, of a view, triggers, a sequence; else rows, perhaps in parts.
_SCHEMA = re.compile(r"(?P<table>.+)-schema(?P<what>-view|-triggers|-sequence)?\.sql\Z")
_ROWS = re.compile(r"(?P<table>.+?)(?:\.\d{5,}){0,2}\.(?:sql|dat)\Z")
_OF_A_DATABASE = re.compile(r".+-schema-(?:create|post|triggers)\.sql\Z")
_KEYS = {
    "log": "binlog_file", "file": "binlog_file", "source_log_file": "binlog_file",
    "pos": "binlog_position", "position": "binlog_position", "source_log_pos": "binlog_position",
    "gtid": "gtid", "executed_gtid_set": "gtid",
}  # fmt: skip
_ADVICE = "dump it anew; mydumper's own log (--logfile) names what failed"


@dataclass
class Unended:
    """A file of SQL that ends without an end mark: what lies beside it tells whether that is as it should be.

    :param subject: what it is called in a finding.
    :param problem: what is said of it when nothing explains it.
    :param counts: its rows.
    """

    subject: str
    problem: Problem
    counts: dict[str, dict[str, int | None]]


@dataclass
class Dump:
    """What a directory of mydumper tells.

    :ivar values: times, binary log, tables, as they are returned to the operator.
    :ivar problems: what is wrong.
    :ivar unchecked: what could not be told.
    :ivar counts: rows by database and table.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)


def unended(subject: str, walker: Walker) -> Unended | None:
    """Take from a walker of SQL the problem that its file has no end mark, and its rows; None when that is not all."""
    if [(problem.check, problem.damage) for problem in walker.problems] != [("sqldump.footer", False)]:
        return None
    part = Unended(subject, walker.problems.pop(), walker.facts.counts)
    walker.facts.counts = {}
    return part


def judge(folder: str, sizes: Mapping[str, int], text: bytes | None, files: Mapping[str, Unended]) -> Dump | None:
    """Return what a directory tells, None when it is none of mydumper.

    :param folder: the directory, empty or with a closing slash.
    :param sizes: the files below it, with the folder, without the endings of compression; 0 for one that holds nothing.
    :param text: its metadata.
    :param files: the files of SQL among them.
    """
    described = (text or b"").decode("utf-8", "replace")
    if not _STARTED.match(described):
        return None
    dump = Dump()
    there = {name[len(folder) :] for name in sizes if name.startswith(folder) and "/" not in name[len(folder) :]}
    finished = _FINISHED.search(described)
    if "metadata" not in there or finished is None:
        _add(dump, "unfinished", "its metadata do not say that it was finished: it was killed, or is still being made")
    rows = _read(dump, described)
    dump.values["finished"] = finished.group(1) if finished else None
    schemas: dict[str, str] = {}
    data: dict[str, int] = {}
    for name in sorted(there):
        if not name.endswith((".sql", ".dat")):
            continue
        schema = _SCHEMA.match(name)
        of_table = None if _OF_A_DATABASE.match(name) and "." not in name[:-4] else schema or _ROWS.match(name)
        if of_table is None:
            continue
        table = of_table["table"]
        if schema is None and not sizes[folder + name]:
            continue  # --build-empty-files makes one for a table without rows
        if schema is None:
            data[table] = data.get(table, 0) + 1
        elif schema["what"] != "-triggers":
            schemas[table] = schema["what"] or schemas.get(table, "")
        if name.endswith(".sql") and folder + name not in files and not (schema and schema["what"]):
            _add(dump, "sql", f"{printable(name)} does not begin as a file of mydumper does, or is cut")
    for path, file in files.items():
        if path.startswith(folder):
            _count(dump, path[len(folder) :], file)
    views = {table for table, what in schemas.items() if what == "-view"}
    for table in views:
        database, _dot, name = table.partition(".")
        dump.counts.setdefault(database, {})[name] = None
    _compare(dump, rows, schemas, data, views)
    return dump


def _read(dump: Dump, text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return what the metadata say of each table, and take the position in the binary log."""
    tables: dict[tuple[str, str], dict[str, str]] = {}
    section: dict[str, str] | None = None
    source = True
    for line in text.splitlines():
        found = _SECTION.match(line)
        if found:
            section = tables.setdefault((found[1], found[2]), {})
        elif line.startswith("["):
            section, source = None, line in ("[master]", "[source]")
        elif line.startswith("SHOW "):
            source = line.startswith("SHOW MASTER")  # else it is the position of the replica's source
        elif pair := _VALUE.match(line.strip()):
            key = pair[1].lower()
            if section is not None:
                section[key] = pair[2].strip()
            elif source and key in _KEYS and pair[2].strip():
                value = pair[2].strip()
                dump.values[_KEYS[key]] = int(value) if key.startswith(("pos", "source_log_pos")) else value
    return tables


def _count(dump: Dump, name: str, file: Unended) -> None:
    """Add the rows of a file to those of its database, which only its name tells."""
    for told, tables in file.counts.items():
        database = told or name.partition("-schema-create.sql" if "." not in name[:-4] else ".")[0]
        known = dump.counts.setdefault(database, {})
        for table, rows in tables.items():
            before = known.get(table, 0)
            known[table] = None if rows is None or before is None else before + rows


def _compare(
    dump: Dump,
    rows: dict[tuple[str, str], dict[str, str]],
    schemas: dict[str, str],
    data: dict[str, int],
    views: set[str],
) -> None:
    """Compare the tables of the metadata, of the definitions and of the rows."""
    dump.values["tables"] = len(schemas) - len(views)
    if schemas:
        for table in sorted(set(data) - set(schemas)):
            _add(dump, "missing", f"the definition of {printable(table)} is missing: there are only rows")
    told = 0
    for (database, name), values in sorted(rows.items()):
        file, table = f"{database}.{name}", values.get("real_table_name", name)
        if values.get("schema_checksum") and file not in schemas and schemas:
            _add(dump, "missing", f"the definition of {printable(file)} is missing")
        wanted = values.get("rows", "")
        if not wanted.isdigit():
            continue
        told += 1
        counted = dump.counts.get(database, {}).get(table, 0)
        if int(wanted) and file not in data:
            _add(dump, "missing", f"the rows of {printable(file)} are missing: there should be {wanted}")
        elif counted is not None and counted != int(wanted) and file in data:
            _add(dump, "rows", f"{printable(file)} has {counted} rows, but its metadata say {wanted}")
    if not told:
        empty = sorted(set(schemas) - set(data) - views)
        text = "this version of mydumper writes no numbers of rows; compare with expected counts"
        dump.unchecked.append(f"whether files end too early between two statements, or rows are missing: {text}")
        if empty:
            names = ", ".join(printable(name) for name in empty[:5]) + (" …" if empty[5:] else "")
            dump.unchecked.append(f"whether {len(empty)} tables without any rows are empty: {names}")
    if any("checksum" in key for values in rows.values() for key in values):
        dump.unchecked.append(
            "the checksums that mydumper wrote: they need a server, myloader --checksum compares them"
        )


def _add(dump: Dump, check: str, message: str) -> None:
    dump.problems.append(Problem(f"mydumper.{check}", message, advice=_ADVICE))
