# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of mydumper: those of version 0.10 are real, those of newer ones are made by hand from them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

from tests.unit.plugins.module_utils.backup.verify.builders import tar
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture_files

pytestmark = pytest.mark.capability("A8")

FILES = fixture_files("mydumper/dumps.tar")
COUNTS = {"worklog": {"authors": 3, "long_records": None, "records": 600, "totals": 3}}
METADATA = b"""# Started dump at: 2026-11-25 11:00:28
[config]
quote-character = BACKTICK

[source]
# Channel_Name = '' # It can be use to setup replication FOR CHANNEL
# SOURCE_LOG_FILE = "binlog.000009"
# SOURCE_LOG_POS = 547
# executed_gtid_set = "0-1-55"

[`worklog`.`authors`]
real_table_name=authors
rows = 3
schema_checksum = 95DC8DDE

[`worklog`.`records`]
real_table_name=records
rows = 600
data_checksum = 3187537694
schema_checksum = A5DC8DDE

[`worklog`.`totals`]
real_table_name=totals
rows = 3

[`worklog`]
schema_checksum = 5DC8DDE
[config]
max-statement-size = 12279
num-sequences = 0
# Finished dump at: 2026-11-25 11:00:29
"""


def old(name: str = "old") -> dict[str, bytes]:
    return {path.partition("/")[2]: data for path, data in FILES.items() if path.startswith(name + "/")}


def new() -> dict[str, bytes]:
    """Return a dump as newer versions make it: chunks, rows at the beginning of lines, numbers of rows."""
    files = old()
    files["metadata"] = METADATA
    for table in ("authors", "records", "totals"):
        files[f"worklog.{table}.00000.sql"] = files.pop(f"worklog.{table}.sql").replace(
            b";\n/*!40103", b"\n;\n/*!40103"
        )
    head, _values, rows = files["worklog.records.00000.sql"].partition(b"VALUES\n")
    lines = rows.split(b",\n")
    files["worklog.records.00000.sql"] = head + b"VALUES\n" + b",\n".join(lines[:250]) + b"\n;\n"
    files["worklog.records.00001.sql"] = head + b"VALUES\n" + b",\n".join(lines[250:])
    return files


def judged(folder: Path, files: dict[str, bytes], **expect: object) -> Result:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    expected = parse("backup", expect)
    return verify(Backup(str(folder), "backup", expect=expected), now=1_800_000_000.0, limits=Limits())


def checks(result: Result) -> list[str]:
    return sorted({finding.check for finding in result.findings if finding.severity == "critical"})


@pytest.mark.parametrize("files", [old(), old("old-gz"), new()], ids=["old", "old-gz", "new"])
def test_whole_dumps(tmp_path: Path, files: dict[str, bytes]) -> None:
    result = judged(tmp_path / "dump", files, min_rows={"worklog.records": 600}, tables=["worklog.long_records"])
    assert result.verdict == "verified", result.findings
    assert result.counts == COUNTS
    (facts,) = result.attributes["mydumper"]
    assert facts == {
        "path": "dump", "binlog_file": "binlog.000009", "binlog_position": 547, "gtid": "0-1-55", "tables": 3,
        "finished": facts["finished"],
    }  # fmt: skip
    assert facts["finished"].startswith("2026-11-25 11:00:2")
    told = any("writes no numbers of rows" in words for words in result.unchecked)
    assert told == (b"rows =" not in files["metadata"])
    assert any("myloader" in words for words in result.unchecked) != told


@pytest.mark.parametrize(
    ("change", "verdict", "expected", "sentence"),
    [
        ("partial", "damaged", ["mydumper.unfinished"], "killed"),
        ("no end", "damaged", ["mydumper.unfinished"], "killed"),
        ("no data", "damaged", ["mydumper.missing"], "the rows of worklog.totals are missing: there should be 3"),
        ("no chunk", "damaged", ["mydumper.rows"], "worklog.records has 250 rows, but its metadata say 600"),
        ("no schema", "damaged", ["mydumper.missing"], "the definition of worklog.records is missing"),
        ("boundary", "damaged", ["mydumper.rows"], "worklog.records has 350 rows, but its metadata say 600"),
        ("cut", "damaged", ["sqldump.cut"], "the dump ends inside the rows"),
        ("zero", "damaged", ["mydumper.rows", "mydumper.sql"], "worklog.authors.00000.sql does not begin"),
        ("empty", "damaged", ["mydumper.missing"], "the rows of worklog.authors are missing: there should be 3"),
        ("no metadata", "inconclusive", ["sqldump.footer"], "no end mark"),
    ],
)
def test_damage(tmp_path: Path, change: str, verdict: str, expected: list[str], sentence: str) -> None:
    files = new()
    if change == "partial":
        files["metadata.partial"] = files.pop("metadata")
    elif change == "no end":
        files["metadata"] = METADATA[: METADATA.index(b"# Finished")]
    elif change == "no data":
        del files["worklog.totals.00000.sql"]
    elif change == "no chunk":
        del files["worklog.records.00001.sql"]
    elif change == "no schema":
        del files["worklog.records-schema.sql"]
    elif change == "boundary":
        data = files["worklog.records.00000.sql"]
        files["worklog.records.00000.sql"] = data[: data.index(b"INSERT")]
    elif change == "cut":
        files["worklog.records.00001.sql"] = files["worklog.records.00001.sql"][:5000]
    elif change == "zero":
        files["worklog.authors.00000.sql"] = bytes(len(files["worklog.authors.00000.sql"]))
    elif change == "empty":
        files["worklog.authors.00000.sql"] = b""
    elif change == "no metadata":
        del files["metadata"]
    result = judged(tmp_path / "dump", files)
    assert (result.verdict, checks(result)) == (verdict, expected), result.findings
    assert any(sentence in finding.message for finding in result.findings), result.findings


@pytest.mark.parametrize(
    ("name", "expected"),
    [("worklog.records-schema.sql.gz", "damaged"), ("worklog.records.sql.gz", "structure_ok")],
)
def test_what_an_old_dump_does_not_tell(tmp_path: Path, name: str, expected: str) -> None:
    files = old("old-gz")
    del files[name]
    result = judged(tmp_path / "dump", files)
    assert result.verdict == expected, result.findings
    if expected == "structure_ok":
        assert any("1 tables without any rows are empty: worklog.records" in words for words in result.unchecked)
    files["metadata"] = re.sub(rb"\nFinished.*\n", b"", files["metadata"])
    assert judged(tmp_path / "cut", files).verdict == "damaged"


def test_files_of_empty_tables(tmp_path: Path) -> None:
    for number, (name, data) in enumerate((("worklog.totals.sql", b""), ("worklog.totals.sql.gz", gzip.compress(b"")))):
        files = old()
        del files["worklog.totals.sql"]
        result = judged(tmp_path / str(number), {**files, name: data})
        assert result.verdict == "structure_ok", result.findings
        assert any("1 tables without any rows are empty: worklog.totals" in words for words in result.unchecked)


def test_compressed_damage_is_found(tmp_path: Path) -> None:
    files = old("old-gz")
    files["worklog.records.sql.gz"] = files["worklog.records.sql.gz"][:-20]
    assert judged(tmp_path / "dump", files).verdict == "damaged"
    files = old("old-gz")
    whole = gzip.decompress(files["worklog.records.sql.gz"])
    files["worklog.records.sql.gz"] = gzip.compress(whole[:3000])
    assert judged(tmp_path / "short", files).verdict == "damaged"


def test_a_file_called_metadata_of_something_else(tmp_path: Path) -> None:
    files = {"metadata": b"name: upload\n", "logs.tar": tar(), "a.sql": b"-- nothing\n"}
    assert judged(tmp_path / "uploads", files).verdict == "structure_ok"
    files["metadata"] = bytes(1 << 20)
    assert judged(tmp_path / "large", files).verdict == "structure_ok"
