# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binary logs, copied without a gap: those that the server has closed since the last time, after it was told to.

A log backup continues the one before it when its first file follows that one's last file and begins with the same GTID
state. Where the server has removed files that were never copied, or has begun its logs anew, there is a gap: what is
there is copied all the same, and the gap is written down and told.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb_session import (
    Access,
    Packing,
    QueryError,
    Server,
    Session,
    about,
    begin_snapshot,
    count,
    count_objects,
    describe,
    gtid_at,
    list_tables,
    text,
    utc,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Made, MakeError, Stage, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

_MAGIC = b"\xfebin"
_HEADER = struct.Struct("<IBIIIH")  # time, type, server, length, next position, flags
_STOP, _ROTATE, _FORMAT = 3, 4, 15

#: Bytes that are read at once.
_PIECE = 1 << 20

#: Longest name of a file in a rotate event, with its directory.
_MAX_NAME = 512

_NUMBERED = re.compile(r"(.*\.)(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Probing:
    """Whether the tables are counted beside the logs, so that a recovery can be compared.

    :param interval: seconds after which it is done again.
    """

    wanted: bool = True
    checksums: bool = False
    interval: float = 86400.0


@dataclass(frozen=True)
class Binlog:
    """A closed file.

    :param ending: ``rotate``, ``stop``, or ``crash`` when the server did not close it.
    """

    file: str
    size: int
    first_time: int
    last_time: int
    ending: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a manifest."""
        times = {"first_time": utc(self.first_time), "last_time": utc(self.last_time)}
        return {"file": self.file, "size": self.size, **times, "ending": self.ending}


@dataclass(frozen=True)
class Gap:
    """A time from which nothing is in any log.

    :param after: the last file before it that was copied, or that should have been the first.
    :param begin: when that ended, as far as it is known.
    :param reason: how it came about.
    """

    after: str
    begin: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be copied, in the order of the server, and the gap before it."""

    files: list[tuple[str, int]]
    gap: Gap | None = None


def next_name(name: str) -> str:
    """Return the name that a server gives to the file after this one."""
    found = _NUMBERED.fullmatch(name)
    if not found:
        raise MakeError(f"'{name}' is no name of a binary log")
    return f"{found[1]}{int(found[2]) + 1:0{len(found[2])}d}"


def plan(listed: Sequence[tuple[str, int]], earlier: Sequence[Kept], server: Server) -> Plan:
    """Return what to copy.

    :param listed: the closed files that the server still has, with their sizes.
    """
    names = [name for name, _size in listed]
    previous = _newest(earlier, "log")
    if previous is None:
        base = _newest(earlier, "full", "dump")
        wanted = base and base.manifest.positions.get("binlog_file")
        if base is None or not wanted or wanted in names:
            return Plan(list(listed))
        reason = f"{base.path} ends in {wanted}, which the server does not have any more"
        return Plan(list(listed), Gap(wanted, utc(base.manifest.ended or 0), reason))
    positions = previous.manifest.positions
    last, ended = str(positions["last_file"]), str(positions.get("last_time", ""))
    begun_anew = _begun_anew(previous, dict(listed), server)
    wanted = next_name(last)
    if not begun_anew and wanted in names:
        return Plan(list(listed)[names.index(wanted) :])
    if not begun_anew:
        stem = wanted.rpartition(".")[0]
        later = any(name.rpartition(".")[0] == stem and _number(name) > _number(wanted) for name in names)
        begun_anew = f"the server has removed {wanted} before it was copied" if later else ""
    reason = begun_anew or f"the server has begun its logs anew: {wanted} should follow, and it has {', '.join(names)}"
    return Plan(list(listed), Gap(last, ended, reason))


def _begun_anew(previous: Kept, sizes: dict[str, int], server: Server) -> str:
    """Return why the server's files cannot continue a log backup, whatever their names are."""
    document = previous.manifest.document
    uuid = (document.get("server") or {}).get("uuid")
    if uuid and uuid != server.uuid:
        return f"the logs before were of another server ({uuid}, this one is {server.uuid})"
    copied = (document.get("binlogs") or [{}])[-1]
    there = sizes.get(str(copied.get("file")))
    if there is not None and there != copied.get("size"):
        return f"the server has begun its logs anew: {copied['file']} is not the file that was copied"
    return ""


def inspect(path: str, name: str) -> Binlog:
    """Return what the beginning and the end of a closed file tell.

    :raises MakeError: when it is none.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(len(_MAGIC) + _HEADER.size)
        if head[:4] != _MAGIC or len(head) < 23 or _HEADER.unpack_from(head, 4)[1] != _FORMAT:
            raise MakeError(f"{name} does not begin as a binary log")
        first = _HEADER.unpack_from(head, 4)[0]
        stream.seek(max(4, size - _MAX_NAME - 64))
        start, tail = stream.tell(), stream.read()
        for at in range(len(tail) - _HEADER.size, -1, -1):
            moment, kind, _server, length, after, _flags = _HEADER.unpack_from(tail, at)
            if length == len(tail) - at and after == (start + at + length) & 0xFFFFFFFF and kind in (_STOP, _ROTATE):
                return Binlog(name, size, first, moment, "stop" if kind == _STOP else "rotate")
        last, position = first, 4
        while position + _HEADER.size <= size:  # the server did not close it: go through all of it
            stream.seek(position)
            moment, _kind, _server, length, _after, _flags = _HEADER.unpack(stream.read(_HEADER.size))
            if length < _HEADER.size or position + length > size:
                break
            last, position = moment or last, position + length
        return Binlog(name, size, first, last, "crash")


def size_to_copy(session: Session, earlier: Sequence[Kept]) -> int:
    """Return the bytes that are to be copied now."""
    return sum(size for _name, size in plan(_listed(session), earlier, describe(session)).files)


def make(work: Work, access: Access, packing: Packing, probing: Probing, how: str) -> Made:
    """Copy the closed logs.

    :param how: ``files`` of this host, ``remote`` through the server, or ``auto``: the first where it is possible.
    :raises MakeError: when one cannot be copied whole.
    """
    made = Made(method="binlog")
    with Session(access, work.timeout) as session:
        server = describe(session)
        if not server.logging:
            raise MakeError("the server writes no binary logs; set log_bin in its configuration and restart it")
        if any(server.variables.get(name) in ("ON", "1") for name in ("encrypt_binlog", "binlog_encryption")):
            raise MakeError("the server encrypts its binary logs, and copies of such are not supported")
        probe = _probe(work, access, session, server, probing, made.warnings)
        session.query("FLUSH BINARY LOGS")
        closed = _listed(session)
        active = closed.pop()[0]
        chosen = plan(closed, work.earlier, server)
        gtid_start, gtid_end = (_gtid_before(session, name) for name in (chosen.files[0][0], active))
    previous = _newest(work.earlier, "log")
    if previous is not None and chosen.gap is None:
        chosen = _same_gtid(chosen, closed, previous, gtid_start)
    if previous is not None and chosen.gap is None and server.local:
        chosen = same_content(chosen, closed, previous, os.path.dirname(server.variables.get("log_bin_basename", "")))
    binlogs = []
    for name, size in chosen.files:
        work.say(f"copies {name}, {size} bytes")
        binlogs.append(_copy(work, access, server, name, size, packing, how, made))
    first, last = binlogs[0], binlogs[-1]
    for entry in binlogs:
        if entry.ending == "crash":
            made.warnings.append(f"{entry.file} was not closed by the server; it may lack what was not on disk then")
    base = _newest(work.earlier, "full", "log") or _newest(work.earlier, "dump")
    if base is None:
        made.warnings.append("there is no full backup or dump that these logs could continue; make one")
    if chosen.gap is not None:
        full = _newest(work.earlier, "full", "dump")
        ended = 0.0 if full is None else full.manifest.ended or 0.0
        cure = "make a full backup now" if ended < first.first_time else f"there is a full backup of {utc(ended)}"
        made.alarms.append(
            f"nothing can be recovered that was written between {chosen.gap.begin} and {utc(first.first_time)}: "
            f"{chosen.gap.reason}; {cure}, and the server should keep its logs for longer"
        )
        made.more["gap"] = {
            "after": chosen.gap.after, "before": first.file, "from": chosen.gap.begin, "to": utc(first.first_time),
            "reason": chosen.gap.reason,
        }  # fmt: skip
    made.engine = {"name": server.flavour, "version": server.version}
    made.parent = base.id if base else None
    positions = {
        "first_file": first.file, "last_file": last.file, "first_time": utc(first.first_time),
        "last_time": utc(last.last_time), "gtid_start": gtid_start, "gtid_end": gtid_end,
    }  # fmt: skip
    made.positions = {key: value for key, value in positions.items() if value}
    made.more["binlogs"] = [entry.as_dict() for entry in binlogs]
    made.more["server"] = about(server)
    if previous is not None and chosen.gap is None:
        made.more["continues"] = previous.id
    if probe is not None:
        made.more["probe"] = probe
    return made


def _copy(
    work: Work, access: Access, server: Server, name: str, size: int, packing: Packing, how: str,
    made: Made,
) -> Binlog:  # fmt: skip
    """Copy one closed file, compressed, and return what it holds."""
    local = os.path.join(os.path.dirname(server.variables.get("log_bin_basename", "")), name)
    usable = server.local and os.path.isabs(local) and os.access(local, os.R_OK) and os.path.getsize(local) == size
    if how == "files" and not usable:
        raise MakeError(f"{local} cannot be read here, or is not {size} bytes long; set log_copy to 'remote'")
    path = local
    if how == "remote" or not usable:
        path = os.path.join(work.directory, name)
        program = server.program("binlog")
        argv = [program, *access.arguments, "--read-from-remote-server", "--raw"]
        argv += [f"--result-file={work.directory}{os.sep}", "--", name]
        done = work.run(argv, timeout=work.timeout, env=access.environment)
        if not done.ok:
            raise MakeError(done.describe())
        made.exits[program] = done.rc
        if not os.path.exists(path) or os.path.getsize(path) != size:
            there = os.path.getsize(path) if os.path.exists(path) else 0
            raise MakeError(f"{program} copied {there} bytes of {name}, but the server says that it has {size}")
    found = inspect(path, name)
    stages, suffix = packing
    if path != local and not suffix:
        return found
    output = work.stream([Stage(["cat", "--", path]), *stages], name + suffix)
    made.files[name + suffix] = output.entry
    made.exits.update(output.exits)
    copied = (output.entry.content or output.entry).size
    if copied != size:
        raise MakeError(
            f"{name} was changed while it was copied: {copied} bytes, but the server says that it has {size}"
        )
    if path != local:
        os.unlink(path)
    return found


def _probe(
    work: Work, access: Access, session: Session, server: Server, probing: Probing, warnings: list[str]
) -> dict[str, Any] | None:
    """Return what is in the tables at one place of the logs that are to be closed now."""
    now = float(session.query("SELECT UNIX_TIMESTAMP()")[0][0])
    last = max((kept.manifest.ended or 0 for kept in work.earlier if kept.manifest.document.get("probe")), default=0.0)
    if not probing.wanted or now - last < probing.interval:
        return None
    with Session(access, work.timeout) as counting:
        position = begin_snapshot(counting)
        if position is None:
            return None
        gtid = gtid_at(counting, server, position)
        tables = list_tables(counting)
        work.say(f"counts {len(tables.countable)} tables as they are at {position.file}:{position.position}")
        try:
            found = count(counting, tables, probing.checksums)
            objects = count_objects(counting)
        except MakeError as error:
            warnings.append(f"the tables were not counted: {error}")
            return None
    warnings += [f"not counted: {reason}" for reason in found.untold]
    probe = {
        "time": utc(now), "binlog_file": position.file, "binlog_position": position.position, "gtid": gtid,
        "counts": found.counts, "checksums": found.checksums, "objects": objects,
    }  # fmt: skip
    return {key: value for key, value in probe.items() if value}


def _same_gtid(chosen: Plan, closed: list[tuple[str, int]], previous: Kept, gtid: str | None) -> Plan:
    """Return the plan, with a gap when its first file does not begin where the last backup ended."""
    positions = previous.manifest.positions
    before = positions.get("gtid_end")
    if before == gtid:
        return chosen
    reason = (
        f"the server has begun its logs anew: {chosen.files[0][0]} begins at GTID {gtid or 'none'}, not at {before}"
    )
    return Plan(closed, Gap(str(positions["last_file"]), str(positions.get("last_time", "")), reason))


def same_content(chosen: Plan, closed: list[tuple[str, int]], previous: Kept, folder: str) -> Plan:
    """Return the plan, with a gap when the file that was copied last holds something else now.

    A server that has begun its logs anew may have got as far as the name, the size and the GTID of that file again.

    :param folder: where the server has its logs on this host.
    """
    name = str(previous.manifest.positions["last_file"])
    copied = next((entry for path, entry in previous.manifest.files.items() if path.startswith(f"{name}.")), None)
    copied = copied or previous.manifest.files.get(name)
    digest = hashlib.sha256()
    try:
        with open(os.path.join(folder, name), "rb") as stream:
            for piece in iter(lambda: stream.read(_PIECE), b""):
                digest.update(piece)
    except OSError:
        return chosen  # it is gone, or not for us to read
    if copied is None or (copied.content or copied).sha256 in (None, digest.hexdigest()):
        return chosen
    reason = f"the server has begun its logs anew: {name} is not the file that was copied"
    return Plan(closed, Gap(name, str(previous.manifest.positions.get("last_time", "")), reason))


def _gtid_before(session: Session, name: str) -> str | None:
    """Return the GTID state at the beginning of a file, as the server has written it there."""
    try:
        rows = session.query(f"SHOW BINLOG EVENTS IN {text(name)} LIMIT 3")
    except QueryError:
        return None
    for row in rows:
        if row[2] in ("Gtid_list", "Previous_gtids"):
            return row[5].strip("[]").replace("\n", "") or None
    return None


def _listed(session: Session) -> list[tuple[str, int]]:
    return [(row[0], int(row[1])) for row in session.query("SHOW BINARY LOGS")]


def _newest(earlier: Sequence[Kept], *kinds: str) -> Kept | None:
    return next((kept for kept in reversed(earlier) if kept.manifest.kind in kinds), None)


def _number(name: str) -> int:
    found = _NUMBERED.fullmatch(name)
    return int(found[2]) if found else 0
