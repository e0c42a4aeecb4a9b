# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has the lab make the backups, each of two states of its source, damages them in db1, and returns what was said."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.backup_mutations.subjects import Subject
from tests.system import test_backup_verify as made
from tests.system.backup_program import Program, archive
from tests.system.conftest import Lab

NODE = "db1"
PLACE = "/var/lib/backup-mutations"
_WORKER = f"{PLACE}/worker"
_MAIN = "import sys\nfrom tests.bench.backup_mutations import worker\nsys.exit(worker.main())\n"

#: Of the backups of other programs, those that are damaged, and what the table by format calls them.
_FOREIGN = {
    "worklog.sql": "mariadb-dump", "single.sql": "mariadb-dump", "quiet.sql": "mariadb-dump",
    "dump": "mongodump", "dump-gz": "mongodump",
    "worklog.archive": "mongodump --archive", "worklog.archive.gz": "mongodump --archive",
    "dump.rdb": "Redis", "appendonlydir": "Redis",
    "worklog.tar.gz": "tar", "worklog.tar.zst": "tar", "worklog.tar.xz": "tar", "worklog.tar.bz2": "tar",
    "dumps.tar.gz": "tar", "binlogs.tar.gz": "tar", "copy": "rsync", "snapshots": "rsync snapshots",
    "full": "mariadb-backup", "inc": "mariadb-backup", "prepared": "mariadb-backup",
    "full.xb.gz": "mariadb-backup --stream", "inc.xb.zst": "mariadb-backup --stream",
    "my": "mydumper", "my-gz": "mydumper", "binlogs": "binary logs",
}  # fmt: skip

#: Those of worklog-backup: name of the source, kinds of backups with the format.
_SOURCES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "db": (
        {"engine": "mariadb", "probe_interval": 0},
        {"full": "mariadb-backup --stream", "incremental": "mariadb-backup --stream", "log": "binary logs",
         "dump": "mariadb-dump"},
    ),
    "db-gzip": (
        {"engine": "mariadb", "compression": "gzip", "databases": ["worklog"]},
        {"full": "mariadb-backup --stream", "log": "binary logs", "dump": "mariadb-dump"},
    ),
    "db-plain": (
        {"engine": "mariadb", "compression": "none", "databases": ["worklog"]},
        {"log": "binary logs", "dump": "mariadb-dump"},
    ),
    "documents": ({"engine": "mongodb", "uri": "mongodb://127.0.0.1:27017/"},
                  {"full": "mongodump --archive"}),
    "documents-gzip": (
        {"engine": "mongodb", "uri": "mongodb://127.0.0.1:27017/", "compression": "gzip"},
        {"full": "mongodump --archive"},
    ),
    "keys": ({"engine": "redis", "aof": True}, {"full": "Redis"}),
    "uploads": ({"engine": "files", "paths": [f"{PLACE}/uploads"]}, {"snapshot": "files"}),
    "secrets": ({"engine": "secrets", "paths": [f"{PLACE}/secrets"]}, {"snapshot": "tar"}),
    "sealed": ({"engine": "secrets", "paths": [f"{PLACE}/secrets"]}, {"snapshot": "age"}),
    "logs": ({"engine": "archive", "paths": [f"{PLACE}/logs"], "since_last": False},
             {"archive": "logs (tar)"}),
}  # fmt: skip

_SQL = """
DROP TABLE IF EXISTS bench_notes, bench_hours, bench_raw;
CREATE TABLE bench_notes (id INT PRIMARY KEY, author VARCHAR(20), body TEXT, KEY (author));
CREATE TABLE bench_hours (id INT PRIMARY KEY, day DATE, hours DECIMAL(4,2));
CREATE TABLE bench_raw (id INT PRIMARY KEY, raw VARBINARY(100));
INSERT INTO bench_notes SELECT seq, ELT(1 + seq MOD 3, 'alice', 'bob', '\\u5de5\\u5355'), CONCAT('it''s; \\n',
  REPEAT(MD5(seq), 1 + seq MOD 5)) FROM seq_1_to_400;
INSERT INTO bench_hours SELECT seq, DATE '2026-01-01' + INTERVAL seq DAY, seq MOD 24 FROM seq_1_to_300;
INSERT INTO bench_raw SELECT seq, RANDOM_BYTES(60) FROM seq_1_to_200;
"""
_SQL_LATER = """
DELETE FROM bench_notes WHERE id MOD 7 = 0; DELETE FROM bench_hours WHERE id > 290;
INSERT INTO bench_raw SELECT seq, RANDOM_BYTES(60) FROM seq_1000_to_1020;
UPDATE bench_hours SET hours = 8 WHERE id < 50;
"""
_SQL_GONE = "DROP TABLE IF EXISTS bench_notes, bench_hours, bench_raw;"

_DOCUMENTS = """
import pymongo
base = pymongo.MongoClient("mongodb://127.0.0.1:27017/").worklog
for name in ("bench_notes", "bench_hours"):
    base.drop_collection(name)
base.bench_notes.insert_many([{"_id": n, "body": f"note {n} " * (n % 9), "hours": n / 4} for n in range(300)])
base.bench_hours.insert_many([{"_id": n, "day": n % 31} for n in range(120)])
"""
_DOCUMENTS_LATER = """
import pymongo
base = pymongo.MongoClient("mongodb://127.0.0.1:27017/").worklog
base.bench_notes.delete_many({"_id": {"$lt": 20}})
base.bench_hours.insert_many([{"_id": n, "day": n % 31} for n in range(500, 540)])
"""
_DOCUMENTS_GONE = """
import pymongo
base = pymongo.MongoClient("mongodb://127.0.0.1:27017/").worklog
for name in ("bench_notes", "bench_hours"):
    base.drop_collection(name)
"""

_KEYS = (
    "for i={0},{1} do redis.call('set','k'..i,string.rep('v'..i,i % 40)) redis.call('rpush','l'..i % 9,i) "
    "redis.call('hset','h'..i % 5,i,i) redis.call('zadd','z',i,i) redis.call('sadd','s'..i % 3,i) end"
)

#: Writes uploads, secrets and logs; later some of them change.
_FILES = """
import os, random, sys
place, later = sys.argv[1], sys.argv[2] == "later"
source = random.Random(5)
for folder in ("uploads/deep", "secrets", "logs"):
    os.makedirs(f"{place}/{folder}", exist_ok=True)
for number in range(24):
    path = f"{place}/uploads/{'deep/' if number % 3 else ''}photo-{number}.jpg"
    data = source.randbytes(source.randrange(200, 9000))
    if not later or number % 4 == 0:
        open(path, "wb").write(data[::-1] if later else data)
for number in range(5):
    with open(f"{place}/secrets/site-{number}.env", "w") as out:
        out.write(f"PASSWORD={source.getrandbits(99)}{later}\\nPORT={3000 + number}\\n")
for number in range(4):
    with open(f"{place}/logs/app-{number}.log", "a") as out:
        out.writelines(f"2026-01-02 INFO saved {source.getrandbits(60)} {later}\\n" for line in range(500))
"""


class Collection:
    """The backups in the lab.

    :param lab: its node db1 is used, and left as it was.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.subjects: list[Subject] = []

    def make(self) -> None:
        """Make every backup of one state of the sources, and then of another."""
        lab = self.lab
        self.program = Program(lab, NODE, PLACE, {})
        lab.exec(NODE, ["mkdir", f"{PLACE}/foreign"])
        made.make_vault(lab, NODE, f"{PLACE}/vault", size=20)
        key = self.lab.exec(NODE, ["age-keygen", "-y", f"{PLACE}/vault/identity"]).stdout.strip()
        again = ["age", "-r", key, "-o", f"{PLACE}/vault/again.tar.age", f"{PLACE}/vault/uploads.tar"]
        lab.exec(NODE, again)  # with another key inside
        self._configure(key)
        self._redis("0")  # else each snapshot that redis-cli asks for takes as many seconds
        paths: list[dict[str, str]] = []
        for state in ("a", "b"):
            later = state == "b"
            self._sql(_SQL_LATER if later else _SQL)
            self._python(_DOCUMENTS_LATER if later else _DOCUMENTS)
            for database, first in (("0", 1), ("3", 1000)):
                begin = first + 300 * later
                lua = _KEYS.format(begin, begin + (40 if later else 250))
                lab.exec(NODE, ["redis-cli", "-n", database, "eval", lua, "0"])
            self._python(_FILES, PLACE, "later" if later else "first")
            if not later:
                counts = self._counts()
            self._foreign(state)
            paths.append({f"{name} {kind}": self.program.made(name, kind)["path"]
                          for name, (_options, kinds) in _SOURCES.items() for kind in kinds})  # fmt: skip
        self._list(counts, *paths)

    def run(self, seed: str, count: int, *, processes: int, quick: bool = False) -> dict[str, Any]:
        """Damage the backups and return what was said of every mutant and every healthy variant.

        :param count: of mutants.
        :param quick: only some healthy variants.
        """
        argv = ["docker", "exec", "--interactive", self.lab.container(NODE)]
        program = archive(_MAIN, Path(__file__).parent)
        subprocess.run([*argv, "tee", _WORKER], input=program, stdout=subprocess.DEVNULL, check=True, timeout=60)
        told = {
            "subjects": [asdict(subject) for subject in self.subjects],
            "environment": {"BENCH_PASSWORD": made.SECRET, "IDENTITY": f"{PLACE}/vault/identity"},
            "seed": seed, "count": count, "processes": processes, "quick": quick,
        }  # fmt: skip
        done = self.lab.exec(NODE, ["python3", _WORKER], stdin=json.dumps(told), timeout=3600)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def remove(self) -> None:
        """Leave the node as it was."""
        self._redis("5")
        self._sql(_SQL_GONE)
        self._python(_DOCUMENTS_GONE)
        for database in ("0", "3"):
            self.lab.exec(NODE, ["redis-cli", "-n", database, "flushdb"])
        self.lab.exec(NODE, ["rm", "-rf", "--", PLACE, made.PLACE])

    def _configure(self, key: str) -> None:
        sources = {name: dict(options) for name, (options, _kinds) in _SOURCES.items()}
        sources["sealed"]["recipients"] = [key]
        self.program.configure({name: {"verify": False, **source} for name, source in sources.items()})

    def _redis(self, seconds: str) -> None:
        self.lab.exec(NODE, ["redis-cli", "config", "set", "repl-diskless-sync-delay", seconds])

    def _sql(self, statements: str) -> None:
        self.lab.exec(NODE, ["mariadb", "--default-character-set=utf8mb4", "worklog"], stdin=statements)

    def _python(self, code: str, *words: str) -> str:
        return self.lab.exec(NODE, ["python3", "-c", code, *words]).stdout

    def _counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return what is in the databases, by program."""

        def ask(query: str) -> str:
            return self.lab.exec(NODE, ["mariadb", "-BNe", query]).stdout

        listed = ask("SHOW FULL TABLES FROM worklog WHERE Table_type = 'BASE TABLE'").splitlines()
        tables = [line.split("\t")[0] for line in listed]
        rows = {table: int(ask(f"SELECT COUNT(*) FROM worklog.`{table}`")) for table in tables}
        told = self._python(
            "import json, pymongo\nbase = pymongo.MongoClient('mongodb://127.0.0.1:27017/').worklog\n"
            "print(json.dumps({name: base[name].count_documents({}) for name in base.list_collection_names()}))"
        )
        return {"sql": {"worklog": rows}, "documents": {"worklog": json.loads(told)}}

    def _foreign(self, state: str) -> None:
        """Have other programs make theirs."""
        lab, place = self.lab, made.PLACE
        lab.exec(NODE, ["rm", "-rf", place])
        lab.exec(NODE, ["mkdir", "-m", "0700", place])
        for name, (argv, _verdict) in made.MADE.items():
            lab.exec(NODE, [part.replace("{}", f"{place}/{name}") for part in argv])
        script = (
            "redis-cli bgrewriteaof >/dev/null; sleep 1; redis-cli set more 1 >/dev/null; "
            "cp -a /var/lib/redis/appendonlydir $1/; mkdir $1/snapshots; rsync -a $2/uploads/ $1/snapshots/1/; "
            "cp -al $1/snapshots/1 $1/snapshots/2; rm $1/snapshots/2/photo-0.jpg; echo new > $1/snapshots/2/photo-0.jpg"
        )
        lab.exec(NODE, ["bash", "-euo", "pipefail", "-c", script, "-", place, PLACE])
        lab.exec(NODE, ["mv", place, f"{PLACE}/foreign/{state}"])

    def _list(self, counts: dict[str, dict[str, dict[str, int]]], first: dict[str, str], later: dict[str, str]) -> None:
        for name, format_ in _FOREIGN.items():
            known = counts["sql"] if format_ in ("mariadb-dump", "mydumper") and name != "my-gz" else (
                counts["documents"] if format_.startswith("mongodump") else {}
            )  # fmt: skip
            path, other = (f"{PLACE}/foreign/{state}/{name}" for state in ("a", "b"))
            self.subjects.append(Subject(name, format_, path, other, counts=known))
        identity = f"{PLACE}/vault/identity"
        for name, (_options, kinds) in _SOURCES.items():
            for kind, format_ in kinds.items():
                key = f"{name} {kind}"
                self.subjects.append(Subject(key, format_, first[key], later[key], ours=True, identity=identity))
        sealed, again = f"{PLACE}/vault/uploads.tar.age", f"{PLACE}/vault/again.tar.age"
        self.subjects.append(Subject("uploads.tar.age", "age", sealed, again, identity=identity))
        for name, variable in (("restic", "RESTIC_PASSWORD"), ("borg", "BORG_PASSPHRASE")):
            path = f"{PLACE}/vault/{name}"
            self.subjects.append(Subject(name, name, path, path, secret={variable: made.SECRET}))
