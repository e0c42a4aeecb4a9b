#!/usr/bin/env python
# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What worklog-backup costs over the plain tool pipelines that it replaces, in one run on db1 of the lab.

    python3 tests/bench/bench_backup_make.py [ROUNDS] [MEGABYTES]

In each round the same data are dumped by `mariadb-dump | zstd` and copied by `mariadb-backup --stream | zstd`, with
pipefail and with the options that the program uses, and by the program, with its manifest, hashes, counts of all rows
and everything on disk. For comparison the pipelines run with `tee` and `sha256sum` before and behind zstd too, which
leaves the same two hashes. The medians and their ratios are printed; the exit code is 1 when one is above its target.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

TARGET = 1.10
PLACE = "/var/lib/backup-bench"
ZSTD = "zstd --quiet --stdout --threads=0"
DUMP = (
    "mariadb-dump --single-transaction --routines --events --triggers --hex-blob --default-character-set=utf8mb4 "
    "--max-allowed-packet=1G --master-data=2 --gtid --all-databases"
)
SOURCES = {
    "dump": DUMP,
    "full": f"mariadb-backup --backup --stream=mbstream --parallel=1 --target-dir={PLACE}/target 2>{PLACE}/log",
}
PLAIN = {kind: f"{source} | {ZSTD} > {PLACE}/plain.zst" for kind, source in SOURCES.items()}
SUM = "tee >(sha256sum >/dev/null)"
HASHED = {kind: f"{source} | {SUM} | {ZSTD} | {SUM} > {PLACE}/plain.zst" for kind, source in SOURCES.items()}


def seconds(lab: Any, command: str) -> float:
    """What a command takes in the node."""
    script = f"set -euo pipefail; begin=$(date +%s%N); {command}; echo $(( $(date +%s%N) - begin ))"
    done = lab.exec("db1", ["bash", "-c", script], timeout=1200)
    return int(done.stdout.split()[-1]) / 1e9


def fill(lab: Any, megabytes: int) -> None:
    """Rows of about 1 KB: text as people and programs write it, and some that does not compress."""
    lab.exec(
        "db1", ["mariadb"], timeout=1200,
        stdin="DROP DATABASE IF EXISTS bench; CREATE DATABASE bench; USE bench;"
        "CREATE TABLE records (id INT PRIMARY KEY, author VARCHAR(20), body TEXT, raw VARBINARY(200), KEY (author));"
        "INSERT INTO records SELECT seq, ELT(1 + seq MOD 3, 'alice', 'bob', 'carol'), CONCAT_WS(' ', 'task', seq, "
        "MD5(seq), REPEAT(CONCAT('reviewed by ', seq MOD 97, ', hours ', seq MOD 13, '; '), 20), SHA2(seq, 512)), "
        f"RANDOM_BYTES(200) FROM seq_1_to_{megabytes * 1000};",
    )  # fmt: skip


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    sys.path.insert(0, str(ROOT))
    helper = importlib.import_module("tests.system.backup_program")
    lab = helper.Lab(os.environ.get("LAB_PREFIX", "worklog"))
    done = lab.program("up", "--prefix", lab.prefix, "--quiet", "--nodes", "db1", timeout=1800)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 1
    fill(lab, megabytes)
    program = helper.Program(lab, "db1", PLACE, {"db": {"engine": "mariadb", "verify": False}})
    ours = {kind: " ".join(program.argv("run", "db", kind)) + " >/dev/null" for kind in PLAIN}
    times: dict[tuple[str, str], list[float]] = {}
    try:
        for number in range(rounds + 1):
            for kind in PLAIN:
                for who, command in (("plain", PLAIN[kind]), ("hashed", HASHED[kind]), ("ours", ours[kind])):
                    taken = seconds(lab, command)
                    lab.exec("db1", ["rm", "-rf", f"{program.root}/db", f"{PLACE}/plain.zst", f"{PLACE}/target"])
                    lab.exec("db1", ["sync", "-f", PLACE], timeout=300)
                    if number:
                        times.setdefault((kind, who), []).append(taken)
    finally:
        lab.exec("db1", ["mariadb", "--execute", "DROP DATABASE IF EXISTS bench"])
        lab.exec("db1", ["rm", "-rf", PLACE])
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; {megabytes} MB of rows; {rounds} rounds after one to warm up")
    print(f"{'':6} {'plain pipeline':>24} {'with sha256sum':>24} {'worklog-backup':>24} {'ratio':>7} {'target':>7}")
    missed = 0
    for kind in PLAIN:
        plain, hashed, made = (times[kind, who] for who in ("plain", "hashed", "ours"))
        ratio = statistics.median(made) / statistics.median(plain)
        missed += ratio > TARGET
        spans = [f"{statistics.median(each):.2f} s ({min(each):.2f}-{max(each):.2f})" for each in (plain, hashed, made)]
        print(f"{kind:6} {spans[0]:>24} {spans[1]:>24} {spans[2]:>24} {ratio:7.2f} {TARGET:7.2f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
