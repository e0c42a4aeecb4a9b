# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A week of a database in minutes, written to all the time, with backups and faults; then any second comes back."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.backup_program import PROGRAM, Program
from tests.system.conftest import Lab
from tests.system.noted import PLACE, Noted, rows, served, sql, utc

STOP = "/run/test-week.stop"

#: Inserts and changes rows until it is told to stop, and notes each: number, value, second of the server. What a lost
#: connection leaves in doubt it looks up.
WRITER = """
import os, pymysql, random, sys, time
SOCKET = "/run/mysqld/mysqld.sock"
chance, last = random.Random(int(sys.argv[1])), 0

def connect():
    for attempt in range(600):
        try:
            return pymysql.connect(unix_socket=SOCKET, user="root", database="noted", autocommit=True)
        except pymysql.Error:
            time.sleep(0.1)
    sys.exit("the server does not come back")

link = connect()
while not os.path.exists(sys.argv[2]):
    number, value = last + 1, chance.getrandbits(60)
    statement = "INSERT INTO rows_ (value, number) VALUES (%s, %s)"
    if last and chance.random() < 0.3:
        number = chance.randint(1, last)
        statement = "UPDATE rows_ SET value = %s, at = CURRENT_TIMESTAMP WHERE number = %s"
    try:
        link.cursor().execute(statement, (value, number))
    except pymysql.Error:
        link = connect()
    while True:
        try:
            cursor = link.cursor()
            cursor.execute("SELECT UNIX_TIMESTAMP(at) FROM rows_ WHERE number = %s AND value = %s", (number, value))
            break
        except pymysql.Error:
            link = connect()
    for (at,) in cursor.fetchall():
        last = max(last, number)
        print(number, value, at, flush=True)
    time.sleep(chance.uniform(0.01, 0.1))
"""


class Week(Noted):
    """A database under way."""

    def __init__(self, lab: Lab, seed: int) -> None:
        super().__init__(lab, Program(lab, "db1", PLACE, {"written": {"engine": "mariadb", "probe_interval": 0}}))
        self.chance = random.Random(seed)
        self.faults: list[str] = []

    def until(self, second: int) -> list[tuple[int, int]]:
        """What the rows were before a second."""
        return sorted({number: value for number, value, at in self.rows if at < second}.items())

    @contextlib.contextmanager
    def written(self, seed: int) -> Iterator[None]:
        """Write while the block runs."""
        self.lab.exec("db1", ["rm", "-f", STOP])
        argv = ["docker", "exec", self.lab.container("db1"), "python3", "-c", WRITER, str(seed), STOP]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield
            finally:
                self.lab.exec("db1", ["touch", STOP])
                out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        self.rows = [(int(number), int(value), int(at)) for number, value, at in map(str.split, out.splitlines())]

    def day(self, number: int) -> None:
        """Three hours with a fault at a random one, and the backup of the night."""
        faulty = self.chance.randrange(3)
        for hour in range(3):
            time.sleep(self.chance.uniform(0.2, 1.0))
            if hour == faulty:
                self.fault()
            self.program.run("written", "log")
        self.program.run("written", "incremental" if number % 7 else "full")

    def fault(self) -> None:
        faults: dict[str, Callable[[], None]] = {
            "the backup is killed": self.kill_backup,
            "two backups at once": self.two_at_once,
            "the server is killed": lambda: self.server("kill", "--signal=KILL"),
            "the server is restarted": lambda: self.server("restart"),
            "somebody flushes the logs": self.flush_logs,
        }
        name = self.chance.choice(sorted(faults))
        faults[name]()
        self.faults.append(name)

    def kill_backup(self) -> None:
        kind = self.chance.choice(["log", "incremental"])
        process = self.program.start("written", kind)
        time.sleep(self.chance.uniform(0.1, 1.5))
        for pid in self.program.processes(f"worklog-backup-test.* run written {kind}"):
            self.lab.exec("db1", ["kill", "-KILL", str(pid)], check=False)
        process.communicate(timeout=120)
        self.program.nothing_false("written", killed=True)

    def two_at_once(self) -> None:
        both = [self.program.start("written", kind) for kind in ("log", "incremental")]
        told = [(process.communicate(timeout=120)[0], process.returncode) for process in both]
        assert {code for _said, code in told} <= {0, 75} and 0 in {code for _said, code in told}, told

    def flush_logs(self) -> None:
        sql(self.lab, "FLUSH BINARY LOGS; FLUSH BINARY LOGS")

    def server(self, *verb: str) -> None:
        before = self.lab.exec("db1", ["pidof", "mariadbd"]).stdout
        self.lab.exec("db1", ["systemctl", *verb, "mariadb"])
        limit = time.monotonic() + 120
        while (self.lab.exec("db1", ["pidof", "mariadbd"], check=False).stdout in ("", before)
               or self.lab.exec("db1", ["mariadb-admin", "ping"], check=False).returncode):  # fmt: skip
            assert time.monotonic() < limit, "the server was not started again"
            time.sleep(0.2)


def live(lab: Lab, days: int, seconds: int, seed: int) -> str:
    """Live so many days, recover some random seconds and the moment before the table is dropped; say what it was."""
    week = Week(lab, seed)
    create = "CREATE TABLE noted.rows_ (number INT PRIMARY KEY, value BIGINT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
    sql(lab, f"DROP DATABASE IF EXISTS noted; CREATE DATABASE noted; {create}")
    week.program.run("written", "full")
    with week.written(seed):
        for number in range(1, days + 1):
            week.day(number)
    time.sleep(1.1)
    sql(lab, "DROP TABLE noted.rows_")
    week.program.run("written", "log")
    said = lab.exec("db1", week.program.argv("status", "written")).stdout.rstrip()
    assert said.startswith("written is recoverable from ") and said.endswith("gaps: none")
    first, last = week.rows[0][2] + 1, week.rows[-1][2]
    for second in [week.chance.randint(first, last) for _unused in range(seconds)]:
        with served(week, "--time", utc(second)) as client:
            assert rows(lab, client) == week.until(second), f"as of {utc(second)}, seed {seed}"
    with served(week, "--before-event", r"DROP TABLE .*rows_") as client:
        assert rows(lab, client) == week.until(last + 1)
    kinds = [row["kind"] for row in week.program.list("written")]
    made = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return (
        f"{days} days (seed {seed}): {len(week.rows)} changes, backups: {made}; faults: {', '.join(week.faults)}; "
        f"{seconds} random seconds and the moment before the DROP TABLE came back row by row; {said}"
    )


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> Iterator[None]:
    yield
    sql(lab, "DROP DATABASE IF EXISTS noted", check=False)
    lab.exec("db1", ["rm", "-rf", PLACE, PROGRAM, STOP])


@pytest.mark.capability("A1", "A2", "A3", "A10")
def test_two_days(lab: Lab) -> None:
    print(live(lab, 2, 2, 5))


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_week(lab: Lab, seed: int) -> None:
    print(live(lab, 8, 12, seed))
