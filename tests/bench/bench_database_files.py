#!/usr/bin/env python
# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""backup_verify on files of MariaDB against the programs that check them, in db1 of the lab, in the same run.

A binary log against ``mariadb-binlog --verify-binlog-checksum``, tables of a mariadb-backup against ``innochecksum``,
which reads from the page cache faster than disks are: there the target is a rate that no common disk delivers.
Everything is read from the page cache and each figure is the median of three runs. ``--quick`` takes small files, to
see that it works. LAB_PREFIX chooses the copy of the lab, which must be up.

Usage: python tests/bench/bench_database_files.py [--quick] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = os.environ.get("LAB_PREFIX", "worklog")
PLACE = "/var/tmp/bench-database-files"
COLLECTION = "ansible_collections/worklog/maintenance"

#: What the check of a binary log may take of the time of the program, and any check of memory in MiB.
RATIO = 1.0
MEMORY = 100
#: Bytes a second at least for tablespaces, without and with the Python package crc32c.
RATES = {"without": 400e6, "with": 1000e6}

#: Runs a program in db1 and prints the seconds it takes; ours prints the verdict and the memory as well.
TIMED = """
import json, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
print(json.dumps([time.monotonic() - began, done.returncode, done.stderr[-500:]]))
"""
CHECK = """
import json, re, sys, time
if sys.argv[2] == "without":
    sys.modules["crc32c"] = None  # as if it were not installed
elif sys.argv[2] == "with":
    import crc32c
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup
began = time.monotonic()
result = check.verify(Backup(sys.argv[1], "bench"), now=time.time(), limits=Limits())
memory = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)
print(json.dumps([time.monotonic() - began, result.verdict, int(memory), result.sentence()]))
"""

_HEADER = struct.Struct("<IBIIIH")


def db1(argv: list[str], timeout: float = 1200) -> str:
    """Run a program in db1 and return what it prints."""
    command = ["docker", "exec", f"{PREFIX}-db1", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def prepare() -> None:
    """Copy the collection's plugins into db1."""
    target = f"{PLACE}/{COLLECTION}"
    db1(["rm", "-rf", PLACE])
    db1(["mkdir", "-p", "-m", "0755", target])
    copy = ["docker", "cp", str(ROOT / "plugins"), f"{PREFIX}-db1:{target}/"]
    subprocess.run(copy, check=True, capture_output=True, timeout=60)


def programs(argv: list[str]) -> float:
    """Return the seconds that a program takes in db1."""
    seconds, code, words = json.loads(db1(["python3", "-c", TIMED, *argv]))
    assert code == 0, f"{argv} ended with {code}: {words}"
    return float(seconds)


def ours(path: str, crc32c: str = "without") -> tuple[float, int]:
    """Return the seconds and the MiB that backup_verify takes in db1, without the start of Python."""
    out = db1(["env", f"PYTHONPATH={PLACE}", "python3", "-c", CHECK, path, crc32c])
    seconds, verdict, memory, sentence = json.loads(out)
    assert verdict == "structure_ok", sentence
    return float(seconds), memory // 1024


def event(out: list[bytes], position: int, kind: int, body: bytes, flags: int = 0) -> int:
    """Add an event with the right position and checksum; return where it ends."""
    size = 19 + len(body) + 4
    head = _HEADER.pack(1_795_602_292 + position // 50_000, kind, 7, size, position + size & 0xFFFFFFFF, flags)
    out.append(head + body + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little"))
    return position + size


def binlog(target: Path, source: Path, size: int, row: int) -> int:
    """Write a log as a busy server does: transactions of one statement each, with rows of ``row`` bytes at most.

    The beginning and the table map are those of a real log; the rows are text.
    """
    data = source.read_bytes()
    events, at = [], 4
    while at < len(data):
        _time, kind, _server, length, _next, _flags = _HEADER.unpack_from(data, at)
        events.append((kind, data[at : at + length]))
        at += length
    mapped = next(whole for kind, whole in events if kind == 19)[19:-4]
    rows = next(whole for kind, whole in events if kind == 23)[19:-4][:12]
    noise, text = random.Random(20260104), random.Random(1).randbytes(4 << 20).hex().encode()
    number = count = 0
    with target.open("wb") as stream:
        head = data[: 4 + len(events[0][1]) + len(events[1][1])]
        stream.write(head)
        position = len(head)
        while position < size:
            out: list[bytes] = []
            for _unused in range(500):
                number += 1
                position = event(out, position, 162, struct.pack("<QIB", number + 10, 0, 0) + bytes(6), 8)
                values, have = [], noise.randrange(1, row)
                while have > 0:
                    cell, start = min(have, 80), noise.randrange(4 << 20)
                    values.append(b"\xfc" + struct.pack("<I", noise.getrandbits(31)) + bytes([cell]))
                    values.append(text[start : start + cell])
                    have -= cell
                body = b"".join(values)
                position = event(out, position, 160, b"INSERT INTO shop.a VALUES (1, 'x')")
                position = event(out, position, 19, mapped)
                position = event(out, position, 23, rows + body)
                position = event(out, position, 16, struct.pack("<Q", number))
                count += 5
            stream.write(b"".join(out))
        out = []
        event(out, position, 4, struct.pack("<Q", 4) + b"binlog.000002")
        stream.write(out[0])
    return count


def report(
    name: str, theirs: Callable[[], float], mine: Callable[[], tuple[float, int]], runs: int, limit: float | None
) -> int:
    """Print the medians and the ratio of both; return 1 when ours takes more time than the limit, or too much memory.

    :param limit: the seconds ours may take; 0: :data:`RATIO` of theirs; None: any.
    """
    other, seconds, memory = [], [], 0
    for _unused in range(runs):
        other.append(theirs())
        took, used = mine()
        seconds.append(took)
        memory = max(memory, used)
    programs_took, ours_took = statistics.median(other), statistics.median(seconds)
    most = programs_took * RATIO if limit == 0 else limit
    missed = most is not None and (ours_took > most or memory > MEMORY)
    target = "" if most is None else f" (target {most:.2f} s, {MEMORY} MiB){'  MISSED' if missed else ''}"
    print(
        f"  {name:44} {programs_took:7.2f} s, backup_verify {ours_took:7.2f} s  "
        f"ratio {ours_took / programs_took:.2f}  {memory} MiB{target}",
        flush=True,
    )
    return int(missed)


def bench_binlog(quick: bool, runs: int) -> int:
    """Return how many targets are missed by binary logs of small and large events."""
    db1(["mariadb", "--execute", "FLUSH BINARY LOGS"])
    folder = ROOT / "build" / "bench" / "binlogs"
    folder.mkdir(parents=True, exist_ok=True)
    real = folder / "real.000001"
    script = (
        "CREATE OR REPLACE TABLE worklog.bench (id INT, t VARCHAR(200)); FLUSH BINARY LOGS; "
        "INSERT INTO worklog.bench VALUES (1, 'x'); FLUSH BINARY LOGS; DROP TABLE worklog.bench"
    )
    db1(["mariadb", "--execute", script])
    names = db1(["mariadb", "--skip-column-names", "--execute", "SHOW BINARY LOGS"]).split()[::2]
    name = names[-2]
    copy = ["docker", "cp", f"{PREFIX}-db1:/var/lib/mysql/{name}", str(real)]
    subprocess.run(copy, check=True, capture_output=True, timeout=60)
    missed = 0
    for what, row in (("small", 120), ("medium", 2_000), ("large", 60_000)):
        made = folder / "binlog.000001"
        count = binlog(made, real, (16 << 20) if quick else (512 << 20), row)
        size = made.stat().st_size
        path = f"{PLACE}/binlog.000001"
        copy = ["docker", "cp", str(made), f"{PREFIX}-db1:{path}"]
        subprocess.run(copy, check=True, capture_output=True, timeout=120)
        made.unlink()
        print(f"\nbinary log with {what} events: {size / 1e6:.0f} MB, {size / count:.0f} bytes an event", flush=True)
        argv = ["mariadb-binlog", "--no-defaults", "--verify-binlog-checksum", path]
        missed += report(
            "mariadb-binlog --verify-binlog-checksum",
            partial(programs, argv),
            partial(ours, path),
            runs,
            None if quick else 0,
        )
    return missed


def bench_tablespace(quick: bool, runs: int) -> int:
    """Return how many targets are missed by a tablespace as mariadb-backup copies it, with and without crc32c.

    Its directory is checked, as that of a backup is: without a manifest no SHA-256 is taken, nor does innochecksum.
    """
    doublings = 8 if quick else 15
    script = (
        "CREATE OR REPLACE TABLE worklog.bench (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(500)); "
        "INSERT INTO worklog.bench (t) SELECT REPEAT(MD5(seq), 10) FROM worklog.seq_1_to_50;"
    ) + "INSERT INTO worklog.bench (t) SELECT REVERSE(t) FROM worklog.bench;" * doublings
    db1(["mariadb", "--execute", script])
    argv = ["mariadb-backup", "--backup", "--user=root", "--tables=worklog[.]bench$", f"--target-dir={PLACE}/full"]
    db1(argv)
    db1(["mariadb", "--execute", "DROP TABLE worklog.bench"])
    path = f"{PLACE}/full/worklog/bench.ibd"
    size = int(db1(["stat", "--format=%s", path]))
    print(f"\ntablespace: {size / 1e6:.0f} MB", flush=True)
    db1(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"])
    check = partial(programs, ["innochecksum", path])
    path = f"{PLACE}/full/worklog"
    limits = {variant: None if quick else size / rate for variant, rate in RATES.items()}
    missed = report("innochecksum, without crc32c", check, partial(ours, path), runs, limits["without"])
    parts = list(Path(sys.prefix).glob("lib/python3*/site-packages/crc32c*"))
    if not parts:
        print("  crc32c is not installed here: make venv", flush=True)
        return missed + 1
    for part in parts:
        copy = ["docker", "cp", str(part), f"{PREFIX}-db1:{PLACE}/"]
        subprocess.run(copy, check=True, capture_output=True, timeout=60)
    missed += report("innochecksum, with crc32c", check, partial(ours, path, "with"), runs, limits["with"])
    return missed


def main() -> int:
    """Print the figures; return 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small files, no targets")
    parser.add_argument("--runs", type=int, default=3, help="the median of so many runs")
    parser.add_argument("--only", nargs="+", default=["binlog", "tablespace"], help="binlog, tablespace")
    options = parser.parse_args()
    prepare()
    try:
        missed = bench_binlog(options.quick, options.runs) if "binlog" in options.only else 0
        missed += bench_tablespace(options.quick, options.runs) if "tablespace" in options.only else 0
    finally:
        db1(["rm", "-rf", PLACE])
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
