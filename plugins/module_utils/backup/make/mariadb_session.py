# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A conversation with a MariaDB or MySQL server through its own client, and what is asked of the server in it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError, Stage
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.mariadb_objects import OBJECTS
from ansible_collections.worklog.maintenance.plugins.module_utils.command import which

#: Databases that the server fills by itself, or whose tables change without a trace in the binary logs.
SYSTEM_DATABASES = ("information_schema", "performance_schema", "mysql", "sys")

_CLIENTS = ("mariadb", "mysql")
_VARIABLES = (
    "version", "hostname", "port", "datadir", "server_id", "server_uid", "server_uuid", "log_bin", "log_bin_basename",
    "encrypt_binlog", "binlog_encryption",
)  # fmt: skip
_ESCAPE = re.compile(r"\\([nt0\\])")
_ESCAPED = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


#: The programs that compress, and what they add to the name of a file.
Packing = tuple[list[Stage], str]


class QueryError(MakeError):
    """The server has refused a statement; the message holds its words."""


@dataclass(frozen=True)
class Access:
    """How the server is reached.

    :param defaults_file: option file with account, password, host or socket; None: the options of the system.
    """

    defaults_file: str | None = None

    @property
    def arguments(self) -> list[str]:
        """Return what must be the first arguments of every program of the server."""
        return [f"--defaults-extra-file={self.defaults_file}"] if self.defaults_file else []

    @property
    def environment(self) -> dict[str, str]:
        """Return what must be in the environment: without a home, no other option file overrules the given one."""
        return {"HOME": "/nonexistent"} if self.defaults_file else {}


@dataclass(frozen=True)
class Position:
    """A place in the binary logs."""

    file: str
    position: int


@dataclass(frozen=True)
class Server:
    """What a server says of itself.

    :param flavour: ``MariaDB`` or ``MySQL``.
    :param uuid: its name for ever, as far as it has one.
    :param variables: further variables by name.
    :param local: whether it runs on this host, so that its files are here.
    """

    flavour: str
    version: str
    uuid: str
    variables: Mapping[str, str]
    local: bool

    @property
    def logging(self) -> bool:
        """Whether it writes binary logs."""
        return self.variables.get("log_bin", "OFF") in ("ON", "1")

    @property
    def datadir(self) -> str:
        """Return its directory of data."""
        return self.variables.get("datadir", "")

    def program(self, purpose: str, find: Callable[[str], str | None] = which) -> str:
        """Return the name of the program for a purpose (``dump``, ``binlog``, ``backup``), as this server has it.

        :raises MakeError: when it is not installed.
        """
        ours = {"backup": ("mariadb-backup", "mariabackup")}.get(purpose, (f"mariadb-{purpose}", f"mysql{purpose}"))
        theirs = {"backup": ("xtrabackup",)}.get(purpose, (f"mysql{purpose}", f"mariadb-{purpose}"))
        names = ours if self.flavour == "MariaDB" else theirs
        for name in names:
            if find(name):
                return name
        raise MakeError(f"none of the programs {', '.join(names)} is installed on this host; install one of them")


class Session:
    """An open connection. Names that are hostile are only data: they come escaped, and go quoted.

    :param access: how the server is reached.
    :param timeout: seconds for the whole conversation.
    :raises MakeError: when the client cannot be started or the server does not let it in.
    """

    def __init__(self, access: Access, timeout: float) -> None:
        program = next((found for name in _CLIENTS if (found := which(name))), None)
        if program is None:
            raise MakeError(f"none of the clients {', '.join(_CLIENTS)} is installed on this host; install one of them")
        self._limit = time.monotonic() + timeout
        self._buffer = b""
        self._said = 0
        self._errors = os.fdopen(os.memfd_create("errors"), "w+b")
        argv = [program, *access.arguments, "--batch", "--skip-column-names", "--unbuffered", "--binary-mode"]
        argv += ["--force", "--skip-reconnect", "--default-character-set=utf8mb4"]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **access.environment},
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise MakeError(f"{program} could not be started: {error}") from error
        try:
            self.query("SET SESSION sql_mode = ''")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement.

        :raises QueryError: when the server refuses it; the session goes on.
        :raises MakeError: when the connection is lost or the time is over.
        """
        mark = f"end-{secrets.token_hex(8)}"
        rows = []
        self._send(f"{statement};\nSELECT '{mark}';\n")
        while (line := self._line()) != mark:
            rows.append([_ESCAPE.sub(lambda match: _ESCAPED[match[1]], value) for value in line.split("\t")])
        words = self._words()
        if words:
            raise QueryError(f"the database server refuses '{_short(statement)}': {words}")
        return rows

    def kill(self) -> None:
        """End the connection, whatever it does now; the server gives up what it held. From any thread."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End the connection and free what belongs to it."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._errors.close()

    def _send(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        try:
            while data and self._process.stdin is not None:
                data = data[self._process.stdin.write(data) :]
        except (OSError, ValueError):
            raise self._lost() from None

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            out = self._process.stdout
            try:
                left = self._limit - time.monotonic()
                if out is None or left <= 0 or not select.select([out], [], [], left)[0]:
                    self._process.kill()
                    raise MakeError("the database server did not answer in time; look at its process list")
                block = os.read(out.fileno(), 1 << 16)
            except (OSError, ValueError):
                raise self._lost() from None
            if not block:
                raise self._lost()
            self._buffer += block
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        return line.decode("utf-8", "surrogateescape")

    def _words(self) -> str:
        """Return what the client has complained of since the last time."""
        self._errors.seek(self._said)
        new = self._errors.read()
        self._said += len(new)
        lines = [line.strip() for line in new.decode("utf-8", "replace").splitlines()]
        return "; ".join(line for line in lines if line.startswith("ERROR"))

    def _lost(self) -> MakeError:
        if self._errors.closed:
            return MakeError("the connection to the database server was closed")
        return MakeError(f"no connection to the database server: {self._words() or 'it was lost'}")


def _short(statement: str) -> str:
    return statement if len(statement) <= 300 else statement[:300] + "…"


def quote(name: str) -> str:
    """Return a name as it stands in a statement."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """Return a text as it stands in a statement, whatever is in it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def utc(moment: float) -> str:
    """Return a time as it stands in manifests."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def describe(session: Session) -> Server:
    """Return what the server says of itself."""
    names = ", ".join(f"'{name}'" for name in _VARIABLES)
    variables = {row[0]: row[1] for row in session.query(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")}
    version = variables.get("version", "")
    host = session.query("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()")
    fallback = f"{variables.get('hostname', '')}:{variables.get('port', '')}"
    return Server(
        flavour="MariaDB" if "mariadb" in version.lower() else "MySQL",
        version=version,
        uuid=variables.get("server_uuid") or variables.get("server_uid") or fallback,
        variables=variables,
        local=bool(host and host[0][0] == "localhost") or variables.get("hostname") == platform.node(),
    )


def about(server: Server) -> dict[str, str]:
    """Return what a manifest tells of the server."""
    return {"uuid": server.uuid, "hostname": server.variables.get("hostname", "")}


def begin_snapshot(session: Session) -> Position | None:
    """Begin a consistent snapshot, and return its place in the binary logs, None when the server cannot tell it."""
    session.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    status = {row[0].lower(): row[1] for row in session.query("SHOW STATUS LIKE 'binlog_snapshot_%'") if len(row) > 1}
    if not status.get("binlog_snapshot_file"):
        return None
    return Position(status["binlog_snapshot_file"], int(status["binlog_snapshot_position"]))


def gtid_at(session: Session, server: Server, position: Position) -> str | None:
    """Return the GTID state at a place in the binary logs, None when the server cannot tell it."""
    if server.flavour != "MariaDB":
        return None
    rows = session.query(f"SELECT IFNULL(BINLOG_GTID_POS({text(position.file)}, {position.position}), '')")
    return rows[0][0] or None


@dataclass(frozen=True)
class Tables:
    """The tables of a server: database and name of each.

    :param countable: those whose rows belong to a consistent snapshot.
    :param others: those of engines without transactions, with the engine.
    """

    countable: list[tuple[str, str]]
    others: list[tuple[str, str, str]]


def list_tables(session: Session, databases: Sequence[str] = (), exclude: Sequence[str] = ()) -> Tables:
    """Return the tables of some databases, or of all that are not the server's own.

    :param databases: names, all when there are none.
    :param exclude: ``database.table`` of each one to leave out.
    """
    chosen = " AND TABLE_SCHEMA IN (" + ", ".join(text(name) for name in databases) + ")" if databases else ""
    own = ", ".join(f"'{name}'" for name in SYSTEM_DATABASES)
    rows = session.query(
        "SELECT TABLE_SCHEMA, TABLE_NAME, IFNULL(t.ENGINE, ''), IFNULL(e.TRANSACTIONS, 'NO')"
        " FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE"
        f" WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ({own}){chosen}"
        " ORDER BY 1, 2"
    )
    found = Tables([], [])
    for database, table, engine, transactions in rows:
        if f"{database}.{table}" in exclude:
            continue
        if transactions == "YES":
            found.countable.append((database, table))
        else:
            found.others.append((database, table, engine or "unknown"))
    return found


@dataclass
class Counted:
    """What is in the tables of a snapshot.

    :param counts: rows by database and table.
    :param checksums: of the tables, likewise, if they were asked for.
    :param untold: tables that cannot be told, and why.
    """

    counts: dict[str, dict[str, int]]
    checksums: dict[str, dict[str, str]]
    untold: list[str]


def count(session: Session, tables: Tables, checksums: bool) -> Counted:
    """Count the rows of tables in the snapshot of a session, and end the snapshot.

    :param checksums: whether to ask for their checksums, too, which reads every row.
    """
    found = Counted({}, {}, [])
    for database, table in tables.countable:
        name = f"{quote(database)}.{quote(table)}"
        try:
            rows = int(session.query(f"SELECT COUNT(*) FROM {name}")[0][0])
            if checksums:
                checksum = session.query(f"CHECKSUM TABLE {name}")[0][1]
                if checksum != "NULL":
                    found.checksums.setdefault(database, {})[table] = checksum
            found.counts.setdefault(database, {})[table] = rows
        except QueryError as error:
            found.untold.append(f"{database}.{table}: {error}")
    session.query("COMMIT")  # until then no counted table can be altered
    return found


def count_objects(session: Session) -> dict[str, int]:
    """Return how many views, routines and the like there are, as far as this account may see them."""
    found = {}
    for name, statement in OBJECTS.items():
        with contextlib.suppress(QueryError):
            found[name] = int(session.query(statement)[0][0])
    return found
