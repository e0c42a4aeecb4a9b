#!/usr/bin/env python
# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What backup_verify finds, and what the usual programs find, of thousands of seeded damages of real backups.

    python3 tests/bench/bench_backup_mutations.py [--seed TEXT] [--count MUTANTS] [--prefix LAB]

All backups are made by their programs in db1 of the lab, each of two states of its source, and damaged there. The
tables tell how many were caught of how many, with and without a manifest. Every mutant that was missed is listed with
its class, its backup and its number, which together with the seed make it again; build/bench has all of it as JSON. The
exit code is 1 when a mutant with a manifest is missed, a healthy backup is called damaged, or one could not be tried.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "bench" / "backup-mutations.json"


def main() -> int:
    """Print the figures; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", default="1", help="decides every damage")
    parser.add_argument("--count", type=int, default=2200, help="of mutants, about")
    parser.add_argument("--prefix", default=os.environ.get("LAB_PREFIX", "worklog"), help="copy of the lab")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    table = importlib.import_module("tests.bench.backup_mutations.table")
    collecting = importlib.import_module("tests.bench.backup_mutations.collection")
    lab = collecting.Lab(options.prefix)
    done = lab.program("up", "--prefix", lab.prefix, "--quiet", "--nodes", "db1", timeout=1800)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 1
    processes = os.cpu_count() or 1
    print(f"{processes} × {platform.machine()}, Linux {platform.release()}; seed {options.seed}", flush=True)
    collection = collecting.Collection(lab)
    began = time.monotonic()
    try:
        collection.make()
        made = time.monotonic()
        results = collection.run(options.seed, options.count, processes=processes)
    finally:
        collection.remove()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table.render(results, collection.subjects))
    print(f"{made - began:.0f} s to make the backups, {time.monotonic() - made:.0f} s to damage and to check them")
    return 1 if table.missed(results, "with") or table.false_alarms(results) or results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
