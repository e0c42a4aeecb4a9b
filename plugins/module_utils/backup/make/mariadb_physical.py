# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of the server's files: mariadb-backup (xtrabackup for MySQL), whole or what changed since another one.

A chain is a full backup and the incremental ones after it, each of which begins at the log sequence number (LSN) where
its parent ends. One that begins at the end of a parent from another server, or from a state that the server has left
since, would be prepared without an error and hold wrong pages: that is what :func:`choose_parent` is careful about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb_session import (
    Access,
    Packing,
    Server,
    Session,
    about,
    describe,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import PipelineError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Made, MakeError, Stage, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner

#: The program's own description beside the logs; MariaDB 11 has names of its own for the files.
_CHECKPOINTS = ("xtrabackup_checkpoints", "mariadb_backup_checkpoints")
_INFO = ("xtrabackup_info", "mariadb_backup_info")

_TROUBLE = re.compile(r"\[(?:error|warning)\]|\b(?:fatal error|error|warning):", re.IGNORECASE)
_ROUTINE = re.compile(r"\b(?:Streaming|Copying|Copied|Compressing|copied successfully)\b")
_STAMP = re.compile(r"^(?:\[\d+\] )?\d{4}-\d\d-\d\d[ T]+[\d:.]+(?:Z|[+-]\d\d:\d\d)?\s*(?:\d+ )?")
_BINLOG = re.compile(r"filename '([^']+)', position '(\d+)'(?:, GTID of the last change '([^']*)')?", re.DOTALL)

#: Lines of a log that go to the manifest at most.
_MAX_TROUBLES = 20


@dataclass(frozen=True)
class Range:
    """What a backup covers: pages that changed between two LSNs, and the redo log up to a third."""

    kind: str
    from_lsn: int
    to_lsn: int
    last_lsn: int


def parse_checkpoints(text: str) -> Range:
    """Return what the program says that its backup covers.

    :raises MakeError: when it cannot be understood.
    """
    values = dict(re.findall(r"^(\w+)\s*=\s*(\S+)\s*$", text, re.MULTILINE))
    try:
        return Range(values["backup_type"], *(int(values[key]) for key in ("from_lsn", "to_lsn", "last_lsn")))
    except (KeyError, ValueError) as error:
        raise MakeError(f"the checkpoints of the backup cannot be understood: {error}") from None


def parse_info(text: str) -> dict[str, Any]:
    """Return the place in the binary logs, GTID and version from the program's description of its backup."""
    found: dict[str, Any] = {}
    match = _BINLOG.search(text)
    if match:
        found = {"binlog_file": match[1], "binlog_position": int(match[2]), "gtid": match[3]}
    version = re.search(r"^tool_version = (.+)$", text, re.MULTILINE)
    found["tool_version"] = version[1].strip() if version else ""
    return {key: value for key, value in found.items() if value}


def review(text: str) -> tuple[bool, list[str]]:
    """Return whether the log of the program says that it is complete, and the errors and warnings in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complete = bool(lines) and lines[-1].endswith("completed OK!")
    troubles = [_STAMP.sub("", line) for line in lines if _TROUBLE.search(line) and not _ROUTINE.search(line)]
    distinct = list(dict.fromkeys(troubles))
    if len(distinct) > _MAX_TROUBLES:
        distinct[_MAX_TROUBLES:] = [f"{len(distinct) - _MAX_TROUBLES} more are in the log"]
    return complete, distinct


def chain(tip: Kept, earlier: Sequence[Kept]) -> list[Kept] | None:
    """Return a backup with those that it needs, the full one first, None when one is missing or does not fit."""
    by_id = {kept.id: kept for kept in earlier}
    links = [tip]
    while links[0].manifest.kind != "full":
        parent = by_id.get(str(links[0].manifest.parent))
        begins, ends = links[0].manifest.positions.get("from_lsn"), parent and parent.manifest.positions.get("to_lsn")
        if parent is None or parent in links or begins is None or begins != ends:
            return None
        links.insert(0, parent)
    return links


def choose_parent(earlier: Sequence[Kept], server: Server, identity: str, lsn: int | None) -> tuple[Kept | None, str]:
    """Return the backup that an incremental one can go on from, or None and why there is none.

    :param identity: of the server's files, from :func:`data_identity`; empty when it cannot be told.
    :param lsn: where the server is now, None when it cannot be told.
    """
    physical = [kept for kept in earlier if kept.manifest.kind in ("full", "incremental")]
    if not physical:
        return None, "there is no good full backup yet"
    tip = next((kept for kept in reversed(physical) if chain(kept, earlier)), None)
    if tip is None:
        return None, f"{physical[-1].path} needs backups that are missing, bad or do not fit, and there is no full one"
    made_from = tip.manifest.document.get("server") or {}
    if made_from.get("uuid") != server.uuid:
        return None, f"{tip.path} is of another server ({made_from.get('uuid')}, this one is {server.uuid})"
    if identity and made_from.get("data") and made_from["data"] != identity:
        return None, f"the server's files were made anew or restored since {tip.path}"
    reached = max(int(tip.manifest.positions.get(key) or 0) for key in ("to_lsn", "last_lsn"))
    if lsn is not None and lsn < reached:
        return None, f"the server is at LSN {lsn}, which is before the end of {tip.path} ({reached})"
    return tip, ""


def data_identity(server: Server, run: Runner) -> str:
    """Return what changes when the server's files are replaced, empty when this account may not see it.

    The name that a server gives itself stays the same when it gets new files.
    """
    if not server.local:
        return ""
    path = os.path.join(server.datadir, "ibdata1")
    try:
        done = run(["stat", "--format=%i-%W", path], timeout=10)
    except CommandError:
        return ""
    return done.stdout.strip() if done.ok else ""


def current_lsn(session: Session) -> int | None:
    """Return where the server is, None when it does not tell it like this (MySQL)."""
    rows = session.query("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'")
    return int(rows[0][1]) if rows else None


def make(work: Work, access: Access, packing: Packing, parallel: int) -> Made:
    """Make a full or an incremental backup.

    :raises MakeError: when it is not complete, or does not go on where its parent ends.
    """
    with Session(access, work.timeout) as session:
        server = describe(session)
        program = server.program("backup")
        _must_be_readable(server, program)
        identity = data_identity(server, work.run)
        parent = None
        if work.kind == "incremental":
            parent, why = choose_parent(work.earlier, server, identity, current_lsn(session))
            if parent is None:
                raise MakeError(f"no incremental backup can be made: {why}; make a full one first")
    stream = "mbstream" if server.flavour == "MariaDB" else "xbstream"
    logs = os.path.join(work.directory, "log")
    argv = [program, *access.arguments, "--backup", f"--stream={stream}", f"--parallel={parallel}"]
    argv += [f"--extra-lsndir={logs}", f"--target-dir={os.path.join(logs, 'target')}"]
    if parent is not None:
        argv.append(f"--incremental-lsn={parent.manifest.positions['to_lsn']}")
        work.say(f"continues {parent.path} from LSN {parent.manifest.positions['to_lsn']}")
    compressing, suffix = packing
    name = f"backup.{stream}{suffix}"
    try:
        # Every piece of the stream has a checksum, and so has every page in it.
        output = work.stream([Stage(argv, access.environment), *compressing], name, content=False)
    except PipelineError as error:
        troubles = review(_text(os.path.join(logs, f"{program}.log")))[1]
        if troubles and str(error).startswith(program):  # its last words are seldom those that tell why
            raise MakeError(f"{program} failed: {'; '.join(troubles)}") from None
        raise
    complete, warnings = review(_text(output.logs[program]))
    if not complete:
        raise MakeError(f"the log of {program} does not end with 'completed OK!', although it ended with exit code 0")
    covered = parse_checkpoints(_first(logs, _CHECKPOINTS))
    _judge(covered, parent)
    info = parse_info(_first(logs, _INFO))
    tool = info.pop("tool_version", "")
    return Made(
        method=program,
        engine={"name": server.flavour, "version": server.version, program: tool},
        parent=parent.id if parent else None,
        positions={
            "from_lsn": covered.from_lsn,
            "to_lsn": covered.to_lsn,
            "last_lsn": covered.last_lsn,
            **info,
        },
        files={name: output.entry},
        exits=output.exits,
        warnings=warnings,
        more={"server": {**about(server), **({"data": identity} if identity else {})}},
    )


def _judge(covered: Range, parent: Kept | None) -> None:
    """Check that a backup covers what it was made for."""
    begins = 0 if parent is None else int(parent.manifest.positions["to_lsn"])
    expected = "full-backuped" if parent is None else "incremental"
    if covered.kind != expected or covered.from_lsn != begins:
        raise MakeError(
            f"the backup is '{covered.kind}' from LSN {covered.from_lsn}, but should be '{expected}' from {begins}"
        )
    if not covered.from_lsn <= covered.to_lsn <= covered.last_lsn or not covered.to_lsn:
        raise MakeError(
            f"the backup covers LSN {covered.from_lsn} to {covered.to_lsn} and {covered.last_lsn}, which is not in "
            "order; has the server got other files? make a full one"
        )


def _must_be_readable(server: Server, program: str) -> None:
    if not server.local:
        raise MakeError(
            f"{program} reads the server's files, but the server runs on {server.variables.get('hostname')}; "
            "back it up there, or make dumps of it from here"
        )
    if not os.access(server.datadir, os.R_OK | os.X_OK):
        raise MakeError(f"{program} must read {server.datadir}; run it as root or as the account of the server")


def _first(directory: str, names: Sequence[str]) -> str:
    for name in names:
        path = os.path.join(directory, name)
        if os.path.exists(path):
            return _text(path)
    raise MakeError(f"the program has left no {names[0]}; look at its log")


def _text(path: str) -> str:
    return files.read(path).decode("utf-8", "replace")
