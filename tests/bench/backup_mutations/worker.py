# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a node of the lab: damages the backups that are there, and asks backup_verify and the usual programs.

Reads what to do from a JSON document on standard input, and writes the results as another one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Secret
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

from tests.bench.backup_mutations import healthy, kinds, subjects, tools
from tests.bench.backup_mutations.subjects import Mutant, Stage, Subject

#: From the worst to the best.
_WORST = ("missing", "damaged", "inconclusive", "stale", "structure_ok", "verified")

#: Processes that wait for restic, which tries to read what is damaged again and again for some minutes.
_PATIENT = 8

#: How often a damage is drawn again that would change nothing.
_DRAWS = 100

_LINES = "2026-01-02 03:04:05 INFO user={} saved record {} in {} ms\n"


def verify(path: str, subject: Subject | None, mutant: Mutant | None = None) -> tuple[str, str]:
    """Return the verdict of backup_verify and its sentence: of several backups, the best one.

    :param mutant: is damaged while it is being read.
    """
    several = subject is not None and subject.several
    secret = Secret(variable="BENCH_PASSWORD") if subject is not None and subject.repository else Secret()
    identity = subject.identity if subject is not None else os.environ.get("IDENTITY")
    backup = Backup(f"{path}/*" if several else path, "bench", every=several, identity=identity, secret=secret)
    waiting = [_one_of(path, mutant.source)] if mutant is not None else []

    def progress(amount: int) -> None:
        if waiting and waiting[0] in _open_files():
            with open(waiting.pop(), "ab") as out:
                out.write(b"more")

    results: list[Result] = check.verify_all([backup], now=time.time(), limits=Limits(), progress=progress)
    if waiting:
        raise RuntimeError(f"{waiting[0]} was never read")
    found = max(results, key=lambda result: _WORST.index(result.verdict))
    return found.verdict, found.sentence()


def _one_of(path: str, source: random.Random) -> str:
    """Return one of the files that hold something."""
    found = [f"{path}/{name}" for name in subjects.payload(path) if os.path.getsize(f"{path}/{name}")]
    return source.choice(found or [path])


def _open_files() -> set[str]:
    """Return the paths of the files that this process has open."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return found


def mutate(stage: Stage, name: str, number: int, seed: str, root: str) -> dict[str, Any]:
    """Make one mutant and return what was said of it.

    :param name: the class of damage.
    :param number: tells it from the others of the same class and subject.
    """
    subject, kind = stage.subject, next(kind for kind in kinds.KINDS if kind.name == name)
    found: dict[str, Any] = {"kind": kind.name, "subject": subject.name, "number": number, "tools": {}}
    source = random.Random(f"{seed}/{kind.name}/{subject.name}/{number}")
    for _unused in range(_DRAWS):
        mutant = Mutant(stage, root, source)
        try:
            if not kind.meanwhile and not kind.break_it(mutant):
                continue
            told = kind.told(stage)
            whole, bare = f"{root}/{stage.whole}", f"{root}/{stage.bare}"
            if kind.birth and stage.bare != stage.whole and not os.path.exists(bare):
                bare = f"{root}/{subjects.payload(root)[0]}"  # the other one has another name
            if not kind.meanwhile:
                # An operator gives them the files that are there; what is not there any more was damage at rest.
                names = subjects.payload(root) if kind.birth else mutant.names
                found["tools"] = tools.judge(root, names, environment(subject, root))
            if told:
                found["with"], found["said"] = verify(whole, subject, mutant if kind.meanwhile else None)
                if kind.meanwhile:
                    mutant.discard()
                    mutant = Mutant(stage, root, source)
            for directory, _subdirectories, names in os.walk(root):
                if subjects.MANIFEST in names:
                    os.unlink(f"{directory}/{subjects.MANIFEST}")
            found["without"], found["said bare"] = verify(bare, subject, mutant if kind.meanwhile else None)
            return found
        finally:
            mutant.discard()
    raise RuntimeError(f"nothing of {subject.name} could be damaged: {kind.name}")


def environment(subject: Subject, root: str) -> dict[str, str]:
    """Return what the programs of a repository need."""
    if not subject.repository:
        return {}
    more = {"BORG_BASE_DIR": f"{root}/base", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
    return {**subject.secret, **more}


def sound(name: str, script: str, root: str) -> dict[str, Any]:
    """Make one healthy variant, and return what was said of it."""
    os.makedirs(f"{root}/tree")
    source = random.Random(name)
    lines = [
        _LINES.format(source.randrange(99), source.getrandbits(40), source.randrange(900)) for _unused in range(400)
    ]
    with open(f"{root}/tree/one.log", "w", encoding="utf-8") as out:
        out.writelines(lines)
    with open(f"{root}/tree/two.bin", "wb") as binary:
        binary.write(source.randbytes(20_000) + bytes(100_000) + b"end")
    try:
        argv = ["bash", "-euo", "pipefail", "-c", script, "-", f"{root}/{name}"]
        done = subprocess.run(argv, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} could not be made: {done.stderr.decode('utf-8', 'replace')[-500:]}")
        verdict, sentence = verify(f"{root}/{name}", None)
        return {"name": name, "without": verdict, "said": sentence}
    finally:
        shutil.rmtree(root)


def plan(stages: list[Stage], count: int) -> list[tuple[Stage, kinds.Kind, int]]:
    """Return so many mutants, as many of each class as of another, and the same for the subjects of a class.

    Repositories take a second each, so they have a twentieth of the others' share.
    """
    pairs = {kind: [stage for stage in stages if kind.applies(stage)] for kind in kinds.KINDS}
    found: list[tuple[Stage, kinds.Kind, int]] = []
    for kind, able in pairs.items():
        quick = [stage for stage in able if not stage.subject.repository]
        slow = [stage for stage in able if stage.subject.repository]
        share = -(-count // len(pairs))
        for some, number in ((quick, share), (slow, -(-share // 20))):
            for index in range(number if some else 0):
                found.append((some[index % len(some)], kind, index // len(some)))
    return found


def main() -> int:
    """Do what standard input says."""
    told = json.load(sys.stdin)
    os.environ.update(told["environment"])
    with tempfile.TemporaryDirectory(prefix="mutations-", dir="/tmp") as place:
        stages = list(subjects.stages([Subject(**entry) for entry in told["subjects"]], f"{place}/stages"))
        good = [
            {"name": f"as made: {stage.subject.name}{' alone' if bare else ''}", "without": verdict, "said": sentence}
            for stage in stages
            for bare in (False, True)
            for verdict, sentence in [verify(f"{stage.root}/a/{stage.bare if bare else stage.whole}", stage.subject)]
        ]
        pool = concurrent.futures.ProcessPoolExecutor(told["processes"])
        patient = concurrent.futures.ProcessPoolExecutor(_PATIENT)
        with pool, patient:
            work = [
                (patient if stage.subject.repository else pool).submit(
                    mutate, stage, kind.name, number, told["seed"], f"{place}/m{index}"
                )
                for index, (stage, kind, number) in enumerate(plan(stages, told["count"]))
            ]
            work += [
                pool.submit(sound, name, script, f"{place}/h{index}")
                for index, (name, script) in enumerate(healthy.variants(told["quick"]))
            ]
            results = [_result(future) for future in work]
    document = {
        "mutants": [found for found in results if "kind" in found],
        "healthy": good + [found for found in results if "name" in found],
        "failed": [found["failed"] for found in results if "failed" in found],
    }
    json.dump(document, sys.stdout)
    return 0


def _result(future: concurrent.futures.Future[dict[str, Any]]) -> dict[str, Any]:
    """Return what came out, or why nothing did."""
    error = future.exception()
    return future.result() if error is None else {"failed": f"{type(error).__name__}: {error}"}
