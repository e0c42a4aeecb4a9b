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

from tests.system.restic_key import quicken

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
    # a log that was in use when another test had killed the server says so for ever
    assert logs[-1]["in_use"] and not logs[-2]["in_use"]
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
        assert record["findings"] and record["subject"] == f"{PLACE}/worklog.tar.gz".split("/", 2)[2]


# --- what only the host's own programs can open: repositories and encrypted files -------------------------------------

SECRET = "correct horse"
SECRETS = f"{PLACE}/secret"


def module(lab: Any, *backups: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Call the module on ops1 and return what it returns; a bad verdict is no failure."""
    options = {"backups": list(backups), "report_only": True, "history": f"{PLACE}/history", **more}
    found: dict[str, Any] = lab.module("ops1", "backup_verify", **options)
    assert not found["failed"] and SECRET not in json.dumps(found), found
    return found


def verdict(lab: Any, **backup: Any) -> tuple[str, str]:
    """Return the verdict on one backup in ops1, and the sentence."""
    (result,) = module(lab, backup)["backups"]
    return result["verdict"], result["sentence"] + str([finding["message"] for finding in result["findings"]])


def make_vault(lab: Any, node: str, place: str, size: int = 300) -> None:
    """Make repositories of restic and borg and a file of age in a node, with two days of uploads in them.

    :param size: of each of the 16 files, in kB.
    """
    lab.exec(node, ["rm", "-rf", place])
    lab.exec(node, ["mkdir", "-p", "-m", "0700", f"{place}/uploads"])
    lab.write(node, f"{place}/secret", SECRET + "\n")
    lab.write(node, f"{place}/wrong", "another\n")
    env = ["env", f"RESTIC_REPOSITORY={place}/restic", f"RESTIC_PASSWORD_FILE={place}/secret"]
    env += [f"BORG_PASSPHRASE={SECRET}", f"BORG_BASE_DIR={place}/base"]
    lab.exec(node, [*env, "restic", "init"])
    quicken(lab, node, f"{place}/restic", SECRET)
    lab.exec(node, [*env, "borg", "init", "--encryption=repokey", f"{place}/borg"])
    for day in ("1", "2"):
        for number in range(8):
            path = f"{place}/uploads/{day}-{number}"
            lab.exec(node, ["dd", "if=/dev/urandom", f"of={path}", "bs=1000", f"count={size}", "status=none"])
        lab.exec(node, [*env, "restic", "backup", "--host=db1", "--tag=worklog", f"{place}/uploads"])
        lab.exec(node, [*env, "borg", "create", f"{place}/borg::day-{day}", f"{place}/uploads"])
    lab.exec(node, ["tar", "-C", place, "-cf", f"{place}/uploads.tar", "uploads"])
    lab.exec(node, ["age-keygen", "-o", f"{place}/identity"])
    key = lab.exec(node, ["age-keygen", "-y", f"{place}/identity"]).stdout.strip()
    lab.exec(node, ["age", "-r", key, "-o", f"{place}/uploads.tar.age", f"{place}/uploads.tar"])


@pytest.fixture(scope="module")
def vault(lab: Any) -> Iterator[str]:
    """Repositories of restic and borg and a file of age in ops1, with two days of uploads in them."""
    make_vault(lab, "ops1", PLACE)
    yield PLACE
    lab.exec("ops1", ["rm", "-rf", PLACE])


@pytest.fixture
def broken(lab: Any, vault: str) -> Iterator[Callable[[str], str]]:
    """Makes a copy of something in the vault that may be damaged."""

    def copy(name: str) -> str:
        lab.exec("ops1", ["cp", "-a", f"{vault}/{name}", f"{vault}/broken"])
        return f"{vault}/broken"

    yield copy
    lab.exec("ops1", ["rm", "-rf", f"{vault}/broken"])


def flip(lab: Any, directory: str, at: int) -> None:
    """Flip a bit of the largest file below a directory."""
    script = (
        "import os,sys; d,at=sys.argv[1],int(sys.argv[2]); "
        "p=max((os.path.join(r,n) for r,_,f in os.walk(d) for n in f), key=os.path.getsize); os.chmod(p,0o600); "
        "h=open(p,'r+b'); h.seek(at); b=h.read(1)[0]; h.seek(at); h.write(bytes([b^4]))"
    )
    lab.exec("ops1", ["python3", "-c", script, directory, str(at)])


@pytest.mark.parametrize(("name", "entry"), [("restic", "uploads/2-7"), ("borg", "uploads/2-7")])
def test_repositories(lab: Any, vault: str, name: str, entry: str) -> None:
    expect = {"max_age": "1h", "min_snapshots": 2, "members": [f"{PLACE}/{entry}"], "min_members": 16}
    if name == "restic":
        expect.update(snapshot_host="db1", snapshot_tags=["worklog"])
    before = lab.exec("ops1", ["find", f"{vault}/{name}", "-newer", f"{vault}/identity"]).stdout
    found = module(lab, {"path": f"{vault}/{name}", "password_file": SECRETS, "expect": expect})["backups"][0]
    assert (found["verdict"], found["format"], found["members"]) == ("verified", name, 16), found["findings"]
    assert found["made_from"] == "newest snapshot" and found["attributes"]["snapshots"] == 2
    assert found["size"] > 4_000_000
    after = lab.exec("ops1", ["find", f"{vault}/{name}", "-newer", f"{vault}/identity"]).stdout
    changed = {Path(path).name for path in set(after.split()) - set(before.split())}
    assert changed <= ({"borg", "config", "nonce"} if name == "borg" else set())
    for missing in ({"min_snapshots": 3}, {"members": ["none"]}, {"snapshot_host": "db9"}):
        assert verdict(lab, path=f"{vault}/{name}", password_file=SECRETS, expect=missing)[0] == "damaged"
    assert verdict(lab, path=f"{vault}/{name}", password_file=SECRETS, expect={"max_age": "1s"})[0] == "stale"


@pytest.mark.parametrize("name", ["restic", "borg"])
def test_passwords(lab: Any, vault: str, name: str) -> None:
    for options, words in (
        ({}, "pass"),
        ({"password_file": f"{vault}/wrong"}, "pass"),
        ({"password_file": f"{vault}/none"}, "is not there or cannot be read"),
        ({"password_env": "NOT_THERE"}, "the variable NOT_THERE"),
    ):
        found, sentence = verdict(lab, path=f"{vault}/{name}", **options)
        assert found == "inconclusive" and words in sentence, sentence


@pytest.mark.parametrize("name", ["restic", "borg"])
def test_a_flipped_bit_of_the_data(lab: Any, vault: str, broken: Callable[[str], str], name: str) -> None:
    path = broken(name)
    assert verdict(lab, path=path, password_file=SECRETS)[0] == "verified"
    flip(lab, f"{path}/data", 50_000)
    found, sentence = verdict(lab, path=path, password_file=SECRETS)
    assert found == "damaged" and f"{name} finds damage" in sentence


def test_lost_last_segments_of_borg(lab: Any, vault: str, broken: Callable[[str], str]) -> None:
    path = broken("borg")
    last = sorted(lab.exec("ops1", ["ls", f"{path}/data/0"]).stdout.split(), key=int)[-1]
    lab.exec("ops1", ["rm", f"{path}/data/0/{last}"])
    found, sentence = verdict(lab, path=path, password_file=SECRETS)
    assert found == "damaged" and f"the index knows of segment {last}" in sentence
    assert f"index.{last}" in lab.exec("ops1", ["ls", path]).stdout  # the trace is still there
    borg = ["env", f"BORG_PASSPHRASE={SECRET}", f"BORG_BASE_DIR={path}/base", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"]
    lab.exec("ops1", [*borg, "borg", "check", "--verify-data", path])  # it says that all is well
    assert "day-2" not in lab.exec("ops1", [*borg, "borg", "list", path]).stdout


def test_a_repository_that_is_gone(lab: Any, vault: str, broken: Callable[[str], str]) -> None:
    assert verdict(lab, path=f"{vault}/none", format="restic", password_file=SECRETS)[0] == "missing"
    for name in ("restic", "borg"):
        path = broken(name)
        lab.exec("ops1", ["rm", f"{path}/config"])
        found, sentence = verdict(lab, path=path, password_file=SECRETS)
        assert found == "damaged" and "there is no repository" in sentence
        lab.exec("ops1", ["rm", "-rf", path])


def test_a_lock_that_is_held_hinders_nobody(lab: Any, vault: str, broken: Callable[[str], str]) -> None:
    """A backup under way is no reason to fail; damage that is seen meanwhile may be none."""
    path = broken("restic")
    restic = ["env", f"RESTIC_REPOSITORY={path}", f"RESTIC_PASSWORD_FILE={SECRETS}", "restic"]
    argv = ["docker", "exec", "--interactive", lab.container("ops1"), *restic, "backup", "--host=db1", "--stdin"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as backup:
        for _unused in range(50):
            if lab.exec("ops1", ["ls", f"{path}/locks"]).stdout:
                break
            time.sleep(0.2)
        assert verdict(lab, path=path, password_file=SECRETS)[0] == "verified"
        flip(lab, f"{path}/data", 50_000)
        found, sentence = verdict(lab, path=path, password_file=SECRETS)
        assert found == "inconclusive" and "somebody else was at work" in sentence
        _out, err = backup.communicate(b"all of it\n", timeout=120)
    assert backup.returncode == 0, err
    assert verdict(lab, path=path, password_file=SECRETS)[0] == "damaged"


def test_the_data_of_a_repository_are_read_in_turns(lab: Any, vault: str, broken: Callable[[str], str]) -> None:
    path = broken("restic")
    flip(lab, f"{path}/data", 50_000)
    backup = {"path": path, "name": "turns", "password_file": SECRETS, "read": {"share": "25%"}}
    results = [module(lab, backup)["backups"][0] for _unused in range(4)]
    assert all(any("not their turn" in text for text in result["unchecked"]) for result in results)
    assert sorted({result["verdict"] for result in results}) == ["damaged", "structure_ok"]


def test_what_age_has_encrypted(lab: Any, vault: str, broken: Callable[[str], str]) -> None:
    path = f"{vault}/uploads.tar.age"
    found = module(lab, {"path": path})["backups"][0]
    assert (found["verdict"], found["format"]) == ("structure_ok", "age")
    assert "what is inside: it is encrypted" in found["unchecked"]
    key = {"identity_file": f"{vault}/identity"}
    found = module(lab, {"path": path, **key, "expect": {"members": ["uploads/1-0"], "min_members": 16}})["backups"][0]
    assert (found["verdict"], found["format"], found["compression"]) == ("verified", "tar", ["age"])
    copy = broken("uploads.tar.age")
    lab.exec("ops1", ["truncate", "--size=-65552", copy])
    assert verdict(lab, path=copy, **key)[0] == "damaged"
    lab.exec("ops1", ["age-keygen", "-o", f"{vault}/other"])
    assert verdict(lab, path=path, identity_file=f"{vault}/other")[0] == "inconclusive"


def test_sets_are_answered(lab: Any, restore: Any) -> None:
    restore.path("ops1", f"{PLACE}/store")
    place = f"{PLACE}/store/uploads/snapshot/20260101T000000Z"
    lab.exec("ops1", ["mkdir", "-p", place])
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200))
    document = {"schema": 1, "id": "a", "source": "uploads", "kind": "snapshot", "sequence": 1, "end": end, "files": []}
    lab.write("ops1", f"{place}/manifest.json", json.dumps(document))
    wanted = {"root": f"{PLACE}/store", "sources": ["uploads"], "full_within": "1d"}
    found = module(lab, sets=[wanted])
    assert found["bad"] == ["uploads is not recoverable as it must be"]
    lab.write("ops1", f"{PLACE}/store/uploads/verdicts.json", '{"a": {"verdict": "verified", "time": 1}}')
    found = module(lab, sets=[wanted])
    assert (
        found["bad"] == [] and found["sets"][0]["sentence"] == f"uploads is recoverable to 1 moment from {end} to {end}"
    )
    variables = {"backup_verify_sets": [{**wanted, "full_within": "1h"}], "backup_verify_backups": []}
    done = lab.playbook(PLAYBOOK, "-e", "target=ops1", "-e", json.dumps(variables))
    assert done.returncode == 2
    assert "ops1: uploads: the newest verified full backup is 2 h old, but at most 60 min are allowed" in done.stdout
    record = json.loads(lab.read("ops1", "/var/log/worklog-maintenance/records.jsonl").splitlines()[-1])
    assert record["subject"] == "uploads" and record["findings"][0]["check"] == "recovery.full"


def test_progress_is_shown_on_long_files(lab: Any, restore: Any) -> None:
    restore.path("app2", f"{PLACE}/long.img")
    lab.exec("app2", ["mkdir", "-p", PLACE])
    lab.exec("app2", ["truncate", "--size=4G", f"{PLACE}/long.img"])
    variables = {"backup_verify_backups": [{"path": f"{PLACE}/long.img", "format": "plain"}]}
    done = lab.playbook(PLAYBOOK, "-e", "target=app2", "-e", json.dumps(variables), "--check")
    assert done.returncode == 0, done.stdout
    lines = re.findall(
        rf"^app2: backup_verify {PLACE}/long.img \d+ % \([\d.]+ of 4.3 GB, \d+ MB/s, \d+ \w+ left\)$",
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


def test_nothing_is_not_taken_for_good_backups(lab: Any) -> None:
    said = lab.module("ops1", "backup_verify", report_only=True)
    assert said["failed"] and said["msg"].startswith("nothing is named that could be verified")
