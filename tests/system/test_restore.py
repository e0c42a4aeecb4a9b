# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery on real servers: what comes back is, row by row, what the one who wrote it has noted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.backup_program import PROGRAM, Program
from tests.system.conftest import ROOT, Lab, Restore
from tests.system.noted import PLACE, Noted, kept_by, left_over, restore, rows, served, sql, utc
from tests.system.test_releases import Site, at_first

#: Moments at which a restore is killed.
KILLS = int(os.environ.get("KILLS", "3"))

STATE = "/var/lib/worklog-maintenance/restore"
SOURCES: dict[str, Any] = {
    "written": {"engine": "mariadb", "probe_interval": 0, "checksums": True},
    "cache": {"engine": "redis"},
    "papers": {"engine": "mongodb"},
    "uploads": {"engine": "files", "paths": ["/srv/test-restore"]},
    "secrets": {"engine": "secrets", "paths": ["/etc/test-restore"]},
    "logs": {"engine": "archive", "paths": ["/var/log/test-restore/*.log"]},
}
PLAYBOOK = "worklog.maintenance.restore"
#: A host that refuses connections, and one that is called otherwise here than it calls itself.
GONE = "gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=9\n"
ALIAS = (
    "database-of-the-inventory ansible_connection=community.docker.docker ansible_host={container} ansible_user=root "
    "ansible_python_interpreter=/usr/bin/python3\n"
)
IN_PLACE = {
    "target": "db1",
    "restore_root": f"{PLACE}/backups",
    "restore_source": "written",
    "restore_target": "in_place",
    "restore_directory": "/var/lib/mysql",
    "restore_service": "mariadb.service",
    "restore_confirm": "written@db1",
}


def records(lab: Lab, node: str = "db1") -> list[dict[str, Any]]:
    text = lab.exec(node, ["cat", "/var/log/worklog-maintenance/records.jsonl"], check=False).stdout
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def noted(lab: Lab) -> Iterator[Noted]:
    """Two full backups, two increments and the logs of a database that is written to until its table is dropped."""
    # A directory of the image's own layer cannot be renamed on overlayfs; one that was copied can.
    lab.exec("db1", ["systemctl", "stop", "mariadb.socket", "mariadb"])
    lab.exec("db1", ["cp", "-a", "/var/lib/mysql", "/var/lib/mysql.copy"])
    lab.exec("db1", ["rm", "-rf", "/var/lib/mysql"])
    lab.exec("db1", ["mv", "/var/lib/mysql.copy", "/var/lib/mysql"])
    lab.exec("db1", ["systemctl", "start", "mariadb"])
    program = Program(lab, "db1", PLACE, SOURCES)
    noted = Noted(lab, program)
    sql(
        lab,
        "DROP DATABASE IF EXISTS noted; CREATE DATABASE noted; CREATE TABLE noted.rows_ (number INT PRIMARY KEY, "
        "value BIGINT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP); "
        "CREATE VIEW noted.newest AS SELECT MAX(number) FROM noted.rows_",
    )
    program.run("written", "full")
    for kind in ("log", "incremental", "log", "incremental"):
        noted.write(12)
        program.run("written", kind)
    noted.write(12)
    time.sleep(1.1)
    sql(lab, "DROP TABLE noted.rows_")
    time.sleep(1.1)
    sql(lab, "CREATE TABLE noted.later (a INT); INSERT INTO noted.later VALUES (1)")
    program.run("written", "log")
    yield noted
    lab.exec("db1", ["systemctl", "start", "mariadb"], check=False)
    sql(lab, "DROP DATABASE IF EXISTS noted", check=False)
    lab.exec("db1", ["find", "/var/lib", "-maxdepth", "1", "-name", "mysql.*", "-exec", "rm", "-rf", "{}", "+"])
    lab.exec("db1", ["rm", "-rf", PLACE, PROGRAM, STATE])


@pytest.mark.capability("A10")
def test_the_statement_tells_what_can_be_recovered(noted: Noted) -> None:
    said = noted.lab.exec("db1", noted.program.argv("status", "written")).stdout
    assert "written is recoverable from " in said and said.rstrip().endswith("gaps: none")


@pytest.mark.capability("A10")
def test_just_before_the_table_was_dropped(noted: Noted) -> None:
    with served(noted, "--before-event", r"DROP TABLE .*rows_") as client:
        assert rows(noted.lab, client) == noted.until(2**40), "every row that was written, and none else"
        assert len(noted.rows) == 60
        assert sql(noted.lab, "SELECT * FROM noted.newest", client) == [["60"]]


@pytest.mark.capability("A10")
@pytest.mark.parametrize("seed", range(4))
def test_a_random_second(noted: Noted, seed: int) -> None:
    second = random.Random(seed).randrange(noted.rows[5][2], noted.rows[-1][2] + 1)
    with served(noted, "--time", utc(second)) as client:
        assert rows(noted.lab, client) == noted.until(second)


@pytest.mark.capability("A10")
def test_up_to_a_transaction(noted: Noted) -> None:
    found = sql(noted.lab, "SELECT @@gtid_binlog_pos")[0][0]
    domain, server, last = found.split("-")
    # The last three transactions are the table that was dropped, the one that was made later, and its row.
    with served(noted, "--gtid", f"{domain}-{server}-{int(last) - 5}") as client:
        assert rows(noted.lab, client) == noted.until(2**40)[:-2]


def test_a_moment_that_is_not_covered_names_what_is(noted: Noted) -> None:
    said = restore(noted, "--time", "2020-01-01T00:00:00Z", code=1)
    assert "cannot be recovered to 2020-01-01T00:00:00Z: no backup is as old as that" in said
    assert "no statement that 'TRUNCATE' finds" in restore(noted, "--before-event", "TRUNCATE", code=1)
    assert left_over(noted.lab, "db1") == []


def test_a_damaged_link_of_the_chain_is_refused(noted: Noted, restore: Restore) -> None:
    backups = noted.program.list("written")
    chosen = next(row for row in backups if row["kind"] == "incremental")
    file = f"{chosen['path']}/backup.mbstream.zst"
    restore.path("db1", chosen["path"])
    noted.lab.exec("db1", ["dd", "if=/dev/urandom", f"of={file}", "bs=1", "seek=5000", "count=8", "conv=notrunc"])
    words = noted.program.argv("restore", "written", "--scratch", f"{PLACE}/scratch")
    done = noted.lab.exec("db1", words, check=False, timeout=120)
    assert done.returncode == 1 and "is not what was written when the backup was made" in done.stderr
    assert left_over(noted.lab, "db1") == []
    noted.lab.exec("db1", noted.program.argv("verify", "written", chosen["id"]), check=False)
    said = noted.lab.exec("db1", noted.program.argv("status", "written")).stdout
    assert f"incremental {chosen['id']}" in said and "it is damaged" in said
    noted.lab.exec("db1", ["rm", "-rf", chosen["path"]])
    said = noted.lab.exec("db1", noted.program.argv("restore", "written", "--plan")).stdout
    assert "incremental" not in said and "full of" in said, "the logs lead there without the chain"


@pytest.mark.campaign
def test_killed_at_any_moment_nothing_is_left_running_and_the_next_run_cleans_up(noted: Noted) -> None:
    lab, chance = noted.lab, random.Random(11)
    began = time.monotonic()
    kept = [kept_by(restore(noted))]
    whole = time.monotonic() - began
    killed = 0
    for number in range(5 * KILLS):
        if killed and number >= KILLS:
            break
        words = noted.program.argv("restore", "written", "--scratch", f"{PLACE}/scratch")
        with subprocess.Popen(["docker", "exec", lab.container("db1"), *words], stdout=subprocess.PIPE) as process:
            time.sleep(chance.uniform(0.1, whole))
            for pid in noted.program.processes("restore written"):
                lab.exec("db1", ["kill", "-9", str(pid)], check=False)
            process.communicate(timeout=120)
            killed += process.returncode == 128 + 9
        time.sleep(0.3)
        left = left_over(lab, "db1")
        assert not [entry for entry in left if not entry.startswith(PLACE)], "a server has survived"
        # What was done before it was killed carries no lock any more, and stays.
        done = [path for path in left if lab.exec("db1", ["test", "-e", f"{path}/.scratch"], check=False).returncode]
        assert all(lab.exec("db1", ["test", "-d", f"{path}/data/noted"], check=False).returncode == 0 for path in done)
        kept += [path for path in done if path not in kept]
    assert killed, f"none of {KILLS} restores was killed within {whole:.1f} s"
    kept.append(kept_by(restore(noted, "--backup", noted.program.list("written")[0]["id"])))
    lab.exec("db1", ["rm", "-rf", *kept])
    assert left_over(lab, "db1") == []


def in_place(lab: Lab, *argv: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return lab.playbook(PLAYBOOK, "-e", json.dumps({**IN_PLACE, **variables}), *argv)


def test_in_place_must_be_confirmed_by_name(noted: Noted) -> None:
    for wrong in ("", "true", "written@", "other@db1"):
        done = in_place(noted.lab, restore_confirm=wrong)
        assert done.returncode == 2 and "restore_confirm=written@db1" in done.stdout
        assert "Restore into scratch, or make" not in done.stdout
    done = in_place(noted.lab, restore_confirm="written@app1")
    assert done.returncode == 2 and "confirm it with written@db1, not 'written@app1'" in done.stdout


def test_in_place_the_confirmation_is_of_the_host_whatever_the_inventory_calls_it(noted: Noted, tmp_path: Path) -> None:
    (tmp_path / "alias").write_text(ALIAS.format(container=noted.lab.container("db1")), encoding="utf-8")
    argv = ("-i", str(tmp_path / "alias"), "--check")
    done = in_place(noted.lab, *argv, target="database-of-the-inventory", restore_state="planned")
    assert done.returncode == 0, done.stdout
    wrong = in_place(
        noted.lab, *argv, target="database-of-the-inventory", restore_confirm="written@database-of-the-inventory"
    )
    assert wrong.returncode == 2 and "confirm it with written@db1" in wrong.stdout


@pytest.mark.capability("A10")
def test_in_place_that_fails_puts_the_old_data_back(noted: Noted, restore: Restore) -> None:
    lab = noted.lab
    before = sql(lab, "SELECT * FROM noted.later")
    # The restored data are sound, but the service does not start on them.
    drop_in = "/etc/systemd/system/mariadb.service.d"
    restore.run("db1", ["systemctl", "daemon-reload"])
    restore.path("db1", drop_in)
    lab.exec("db1", ["mkdir", "-p", drop_in])
    lab.write(
        "db1", f"{drop_in}/test.conf", "[Service]\nExecStartPre=/usr/bin/test -d /var/lib/mysql/noted/../sys/../later\n"
    )
    lab.write(
        "db1", f"{drop_in}/test.conf", "[Service]\nExecStartPre=/usr/bin/test ! -e /var/lib/mysql/noted/rows_.ibd\n"
    )
    lab.exec("db1", ["systemctl", "daemon-reload"])
    done = in_place(lab, restore_before_event="DROP TABLE .*rows_")
    assert done.returncode == 2, done.stdout
    assert "the old data are back in /var/lib/mysql and the services run as before" in done.stdout
    assert sql(lab, "SELECT * FROM noted.later") == before
    assert lab.exec("db1", ["systemctl", "is-active", "mariadb"]).stdout.strip() == "active"
    record = records(lab)[-1]
    assert (record["what"], record["result"]) == ("restore", "failed")


@pytest.mark.capability("A10")
def test_in_place_nothing_is_exchanged_while_an_application_goes_on(noted: Noted) -> None:
    lab = noted.lab
    before = sql(lab, "SELECT * FROM noted.later")
    started = lab.exec("db1", ["systemctl", "show", "--property=InvocationID", "mariadb"]).stdout
    done = in_place(
        lab, restore_before_event="DROP TABLE .*rows_", restore_application_hosts="app", service_restart_name="no-such"
    )
    assert done.returncode == 2, done.stdout
    assert "TASK [Exchange the data" not in done.stdout
    assert sql(lab, "SELECT * FROM noted.later") == before
    assert lab.exec("db1", ["systemctl", "show", "--property=InvocationID", "mariadb"]).stdout == started
    record = records(lab)[-1]
    assert (record["what"], record["result"]) == ("restore", "failed")
    assert all(f"{name}: " in record["details"]["message"] for name in ("app1", "app2"))
    assert "no-such" in record["details"]["message"]


@pytest.mark.capability("A10")
def test_in_place_nothing_is_exchanged_when_a_host_of_the_application_cannot_be_reached(
    noted: Noted, tmp_path: Path
) -> None:
    """One of two, and the only one; what was stopped on the other one runs again."""
    lab = noted.lab
    (tmp_path / "gone").write_text(GONE, encoding="utf-8")
    service = {"service_restart_name": "worklog-api", "service_restart_ready": ["http://127.0.0.1:8080/health"]}
    for hosts in ("app1,gone", "gone"):
        before = sql(lab, "SELECT * FROM noted.later")
        done = in_place(
            lab,
            "-i",
            str(tmp_path / "gone"),
            restore_before_event="DROP TABLE .*rows_",
            restore_application_hosts=hosts,
            **service,
        )
        assert done.returncode != 0, done.stdout
        assert "TASK [Exchange the data" not in done.stdout
        assert sql(lab, "SELECT * FROM noted.later") == before
        record = records(lab)[-1]
        assert (record["what"], record["result"]) == ("restore", "failed")
        assert "gone: it cannot be reached, so its application was not stopped" in record["details"]["message"]
        lab.wait_for("app1", 8080, "/health")


@pytest.mark.capability("A10")
def test_in_place_the_application_is_stopped_the_data_exchanged_and_the_application_answers(noted: Noted) -> None:
    lab = noted.lab
    before = int(sql(lab, "SELECT COUNT(*) FROM worklog.records")[0][0])
    service = {"service_restart_name": "worklog-api", "service_restart_ready": ["http://127.0.0.1:8080/health"]}
    done = in_place(lab, restore_before_event="DROP TABLE .*rows_", restore_application_hosts="app1", **service)
    assert done.returncode == 0, done.stdout
    assert rows(lab) == noted.until(2**40)
    assert int(sql(lab, "SELECT COUNT(*) FROM worklog.records")[0][0]) == before
    lab.wait_for("app1", 8080, "/api/records")
    record = records(lab)[-1]
    assert (record["what"], record["result"], record["subject"]) == ("restore", "ok", "written")
    assert 0 < record["downtime_seconds"] < 120 and record["details"]["seconds"]["total"] > 0
    aside = record["details"]["aside"]
    assert lab.exec("db1", ["test", "-d", f"{aside}/noted"], check=False).returncode == 0, "what was there is kept"
    done = in_place(lab, restore_state="put_back")
    assert done.returncode == 0, done.stdout
    assert sql(lab, "SELECT * FROM noted.later") == [["1"]]


@pytest.mark.soak
@pytest.mark.capability("B4")
def test_a_rollback_takes_the_data_back_when_it_is_asked_to(noted: Noted, restore: Restore) -> None:
    """The release that runs has dropped a table; the code goes back, then the data of before that."""
    site = released(noted.lab, restore)
    asked: dict[str, Any] = {"release_reason": "rows are gone", "release_data": "restore"}
    data = {
        **IN_PLACE,
        "restore_before_event": "DROP TABLE .*rows_",
        "restore_application_hosts": "app",
        "service_restart_name": "worklog-api",
        "service_restart_ready": ["http://127.0.0.1:8080/health"],
    }
    for wrong, sentence in (
        ({}, "needs the variables of the playbook restore, at least target and restore_source"),
        ({**data, "restore_confirm": "yes"}, "must be confirmed with restore_confirm=written@db1"),
    ):
        code, output = site.play("rollback", **asked, **wrong)
        assert code != 0 and sentence in " ".join(output.split()), output
    assert site.versions() == ["1.1.0", "1.1.0"], "nothing goes back when the data cannot"
    code, output = site.play("rollback", **asked, **data)
    assert code == 0, output
    assert site.versions() == ["1.0.0", "1.0.0"] and not site.in_service()
    assert rows(noted.lab) == noted.until(2**40)
    assert site.records()["what"] == "rollback" and site.records()["details"]["restored"] == {"code": "1.0.0"}
    told = records(noted.lab)[-1]
    assert (told["what"], told["result"], told["details"]["event"] != "") == ("restore", "ok", True)
    done = in_place(noted.lab, restore_state="put_back")
    assert done.returncode == 0, done.stdout


@pytest.mark.soak
@pytest.mark.capability("B4")
@pytest.mark.parametrize("source", ["cache", "uploads"])
def test_a_rollback_takes_redis_and_files_back(noted: Noted, restore: Restore, movable: None, source: str) -> None:
    """Written by the new release, and not understood by the old one."""
    lab, key, uploads = noted.lab, ["redis-cli", "GET", "noted"], "/srv/test-restore"
    restore.path("db1", uploads)
    restore.run("db1", ["redis-cli", "DEL", "noted"])
    lab.exec("db1", ["mkdir", "-p", uploads])
    lab.write("db1", f"{uploads}/photo.jpg", "format one\n")
    lab.exec("db1", ["redis-cli", "SET", "noted", "format one"])
    noted.program.run(source, "full" if source == "cache" else "snapshot")
    site = released(lab, restore)
    lab.write("db1", f"{uploads}/photo.jpg", "format two\n")
    lab.exec("db1", ["redis-cli", "SET", "noted", "format two"])
    place = {"cache": ("/var/lib/redis", "redis-server.service"), "uploads": (uploads, "")}[source]
    data = {
        **IN_PLACE,
        "restore_source": source,
        "restore_directory": place[0],
        "restore_service": place[1],
        "restore_confirm": f"{source}@db1",
        "restore_application_hosts": "app",
        "service_restart_name": "worklog-api",
        "service_restart_ready": ["http://127.0.0.1:8080/health"],
    }
    try:
        code, output = site.play("rollback", release_reason="it reads nothing", release_data="restore", **data)
        assert code == 0, output
        assert site.versions() == ["1.0.0", "1.0.0"] and not site.in_service()
        found = lab.exec("db1", key).stdout.strip(), lab.read("db1", f"{uploads}/photo.jpg").strip()
        assert found == (("format one", "format two") if source == "cache" else ("format two", "format one"))
        told = records(lab)[-1]
        assert (told["what"], told["result"], told["subject"]) == ("restore", "ok", source)
    finally:
        lab.exec("db1", ["sh", "-c", "rm -rf /var/lib/redis.before-* /srv/test-restore.before-*"])


def released(lab: Lab, restore: Restore) -> Site:
    """Both hosts run 1.1.0, released after 1.0.0."""
    site = at_first(lab, restore, Path("/dev/null"))
    release = {"application": "worklog-api", "id": "earlier"}
    for node in ("app1", "app2"):
        found = {"version": "1.0.0", "artefact": "releases/1.0.0"}
        begun = {"action": "begin", "version": "1.1.0", "owner": "somebody", "found": found}
        for action in (begun, {"action": "finish", "result": "good", "artefact": "releases/1.1.0"}):
            assert not lab.module(node, "release_state", **release, **action)["failed"]
        lab.exec(node, ["ln", "-sfn", "releases/1.1.0", "/srv/worklog/current"])
        lab.exec(node, ["systemctl", "restart", "worklog-api"])
    return site


#: Arguments of the program.
BACK_IN_PLACE = (
    "restore", "written", "--before-event", "DROP TABLE .*rows_", "--in-place", "/var/lib/mysql",
    "--service", "mariadb.service", "--confirm", "written@db1",
)  # fmt: skip


def test_a_service_that_a_killed_restore_was_starting_is_waited_for(noted: Noted, restore: Restore) -> None:
    lab, words = noted.lab, noted.program.argv(*BACK_IN_PLACE)
    restore.run("db1", ["systemctl", "daemon-reload"])
    restore.path("db1", "/etc/systemd/system/mariadb.service.d")
    lab.exec("db1", ["mkdir", "-p", "/etc/systemd/system/mariadb.service.d"])
    lab.write("db1", "/etc/systemd/system/mariadb.service.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 8\n")
    lab.exec("db1", ["systemctl", "daemon-reload"])
    with subprocess.Popen(["docker", "exec", lab.container("db1"), *words], stdout=subprocess.DEVNULL) as process:
        while lab.exec("db1", ["systemctl", "is-active", "mariadb"], check=False).stdout.strip() != "activating":
            assert process.poll() is None, "it has ended before the service was started"
        for pid in noted.program.processes("restore written"):
            lab.exec("db1", ["kill", "-9", str(pid)], check=False)
        process.wait(timeout=120)
    done = lab.exec("db1", words, check=False, timeout=180)
    assert done.returncode == 0 and "the services were being started" in done.stdout + done.stderr, done
    assert rows(lab) == noted.until(2**40)


@pytest.mark.campaign
def test_in_place_killed_at_any_moment_goes_on_or_leaves_the_old_data(noted: Noted) -> None:
    lab, chance = noted.lab, random.Random(23)
    words = noted.program.argv(*BACK_IN_PLACE)
    for _number in range(KILLS):
        with subprocess.Popen(["docker", "exec", lab.container("db1"), *words], stdout=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.5, 4.0))
            for pid in noted.program.processes("restore written"):
                lab.exec("db1", ["kill", "-9", str(pid)], check=False)
            process.wait(timeout=120)
        there = lab.exec(
            "db1", ["sh", "-c", "ls -d /var/lib/mysql /var/lib/mysql.before-* 2>/dev/null"], check=False
        ).stdout
        assert there.split(), "either the old data or the kept ones are there"
    done = lab.exec("db1", words, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(lab) == noted.until(2**40)
    assert lab.exec("db1", ["ls", "-A", "/var/lib/.worklog-restore"], check=False).stdout == ""


@pytest.mark.capability("A11")
def test_secrets_come_back_file_by_file_and_go_back_again(noted: Noted, restore: Restore) -> None:
    lab = noted.lab
    restore.path("db1", "/etc/test-restore")
    lab.exec("db1", ["mkdir", "-p", "/etc/test-restore/tls"])
    lab.write("db1", "/etc/test-restore/.env", "PORT=3002\n")
    lab.write("db1", "/etc/test-restore/tls/key.pem", "secret\n")
    lab.exec("db1", ["chmod", "600", "/etc/test-restore/tls/key.pem"])
    lab.exec("db1", ["chown", "www-data", "/etc/test-restore/tls/key.pem"])
    noted.program.run("secrets", "snapshot")
    lab.write("db1", "/etc/test-restore/.env", "PORT=broken\n")
    lab.exec("db1", ["rm", "/etc/test-restore/tls/key.pem"])
    lab.write("db1", "/etc/test-restore/other", "stays\n")
    words = noted.program.argv("restore", "secrets", "--in-place", "/etc/test-restore", "--confirm", "secrets@db1")
    lab.exec("db1", [*words, "--scratch", f"{PLACE}/scratch"])
    assert lab.read("db1", "/etc/test-restore/.env") == "PORT=3002\n"
    assert lab.read("db1", "/etc/test-restore/other") == "stays\n"
    key = lab.exec("db1", ["stat", "--format=%U %a", "/etc/test-restore/tls/key.pem"]).stdout.strip()
    assert key == "www-data 600"
    lab.exec("db1", [*words, "--put-back"])
    assert lab.read("db1", "/etc/test-restore/.env") == "PORT=broken\n"
    assert lab.exec("db1", ["test", "-e", "/etc/test-restore/tls/key.pem"], check=False).returncode == 1


def test_with_a_wrong_key_nothing_of_what_is_encrypted_comes_back(noted: Noted, restore: Restore) -> None:
    lab, folder = noted.lab, "/srv/test-sealed"
    restore.path("db1", folder)
    lab.exec("db1", ["mkdir", "-m", "700", folder])
    lab.write("db1", f"{folder}/.env", "PORT=3002\n")
    for name in ("right", "wrong"):
        lab.exec("db1", ["age-keygen", "-o", f"{PLACE}/{name}"])
    key = lab.exec("db1", ["age-keygen", "-y", f"{PLACE}/right"]).stdout.strip()
    sealed = {"engine": "secrets", "paths": [folder], "recipients": [key]}
    noted.program.configure({**SOURCES, "sealed": sealed})
    noted.program.run("sealed", "snapshot")
    lab.write("db1", f"{folder}/.env", "PORT=now\n")
    words = noted.program.argv("restore", "sealed", "--in-place", folder, "--confirm", "sealed@db1")
    for given, sentence in (
        ([], "is encrypted: name the file with the age identity"),
        (["--identity", f"{PLACE}/none"], f"{PLACE}/none"),
        (["--identity", f"{PLACE}/wrong"], "no identity matched any of the recipients"),
    ):
        done = lab.exec("db1", [*words, "--unverified", "--scratch", f"{PLACE}/scratch", *given], check=False)
        assert done.returncode == 1 and sentence in done.stderr, done
        assert "AGE-SECRET-KEY" not in done.stdout + done.stderr
        assert lab.read("db1", f"{folder}/.env") == "PORT=now\n"
        left = lab.exec("db1", ["find", folder, f"{PLACE}/scratch", "-name", "*env*"], check=False).stdout
        assert left == f"{folder}/.env\n"
    lab.exec("db1", [*words, "--unverified", "--scratch", f"{PLACE}/scratch", "--identity", f"{PLACE}/right"])
    assert lab.read("db1", f"{folder}/.env") == "PORT=3002\n"


def test_files_come_back_as_they_were(noted: Noted, restore: Restore) -> None:
    lab = noted.lab
    restore.path("db1", "/srv/test-restore")
    lab.exec("db1", ["mkdir", "-p", "/srv/test-restore/a"])
    lab.write("db1", "/srv/test-restore/a/photo.jpg", "a picture\n")
    noted.program.run("uploads", "snapshot")
    lab.write("db1", "/srv/test-restore/a/photo.jpg", "encrypted by somebody\n")
    lab.write("db1", "/srv/test-restore/ransom.txt", "pay\n")
    words = noted.program.argv("restore", "uploads", "--in-place", "/srv/test-restore", "--confirm", "uploads@db1")
    lab.exec("db1", words)
    assert lab.read("db1", "/srv/test-restore/a/photo.jpg") == "a picture\n"
    assert lab.exec("db1", ["ls", "/srv/test-restore"]).stdout.split() == ["a"]
    lab.exec("db1", ["sh", "-c", "rm -rf /srv/test-restore.before-*"])


@pytest.mark.capability("A11")
def test_logs_come_back_file_by_file(noted: Noted, restore: Restore) -> None:
    lab, place = noted.lab, "/var/log/test-restore"
    restore.path("db1", place)
    lab.exec("db1", ["mkdir", "-p", place])
    lab.write("db1", f"{place}/access.log", "GET /login 200\n" * 5000)
    lab.exec("db1", ["chown", "www-data:adm", f"{place}/access.log"])
    noted.program.run("logs", "archive")
    lab.write("db1", f"{place}/access.log", "tampered with\n")
    lab.write("db1", f"{place}/later.log", "stays\n")
    words = noted.program.argv("restore", "logs", "--in-place", place, "--confirm", "logs@db1")
    lab.exec("db1", words)
    assert lab.read("db1", f"{place}/access.log") == "GET /login 200\n" * 5000
    assert lab.exec("db1", ["stat", "--format=%U:%G", f"{place}/access.log"]).stdout.strip() == "www-data:adm"
    assert lab.read("db1", f"{place}/later.log") == "stays\n"
    lab.exec("db1", [*words, "--put-back"])
    assert lab.read("db1", f"{place}/access.log") == "tampered with\n"


@pytest.fixture
def movable(noted: Noted) -> None:
    """As for the database: a directory of the image's own layer cannot be renamed."""
    lab = noted.lab
    lab.exec("db1", ["systemctl", "stop", "redis-server"])
    lab.exec(
        "db1", ["sh", "-c", "cp -a /var/lib/redis /var/lib/r && rm -rf /var/lib/redis && mv /var/lib/r /var/lib/redis"]
    )
    lab.exec("db1", ["systemctl", "start", "redis-server"])


def test_redis_comes_back_also_with_append_only_files(noted: Noted, movable: None) -> None:
    lab = noted.lab
    assert lab.exec("db1", ["redis-cli", "CONFIG", "GET", "appendonly"]).stdout.split()[-1] == "yes"
    lab.exec("db1", ["redis-cli", "SET", "noted", "before"])
    noted.program.run("cache", "full")
    lab.exec("db1", ["redis-cli", "SET", "noted", "after"])
    words = noted.program.argv("restore", "cache", "--in-place", "/var/lib/redis", "--service", "redis-server.service")
    lab.exec("db1", [*words, "--confirm", "cache@db1"], timeout=120)
    assert lab.exec("db1", ["redis-cli", "GET", "noted"]).stdout.strip() == "before"
    lab.exec("db1", ["redis-cli", "DEL", "noted"])
    lab.exec("db1", ["sh", "-c", "rm -rf /var/lib/redis.before-*"])


@pytest.fixture(scope="module")
def fetched(lab: Lab, noted: Noted) -> Iterator[dict[str, Any]]:
    """ops1 may pull the backups of db1 over ssh, and nothing else; returns the variables of a drill."""
    for source in ("written", "cache", "papers"):
        noted.program.run(source, "full")
    told = noted.program.run("written", "log", code=3).stderr
    assert "begun its logs anew" in told and "there is a full backup of 20" in told, "as the data were restored"
    lab.exec("db1", ["ssh-keygen", "-A"])
    lab.exec("db1", ["systemctl", "start", "ssh"])
    lab.exec(
        "ops1",
        [
            "sh",
            "-c",
            "rm -f /root/.ssh/drill*; mkdir -p -m 700 /root/.ssh; ssh-keygen -qt ed25519 -N '' -f /root/.ssh/drill",
        ],
    )
    public = lab.read("ops1", "/root/.ssh/drill.pub")
    lab.exec("db1", ["mkdir", "-p", "-m", "700", "/root/.ssh"])
    lab.write("db1", "/root/.ssh/authorized_keys", f'restrict,command="rrsync -ro {PLACE}/backups" {public}')
    key = lab.read("db1", "/etc/ssh/ssh_host_ed25519_key.pub").split()
    lab.write("ops1", "/root/.ssh/drill_hosts", f"db1 {key[0]} {key[1]}\n")
    lab.exec("ops1", ["mkdir", "-p", "/opt/worklog-api"])
    server = (ROOT / "tests/lab/apps/worklog-api/server.py").read_text(encoding="utf-8")
    lab.write("ops1", "/opt/worklog-api/server.py", server)
    lab.write("ops1", "/opt/worklog-api/VERSION", "1.1.0\n")
    config = {
        "listen": "127.0.0.1", "port": "<port>", "uploads": "<directory>", "max_upload_bytes": 1000,
        "database": {"unix_socket": "<written.socket>", "user": "<written.account>",
                     "password": "<written.password>", "database": "worklog"},
        "redis": {"unix_socket_path": "<cache.socket>", "password": "<cache.password>"},
    }  # fmt: skip
    yield {
        "target": "ops1",
        "drill_sources": ["written", "cache", "papers"],
        "drill_root": f"{PLACE}/backups",
        "drill_scratch": f"{PLACE}/scratch",
        "drill_reports": f"{PLACE}/reports",
        "drill_fetch": {
            "from": "root@db1:/", "identity": "/root/.ssh/drill", "known_hosts": "/root/.ssh/drill_hosts",
        },
        "drill_users": {"papers": "mysql"},
        "drill_server": ["ferretdb", "-data", "<directory>/", "-listen", "127.0.0.1:<port>"],
        "drill_budget": "5m",
        "drill_seed": 3,
        "drill_application": {
            "argv": ["/usr/bin/python3", "/opt/worklog-api/server.py", "--config", "<directory>/config.json"],
            "files": {"config.json": json.dumps(config).replace('"<port>"', "<port>")},
            "ready": "http://127.0.0.1:<port>/health",
            "questions": [
                {"name": "records", "url": "http://127.0.0.1:<port>/api/records", "expect": '"count": [1-9]'},
            ],
        },
    }  # fmt: skip
    lab.exec("ops1", ["rm", "-rf", PLACE, "/opt/worklog-api", "/root/.ssh"])
    lab.exec("db1", ["rm", "-rf", "/root/.ssh"])
    lab.exec("db1", ["systemctl", "stop", "ssh"])


def drill(lab: Lab, variables: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    return lab.playbook("worklog.maintenance.restore_drill", "-e", json.dumps({**variables, **more}))


@pytest.mark.capability("A9")
def test_a_drill_restores_compares_asks_and_leaves_only_its_report(lab: Lab, fetched: dict[str, Any]) -> None:
    done = drill(lab, fetched)
    assert done.returncode == 0, done.stdout
    record = records(lab, "ops1")[-1]
    assert (record["what"], record["result"]) == ("restore_drill", "ok")
    report = record["details"]["report"]
    assert [entry["what"] for entry in report["rounds"] if entry["source"] == "written"] == [
        "older",
        "moment",
        "newest",
    ]
    newest = next(entry for entry in report["rounds"] if (entry["source"], entry["what"]) == ("written", "newest"))
    assert any("checksums" in text for text in newest["compared"])
    assert any("accounts" in text for text in newest["compared"]), "views, routines, grants and indexes are compared"
    assert report["answers"] == [{**report["answers"][0], "name": "records", "right": True, "trouble": ""}]
    assert {"fetch", "application", "first question"} <= set(report["seconds"])
    assert 0 < record["recovery_seconds"] < 300
    page = lab.read("ops1", record["details"]["page"])
    assert "Passed: everything that was chosen could be restored" in page and "<script" not in page
    assert left_over(lab, "ops1") == []


@pytest.mark.capability("A9")
def test_a_drill_that_fails_says_why_and_is_torn_down(lab: Lab, fetched: dict[str, Any]) -> None:
    question = {"name": "a wrong one", "url": "http://127.0.0.1:<port>/api/records", "expect": "not in there"}
    application = {**fetched["drill_application"], "questions": [question]}
    done = drill(lab, fetched, drill_application=application, drill_sources=["written", "cache"])
    assert done.returncode == 2
    assert "a wrong one: the answer does not hold 'not in there'" in done.stdout
    assert records(lab, "ops1")[-1]["result"] == "failed"
    assert left_over(lab, "ops1") == []
    done = drill(lab, fetched, drill_budget="0.1", drill_sources=["cache"], drill_application=None)
    assert done.returncode == 2 and "but may take 0.1 s" in done.stdout
    done = drill(lab, fetched, drill_limit="1", drill_application=None)
    assert done.returncode == 2 and ("did not end within 1 s" in done.stdout or "could not be fetched" in done.stdout)
    assert left_over(lab, "ops1") == []


def test_a_drill_finds_what_is_wrong_in_a_backup(
    lab: Lab, fetched: dict[str, Any], noted: Noted, restore: Restore
) -> None:
    chosen = noted.program.list("cache")[-1]
    restore.path("db1", chosen["path"])
    file = f"{chosen['path']}/dump.rdb"
    lab.exec("db1", ["dd", "if=/dev/urandom", f"of={file}", "bs=1", "seek=30", "count=4", "conv=notrunc"])
    done = drill(lab, fetched, drill_sources=["cache"], drill_application=None)
    assert done.returncode == 2 and "is not what was written when the backup was made" in done.stdout
    assert left_over(lab, "ops1") == []


def test_a_host_whose_key_is_not_known_is_not_trusted(lab: Lab, fetched: dict[str, Any]) -> None:
    lab.write("ops1", "/root/.ssh/empty", "")
    remote = {**fetched["drill_fetch"], "known_hosts": "/root/.ssh/empty"}
    done = drill(lab, fetched, drill_fetch=remote, drill_sources=["cache"], drill_application=None)
    assert done.returncode == 2 and "its host key is not known here" in done.stdout
