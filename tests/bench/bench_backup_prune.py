# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of pruning costs, in one run beside the guide's `find -mtime +7`.

    python3 tests/bench/bench_backup_prune.py [BACKUPS]

Makes a source with so many backups on disk (by default 10,000: a full every week, an incremental every day, a log
every hour, weeks and months kept), and prints the medians of: reading all manifests, the plan alone, both, `find`
listing what is older than seven days, and a plain sort of the paths by time. The plan must stay below 2 s.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest, prune
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Store

LIMIT = 2.0
HOUR = 3600.0
ROUNDS = 5


def build(store: Store, number: int, now: float) -> None:
    """Write the backups, and the verdicts that make them count."""
    base = last = ""
    verdicts: dict[str, Any] = {}
    for sequence in range(1, number + 1):
        hour = sequence - 1
        kind = "full" if hour % 168 == 0 else "incremental" if hour % 24 == 0 else "log"
        ended = now - (number - sequence) * HOUR
        name = f"{sequence:032x}"
        parent = {"full": None, "incremental": base, "log": last}[kind]
        base, last = (base, name) if kind == "log" else (name, name)
        directory = Path(store.path, kind, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(ended)))
        directory.mkdir(parents=True)
        entry = {"path": "backup.zst", "size": 1 << 20, "sha256": "0" * 64}
        document = {"id": name, "source": "db", "sequence": sequence, "kind": kind, "parent": parent, "end": ended}
        (directory / manifest.NAME).write_bytes(manifest.render({**document, "files": [entry]}))
        os.utime(directory, (ended, ended))
        verdicts[name] = {"verdict": "verified", "time": ended}
    store.remember("verdicts.json", verdicts)


def median(action: Callable[[], object]) -> float:
    times = []
    for _unused in range(ROUNDS):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    now = float(int(time.time()))
    policy = prune.Policy(weekly=8, monthly=12, max_share=1)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        store = Store(place, "db")
        build(store, number, now)
        backups, troubles = store.backups()
        proofs = prune.Holding("remote", {kept.id: str(kept.manifest.sha256) for kept in backups}, now)

        def plan() -> prune.Plan:
            return prune.plan("db", backups, policy, now=now, seen=now - 86400, tiers=[proofs])

        found = plan()
        if troubles or found.refusals or not found.delete:
            print(f"the plan is not what it should be: {troubles}, {found.refusals}", file=sys.stderr)
            return 1
        find = ["find", store.path, "-mindepth", "2", "-maxdepth", "2", "-type", "d", "-mtime", "+7"]
        by_find = median(lambda: subprocess.run(find, check=True, stdout=subprocess.DEVNULL))
        listed = len(subprocess.run(find, check=True, capture_output=True).stdout.splitlines())
        paths = [kept.path for kept in backups]
        by_sort = median(lambda: sorted(paths, key=os.path.getmtime))
        reading = median(store.backups)
        planning = median(plan)
    total = reading + planning
    print(f"{platform.python_version()} on {os.cpu_count()} cores; {number} backups, medians of {ROUNDS}")
    print(f"{'what':<34}{'seconds':>9}{'to find':>9}   would remove")
    for name, seconds, count in (
        ("find -mtime +7", by_find, str(listed)),
        ("plain sort by time", by_sort, "-"),
        ("ours, reading all manifests", reading, "-"),
        ("ours, the plan", planning, str(len(found.delete))),
        ("ours, both", total, str(len(found.delete))),
    ):
        print(f"{name:<34}{seconds:>9.3f}{seconds / by_find:>9.1f}   {count}")
    print(f"limit of reading and plan: {LIMIT:g} s: {'kept' if total <= LIMIT else 'EXCEEDED'}")
    return 0 if total <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
