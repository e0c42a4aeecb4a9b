# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole work on a machine of plain files; tests/system does the same on a real nginx."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import limit, probe
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.diagnose import Circumstances
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.plan import Ask

from tests.unit.plugins.module_utils.nginx.machine import Machine

pytestmark = pytest.mark.capability("F3")
CONFIG = """error_log {directory}/error.log;
http {{
    client_max_body_size 10m;
    server {{ listen 80; server_name a.test; location / {{ proxy_pass http://127.0.0.1:9; }} }}
    server {{ listen 80; server_name b.test; }}
}}
"""
WANTED = "server { client_max_body_size 50m; listen 80; server_name a.test;"


@pytest.fixture(autouse=True)
def _backups(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BACKUP_ROOT", str(tmp_path / "backups"))
    monkeypatch.setattr(files.backup, "__kwdefaults__", {"root": str(tmp_path / "backups"), "keep": 10})


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, CONFIG.format(directory=tmp_path))


def work(machine, *, asks=None, asker=None, **more):
    more.setdefault("limit", "50m")
    asks = [Ask("a.test", limit=more["limit"])] if asks is None else asks
    return limit.carry_out(limit.Request(asks, **more), machine.system(), asker or (lambda *_ignored: 100))


def answering(size, result):
    """A prober that answers 413 above a size."""
    return lambda one, asked, timeout: 413 if asked > size else result


def test_edit_test_reload_prove(machine):
    done = work(machine, probe=True, asker=answering(50 << 20, 100))
    assert done.changed and done.reloaded and WANTED in machine.config.read_text()
    assert done.proof["old_workers"] == [200, 201] and done.proof["new_workers"] == [202, 203] == machine.serving()
    assert [(one["size"], one["status"]) for one in done.proof["probe"]] == [(52428799, 100), (52428801, 413)]
    options = ["-g", "daemon on; master_process on;"]
    assert [one for one in machine.commands if one[0] != "as www-data:"][:4] == [
        ["/usr/sbin/nginx", "-V"],
        ["/usr/sbin/nginx", *options, "-t"],
        ["as nobody:", "test", "-w", str(machine.directory / "body"), "-a", "-x", str(machine.directory / "body")],
        ["/usr/sbin/nginx", *options, "-t"],
    ]
    assert machine.commands[-1][:2] in (["systemctl", "reload"], ["/usr/sbin/nginx", "-g"])
    with open(next(iter(done.backups.values()))) as stream:
        assert "50m" not in stream.read()


def test_the_second_run_does_nothing(machine):
    work(machine)
    text, workers, commands = machine.config.read_text(), machine.serving(), len(machine.commands)
    done = work(machine)
    assert not done.changed and not done.reloaded and done.proof is None and not done.edits
    assert machine.config.read_text() == text and machine.serving() == workers
    assert all(one[-1] in ("-V", "-t") or "test" in one for one in machine.commands[commands:])


def test_check_mode_tells_the_same_and_touches_nothing(machine):
    text = machine.config.read_text()
    planned = work(machine, check_mode=True)
    assert machine.config.read_text() == text and machine.serving() == [200, 201]
    done = work(machine)
    assert (planned.changed, planned.edits, planned.diff, planned.limits) == (True, done.edits, done.diff, done.limits)


def test_old_workers_that_finish_their_requests_are_no_failure(machine):
    machine.leaves_old = True
    assert work(machine).proof["new_workers"] == [202, 203]


def test_what_nginx_refuses_is_put_back(machine):
    os.chmod(machine.config, 0o640)
    text, machine.refuse = machine.config.read_bytes(), "50m"
    with pytest.raises(
        limit.LimitError, match=r"refuses the new configuration, the files are as they were.*no 50m here"
    ):
        work(machine)
    assert machine.config.read_bytes() == text and stat.S_IMODE(machine.config.stat().st_mode) == 0o640
    assert machine.serving() == [200, 201]


def test_a_broken_configuration_is_refused_before_anything(machine):
    machine.refuse = "10m"
    with pytest.raises(limit.LimitError, match="broken already, nothing was touched") as caught:
        work(machine)
    assert caught.value.details["refused"] and machine.commands[-1][-1] == "-t"


def test_a_reload_without_effect_is_a_failure_with_the_words_of_nginx(machine):
    text, machine.reloads = machine.config.read_bytes(), False
    machine.log = (
        "".join(
            f"2026/11/21 10:00:0{n} [emerg] 100#100: bind() to 0.0.0.0:81 failed (98: Address already in use)\n"
            for n in range(5)
        )
        + "2026/11/21 10:00:03 [emerg] 100#100: still could not bind()\n2026/11/21 10:00:03 [emerg] 7#7: another\n"
    )
    with pytest.raises(limit.LimitError) as caught:
        work(machine)
    message = str(caught.value)
    assert "the old workers (200, 201) go on with the old configuration" in message
    assert "bind() to 0.0.0.0:81 failed (98: Address already in use) / still could not bind()" in message
    assert "another" not in message and "the old files are back, but nginx did not load them either" in message
    assert machine.config.read_bytes() == text and machine.clock < 1005


def test_one_old_worker_that_still_takes_requests_is_no_proof(machine):
    text, machine.keeps_one = machine.config.read_bytes(), True
    with pytest.raises(limit.LimitError, match=r"the old workers \(200, 201\) go on"):
        work(machine, timeout=5)
    assert machine.config.read_bytes() == text


def test_a_reload_without_effect_and_without_words_ends_in_time(machine):
    machine.reloads = False
    with pytest.raises(limit.LimitError, match="it wrote no reason into its error log"):
        work(machine, timeout=5)
    assert 1005 <= machine.clock <= 1011


@pytest.mark.parametrize(
    ("asker", "words"),
    [
        (answering(10 << 20, 100), "answers a body of 52428799 bytes with 413"),
        (answering(1 << 60, 404), "answers a body of 52428801 bytes with 404, but it should be refused with 413"),
    ],
)
def test_a_probe_that_sees_another_limit_brings_the_old_files_back(machine, asker, words):
    text = machine.config.read_bytes()
    with pytest.raises(limit.LimitError, match=words) as caught:
        work(machine, probe=True, asker=asker)
    assert str(caught.value).endswith("the old files are back and loaded")
    assert machine.config.read_bytes() == text and machine.serving() == [204, 205]


def test_an_interrupt_puts_the_files_back(machine):
    text, machine.killed = machine.config.read_bytes(), True
    with pytest.raises(KeyboardInterrupt):
        work(machine)
    assert machine.config.read_bytes() == text


def test_workers_older_than_the_file_are_reloaded_and_proven(machine):
    """As after a run that was killed between writing and reloading."""
    work(machine)
    for pid in machine.serving():
        machine.end(pid)
    machine.ticks = 100  # one second after 1970, long before the file was written
    machine.workers(100)
    planned = work(machine, check_mode=True)
    assert planned.changed and not planned.edits
    machine.ticks = 10**12
    done = work(machine)
    assert done.changed and done.reloaded and not done.edits
    assert [one.check for one in done.findings if one.check == "nginx.workers.older"]
    assert not work(machine).changed


def test_pending_changes_of_others_are_told(machine, tmp_path):
    (tmp_path / "other.conf").write_text("server { listen 81; server_name c.test; }\n")
    machine.config.write_text(machine.config.read_text().replace("http {", f"http {{ include {tmp_path}/other.conf;"))
    for pid in machine.serving():
        machine.end(pid)
    machine.ticks = 100
    machine.workers(100)
    done = work(machine)
    (finding,) = [one for one in done.findings if one.check == "nginx.pending_change"]
    assert finding.severity == "warning" and "other.conf" in finding.message


def test_a_file_that_someone_else_changes_meanwhile_is_left_to_them(machine, monkeypatch):
    kept = files.backup

    def backup(path):
        machine.config.write_text(machine.config.read_text() + "# mine\n")
        return kept(path)

    monkeypatch.setattr(files, "backup", backup)
    with pytest.raises(limit.LimitError, match="changed by someone else meanwhile"):
        work(machine)
    assert machine.config.read_text().endswith("# mine\n") and "50m" not in machine.config.read_text()


def test_nginx_does_not_run(machine):
    machine.end(100)
    # the program is found on the path where nginx is not installed: name it
    done = work(machine, executable="/usr/sbin/nginx", config=str(machine.config), probe=True)
    assert done.changed and not done.reloaded and done.proof is None
    assert [one.check for one in done.findings if one.severity == "warning"] == ["nginx.not_running"]
    with pytest.raises(limit.LimitError, match="does not run") as caught:
        work(machine, executable="/usr/sbin/nginx", config=str(machine.config), require_running=True)
    assert caught.value.details["refused"]


def test_probe_urls_expect_the_limit_of_the_server_that_answers(machine):
    asked = []

    def asker(one, size, timeout):
        asked.append((one.address, one.port, one.host, one.path, one.tls, size))
        return 413 if size > 50 << 20 else 100

    work(machine, probe_urls=[limit.ProbeUrl("http://127.0.0.1:8080/x", "a.test")], asker=asker)
    assert asked == [("127.0.0.1", 8080, "a.test", "/x", False, (50 << 20) + delta) for delta in (-1, 1)]
    with pytest.raises(limit.LimitError, match="is not an http or https URL"):
        work(machine, probe_urls=[limit.ProbeUrl("ftp://127.0.0.1/")])


def test_an_address_that_this_host_does_not_have_is_passed_over(machine, tmp_path):
    machine.config.write_text(machine.config.read_text().replace("listen 80;", "listen 80; listen [::]:80;"))

    def asker(one, size, timeout):
        if one.address == "::1":
            raise probe.NoAddress("no such address")
        return 413 if size > 50 << 20 else 100

    done = work(machine, probe=True, asker=asker)
    assert len(done.proof["probe"]) == 2
    assert [one.severity for one in done.findings if one.check == "nginx.probe.skipped"] == ["info"]

    def none(one, size, timeout):
        raise probe.NoAddress("no such address")

    with pytest.raises(limit.LimitError, match="none of the addresses"):
        work(machine, probe=True, asker=none)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server { listen 80; server_name ~^a; }", "not one host name"),
        ("server { listen 80 http2; server_name a.test; }", "does not speak HTTP/1.1"),
        ("server { listen 80; server_name a.test; error_page 413 =200 /sorry; }", "another status"),
    ],
)
def test_what_cannot_be_probed_is_told(machine, text, reason):
    machine.config.write_text("http { " + text + " }")
    name = "~^a" if "~" in text else "a.test"
    done = work(machine, asks=[Ask(name, limit="50m"), Ask(name, limit="50m")], probe=True, check_mode=True)
    assert reason in next(one.message for one in done.findings if one.check == "nginx.probe.skipped")


def test_why_uploads_may_still_fail(machine, tmp_path):
    told = Circumstances(10 * 1024, 20 << 20, str(tmp_path / "missing"), "nobody")
    checks = {one.check: one for one in work(machine, check_mode=True, told=told).findings}
    assert checks["application.limit"].severity == "warning"
    assert checks["application.upload_directory.missing"].severity == "critical"
    assert checks["nginx.client_body_timeout"].limit == 5120.0
    assert checks["nginx.proxy_read_timeout"].observed == 60.0
    assert "408" in checks["nginx.client_body_timeout"].message and "504" in checks["nginx.proxy_read_timeout"].message
    assert checks["nginx.upload_limit"].severity == "ok"
