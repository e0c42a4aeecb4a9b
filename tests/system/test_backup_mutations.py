# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded damages of real backups: all are found with a manifest, and no healthy backup is called damaged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.backup_mutations import table
from tests.bench.backup_mutations.collection import Collection
from tests.bench.backup_mutations.kinds import KINDS
from tests.system.conftest import Lab

pytestmark = pytest.mark.capability("A8")


@pytest.fixture(scope="module")
def collection(lab: Lab) -> Iterator[Collection]:
    found = Collection(lab)
    try:
        found.make()
        yield found
    finally:
        found.remove()


def judge(collection: Collection, count: int, *, quick: bool) -> None:
    results = collection.run("tests", count, processes=2, quick=quick)
    figures = table.render(results, collection.subjects)
    print(figures)
    assert len(results["mutants"]) >= count
    assert {mutant["kind"] for mutant in results["mutants"]} == {kind.name for kind in KINDS}
    assert {mutant["subject"] for mutant in results["mutants"]} <= {subject.name for subject in collection.subjects}
    assert results["failed"] == []
    assert table.missed(results, "with") == [], figures
    assert table.false_alarms(results) == [], figures
    assert table.missed(results, "sha256sum -c"), "nothing was damaged before the hashes were taken"


def test_a_slice_of_all_damages(collection: Collection) -> None:
    judge(collection, 40, quick=True)


@pytest.mark.soak
def test_all_damages(collection: Collection) -> None:
    judge(collection, 2200, quick=False)
