#!/usr/bin/env python
# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""backup_verify against the programs that it replaces: gzip -t, tar -t and sha256sum, one after the other.

The backups are made once, from a seed, and kept in build/bench (4 GB). Everything is read from the page cache and each
figure is the median of three runs. ``--quick`` makes small backups, to see that it works.

Usage: python tests/bench/bench_backup_verify.py [--quick] [--runs N]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "build" / "bench"

#: What the check may take of the time of the programs, and of memory in MiB.
TARGETS = {"standard library": 0.35, "isal and zstandard": 0.25}
MEMORY = 100

CHECK = """
import json, re, sys, time
for name in sys.argv[2].split(","):
    sys.modules[name] = None  # as if it were not installed
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup
expect = parse("bench", json.loads(sys.argv[3]))
result = check.verify(Backup(sys.argv[1], "bench", expect=expect), now=time.time(), limits=Limits())
memory = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)
print(json.dumps([result.verdict, result.members, result.expanded, int(memory)]))
"""

WORDS = [
    f"{word}{index}" for word in ("record", "user", "task", "review", "export", "hours", "note") for index in range(90)
]


def text_pool(source: random.Random, size: int) -> bytes:
    """Return log lines and JSON as an application writes them."""
    out = io.BytesIO()
    while out.tell() < size:
        words = " ".join(source.choices(WORDS, k=source.randrange(3, 14)))
        if source.random() < 0.5:
            day, clock = f"2026-{source.randrange(1, 13):02d}-{source.randrange(1, 29):02d}", source.randrange(86400)
            line = f"{day} {clock // 3600:02d}:{clock % 3600 / 60:05.2f} INFO {words} id={source.getrandbits(40)}\n"
        else:
            line = json.dumps({"id": source.getrandbits(48), "title": words, "hours": source.randrange(400) / 4}) + "\n"
        out.write(line.encode())
    return out.getvalue()[:size]


def archive(target: Path, compress: list[str], size: int) -> None:
    """Write a tar of uploads (half of it pictures, which do not compress) and logs."""
    source = random.Random(20260102)
    text, noise = text_pool(source, 48 << 20), random.Random(1).randbytes(48 << 20)
    with target.open("wb") as out, subprocess.Popen(compress, stdin=subprocess.PIPE, stdout=out) as program:
        assert program.stdin is not None
        with tarfile.open(fileobj=program.stdin, mode="w|", bufsize=1 << 20) as tar:
            done = number = 0
            while done < size:
                length = min(int(source.lognormvariate(11, 2)), 32 << 20)
                pool = noise if source.random() < 0.35 else text
                start = source.randrange(len(pool) - length)
                info = tarfile.TarInfo(f"uploads/{number % 512:03d}/{source.getrandbits(64):016x}")
                info.size = length
                tar.addfile(info, io.BytesIO(memoryview(pool)[start : start + length]))
                done += length
                number += 1
        program.stdin.close()
    assert program.returncode == 0, compress


def dump(target: Path, size: int) -> None:
    """Write a dump as mariadb-dump does, one INSERT of about 1 MB after the other."""
    source = random.Random(20260103)
    text = text_pool(source, 16 << 20).replace(b"'", b" ").replace(b'"', b'\\"').split(b"\n")[1:-1]
    with target.open("wb") as out, subprocess.Popen(["gzip", "-6"], stdin=subprocess.PIPE, stdout=out) as program:
        assert program.stdin is not None
        write = program.stdin.write
        done = write(
            b"-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n/*!40101 SET NAMES utf8mb4 */;\nUSE `worklog`;\n"
        )
        rows = 0
        while done < size:
            values = []
            for _unused in range(5000):
                rows += 1
                values.append(b"(%d,'%s',%d.25,NULL)" % (rows, source.choice(text), source.randrange(999)))
            done += write(b"INSERT INTO `records` VALUES " + b",\n".join(values) + b";\n")
        write(b"-- Dump completed on 2026-01-02  3:04:05\n")
        program.stdin.close()
    assert program.returncode == 0


def timed(argv: list[str], then: list[str] | None = None) -> float:
    """Return the seconds that a program takes; with ``then`` as the reader of its output."""
    began = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.PIPE if then else subprocess.DEVNULL) as first:
        if then:
            subprocess.run(then, stdin=first.stdout, stdout=subprocess.DEVNULL, check=True, timeout=1200)
    assert first.returncode == 0, argv
    return time.monotonic() - began


def ours(path: Path, without: str, expect: dict[str, object], verdict: str) -> tuple[float, int]:
    """Return the seconds and the MiB that backup_verify takes."""
    began = time.monotonic()
    argv = [sys.executable, "-c", CHECK, str(path), without, json.dumps(expect)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=1200, text=True)
    seconds = time.monotonic() - began
    found, _members, _expanded, memory = json.loads(done.stdout)
    assert found == verdict, done.stdout
    return seconds, memory // 1024


def cases(quick: bool) -> Iterator[tuple[Path, dict[str, tuple[list[str], list[str] | None]], dict[str, object]]]:
    """Make the backups that are not there, and yield each with the programs that check it and what is expected."""
    size = (64 << 20) if quick else (2500 << 20)
    mark = "quick-" if quick else ""
    DATA.mkdir(parents=True, exist_ok=True)
    makers = {
        f"{mark}files.tar.gz": lambda path: archive(path, ["gzip", "-6"], size),
        f"{mark}files.tar.zst": lambda path: archive(path, ["zstd", "-q", "-3", "--check", "-T0"], size),
        f"{mark}worklog.sql.gz": lambda path: dump(path, size // 2),
    }
    for name, make in makers.items():
        path = DATA / name
        if not path.exists():
            print(f"making {name} ...", flush=True)
            began = time.monotonic()
            partial = path.with_name(name + ".partial")
            make(partial)
            partial.rename(path)
            print(f"  {path.stat().st_size / 1e9:.2f} GB in {time.monotonic() - began:.0f} s", flush=True)
        programs: dict[str, tuple[list[str], list[str] | None]]
        if name.endswith(".tar.gz"):
            programs = {"gzip -t": (["gzip", "-t", str(path)], None), "tar -tzf": (["tar", "-tzf", str(path)], None)}
        elif name.endswith(".tar.zst"):
            programs = {
                "zstd -t": (["zstd", "-q", "-t", str(path)], None),
                "tar --zstd -tf": (["tar", "--zstd", "-tf", str(path)], None),
            }
        else:
            programs = {
                "gzip -t": (["gzip", "-t", str(path)], None),
                "zcat | tail -n 1": (["gzip", "-dc", str(path)], ["tail", "-n", "1"]),
            }
        programs["sha256sum"] = (["sha256sum", str(path)], None)
        yield path, programs, {"min_rows": {"worklog.records": 1}} if ".sql" in name else {"min_members": 1}


def main() -> int:
    """Print the figures; return 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small backups, no targets")
    parser.add_argument("--runs", type=int, default=3, help="the median of so many runs")
    options = parser.parse_args()
    if shutil.which("zstd") is None:
        print("zstd is not installed: apt-get install zstd")
        return 1
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2]
    model = processor.partition("\n")[0].lstrip("\t: ") or platform.machine()
    print(f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}", flush=True)
    variants = {"standard library": "isal,zlib_ng,zstandard", "isal and zstandard": "none"}
    missed = 0
    for path, programs, expect in cases(options.quick):
        with path.open("rb") as stream:  # into the page cache
            while stream.read(1 << 24):
                pass
        print(f"\n{path.name}: {path.stat().st_size / 1e9:.2f} GB", flush=True)
        total = 0.0
        for name, (argv, then) in programs.items():
            seconds = statistics.median(timed(argv, then) for _unused in range(options.runs))
            total += seconds
            print(f"  {name:32} {seconds:7.2f} s", flush=True)
        print(f"  {'all of them':32} {total:7.2f} s", flush=True)
        for variant, without in variants.items():
            runs = [ours(path, without, expect, "verified") for _unused in range(options.runs)]
            seconds = statistics.median(run[0] for run in runs)
            memory = max(run[1] for run in runs)
            ratio = seconds / total
            good = options.quick or (ratio <= TARGETS[variant] and memory < MEMORY)
            missed += not good
            target = "" if options.quick else f" (target {TARGETS[variant]}, {MEMORY} MiB){'' if good else '  MISSED'}"
            print(
                f"  {'backup_verify, ' + variant:32} {seconds:7.2f} s  ratio {ratio:.2f}  {memory} MiB{target}",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
