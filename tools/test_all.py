# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` does: every step runs, also when an earlier one failed, and a table closes the run.

After the quick static checks the tests on the lab run, and beside them, one after the other, Molecule and what needs no
lab; their output comes at the end. Steps that write JUnit reports into build/reports count each test; the others count
as one. A few tests of the lab that failed while all cores were busy are run once more with nothing beside them, and
named: what fails there too has failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
BACKGROUND = ["molecule", "sanity", "importer", "unit"]  # the first one makes the images of the lab
STEPS = ["lint", "system", *BACKGROUND]
AGAIN = 3  # so many tests of the lab that fail get a second run; more of them are no matter of time


@dataclass
class Outcome:
    """One line of the closing table."""

    step: str
    status: int
    seconds: float
    passed: int
    failed: int
    skipped: int


def count(step: str, status: int, seconds: float) -> Outcome:
    """The outcome of a step, from its exit status and the JUnit reports named after it."""
    passed = failed = skipped = 0
    for report in REPORTS.glob(f"{step}*.xml"):
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            failed += bad
            skipped += left_out
            passed += int(suite.get("tests", 0)) - bad - left_out
    if status != 0 and failed == 0:
        failed += 1
    elif passed == 0:
        passed += 1
    return Outcome(step, status, seconds, passed, failed, skipped)


def run(step: str, output: IO[bytes] | None = None) -> Outcome:
    """Run one step; its output goes to the terminal unless it is told where."""
    begin = time.monotonic()
    command = ["make", "--no-print-directory", step]
    status = subprocess.run(command, cwd=ROOT, check=False, stdout=output, stderr=output).returncode
    return count(step, status, time.monotonic() - begin)


def run_behind(step: str, log: Path) -> Outcome:
    """Run one step with its output in a file."""
    with log.open("wb") as output:
        return run(step, output)


def failed_in(report: Path) -> list[str]:
    """The tests that a JUnit report says failed."""
    if not report.exists():
        return []
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [f"{case.get('classname')}::{case.get('name')}" for case in cases if case.find("failure") is not None]


def run_again(system: Outcome) -> Outcome | None:
    """Run the tests of the lab that failed by themselves; take them as passed, and name them, when all of them do."""
    names = failed_in(REPORTS / "system.xml")
    if not 0 < len(names) == system.failed <= AGAIN:
        return None
    print("\n##### make again: what failed beside other work, by itself", flush=True)
    again = run("again")
    if again.status == 0 and again.passed == len(names) and not again.failed:
        system.status, system.failed = 0, 0
        print("\nfailed beside other work, and passed by themselves:", *names, sep="\n  ", flush=True)
    return again


def main() -> int:
    """Run all steps and print the table; 1 when a step failed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in REPORTS.glob("*.xml"):
        old.unlink()
    begin = time.monotonic()
    outcomes = []
    logs = {step: REPORTS / f"make-{step}.log" for step in BACKGROUND}
    with ThreadPoolExecutor(1) as pool:
        behind = {step: pool.submit(run_behind, step, log) for step, log in logs.items()}
        for step, log in logs.items():
            print(f"##### make {step}, in the background (its output: {log.relative_to(ROOT)})", flush=True)
        for step in STEPS:
            print(f"\n##### make {step}", flush=True)
            if step in behind:
                outcomes.append(behind[step].result())
                print(logs[step].read_text(encoding="utf-8", errors="replace"), flush=True)
            else:
                outcomes.append(run(step))
    again = run_again(next(one for one in outcomes if one.step == "system"))
    outcomes += [again] if again else []

    print(f"\n{'step':<12}{'result':<10}{'seconds':>8}{'passed':>9}{'failed':>9}{'skipped':>9}")
    for outcome in outcomes:
        result = "passed" if outcome.status == 0 else "FAILED"
        print(
            f"{outcome.step:<12}{result:<10}{outcome.seconds:>8.0f}"
            f"{outcome.passed:>9}{outcome.failed:>9}{outcome.skipped:>9}"
        )
    print(f"whole run: {time.monotonic() - begin:.0f} s")
    print(f"\n{sum(o.passed for o in outcomes)} passed, {sum(o.failed for o in outcomes)} failed")
    return 1 if any(outcome.status for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
