# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of a MariaDB that is written to: what they hold is what was there, and nothing that failed looks like one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.backup_program import Program
from tests.system.conftest import Lab, Restore

#: Moments at which the program is killed, for each kind.
KILLS = int(os.environ.get("KILLS", "4"))

PLACE = "/var/lib/backup-make"
SCRATCH = f"{PLACE}/scratch"
SOCKET = f"{SCRATCH}/scratch.sock"
DB: dict[str, Any] = {"engine": "mariadb", "probe_interval": 0, "checksums": True}

#: Writes until its input ends: single rows, transactions over two tables, deletions, a table that comes and goes.
WRITER = """
import pymysql, sys, threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
pause = float(sys.argv[1])
link = pymysql.connect(unix_socket="/run/mysqld/mysqld.sock", user="root", database="written", autocommit=False)
cursor, number = link.cursor(), 0
while not stop.is_set():
    number += 1
    cursor.execute("INSERT INTO one (body) VALUES (REPEAT(%s, 20))", (f"row {number} \\u8bb0\\u5f55",))
    cursor.execute("INSERT INTO two (one, raw) VALUES (LAST_INSERT_ID(), RANDOM_BYTES(32))")
    if number % 7 == 0:
        cursor.execute("DELETE FROM two ORDER BY id LIMIT 2")
    link.commit()
    stop.wait(pause)
print(number)
"""


def sql(lab: Lab, statement: str, check: bool = True, socket: str = "") -> list[list[str]]:
    argv = ["mariadb", "--batch", "--skip-column-names", "--binary-mode", *([f"--socket={socket}"] if socket else [])]
    done = lab.exec("db1", argv, stdin=statement, check=check)
    return [line.split("\t") for line in done.stdout.splitlines()]


@contextlib.contextmanager
def written(lab: Lab, pause: float = 0.005) -> Iterator[None]:
    """Writes go on in db1 while the block runs."""
    command = ["docker", "exec", "--interactive", lab.container("db1"), "python3", "-c", WRITER, str(pause)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            out, _err = process.communicate("", timeout=120)
    assert int(out) > 1, "nothing was written"


@contextlib.contextmanager
def blocked(lab: Lab) -> Iterator[None]:
    """A table is locked while the block runs, so that a dump stands still in the middle."""
    command = ["docker", "exec", "--interactive", lab.container("db1"), "mariadb", "--unbuffered", "written"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("LOCK TABLES zz_last WRITE; SELECT 'locked';\n")
        process.stdin.flush()
        while "locked" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.readline()
        try:
            yield
        finally:
            process.communicate("", timeout=120)


def wait_for_dump(lab: Lab) -> int:
    """Wait until a dump stands at the locked table, and return the id of its process."""
    limit = time.monotonic() + 120
    waiting = (  # not the one that counts its rows
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST"
        " WHERE INFO LIKE '%zz_last%' AND INFO NOT LIKE '%COUNT(*)%' AND STATE LIKE 'Wait%'"
    )
    while time.monotonic() < limit:
        if int(sql(lab, waiting)[0][0]):
            argv = ["pgrep", "--exact", "mariadb-dump"]
            return int(lab.exec("db1", argv).stdout.split()[0])
        time.sleep(0.05)
    raise AssertionError("no dump came to the locked table")


@pytest.fixture(scope="module")
def database(lab: Lab) -> Iterator[None]:
    """Tables of 6 MB to be written to."""
    sql(
        lab,
        "DROP DATABASE IF EXISTS written; CREATE DATABASE written CHARACTER SET utf8mb4; USE written;"
        "CREATE TABLE one (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT);"
        "CREATE TABLE two (id INT AUTO_INCREMENT PRIMARY KEY, one INT, raw VARBINARY(64), KEY (one));"
        "CREATE TABLE bulk (id INT PRIMARY KEY, body VARBINARY(1100));"
        "INSERT INTO bulk SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_6000;"
        "CREATE TABLE zz_last (id INT PRIMARY KEY); INSERT INTO zz_last VALUES (1), (2);",
    )
    yield
    sql(lab, "DROP DATABASE written")


@pytest.fixture
def db(lab: Lab, database: None) -> Iterator[Program]:
    program = Program(lab, "db1", PLACE, {"db": DB})
    yield program
    lab.exec("db1", ["rm", "-rf", "--", PLACE])


@pytest.fixture
def scratch(lab: Lab, db: Program) -> Iterator[list[str]]:
    """The arguments of a server on a directory of its own, which is ended afterwards."""
    argv = ["mariadbd", "--no-defaults", f"--datadir={SCRATCH}", f"--socket={SOCKET}", "--skip-networking"]
    argv += ["--user=root", "--innodb-buffer-pool-size=32M", f"--pid-file={SCRATCH}/pid", "--skip-grant-tables"]
    yield argv
    lab.exec("db1", ["mariadb-admin", f"--socket={SOCKET}", "shutdown"], check=False)


def start(lab: Lab, argv: list[str]) -> None:
    subprocess.run(["docker", "exec", "--detach", lab.container("db1"), *argv], check=True, timeout=30)
    limit = time.monotonic() + 120
    while lab.exec("db1", ["mariadb-admin", f"--socket={SOCKET}", "ping"], check=False).returncode:
        assert time.monotonic() < limit, "the scratch server did not start"
        time.sleep(0.2)


def shell(lab: Lab, script: str, timeout: float = 120) -> str:
    return lab.exec("db1", ["bash", "-euo", "pipefail", "-c", script], timeout=timeout).stdout


def tables(lab: Lab, expected: dict[str, dict[str, Any]], what: str, socket: str) -> dict[str, dict[str, str]]:
    """The counts or checksums of the tables that are expected, as they are in a server."""
    found: dict[str, dict[str, str]] = {}
    for schema, names in expected.items():
        for name in names:
            quoted = ".".join("`" + part.replace("`", "``") + "`" for part in (schema, name))
            statement = f"SELECT COUNT(*) FROM {quoted}" if what == "counts" else f"CHECKSUM TABLE {quoted}"
            found.setdefault(schema, {})[name] = sql(lab, statement, socket=socket)[0][-1]
    return found


@pytest.mark.capability("A1", "A2", "A3")
def test_a_chain_and_its_logs_hold_exactly_what_was_there(lab: Lab, db: Program, scratch: list[str]) -> None:
    with written(lab):
        full = db.made("db", "full")
        first = db.made("db", "log")
        one = db.made("db", "incremental")
        db.made("db", "log")
        two = db.made("db", "incremental")
        time.sleep(0.5)
        last = db.made("db", "log")
    assert [full.get("parent"), one["parent"], two["parent"]] == [None, full["id"], one["id"]]
    assert one["positions"]["from_lsn"] == full["positions"]["to_lsn"]
    assert two["positions"]["from_lsn"] == one["positions"]["to_lsn"]
    logs = [db.manifest(row["path"]) for row in db.list("db") if row["kind"] == "log"]
    names = [entry["file"] for backup in logs for entry in backup["binlogs"]]
    numbers = [int(name.rpartition(".")[2]) for name in names]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a log is missing or is there twice"
    assert full["positions"]["binlog_file"] in names
    assert [backup.get("parent") for backup in logs] == [full["id"], first["id"], logs[1]["id"]]
    assert logs[2]["positions"]["gtid_start"] == logs[1]["positions"]["gtid_end"]

    for number, backup in enumerate((full, one, two)):
        target = SCRATCH if number == 0 else f"{PLACE}/increment{number}"
        increment = f"--incremental-dir={target}" if number else ""
        shell(lab, f"mkdir -p {target}; zstd -dcq {backup['path']}/backup.mbstream.zst | mbstream -x -C {target}")
        shell(lab, f"mariadb-backup --prepare --target-dir={SCRATCH} {increment} 2>&1")
    start(lab, scratch)
    probe = last["probe"]
    position = two["positions"]
    at = names.index(position["binlog_file"])
    stop = names.index(probe["binlog_file"])
    shell(lab, f"mkdir {PLACE}/logs; zstd -dq --output-dir-flat={PLACE}/logs {db.root}/db/log/*/binlog.*.zst")
    shell(
        lab,
        f"cd {PLACE}/logs; mariadb-binlog --start-position={position['binlog_position']} "
        f"--stop-position={probe['binlog_position']} {' '.join(names[at : stop + 1])} "
        f"| mariadb --binary-mode --socket={SOCKET}",
    )
    for what in ("counts", "checksums"):
        recovered = tables(lab, probe[what], what, SOCKET)
        assert recovered == {schema: {name: str(value) for name, value in names.items()}
                             for schema, names in probe[what].items()}  # fmt: skip
    assert int(recovered["written"]["one"])
    assert probe["counts"]["written"]["one"] > 10


@pytest.mark.capability("A1")
def test_the_counts_of_a_dump_are_those_of_its_moment(lab: Lab, db: Program, scratch: list[str]) -> None:
    with written(lab, 0.02):
        dumps = [db.made("db", "dump") for _unused in range(3)]
    rows = [backup["counts"]["written"]["one"] for backup in dumps]
    assert rows == sorted(set(rows)), "the writer wrote in between"
    assert [row["verdict"] for row in db.list("db")] == ["verified"] * 3
    shell(lab, f"mariadb-install-db --no-defaults --user=root --datadir={SCRATCH} --skip-test-db")
    start(lab, scratch)
    dump = dumps[-1]
    shell(lab, f"zstd -dcq {dump['path']}/dump.sql.zst | mariadb --binary-mode --socket={SOCKET}")
    assert tables(lab, dump["checksums"], "checksums", SOCKET) == dump["checksums"]
    assert sql(lab, "SHOW PROCEDURE STATUS WHERE Db = 'worklog'", socket=SOCKET)[0][1] == "minutes_of"


@pytest.mark.capability("A1")
def test_the_server_is_held_for_a_moment_when_writes_never_cease(lab: Lab, db: Program) -> None:
    with written(lab, 0), written(lab, 0):
        dump = db.run("db", "dump")
        backup = db.manifest(db.list("db")[-1]["path"])
        assert backup["counts"]["written"]["two"], dump.stdout
        held = {"db": {**DB, "lock_wait": 0}}
        db.configure(held)
        without = db.run("db", "dump").stdout
    backup = db.manifest(db.list("db")[-1]["path"])
    assert ("not counted" in without) == ("counts" not in backup)
    assert "dump.sql.zst" in {entry["path"] for entry in backup["files"]}


@pytest.mark.capability("A1")
def test_hostile_names_are_only_names(lab: Lab, db: Program, restore: Restore) -> None:
    schema, table = "we`ird; drop \"db' x", "a\nb\tc\\! touch /var/tmp/pwned"
    quoted = f"`{schema.replace('`', '``')}`"
    restore.run("db1", ["mariadb", "--execute", f"DROP DATABASE {quoted}; DROP DATABASE `-x`"])
    sql(
        lab,
        f"CREATE DATABASE {quoted}; USE {quoted}; CREATE TABLE `{table}` (id INT PRIMARY KEY);"
        f"INSERT INTO `{table}` VALUES (1), (2); CREATE TABLE `delimiter //\n日志;--` (id INT);"
        "CREATE TABLE hist (id INT) WITH SYSTEM VERSIONING; INSERT INTO hist VALUES (1); UPDATE hist SET id = 2;"
        "CREATE SEQUENCE numbers; CREATE TABLE plain (id INT) ENGINE=MyISAM;"
        "CREATE DATABASE `-x`; CREATE TABLE `-x`.`--t` (id INT);",
    )
    db.configure({"db": {**DB, "databases": ["-x", schema]}})
    dump = db.made("db", "dump")
    assert dump["counts"] == {"-x": {"--t": 0}, schema: {table: 2, "delimiter //\n日志;--": 0, "hist": 1}}
    assert any("plain is of the engine MyISAM" in warning for warning in dump["warnings"])
    assert db.list("db")[-1]["verdict"] == "verified"
    assert lab.exec("db1", ["test", "-e", "/var/tmp/pwned"], check=False).returncode == 1
    db.configure({"db": {**DB, "databases": [schema], "exclude_tables": [f"{schema}.hist"]}})
    assert "hist" not in db.made("db", "dump")["counts"][schema]


@pytest.mark.capability("A1", "A3")
def test_anyone_can_dump_and_copy_logs_from_anywhere_and_no_secret_is_seen(lab: Lab, database: None) -> None:
    folder = "/var/tmp/backup-make"
    remote = {**DB, "defaults_file": f"{folder}/client.cnf"}
    program = Program(lab, "ops1", folder, {"db": remote}, user="nobody")
    lab.write("ops1", f"{folder}/client.cnf", "[client]\nhost=db1\nuser=backup\npassword=backup-lab\n")
    lab.exec("ops1", ["chown", "nobody", f"{folder}/client.cnf"])
    lab.exec("ops1", ["chmod", "600", f"{folder}/client.cnf"])
    watch = "while [ ! -e /var/tmp/done ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; sleep 0.01; done"
    lab.exec("ops1", ["rm", "-f", "/var/tmp/done"])
    command = ["docker", "exec", lab.container("ops1"), "bash", "-c", watch]
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            for kind in ("dump", "log", "log"):
                said += program.run("db", kind).stdout
        finally:
            lab.exec("ops1", ["touch", "/var/tmp/done"])
        seen = watcher.communicate(timeout=120)[0]
    assert "mariadb-dump" in seen and "mariadb-binlog" in seen
    kept = lab.exec("ops1", ["grep", "-rl", "backup-lab", program.root, f"{folder}/records.jsonl"], check=False)
    assert "backup-lab" not in seen + said and kept.stdout == ""
    assert [row["verdict"] for row in program.list("db")] == ["verified"] * 3
    refused = program.run("db", "full", code=1)
    assert "reads the server's files, but the server runs on db1" in refused.stderr
    lab.write("ops1", f"{folder}/client.cnf", "[client]\nhost=db1\nuser=backup\npassword=not-this-one\n")
    for kind in ("dump", "log", "full", "incremental"):
        refused = program.run("db", kind, code=1)
        assert "Access denied" in refused.stderr and "not-this-one" not in refused.stderr + refused.stdout
    program.nothing_false("db")
    lab.exec("ops1", ["rm", "-rf", folder, "/var/tmp/done"])


@pytest.mark.capability("A3")
def test_a_gap_is_told_and_what_is_there_is_copied(lab: Lab, db: Program) -> None:
    db.run("db", "full")
    db.run("db", "log")
    sql(lab, "INSERT INTO written.zz_last VALUES (10); FLUSH BINARY LOGS; FLUSH BINARY LOGS")
    newest = sql(lab, "SHOW BINARY LOGS")[-1][0]
    limit = time.monotonic() + 120
    while len(sql(lab, f"PURGE BINARY LOGS TO '{newest}'; SHOW BINARY LOGS")) > 1:
        assert time.monotonic() < limit, "the server does not part with its logs"
        time.sleep(0.2)
    told = db.run("db", "log", code=3)
    assert "nothing can be recovered that was written between" in told.stderr
    assert "was removed" in told.stderr or "has removed" in told.stderr
    backup = db.manifest(db.list("db")[-1]["path"])
    assert backup["gap"]["before"] == newest == backup["positions"]["first_file"]
    assert backup["alarms"] and "continues" not in backup
    record = json.loads(lab.read("db1", f"{db.folder}/records.jsonl").splitlines()[-1])
    assert [finding["check"] for finding in record["findings"] if finding["severity"] == "critical"] == ["backup.alarm"]
    db.run("db", "log")

    sql(lab, "INSERT INTO written.zz_last VALUES (11); RESET MASTER; INSERT INTO written.zz_last VALUES (12)")
    assert "begun its logs anew" in db.run("db", "log", code=3).stderr
    db.run("db", "log")

    # So many files that the next name is there again.
    last = db.manifest(db.list("db")[-1]["path"])["positions"]["last_file"]
    sql(lab, "RESET MASTER; INSERT INTO written.zz_last VALUES (13);" + "FLUSH BINARY LOGS;" * 3)
    assert last in [row[0] for row in sql(lab, "SHOW BINARY LOGS")]
    assert "begun its logs anew" in db.run("db", "log", code=3).stderr
    db.nothing_false("db")


@pytest.mark.capability("A2", "A3")
def test_a_server_that_was_killed_or_got_other_files(lab: Lab, db: Program) -> None:
    first = db.made("db", "incremental")
    assert first["kind"] == "full" and "no good full backup yet" in first["warnings"][0]
    db.run("db", "log")
    before = lab.exec("db1", ["pidof", "mariadbd"]).stdout
    lab.exec("db1", ["systemctl", "kill", "--signal=KILL", "mariadb"])
    limit = time.monotonic() + 120
    while (lab.exec("db1", ["pidof", "mariadbd"], check=False).stdout in ("", before)
           or lab.exec("db1", ["mariadb-admin", "ping"], check=False).returncode):  # fmt: skip
        assert time.monotonic() < limit, "the server was not started again"
        time.sleep(0.2)
    assert any("was not closed by the server" in warning for warning in db.made("db", "log")["warnings"])
    lab.exec("db1", ["systemctl", "restart", "mariadb"])
    assert db.made("db", "log")["continues"]
    assert db.made("db", "incremental")["parent"] == first["id"]
    lab.exec("db1", ["systemctl", "stop", "mariadb.socket", "mariadb"])
    for kind in ("full", "incremental", "log", "dump"):
        assert "no connection to the database server" in db.run("db", kind, code=1).stderr
    shell(lab, "mv /var/lib/mysql /var/lib/mysql.before; cp -a /var/lib/mysql.before /var/lib/mysql")
    lab.exec("db1", ["systemctl", "start", "mariadb.socket", "mariadb"])
    lab.exec("db1", ["rm", "-rf", "/var/lib/mysql.before"])
    again = db.made("db", "incremental")
    assert again["kind"] == "full" and "made anew or restored" in again["warnings"][0]
    db.nothing_false("db")


FAULTS = {
    "the server is killed": (["systemctl", "kill", "--signal=KILL", "mariadb"], "mariadb-dump ended with exit code"),
    "the dump is killed": (["pkill", "-KILL", "--exact", "mariadb-dump"], "mariadb-dump was ended by signal 9"),
    "the compression is killed": (["pkill", "-KILL", "--exact", "zstd"], "zstd was ended by signal 9"),
    "the connection is killed": ([], "mariadb-dump ended with exit code"),
}


@pytest.mark.capability("A1")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_dump_that_fails_in_the_middle_leaves_nothing(lab: Lab, db: Program, fault: str) -> None:
    argv, words = FAULTS[fault]
    db.run("db", "dump")
    with blocked(lab):
        process = db.start("db", "dump")
        wait_for_dump(lab)
        second = db.run("db", "dump", code=75)
        assert "is in use by process" in second.stderr
        if argv:
            lab.exec("db1", argv)
        else:
            waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%zz_last%' AND STATE LIKE 'Wait%'"
            for (number,) in sql(lab, waiting):
                sql(lab, f"KILL {number}", check=False)
        out = process.communicate(timeout=120)[0]
    lab.exec("db1", ["systemctl", "restart", "mariadb"])
    assert process.returncode == 1 and words in out, out
    assert len(db.directories("db")) == 1
    assert db.left("mariadb-dump|mariadb --|zstd") == []
    db.nothing_false("db")
    db.run("db", "dump")


@pytest.mark.capability("A1")
def test_a_table_that_goes_in_the_middle_and_a_view_that_is_invalid(lab: Lab, db: Program) -> None:
    sql(lab, "USE written; CREATE TABLE zz_next (id INT)")
    with blocked(lab):
        process = db.start("db", "dump")
        wait_for_dump(lab)
        sql(lab, "DROP TABLE written.zz_next")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "begins again" in out, out
    sql(lab, "USE written; CREATE TABLE under (id INT); CREATE VIEW broken AS SELECT * FROM under; DROP TABLE under")
    failed = db.run("db", "dump", code=1)
    assert "broken" in failed.stderr
    sql(lab, "DROP VIEW written.broken")
    db.nothing_false("db")
    assert len(db.directories("db")) == 1


@pytest.mark.capability("A1")
def test_a_file_system_that_runs_full(lab: Lab, db: Program, restore: Restore) -> None:
    small = f"{PLACE}/small"
    lab.exec("db1", ["mkdir", small])
    lab.exec("db1", ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", small])
    restore.run("db1", ["umount", "--lazy", small])
    db.root = f"{small}/backups"
    # The estimate goes by the dump before, and this one is twice as large.
    db.configure({"db": {**DB, "databases": ["written"], "compression": "gzip"}})
    first = db.made("db", "dump")
    size = sum(entry["size"] for entry in first["files"])
    db.configure({"db": {**DB, "databases": ["written"], "compression": "none"}})
    lab.exec("db1", ["mount", "-o", f"remount,size={size + size // 2}", small])
    assert "not enough space in" in db.run("db", "dump", code=1).stderr
    lab.exec("db1", ["mount", "-o", f"remount,size={size + size // 2 + size}", small])
    assert "No space left on device" in db.run("db", "dump", code=1).stderr
    assert db.directories("db") == [first["path"]]
    db.nothing_false("db")
    lab.exec("db1", ["mount", "-o", "remount,size=200m", small])
    db.run("db", "dump")
    db.nothing_false("db")


@pytest.mark.campaign
@pytest.mark.capability("A1", "A2", "A3")
@pytest.mark.parametrize("kind", ["full", "incremental", "log", "dump"])
def test_killed_at_any_moment(lab: Lab, db: Program, kind: str) -> None:
    chance = random.Random(f"{kind} {KILLS}")
    db.run("db", "full")
    began = time.monotonic()
    db.run("db", kind)
    usual = time.monotonic() - began
    with written(lab, 0.01):
        for _unused in range(KILLS):
            process = db.start("db", kind)
            time.sleep(chance.uniform(0.1, usual * 1.1))
            for number in db.processes(f"worklog-backup-test.* run db {kind}"):
                lab.exec("db1", ["kill", "-KILL", str(number)], check=False)
            process.communicate(timeout=120)
            db.nothing_false("db", killed=True)
        done = db.run("db", kind)
    partial = [path for path in db.directories("db") if path.endswith(".partial")]
    assert partial == [], done.stdout
    assert db.left("mariadb-dump|mariadb-backup|mariadb-binlog|mariadb --defaults|zstd") == []
    db.nothing_false("db")
