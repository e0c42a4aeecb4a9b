# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore MariaDB: full backup, increments, binary logs up to a point, all in a scratch server of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import pipeline
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.mariadb_objects import OBJECTS
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import (
    Plan,
    Target,
    number_of,
    utc,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import binlog, scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import (
    Examined,
    RestoreError,
    Restorer,
    Session,
    Work,
    compare_counts,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.unpack import (
    named,
    plain_name,
    unpack,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, tied
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

STREAM, DUMP = "backup.mbstream", "dump.sql"

#: The account of the scratch server that we use; it is removed before the data are used for anything else.
ACCOUNT = "worklog-restore"

#: What of the settings of the backed up server decides whether its files can be read.
_LAYOUT = ("innodb_data_file_path", "innodb_page_size", "innodb_undo_tablespaces", "innodb_checksum_algorithm")
_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"
_START = 60.0


class MariaDB(Restorer):
    """Restores physical backups with their increments and logs, and dumps.

    Options: ``user``, the account of the scratch server; ``memory`` for it and for preparing.
    """

    name = "mariadb"

    @property
    def user(self) -> str:
        """Return the account that the scratch server runs as."""
        return str(self.options.get("user") or "mysql")

    @property
    def memory(self) -> str:
        """Return how much memory it may take."""
        return str(self.options.get("memory") or "128M")

    def prepare(self, plan: Plan, work: Work) -> str:
        """Unpack the full backup, apply the increments to that copy, and make it ready."""
        data = os.path.join(work.directory, "data")
        os.mkdir(data, 0o700)
        if any(plain_name(name) == DUMP for name in plan.base.last.manifest.files):
            self._load_dump(plan, work, data)
            return data
        for number, kept in enumerate(plan.base.chain):
            work.say(f"unpacking the {kept.manifest.kind} backup of {utc(kept.manifest.ended)}")
            place = data if number == 0 else os.path.join(work.directory, "increment")
            os.makedirs(place, mode=0o700, exist_ok=True)
            unpack(kept, named(kept, STREAM), None, work, then=[pipeline.Stage(("mbstream", "-x", "-C", place))])
            # MariaDB leaves open transactions to the server that starts on the data: there is no --apply-log-only.
            argv = ["mariadb-backup", "--prepare", f"--target-dir={data}", f"--use-memory={self.memory}"]
            if number:
                argv.append(f"--incremental-dir={place}")
            with work.parts.part("prepare"):
                done = work.run(tied(argv), timeout=work.timeout)
            if not done.ok or "completed OK!" not in done.stderr[-400:]:
                raise RestoreError(f"{kept.path} could not be prepared: {done.describe()}")
            if number:
                shutil.rmtree(place)
        self._look_at_position(plan, data)
        self._tidy(work, data)
        return data

    def replay(self, plan: Plan, work: Work, session: Session) -> str:
        """Apply the binary logs from the position of the backup to where the target says."""
        if not plan.logs or plan.base.position is None:
            return ""
        first, start = plan.base.position
        files = self._unpack_logs(plan.logs, work, number_of(first))
        if not files or os.path.basename(files[0]) != os.path.basename(first):
            raise RestoreError(f"the binary log {first}, where the backup ends, is not in the log backups")
        with work.parts.part("replay"):
            stop, words = self._stop(plan.target, files, start)
            if stop is not None:
                files = [path for path in files if number_of(path) <= number_of(stop[0])]
            if stop is None or (number_of(stop[0]), stop[1]) > (number_of(first), start):
                work.say(f"replaying {len(files)} binary logs from {first} position {start}")
                self._apply(work, files, start, stop, session)
        shutil.rmtree(os.path.join(work.directory, "binlogs"))
        return words

    def find_event(self, log: Kept, pattern: str, before: float | None, work: Work) -> binlog.Transaction | None:
        """Return the last transaction in a log backup with a statement that a pattern finds.

        :param before: only what was committed before this moment.
        :raises RestoreError: when the log cannot be read, or the pattern is none.
        """
        found = None
        try:
            for path in self._unpack_logs((log,), work, -1):
                with open(path, "rb") as stream:
                    for transaction in binlog.matching(binlog.transactions(stream, os.path.basename(path)), pattern):
                        if before is None or transaction.time < before:
                            found = transaction
        except (binlog.BinlogError, OSError) as error:
            raise RestoreError(f"{log.path} cannot be searched: {error}") from error
        except re.error as error:
            raise RestoreError(f"'{pattern}' is no regular expression: {error}") from None
        finally:
            shutil.rmtree(os.path.join(work.directory, "binlogs"), ignore_errors=True)
        return found

    @contextlib.contextmanager
    def serve(self, work: Work) -> Iterator[Session]:
        """Start a server on the data that only this host reaches, through a socket in the directory of the work."""
        with self._serving(work, loading=False) as session:
            yield session

    @contextlib.contextmanager
    def _serving(self, work: Work, loading: bool) -> Iterator[Session]:
        """Run the server; ``loading``: a dump takes the place of all accounts, so it cannot be asked to end."""
        argv, variables = self._server(work)
        address = variables["socket"]
        ask = Ask(variables["client"], work)
        with contextlib.ExitStack() as stack:
            with work.parts.part("start"):
                process: Any = stack.enter_context(
                    scratch.serving(
                        argv,
                        user=self.user,
                        log=os.path.join(work.logs, "server.log"),
                        ready=lambda: _answers(address),
                        stop=lambda: process.terminate() if loading else ask.end(),
                        timeout=_START,
                    )
                )
                ask.rows("SELECT 1")
            yield Session(variables, ask)

    def serve_on(self, work: Work, unit: str, seconds: float) -> str:
        """Leave a server on the kept data for some time."""
        argv, variables = self._server(work)
        scratch.serve_on(work.directory, argv, user=self.user, unit=unit, seconds=seconds, run=work.run)
        return f"mariadb --defaults-file={variables['client']}"

    def _server(self, work: Work) -> tuple[list[str], dict[str, str]]:
        """Return the command that serves the data, and how it is reached; everything it needs is written."""
        data = os.path.join(work.directory, "data")
        password = secrets.token_hex(24)
        sockets = os.path.join(work.directory, "run")
        os.makedirs(sockets, mode=0o755, exist_ok=True)
        os.chmod(sockets, 0o755)
        address = os.path.join(sockets, "mysqld.sock")
        if len(address) > 100:
            raise RestoreError(f"the path {address} is too long for a socket: choose a shorter scratch directory")
        config = self._configure(work, data, address)
        init = os.path.join(work.directory, "init.sql")
        # Together in one line: the server reads a statement a line.
        _write(init, f"CREATE OR REPLACE USER '{ACCOUNT}'@'localhost' IDENTIFIED BY '{password}';\n"
                     f"GRANT ALL PRIVILEGES ON *.* TO '{ACCOUNT}'@'localhost' WITH GRANT OPTION;\n")  # fmt: skip
        client = os.path.join(work.directory, "client.cnf")
        _write(
            client,
            f"[client]\nuser={ACCOUNT}\npassword={password}\nsocket={address}\n"
            "default-character-set=utf8mb4\nmax_allowed_packet=1G\n",
        )
        scratch.give(data, self.user)
        scratch.give(sockets, self.user)
        scratch.give(init, self.user)
        argv = ["mariadbd", f"--defaults-file={config}", f"--init-file={init}"]
        return argv, {"socket": address, "client": client, "account": ACCOUNT, "password": password}

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Check every table, count it, try every view, and compare with what was recorded."""
        ask: Ask = session.handle
        result, subject = Examined(), plan.base.last.path
        with work.parts.part("examine"):
            tables = ask.rows(
                "SELECT JSON_ARRAY(table_schema, table_name, table_type) FROM information_schema.tables "
                f"WHERE table_schema NOT IN {_SYSTEM} AND table_type IN ('BASE TABLE', 'VIEW', 'SEQUENCE')"
            )
            names = [json.loads(row) for row in tables]
            for schema, table, kind in names:
                name = f"{_quoted(schema)}.{_quoted(table)}"
                try:
                    if kind == "VIEW":
                        ask.rows(f"SELECT 1 FROM {name} LIMIT 0")
                        continue
                    state = ask.rows(f"CHECK TABLE {name}")[-1].split("\t")
                    if state[-1] not in ("OK", "Table is already up to date"):
                        raise RestoreError(state[-1])
                    if kind == "BASE TABLE":
                        result.counts.setdefault(schema, {})[table] = int(ask.rows(f"SELECT COUNT(*) FROM {name}")[0])
                except RestoreError as error:
                    message = f"{kind.lower()} {schema}.{table} cannot be used: {error}"
                    # A view whose table was dropped is as useless in production.
                    severity = "warning" if kind == "VIEW" else "critical"
                    result.findings.append(Finding("restore.table", subject, severity, message))
            result.compared.append(f"{len(names)} tables and views can be read")
            self._compare(ask, result, subject, work.expected)
        return result

    def ask_running(self, client: str | None, counts: Mapping[str, Mapping[str, int]], work: Work) -> list[Finding]:
        """Count the tables again: fewer rows are an error, more were written since the server was started."""
        ask, findings = Ask(client, work), []
        for schema, tables in counts.items():
            for table, rows in tables.items():
                seen = int(ask.rows(f"SELECT COUNT(*) FROM {_quoted(schema)}.{_quoted(table)}")[0])
                if seen != rows:
                    severity = "critical" if seen < rows else "info"
                    message = f"{schema}.{table} has {seen} rows in production, but {rows} were restored"
                    findings.append(Finding("restore.counts", work.directory, severity, message, seen, rows, "rows"))
        return findings

    def _compare(self, ask: Ask, result: Examined, subject: str, expected: Mapping[str, Any]) -> None:
        counts = expected.get("counts") or {}
        if counts:
            result.findings += compare_counts(subject, counts, result.counts)
            result.compared.append(f"the rows of {sum(map(len, counts.values()))} tables")
        else:
            result.unchecked.append("the rows: none were recorded in this very state")
        checksums = expected.get("checksums") or {}
        for schema, tables in checksums.items():
            for table, recorded in tables.items():
                name = f"{_quoted(schema)}.{_quoted(table)}"
                found = ask.rows(f"CHECKSUM TABLE {name}")[0].split("\t")[-1]
                if found != str(recorded):
                    message = f"the content of {schema}.{table} has checksum {found}, but {recorded} was recorded"
                    result.findings.append(Finding("restore.checksum", subject, "critical", message, found, recorded))
        if checksums:
            result.compared.append(f"the checksums of {sum(map(len, checksums.values()))} tables")
        else:
            result.unchecked.append("the content of the tables: no checksums were recorded in this very state")
        objects = expected.get("objects") or {}
        for name, statement in OBJECTS.items():
            if name not in objects:
                continue
            seen = ask.rows(statement)
            number = int(seen[0]) - (name == "accounts")
            if number != int(objects[name]):
                message = f"there are {number} {name}, but {objects[name]} were recorded"
                result.findings.append(
                    Finding("restore.objects", subject, "critical", message, number, int(objects[name]))
                )
        if objects:
            result.compared.append(", ".join(name for name in OBJECTS if name in objects))
        else:
            result.unchecked.append("views, routines, triggers, indexes and accounts: none were recorded")

    def _load_dump(self, plan: Plan, work: Work, data: str) -> None:
        """Make an empty server and read the dump into it."""
        with work.parts.part("prepare"):
            done = work.run(
                ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-name-resolve",
                 "--auth-root-authentication-method=socket", f"--user={self.user}"],
                timeout=work.timeout,
            )  # fmt: skip
        if not done.ok:
            raise RestoreError(f"an empty server could not be made in {data}: {done.describe()}")
        kept = plan.base.last
        work.say(f"reading the dump of {utc(kept.manifest.ended)}")
        with self._serving(work, loading=True) as session:
            client = pipeline.Stage(("mariadb", f"--defaults-file={session.variables['client']}", "--binary-mode"))
            unpack(kept, named(kept, DUMP), None, work, then=[client], part="load")

    def _unpack_logs(self, logs: Sequence[Kept], work: Work, first: int) -> list[str]:
        """Return the binary logs from a number on, decompressed, in their order."""
        place = os.path.join(work.directory, "binlogs")
        os.makedirs(place, mode=0o700)
        found: dict[int, str] = {}
        for kept in logs:
            for name in kept.manifest.files:
                path = os.path.join(place, os.path.basename(plain_name(name)))
                if name.startswith("log/") or number_of(path) < max(first, 0):
                    continue
                if os.path.lexists(path):
                    os.unlink(path)  # copied again later, with more in it
                unpack(kept, name, path, work)
                found[number_of(path)] = path
        numbers = sorted(found)
        for left, right in zip(numbers, numbers[1:]):
            if right != left + 1:
                raise RestoreError(f"binary logs between {found[left]} and {found[right]} are not in the log backups")
        return [found[number] for number in numbers]

    def _stop(self, target: Target, files: Sequence[str], start: int) -> tuple[tuple[str, int] | None, str]:
        """Return where the replay stops, and that in words."""

        def found() -> Iterator[binlog.Transaction]:
            for path in files:
                with open(path, "rb") as stream:
                    yield from binlog.transactions(stream, path, start if path == files[0] else 4)

        try:
            if target.place is not None:
                path = next((path for path in files if os.path.basename(path) == target.place[1]), None)
                if path is None:
                    raise RestoreError(f"the binary log {target.place[1]} is not in the log backups")
                return (path, target.place[2]), f"stopped at {target.place[1]} position {target.place[2]}"
            if target.gtid is not None:
                domain, _server, number = target.gtid.split("-")
                last = binlog.after_gtid(found(), domain, int(number))
                if last is None:
                    raise RestoreError(f"transaction {target.gtid} is not in the logs")
                return (last.file, last.end), f"stopped after {_named(last)}"
            if target.time is not None:
                following = binlog.at_time(found(), target.time)
                if following is not None:
                    return (following.file, following.start), f"stopped before {_named(following)}"
        except binlog.BinlogError as error:
            raise RestoreError(f"the logs cannot be replayed: {error}") from error
        return None, "all logs were applied"

    def _apply(
        self, work: Work, files: Sequence[str], start: int, stop: tuple[str, int] | None, session: Session
    ) -> None:
        argv = ["mariadb-binlog", "--no-defaults", "--verify-binlog-checksum", f"--start-position={start}"]
        if stop is not None:
            argv.append(f"--stop-position={stop[1]}")
        stages = [
            pipeline.Stage([*argv, *files]),
            pipeline.Stage(("mariadb", f"--defaults-file={session.variables['client']}", "--binary-mode")),
        ]
        try:
            pipeline.run(stages, os.path.join(work.directory, "replayed"), logs=work.logs, timeout=work.timeout)
        except pipeline.PipelineError as error:
            raise RestoreError(f"the logs could not be replayed: {error}") from error

    def _look_at_position(self, plan: Plan, data: str) -> None:
        """Refuse a copy that says another place in the logs than the manifest."""
        if plan.base.position is None:
            return
        with contextlib.suppress(FileNotFoundError):
            for name in ("xtrabackup_binlog_info", "mariadb_backup_binlog_info"):
                with open(os.path.join(data, name), encoding="utf-8", errors="replace") as stream:
                    file, position = stream.readline().split()[:2]
                if (os.path.basename(file), int(position)) != (
                    os.path.basename(plan.base.position[0]),
                    plan.base.position[1],
                ):
                    raise RestoreError(
                        f"{plan.base.last.path} is at {file} position {position}, but its manifest says "
                        f"{plan.base.position[0]} position {plan.base.position[1]}: its manifest is not its own"
                    )

    def _tidy(self, work: Work, data: str) -> None:
        """Take what only the backup program needs out of the data, and keep what tells how its server was set."""
        for name in os.listdir(data):
            if name.startswith(("xtrabackup_", "mariadb_backup_", "backup-my.cnf")):
                os.rename(os.path.join(data, name), os.path.join(work.logs, name))

    def _configure(self, work: Work, data: str, address: str) -> str:
        """Write the configuration of the scratch server; nothing of the one in production is read."""
        settings = {}
        with (
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(work.logs, "backup-my.cnf"), encoding="utf-8") as stream,
        ):
            for line in stream:
                key, sign, value = line.strip().partition("=")
                if sign and key in _LAYOUT:
                    settings[key] = value
        lines = [
            "[mysqld]",
            f"datadir={data}",
            f"socket={address}",
            f"pid-file={os.path.join(os.path.dirname(address), 'mysqld.pid')}",
            "skip-networking",
            "skip-log-bin",
            "skip-slave-start",
            "skip-name-resolve",
            "event-scheduler=OFF",
            "performance-schema=OFF",
            "local-infile=0",
            "max_allowed_packet=1G",
            "character-set-server=utf8mb4",
            f"innodb_buffer_pool_size={self.memory}",
            *(f"{key}={value}" for key, value in settings.items()),
        ]
        path = os.path.join(work.directory, "server.cnf")
        _write(path, "\n".join(lines) + "\n", 0o644)
        return path


class Ask:
    """Asks a server.

    :param client: configuration file with its address and account, None: as the client's own configuration says.
    """

    def __init__(self, client: str | None, work: Work) -> None:
        self._client = client
        self._work = work

    def rows(self, statement: str) -> list[str]:
        """Return the rows of an answer, the columns with tabs between them.

        :raises RestoreError: when the server refuses it.
        """
        defaults = [f"--defaults-file={self._client}"] if self._client else []
        argv = ["mariadb", *defaults, "--batch", "--raw", "--skip-column-names"]
        try:
            done = self._work.run(argv, timeout=self._work.timeout, stdin=statement.encode())
        except CommandError as error:
            raise RestoreError(str(error)) from error
        if not done.ok:
            words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RestoreError("; ".join(words) or done.describe())
        return done.stdout.splitlines()

    def end(self) -> None:
        """Remove our account and let the server end by itself, with all on disk."""
        self.rows(f"DROP USER IF EXISTS '{ACCOUNT}'@'localhost'; SHUTDOWN")


def _named(transaction: binlog.Transaction) -> str:
    return f"{transaction.describe()} committed at {utc(transaction.time)}"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(address)
            return bool(client.recv(1))
        except OSError:
            return False


def _write(path: str, text: str, mode: int = 0o600) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
    ) as out:
        out.write(text)
    os.chmod(path, mode)
