# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups that the programs themselves make: whole ones pass, broken ones are told, the playbook reports all hosts."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import lsn_chain
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import expect
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

pytestmark = pytest.mark.capability("A8")

PLACE = "/var/tmp/backup-verify"
PLAYBOOK = "worklog.maintenance.backup_verify"

#: What is made in db1, by the name of what comes out, and the verdict without any expectation.
MADE: dict[str, tuple[list[str], str]] = {
    "worklog.sql": (["mariadb-dump", "--databases", "worklog", "--result-file={}"], "structure_ok"),
    "one.sql": (["mariadb-dump", "worklog", "--result-file={}"], "structure_ok"),
    "all.sql": (["mariadb-dump", "--all-databases", "--routines", "--events", "--result-file={}"], "structure_ok"),
    "single.sql": (["mariadb-dump", "--skip-extended-insert", "worklog", "--result-file={}"], "structure_ok"),
    "hex.sql": (["mariadb-dump", "--hex-blob", "--skip-dump-date", "worklog", "--result-file={}"], "structure_ok"),
    "quiet.sql": (["mariadb-dump", "--skip-comments", "worklog", "--result-file={}"], "structure_ok"),
    "compact.sql": (["mariadb-dump", "--compact", "worklog", "--result-file={}"], "inconclusive"),
    "dump": (["mongodump", "--quiet", "--db=worklog", "--out={}"], "structure_ok"),
    "dump-gz": (["mongodump", "--quiet", "--gzip", "--db=worklog", "--out={}"], "structure_ok"),
    "worklog.archive": (["mongodump", "--quiet", "--db=worklog", "--archive={}"], "structure_ok"),
    "worklog.archive.gz": (["mongodump", "--quiet", "--gzip", "--db=worklog", "--archive={}"], "structure_ok"),
    "dump.rdb": (["redis-cli", "--rdb", "{}"], "structure_ok"),
    "worklog.tar.gz": (["tar", "-zcf", "{}", f"{PLACE}/dump/worklog"], "structure_ok"),
    "worklog.tar.zst": (["tar", "--zstd", "-cf", "{}", f"{PLACE}/dump/worklog"], "structure_ok"),
    "worklog.tar.xz": (["tar", "-Jcf", "{}", f"{PLACE}/dump/worklog"], "structure_ok"),
    "worklog.tar.bz2": (["tar", "-jcf", "{}", f"{PLACE}/dump/worklog"], "structure_ok"),
    "dumps.tar.gz": (["tar", "-zcf", "{}", "-C", PLACE, "worklog.sql", "dump.rdb", "worklog.archive"], "structure_ok"),
    "copy": (["rsync", "--archive", f"{PLACE}/dump/", "{}/"], "structure_ok"),
    "full": (["mariadb-backup", "--backup", "--user=root", "--target-dir={}"], "structure_ok"),
    "inc": (["mariadb-backup", "--backup", "--user=root", f"--incremental-basedir={PLACE}/full", "--target-dir={}"],
            "structure_ok"),
    "part": (["mariadb-backup", "--backup", "--user=root", "--tables=worklog[.]records$", "--target-dir={}"],
             "structure_ok"),
    "full.xb.gz": (["bash", "-o", "pipefail", "-c",
                    "mariadb-backup --backup --user=root --parallel=4 --stream=mbstream | gzip > $1", "-", "{}"],
                   "structure_ok"),
    "inc.xb.zst": (["bash", "-o", "pipefail", "-c", "mariadb-backup --backup --user=root --stream=mbstream "
                    f"--incremental-basedir={PLACE}/full | zstd -q > $1", "-", "{}"], "structure_ok"),
    "prepared": (["bash", "-c", f"cp -a {PLACE}/full $1 && mariadb-backup --prepare --target-dir=$1", "-", "{}"],
                 "structure_ok"),
    "my": (["mydumper", "--user=root", "--database=worklog", "--triggers", "--routines", "--build-empty-files",
            "--outputdir={}"], "structure_ok"),
    "my-gz": (["mydumper", "--user=root", "--compress", "--rows=100", "--outputdir={}"], "structure_ok"),
    # closed logs and the one that is being written
    "binlogs": (["bash", "-c", "mariadb -e 'FLUSH BINARY LOGS; CREATE DATABASE busy; DROP DATABASE busy; FLUSH BINARY "
                 "LOGS' && mkdir $1 && cp /var/lib/mysql/binlog.0* $1", "-", "{}"], "structure_ok"),
    "binlogs.tar.gz": (["tar", "-zcf", "{}", "-C", PLACE, "binlogs"], "structure_ok"),
}  # fmt: skip


def check(path: Path, **expected: Any) -> Result:
    backup = Backup(str(path), str(path), expect=expect.parse(str(path), expected))
    return verify(backup, now=time.time(), limits=Limits())


@pytest.fixture(scope="module")
def made(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of all that MADE makes in db1."""
    lab.exec("db1", ["rm", "-rf", PLACE])
    lab.exec("db1", ["mkdir", "-m", "0700", PLACE])
    for name, (argv, _verdict) in MADE.items():
        lab.exec("db1", [part.replace("{}", f"{PLACE}/{name}") for part in argv])
    target = tmp_path_factory.mktemp("made")
    subprocess.run(
        ["docker", "cp", f"{lab.container('db1')}:{PLACE}/.", str(target)], check=True, capture_output=True, timeout=60
    )
    yield target
    lab.exec("db1", ["rm", "-rf", PLACE])


@pytest.fixture(scope="module")
def documents(lab: Any, made: Path) -> int:
    """How many documents worklog.work_records has, as the dump's own BSON says."""
    data, count = (made / "dump" / "worklog" / "work_records.bson").read_bytes(), 0
    while data:
        data, count = data[int.from_bytes(data[:4], "little") :], count + 1
    return count


@pytest.mark.parametrize("name", MADE)
def test_whole_backups_pass(made: Path, name: str) -> None:
    result = check(made / name)
    assert result.verdict == MADE[name][1], result.findings


def test_every_table_of_the_server_is_in_a_mariadb_backup(lab: Any, made: Path) -> None:
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'worklog' AND engine = 'InnoDB'"
    tables = lab.exec("db1", ["mariadb", "--batch", "--skip-column-names", "--execute", query]).stdout.split()
    assert tables
    for name in ("full", "full.xb.gz", "prepared"):
        assert check(made / name, tables=[f"worklog.{table}" for table in tables]).verdict == "verified"


def test_a_backup_and_its_increment_tell_that_they_follow_each_other(made: Path) -> None:
    (full,) = check(made / "full").attributes["mariabackup"]
    (inc,) = check(made / "inc").attributes["mariabackup"]
    chain = [lsn_chain.Backup("full", False, full["from_lsn"], full["to_lsn"], full["uuid"]),
             lsn_chain.Backup("inc", True, inc["from_lsn"], inc["to_lsn"], inc["uuid"], full["uuid"])]  # fmt: skip
    assert lsn_chain.chain(chain) == []
    assert lsn_chain.chain(chain[1:])
    (prepared,) = check(made / "prepared").attributes["mariabackup"]
    assert (prepared["prepared"], full["prepared"]) == (True, False)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:-16384], "innodb.cut"),
        (lambda data: data[:50000] + bytes([data[50000] ^ 4]) + data[50001:], "innodb.checksum"),
        (lambda data: data[:16384] + bytes(4096) + data[20480:], "innodb.number"),
        (lambda data: None, "mariabackup.missing"),
    ],
)
def test_damage_of_a_tablespace_is_found_as_innochecksum_finds_it(
    lab: Any, made: Path, tmp_path: Path, damage: Callable[[bytes], bytes | None], found: str
) -> None:
    shutil.copytree(made / "full", tmp_path / "full")
    table = tmp_path / "full" / "worklog" / "records.ibd"
    broken = damage(table.read_bytes())
    if broken is None:
        table.unlink()
    else:
        table.write_bytes(broken)
    result = check(tmp_path / "full")
    assert result.verdict == "damaged"
    assert [finding.check for finding in result.findings if finding.severity == "critical"] == [found]
    if found in ("innodb.checksum", "innodb.number"):
        subprocess.run(
            ["docker", "cp", str(table), f"{lab.container('db1')}:{PLACE}/broken.ibd"], check=True, timeout=60
        )
        assert lab.exec("db1", ["innochecksum", f"{PLACE}/broken.ibd"], check=False).returncode != 0


def test_binary_logs_are_read_as_the_server_reads_them(lab: Any, made: Path) -> None:
    logs = check(made / "binlogs").attributes["binlogs"]
    assert logs == check(made / "binlogs.tar.gz").attributes["binlogs"]
    assert [log["in_use"] for log in logs] == [False] * (len(logs) - 1) + [True]
    listed = lab.exec("db1", ["mariadb", "-BNe", "SHOW BINARY LOGS"]).stdout.split()[::2]
    assert [log["name"] for log in logs] == [name for name in listed if name <= logs[-1]["name"]]
    shown = lab.exec("db1", ["mariadb-binlog", f"{PLACE}/binlogs/{logs[-1]['name']}"]).stdout
    state = re.search(r"Gtid list \[([^\]]*)\]", shown)
    assert state is not None
    assert logs[-1]["start"] == state.group(1).replace(",\n# ", ",")


def test_a_lost_binary_log_is_found_and_told_with_its_times(lab: Any, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "binlogs", tmp_path / "binlogs")
    logs = check(made / "binlogs").attributes["binlogs"]
    busy = next(log for log in logs[1:-1] if log["start"] != log["end"])
    (tmp_path / "binlogs" / busy["name"]).unlink()
    result = check(tmp_path / "binlogs")
    assert result.verdict == "damaged"
    assert re.search(rf"{busy['name']} is missing: the transactions from \S+Z to \S+Z are not there", result.sentence())


def rows(lab: Any, table: str) -> int:
    query = ["mariadb", "--batch", "--skip-column-names", "--execute", f"SELECT COUNT(*) FROM worklog.{table}"]
    return int(lab.exec("db1", query).stdout)


@pytest.mark.parametrize("name", [name for name in MADE if re.search(r"^(?!compact).*\.sql$|^dumps|^my", name)])
def test_rows_are_counted_as_the_server_counts_them(lab: Any, made: Path, name: str) -> None:
    exact = {f"worklog.{table}": rows(lab, table) for table in ("records", "authors")}
    assert exact["worklog.records"] > 0
    assert check(made / name, min_rows=exact).verdict == "verified"
    more = {table: count + 1 for table, count in exact.items()}
    assert check(made / name, min_rows=more).verdict == "damaged"
    assert check(made / name, tables=["worklog.nothing"]).verdict == "damaged"


@pytest.mark.parametrize(
    "name", ["dump", "dump-gz", "worklog.archive", "worklog.archive.gz", "worklog.tar.gz", "worklog.tar.zst", "copy"]
)
def test_documents_are_counted(made: Path, documents: int, name: str) -> None:
    assert documents > 0
    assert check(made / name, min_documents={"worklog.work_records": documents}).verdict == "verified"
    assert check(made / name, min_documents={"worklog.work_records": documents + 1}).verdict == "damaged"
    assert check(made / name, databases=["other"]).verdict == "damaged"


# --compact leaves no mark at the end of a dump, so its verdict is inconclusive in any case.
@pytest.mark.parametrize(
    "name", [name for name in MADE if re.search(r"^(?!compact).*\.(gz|zst|xz|bz2|rdb|sql)$", name)]
)
def test_truncation_is_found(made: Path, tmp_path: Path, name: str) -> None:
    data, source = (made / name).read_bytes(), random.Random(name)
    for _unused in range(25):
        (tmp_path / name).write_bytes(data[: source.randrange(1, len(data) - 1)])
        assert check(tmp_path / name).verdict == "damaged"


@pytest.mark.parametrize(
    "name", [f"worklog.{end}" for end in ("tar.gz", "tar.xz", "tar.bz2", "archive.gz")] + ["dump.rdb"]
)
def test_flips_and_lost_blocks_are_found(made: Path, tmp_path: Path, name: str) -> None:
    data, source = (made / name).read_bytes(), random.Random(name)
    for number in range(40):
        broken = bytearray(data)
        # the first bytes of gzip are a time and an operating system, the last bits of bzip2 fill a byte
        length = min(512, len(data) // 4)
        start = source.randrange(10, len(data) - length)
        if number % 2:
            broken[start] ^= 1 << source.randrange(8)
        else:
            broken[start : start + length] = bytes(length)
        if bytes(broken) != data:
            (tmp_path / name).write_bytes(broken)
            assert check(tmp_path / name).verdict == "damaged", (number, start)


def test_the_playbook_reports_all_hosts_and_then_fails(lab: Any, restore: Any, made: Path) -> None:
    restore.path("db1", PLACE)
    restore.path("app1", PLACE)
    lab.exec("db1", ["truncate", "--size=-100", f"{PLACE}/worklog.tar.gz"])
    lab.exec("app1", ["mkdir", "-p", PLACE])
    lab.exec("app1", ["tar", "-zcf", f"{PLACE}/worklog.tar.gz", "/etc/hostname"])
    variables = {"backup_verify_backups": [{"path": f"{PLACE}/worklog.tar.gz", "expect": {"max_age": "1d"}}]}
    argv = ["-e", "target=db1,app1,app2", "-e", json.dumps(variables)]
    outputs = []
    for mode in ([], ["--check"]):
        done = lab.playbook(PLAYBOOK, *argv, *mode)
        assert done.returncode == 2, done.stdout
        failure = done.stdout.index("FAILED!")
        for host in ("db1", "app1", "app2"):
            assert re.search(rf"(critical|ok) +{host} ", done.stdout[:failure]), done.stdout
        assert f"db1: {PLACE}/worklog.tar.gz is damaged: the gzip stream ends in the middle" in done.stdout
        assert f"app2: {PLACE}/worklog.tar.gz is missing: there is no such file" in done.stdout
        assert not re.search(r"app1 +: .*failed=[1-9]", done.stdout)
        outputs.append(sorted(re.findall(r'"(?:critical|ok|info|warning) .*"', done.stdout)))
    assert outputs[0] == outputs[1]
    for host, result in (("db1", "failed"), ("app1", "ok")):
        record = json.loads(lab.read(host, "/var/log/worklog-maintenance/records.jsonl").splitlines()[-1])
        assert (record["what"], record["result"], record["host"]) == ("backup_verify", result, host)
        assert record["findings"]


def test_progress_is_shown_on_long_files(lab: Any, restore: Any) -> None:
    restore.path("app2", f"{PLACE}/long.img")
    lab.exec("app2", ["mkdir", "-p", PLACE])
    lab.exec("app2", ["truncate", "--size=6G", f"{PLACE}/long.img"])
    variables = {"backup_verify_backups": [{"path": f"{PLACE}/long.img", "format": "plain"}]}
    for mode in ([], ["--check"]):
        done = lab.playbook(PLAYBOOK, "-e", "target=app2", "-e", json.dumps(variables), *mode)
        assert done.returncode == 0, done.stdout
        lines = re.findall(
            rf"^app2: backup_verify {PLACE}/long.img \d+ % \([\d.]+ of 6.4 GB, \d+ MB/s, \d+ \w+ left\)$",
            done.stdout,
            re.MULTILINE,
        )
        assert lines, done.stdout
    assert lab.exec("app2", ["find", "/root/.ansible_async", "-type", "f"]).stdout == ""


def test_small_backups_are_checked_with_one_call(lab: Any, made: Path) -> None:
    variables = {"backup_verify_backups": [{"path": f"{PLACE}/dump.rdb"}]}
    done = lab.playbook(PLAYBOOK, "-e", "target=db1", "-e", json.dumps(variables), "-vvv")
    assert done.returncode == 0, done.stdout
    assert "async_wrapper" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"target": "db9"}, "no host of the inventory matches 'db9'"),
        ({"backup_verify_backup": []}, "did you mean 'backup_verify_backups'?"),
        ({"backup_verify_backups": "soon"}, "backup_verify_backups"),
        ({"backup_verify_backups": [{"path": "/x", "expect": {"max_agee": 1}}]}, "max_agee"),
        ({"backup_verify_backups": []}, "has backup_verify_backups; say there which backups to verify"),
        ({"backup_verify_accept": ["damaged"]}, "backup_verify_accept"),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(lab: Any, variables: dict[str, Any], sentence: str) -> None:
    done = lab.playbook(PLAYBOOK, "-e", json.dumps(variables))
    assert done.returncode == 2
    assert sentence in done.stdout
    assert "PLAY [Verify the backups]" not in done.stdout
