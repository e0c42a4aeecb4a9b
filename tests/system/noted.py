# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that is written to while it is backed up, and what was written: just that must come back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.system.backup_program import Program
from tests.system.conftest import Lab

PLACE = "/var/lib/test-restore"

#: Writes a row as often as it is told and notes it when it is committed: number, value, and the second of the server.
#: Whatever is noted must come back; what is not may not be there.
WRITER = """
import pymysql, random, sys, time
random.seed(int(sys.argv[1]))
link = pymysql.connect(unix_socket="/run/mysqld/mysqld.sock", user="root", database="noted", autocommit=True)
cursor = link.cursor()
for number in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[3])):
    value = random.getrandbits(60)
    cursor.execute("INSERT INTO rows_ (number, value) VALUES (%s, %s)", (number, value))
    cursor.execute("SELECT UNIX_TIMESTAMP(at) FROM rows_ WHERE number = %s", (number,))
    print(number, value, cursor.fetchone()[0], flush=True)
    time.sleep(float(sys.argv[4]))
"""


class Noted:
    """A history of the database, and what was written in it."""

    def __init__(self, lab: Lab, program: Program) -> None:
        self.lab, self.program = lab, program
        self.rows: list[tuple[int, int, int]] = []

    def write(self, count: int, pause: float = 0.15) -> None:
        argv = ["python3", "-c", WRITER, "7", str(len(self.rows) + 1), str(count), str(pause)]
        for line in self.lab.exec("db1", argv).stdout.splitlines():
            number, value, at = line.split()
            self.rows.append((int(number), int(value), int(at)))

    def until(self, second: int) -> list[tuple[int, int]]:
        """What was written before a second."""
        return [(number, value) for number, value, at in self.rows if at < second]


def sql(lab: Lab, statement: str, client: str = "", check: bool = True) -> list[list[str]]:
    argv = ["mariadb", *([f"--defaults-file={client}"] if client else []), "--batch", "--skip-column-names"]
    done = lab.exec("db1", argv, stdin=statement, check=check)
    return [line.split("\t") for line in done.stdout.splitlines()]


def rows(lab: Lab, client: str = "") -> list[tuple[int, int]]:
    found = sql(lab, "SELECT number, value FROM noted.rows_ ORDER BY number", client)
    return [(int(number), int(value)) for number, value in found]


def utc(second: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def left_over(lab: Lab, node: str) -> list[str]:
    """Scratch servers that run, and scratch data that are there."""
    code = (
        "import os\nfor p in os.listdir('/proc'):\n  if p.isdigit():\n    try:\n"
        "      c = open(f'/proc/{p}/cmdline','rb').read().decode('utf-8','replace')\n"
        "    except OSError: continue\n    if 'scratch/' in c and 'python' not in c: print(c.split(chr(0))[0])"
    )
    seen = lab.exec(node, ["python3", "-c", code]).stdout.split()
    return (
        seen
        + lab.exec(node, ["find", f"{PLACE}/scratch", "-mindepth", "1", "-maxdepth", "1"], check=False).stdout.split()
    )


def restore(noted: Noted, *argv: str, code: int = 0) -> str:
    """Restore by the program itself, and return what it says."""
    words = noted.program.argv("restore", "written", "--scratch", f"{PLACE}/scratch", *argv)
    done = noted.lab.exec("db1", words, check=False, timeout=180)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def kept_by(said: str) -> str:
    """The scratch directory that a restore says it has left."""
    return f"{PLACE}/scratch/" + said.rpartition(f"{PLACE}/scratch/")[2].split("/")[0].split()[0]


@contextlib.contextmanager
def served(noted: Noted, *argv: str) -> Iterator[str]:
    """The client file of a server that was left on the restored data."""
    said = restore(noted, *argv, "--serve", "5m")
    client = said.rpartition("--defaults-file=")[2].split()[0]
    try:
        for _attempt in range(100):
            if (
                noted.lab.exec("db1", ["mariadb", f"--defaults-file={client}", "-e", "DO 1"], check=False).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        yield client
    finally:
        noted.lab.exec("db1", ["systemctl", "stop", "worklog-scratch-*"])
        for _attempt in range(50):
            if not left_over(noted.lab, "db1"):
                break
            time.sleep(0.1)
    assert left_over(noted.lab, "db1") == []
