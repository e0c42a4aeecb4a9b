# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures: what was caught of each class and each format, and what was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tests.bench.backup_mutations import tools
from tests.bench.backup_mutations.kinds import KINDS
from tests.bench.backup_mutations.subjects import Subject

#: The verdicts with which a check fails.
_CAUGHT = ("damaged", "missing", "stale", "inconclusive")

_BIRTH = {kind.name: kind.birth for kind in KINDS}
_OURS = ("with", "without")
_HEADS = ("with a manifest", "without", *tools.COLUMNS)


def share(found: Iterable[bool]) -> str:
    """Return how many were caught of how many."""
    counted = list(found)
    return f"{sum(counted)} / {len(counted)}" if counted else "–"


def caught(mutant: dict[str, Any], how: str) -> bool | None:
    """Return whether a mutant was caught, None when this does not apply to it.

    :param how: ``with`` or ``without`` a manifest, or a column of the usual programs.
    """
    if how in _OURS:
        return mutant[how] in _CAUGHT if how in mutant else None
    found: bool | None = mutant["tools"].get(how)
    return found


def false_alarms(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the healthy variants that are called damaged, missing or too old."""
    return [found for found in results["healthy"] if found.get("without") in _CAUGHT[:3]]


def missed(results: dict[str, Any], how: str) -> list[dict[str, Any]]:
    """Return the mutants that were not caught."""
    return [mutant for mutant in results["mutants"] if caught(mutant, how) is False]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: str, rows: Iterable[tuple[str, list[dict[str, Any]]]]) -> Iterator[str]:
    yield _line([head, *_HEADS])
    yield "|---" * (1 + len(_HEADS)) + "|"
    for name, some in rows:
        cells = [share(found for mutant in some if (found := caught(mutant, how)) is not None)
                 for how in (*_OURS, *tools.COLUMNS)]  # fmt: skip
        yield _line([name, *cells])


def _groups(mutants: list[dict[str, Any]], key: Callable[[dict[str, Any]], str], names: Iterable[str]) -> Any:
    return [(name, some) for name in names if (some := [mutant for mutant in mutants if key(mutant) == name])]


def render(results: dict[str, Any], subjects: Iterable[Subject]) -> str:
    """Return all figures as text, the tables as Markdown."""
    mutants, healthy = results["mutants"], results["healthy"]
    formats = {subject.name: subject.format for subject in subjects}
    lines: list[str] = []
    for birth, title in ((False, "at rest"), (True, "at birth")):
        some = [mutant for mutant in mutants if _BIRTH[mutant["kind"]] is birth]
        rows = _groups(some, lambda mutant: str(mutant["kind"]), _BIRTH)
        lines += [*_table(f"damage {title}", [*rows, ("**all**", some)]), ""]
        by_format = _groups(some, lambda mutant: formats[mutant["subject"]], sorted(set(formats.values())))
        lines += [*_table(f"format, damage {title}", by_format), ""]
    doubts = Counter(how for mutant in mutants for how in _OURS if mutant.get(how) == "inconclusive")
    lines.append(
        f"{len(mutants)} mutants; of those caught, inconclusive: {doubts['with']} with a manifest, {doubts['without']} "
        "without"
    )
    verdicts = Counter(found["without"] for found in healthy)
    told = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    lines.append(f"{len(healthy)} healthy variants: {told}; false alarms: {len(false_alarms(results))}")
    lines += [f"  false alarm: {found['name']}: {found['said']}" for found in false_alarms(results)]
    doubtful = Counter(found["said"].partition(" is inconclusive: ")[2] for found in healthy)
    lines += [f"  in doubt, {number}: {why}" for why, number in doubtful.items() if why]
    lines += [f"  could not be tried: {text}" for text in results["failed"]]
    gone = missed(results, "with")
    lines.append(f"missed with a manifest: {len(gone)}")
    lines += [f"  {mutant['kind']}; {mutant['subject']}; {mutant['number']}" for mutant in gone]
    bare = missed(results, "without")
    lines.append(f"missed without a manifest: {len(bare)}")
    groups: dict[tuple[str, str], list[int]] = {}
    for mutant in bare:
        groups.setdefault((mutant["kind"], mutant["subject"]), []).append(mutant["number"])
    lines += [f"  {kind}; {name}; {_ranges(numbers)}" for (kind, name), numbers in sorted(groups.items())]
    return "\n".join(lines)


def _ranges(numbers: list[int]) -> str:
    """Return numbers in a short form: 1-3, 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, pair)) for pair in found)
