# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_restart on real units, PM2 processes and containers: every promise with its failure path."""

from __future__ import annotations

import concurrent.futures
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROTATION = ROOT / "tests" / "lab" / "rotation"
INTO, OUT = str(ROTATION / "into_service.yml"), str(ROTATION / "out_of_service.yml")
pytestmark = [pytest.mark.capability("F4")]

# A service that behaves as its configuration file says. It is what a careless developer might write.
SCRATCH = r"""
import json, os, signal, socket, sys, threading, time, http.server
config = json.load(open(sys.argv[1]))
if config.get("refuse"):
    sys.exit("configuration error: " + config["refuse"])
print("starting", flush=True)
time.sleep(config.get("delay", 0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(config.get("status", 200)); self.end_headers()
        self.wfile.write(json.dumps({"version": config.get("version")}).encode())
    def log_message(self, *_): pass
http.server.HTTPServer.allow_reuse_address = True
server = http.server.HTTPServer(("127.0.0.1", config.get("port", 7001)), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready to serve", flush=True)
if os.environ.get("NOTIFY_SOCKET") and not config.get("mute"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1\nSTATUS=serving 7 clients", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(config.get("crash_after", 86400))
if config.get("eat"):
    hoard = []
    while True: hoard.append(bytearray(1 << 20))
if config.get("signal"):
    os.kill(os.getpid(), config["signal"])
print(config.get("last_words", "giving up"), file=sys.stderr, flush=True)
os._exit(config.get("exit", 1))
"""
UNIT = """[Unit]
StartLimitIntervalSec=60
StartLimitBurst={burst}
[Service]
Type={type}
ExecStart=/usr/bin/python3 -B /opt/scratch/service.py /opt/scratch/{config}.json
TimeoutStopSec=5
{more}
"""


def module(lab: Any, node: str, *options: str, **arguments: Any) -> dict[str, Any]:
    """Call the module and return its result, which always has a sentence and findings."""
    result: dict[str, Any] = lab.module(node, "service_restart", *options, **arguments)
    assert "msg" in result and "findings" in result, result
    return result


def finding(result: dict[str, Any], check: str) -> dict[str, Any]:
    found = [entry for entry in result["findings"] if entry["check"] == check]
    assert found, f"no {check} in {result['findings']}"
    return found[-1]


class Scratch:
    """Units of our own on ops1."""

    node = "ops1"

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.units: list[str] = []

    def unit(
        self, name: str, *, type: str = "simple", more: str = "", burst: int = 50, file: str = "", **config: Any
    ) -> None:
        """Write a unit and its configuration, and start it on a good one."""
        stem = name.rpartition(".")[0] or name
        self.configure(stem, **config)
        self.lab.write(
            self.node, file or f"/etc/systemd/system/{stem}.service",
            UNIT.format(type=type, config=stem, more=more, burst=burst),
        )  # fmt: skip
        self.units.append(f"{stem}.service")
        self.lab.exec(self.node, ["systemctl", "daemon-reload"])

    def configure(self, stem: str, **config: Any) -> None:
        self.lab.write(self.node, f"/opt/scratch/{stem}.json", json.dumps(config))

    def start(self, name: str) -> int:
        self.lab.exec(self.node, ["systemctl", "start", name])
        self.until(name, "active")
        return self.pid(name)

    def until(self, name: str, state: str, port: int = 7001) -> None:
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            if self.lab.exec(self.node, ["systemctl", "is-active", name], check=False).stdout.strip() == state:
                probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
                if state != "active" or not self.lab.exec(
                    self.node, ["python3", "-c", probe], check=False
                ).returncode:  # fmt: skip
                    return
            time.sleep(0.2)
        raise AssertionError(f"{name} is not {state}")

    def pid(self, name: str) -> int:
        return int(self.lab.exec(self.node, ["systemctl", "show", name, "--property=MainPID", "--value"]).stdout)

    def call(self, name: str, *options: str, **arguments: Any) -> dict[str, Any]:
        arguments = {"watch": 0, "timeout": 20, **arguments}
        return module(self.lab, self.node, *options, name=name, **arguments)

    def remove(self) -> None:
        for unit in self.units:
            self.lab.exec(self.node, ["systemctl", "unmask", unit], check=False)
            self.lab.exec(self.node, ["systemctl", "stop", unit], check=False)
            self.lab.exec(self.node, ["systemctl", "reset-failed", unit], check=False)
            stem = unit.rpartition(".")[0]
            self.lab.exec(self.node, ["rm", "-f", f"/etc/systemd/system/{unit}", f"/opt/scratch/{stem}.json"])
        self.units.clear()
        self.lab.exec(self.node, ["systemctl", "daemon-reload"])


@pytest.fixture(scope="module")
def machine(lab: Any) -> Iterator[Scratch]:
    scratch = Scratch(lab)
    lab.exec("ops1", ["mkdir", "-p", "/opt/scratch"])
    lab.write("ops1", "/opt/scratch/service.py", SCRATCH)
    yield scratch
    lab.exec("ops1", ["rm", "-rf", "/opt/scratch"])


@pytest.fixture
def scratch(machine: Scratch) -> Iterator[Scratch]:
    yield machine
    machine.remove()


URL = "http://127.0.0.1:7001/"


# Before


def test_a_masked_unit_is_refused(scratch: Scratch) -> None:
    scratch.lab.exec("ops1", ["systemctl", "mask", "scratch-masked.service"])
    scratch.units.append("scratch-masked.service")
    result = scratch.call("scratch-masked")
    assert result["failed"] and result["refused"] and not result["changed"]
    assert "is masked" in result["msg"] and "systemctl unmask scratch-masked.service" in result["msg"]


def test_a_missing_unit_is_refused_with_the_nearest_name(scratch: Scratch) -> None:
    result = scratch.call("redis-sever", manager="systemd")
    assert result["refused"] and "did you mean redis-server.service" in result["msg"]
    assert "does not exist" in scratch.call("redis-sever")["msg"]  # manager: auto


def test_a_oneshot_unit_is_refused(scratch: Scratch) -> None:
    scratch.unit("scratch", type="oneshot")
    assert "oneshot" in scratch.call("scratch")["msg"]


def test_a_unit_file_that_systemd_cannot_load_is_refused(scratch: Scratch) -> None:
    scratch.unit("scratch", more="ExecStart=/bin/true")
    result = scratch.call("scratch")
    assert result["refused"] and "cannot be loaded" in result["msg"]


MISSING: list[tuple[dict[str, Any], str, str]] = [
    ({"dependencies": ["tcp://127.0.0.1:9"]}, "service.dependency", "connection refused"),
    ({"dependencies": ["http://127.0.0.1:7001/", "http://127.0.0.1:9/"]}, "service.dependency", "does not answer"),
    ({"dependencies": ["unix:///run/no.sock"]}, "service.dependency", "no such file"),
    ({"dependencies": ["unit:mariadb"]}, "service.dependency", "it is inactive (dead)"),
    ({"dependencies": ["unit:no-such"]}, "service.dependency", "it does not exist"),
    ({"disk_free": {"/var": "9000T"}}, "service.disk", "are needed to start"),
    ({"disk_free": {"/no/such": "1K"}}, "service.disk", "cannot be told"),
    ({"memory_available": "9000G"}, "service.memory", "are needed to start"),
    ({"config_test": ["false"]}, "service.configuration", "fails its test"),
    ({"config_test": ["python3", "-c", "exit('line 7: bad')"]}, "service.configuration", "line 7: bad"),
    ({"config_test": ["no-such-program"]}, "service.configuration", "is not installed"),
    ({"state": "reloaded"}, "service.reload", "cannot be reloaded"),
    ({"fallback_files": {"/opt/scratch/scratch.json": "/no/copy"}}, "", "/no/copy"),
    ({"fallback_links": {"/opt/scratch": "x"}}, "", "not a symbolic link"),
    ({"ready": ["127.0.0.1:80"]}, "", "write it as"),
    ({"http_body": "("}, "", "not a regular expression"),
]


def test_what_is_missing_is_named_and_nothing_is_touched(running: int, machine: Scratch) -> None:
    for arguments, check, words in MISSING:
        result = machine.call("scratch", **arguments)
        assert result["failed"] and result["refused"] and not result["changed"], arguments
        assert result["msg"].startswith("nothing was touched") and words in result["msg"], result["msg"]
        if check:
            assert finding(result, check)["severity"] == "critical" and finding(result, check)["advice"]
    assert machine.pid("scratch") == running


@pytest.fixture
def running(scratch: Scratch) -> int:
    scratch.unit("scratch")
    return scratch.start("scratch")


def test_a_foreign_process_on_the_port_is_named_with_its_unit(scratch: Scratch) -> None:
    scratch.unit("scratch-squatter", port=7001)
    squatter = scratch.start("scratch-squatter")
    scratch.unit("scratch")
    result = scratch.call("scratch", ports=[7001])
    assert result["refused"]
    assert f"port 7001 is held by process {squatter} (/usr/bin/python3 -B /opt/scratch/service.py" in result["msg"]
    assert "of unit scratch-squatter.service" in result["msg"]
    assert "systemctl stop scratch-squatter.service" in finding(result, "service.port")["advice"]
    # and without a unit
    scratch.lab.exec("ops1", ["systemctl", "stop", "scratch-squatter"])
    server = "exec python3 -m http.server 7001 > /dev/null 2>&1"
    scratch.lab.exec("ops1", ["systemd-run", "--scope", "--quiet", "setsid", "--fork", "sh", "-c", server])
    try:
        time.sleep(1)
        assert "(python3 -m http.server 7001)" in scratch.call("scratch", ports=[7001])["msg"]
    finally:
        scratch.lab.exec("ops1", ["pkill", "-f", "http.server 7001"])


def test_the_port_of_the_service_itself_is_no_obstacle(scratch: Scratch, running: int) -> None:
    result = scratch.call("scratch", ports=[7001], ready=[URL])
    assert not result["failed"] and result["pids_before"] == [running] != result["pids_after"]


def test_the_port_held_under_another_account_is_recognised(lab: Any) -> None:
    result = module(lab, "app1", "--check", name="worklog-api", ports=[8080])
    assert not result["failed"] and "by unit worklog-api.service itself" in finding(result, "service.port")["message"]


BROKEN = {
    "nginx": ("lb1", "nginx", "/etc/nginx/conf.d/zz-broken.conf", "sevrer {}", "unknown directive"),
    "haproxy": ("lb2", "haproxy", "/etc/haproxy/haproxy.cfg", "sevrer x", "unknown keyword"),
    "sshd": ("ops1", "ssh", "/etc/ssh/sshd_config.d/zz.conf", "PortWrong 22", "Bad configuration option"),
    "mariadb": ("db1", "mariadb", "/etc/mysql/mariadb.conf.d/zz.cnf", "[mariadbd]\nno_such_thing=1", "no_such_thing"),
    "redis": ("db1", "redis-server", "/etc/redis/redis.conf", "no-such-thing yes", "no-such-thing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_is_refused_by_the_servers_own_test(lab: Any, restore: Any, name: str) -> None:
    node, unit, path, line, words = BROKEN[name]
    if name == "sshd":
        restore.run(node, ["systemctl", "stop", "ssh"])
        restore.path(node, "/etc/ssh/ssh_host_ed25519_key")
        lab.exec(node, ["ssh-keygen", "-A"])
        lab.exec(node, ["systemctl", "start", "ssh"])
    show = ["systemctl", "show", unit, "--property=MainPID", "--value"]
    before = lab.exec(node, show).stdout
    good = module(lab, node, "--check", name=unit, config_test=[name])
    assert not good["failed"] and finding(good, "service.configuration")["severity"] == "ok"
    restore.path(node, path)
    content = lab.exec(node, ["cat", path], check=False).stdout
    lab.write(node, path, content + "\n" + line + "\n")
    result = module(lab, node, name=unit, config_test=[name])
    assert result["refused"] and words in result["msg"], result["msg"]
    assert lab.exec(node, show).stdout == before
    assert result["serving"] is True


def test_a_configuration_test_whose_program_is_missing_says_so(scratch: Scratch, running: int) -> None:
    assert "'apache2ctl' is not installed" in scratch.call("scratch", config_test="apache")["msg"]


# After


def test_a_restart_measures_downtime_and_names_the_processes(scratch: Scratch, running: int) -> None:
    scratch.configure("scratch", delay=1.5)
    result = scratch.call("scratch", ready=[URL], timeout=15, watch=1)
    assert not result["failed"] and result["changed"] and result["operation"] == "restart" and result["serving"]
    assert result["pids_before"] == [running] and result["pids_after"] == [scratch.pid("scratch")] != [running]
    assert 1.5 <= result["downtime_seconds"] < 6 and result["start_seconds"] >= 1.5 and result["restarts"] == 0
    assert str(running) in result["diff"]["before"] and str(running) not in result["diff"]["after"]


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        ({"delay": 30}, {"ready": [URL]}, "connection refused"),
        ({"status": 503}, {"ready": [URL]}, "HTTP 503"),
        ({"version": 1}, {"ready": [URL], "http_body": '"version": 2'}, "does not match"),
        ({}, {"ready": ["tcp://127.0.0.1:7002"]}, "connection refused"),
        ({}, {"ready": ["unix:///run/none.sock"]}, "no such file"),
        ({}, {"ready_log": "never said"}, "no line of its log matches"),
        ({}, {"ready_status": "serving"}, "does not match 'serving'"),
    ],
)
def test_what_is_not_ready_in_time_has_failed(
    scratch: Scratch, running: int, config: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    scratch.configure("scratch", **config)
    for seconds in (3, 30):  # a busy machine may take more than three to begin to answer at all
        result = scratch.call("scratch", timeout=seconds, **arguments)
        assert result["failed"] and not result["refused"] and result["changed"]
        assert f"not ready within {seconds} s" in result["msg"]
        if words in result["msg"]:
            break
    assert words in result["msg"]
    assert result["serving"] is False and result["cause"] == "unknown"


def test_every_kind_of_readiness_is_believed(scratch: Scratch) -> None:
    scratch.unit("scratch", type="notify", version=2, delay=1)
    result = scratch.call(
        "scratch", ready=[URL, "tcp://127.0.0.1:7001", "unix:///run/dbus/system_bus_socket"], http_status=[200],
        http_body='"version": 2', ready_log="^ready to serve$", ready_status=r"serving \d+ clients",
    )  # fmt: skip
    assert not result["failed"] and result["operation"] == "start" and result["downtime_seconds"] is None
    assert "did not run before" in finding(result, "service.before")["message"]


def test_activating_is_not_up(scratch: Scratch) -> None:
    scratch.unit("scratch", type="notify", mute=True)
    result = scratch.call("scratch", timeout=3)
    assert result["failed"] and "activating (start)" in result["msg"]
    assert result["state_after"].startswith("activating") and result["serving"] is False


def test_up_for_two_seconds_and_then_dead_is_a_failure(scratch: Scratch) -> None:
    scratch.unit("scratch", crash_after=2, exit=3, last_words="Error: disk image is malformed")
    result = scratch.call("scratch", ready=[URL], watch=8)
    assert result["failed"] and "after it was ready" in result["msg"] and "exit status 3" in result["msg"]
    assert result["exit_status"] == 3 and result["cause"] == "crash" and result["restarts"] == 0
    assert "Error: disk image is malformed" in result["log_tail"]


def test_a_crash_loop_is_counted(scratch: Scratch) -> None:
    scratch.unit("scratch", more="Restart=always\nRestartSec=100ms", crash_after=1)
    result = scratch.call("scratch", watch=8)
    assert result["failed"] and result["serving"] is False
    assert result["restarts"] >= 1 or "auto-restart" in result["msg"]
    assert not scratch.call("scratch", state="stopped")["failed"]
    assert scratch.lab.exec("ops1", ["systemctl", "is-active", "scratch"], check=False).stdout.strip() != "active"


def test_a_call_waits_for_another_one_that_is_at_work_on_the_service(scratch: Scratch) -> None:
    """As for what a dead controller has left running: to each of them the restart of the other would be a crash."""
    scratch.unit("scratch")
    scratch.start("scratch")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(scratch.call, "scratch", watch=3) for _call in range(2)]
        one, other = (call.result() for call in both)
    assert not one["failed"] and not other["failed"], (one, other)
    assert one["pids_after"] == other["pids_before"] or other["pids_after"] == one["pids_before"]


def test_without_room_for_the_lock_nothing_is_touched(scratch: Scratch) -> None:
    scratch.unit("scratch")
    pid = scratch.start("scratch")
    place = "/run/worklog-maintenance"
    scratch.lab.exec("ops1", ["mkdir", "-p", place])
    scratch.lab.exec("ops1", ["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", place])
    try:
        result = scratch.call("scratch")
    finally:
        scratch.lab.exec("ops1", ["umount", place])
    assert result["failed"] and not result["changed"], result
    assert re.search(f"cannot make {place}/.*scratch.*, which keeps other calls out: No space left", result["msg"])
    assert scratch.pid("scratch") == pid


def test_the_signal_that_killed_it_is_named(scratch: Scratch) -> None:
    scratch.unit("scratch", crash_after=1, signal=11)
    result = scratch.call("scratch", watch=6)
    assert result["failed"] and result["exit_signal"] == "SIGSEGV" and result["cause"] == "crash"


def test_an_oom_kill_is_recognised(scratch: Scratch) -> None:
    scratch.unit("scratch", more="MemoryMax=60M\nMemorySwapMax=0", crash_after=1, eat=True)
    result = scratch.call("scratch", watch=10)
    assert result["failed"] and result["oom_killed"] and result["cause"] == "resource"
    assert "OOM kill" in result["msg"]


@pytest.mark.parametrize(
    ("more", "config", "cause"),
    [
        ("User=no-such-account", {}, "configuration"),
        ("WorkingDirectory=/no/such", {}, "configuration"),
        ("", {"refuse": "unknown option 'prot'"}, "configuration"),
        ("", {"port": 22022}, "port"),
        ("User=nobody", {"secret": True}, "permission"),
    ],
)
def test_the_probable_cause_is_told(scratch: Scratch, more: str, config: dict[str, Any], cause: str) -> None:
    if cause == "port":
        scratch.unit("scratch-squatter", port=22022)
        scratch.lab.exec("ops1", ["systemctl", "start", "scratch-squatter"])
        scratch.until("scratch-squatter", "active", 22022)
    scratch.unit("scratch", more=more, **config)
    if cause == "permission":
        scratch.lab.exec("ops1", ["chmod", "600", "/opt/scratch/scratch.json"])
    result = scratch.call("scratch", watch=3)
    assert result["failed"] and result["cause"] == cause, result["log_tail"]
    assert finding(result, "service.cause")["advice"]


def test_the_start_limit_is_told_and_forgotten_on_request(scratch: Scratch) -> None:
    scratch.unit("scratch", burst=2, more="Restart=always\nRestartSec=10ms", refuse="x")
    scratch.lab.exec("ops1", ["systemctl", "start", "scratch"])
    scratch.until("scratch", "failed")
    result = scratch.call("scratch")
    assert result["failed"] and "start limit" in finding(result, "service.failures")["message"]
    scratch.configure("scratch")
    assert scratch.call("scratch")["failed"]  # the cause is gone, the limit is not
    result = scratch.call("scratch", reset_failed=True, ready=[URL])
    assert not result["failed"] and "forgotten" in finding(result, "service.failures")["message"]


def test_the_log_is_left_out_on_request(scratch: Scratch) -> None:
    scratch.unit("scratch", crash_after=0, last_words="password=hunter2 connection refused")
    result = scratch.call("scratch", watch=2, log_lines=0)
    assert result["failed"] and result["log_tail"] == [] and "hunter2" not in json.dumps(result)
    assert result["cause"] == "dependency"


# Putting back


def test_the_previous_configuration_is_put_back(scratch: Scratch) -> None:
    scratch.unit("scratch", version=1)
    scratch.start("scratch")
    scratch.lab.exec("ops1", ["cp", "-p", "/opt/scratch/scratch.json", "/opt/scratch/previous.json"])
    scratch.configure("scratch", version=2, crash_after=1)
    result = scratch.call(
        "scratch", ready=[URL], watch=4, fallback_files={"/opt/scratch/scratch.json": "/opt/scratch/previous.json"}
    )
    assert result["failed"] and result["restored"] and result["serving"] and "runs on that" in result["msg"]
    assert json.loads(scratch.lab.read("ops1", "/opt/scratch/scratch.json")) == {"version": 1}
    assert scratch.lab.exec("ops1", ["systemctl", "is-active", "scratch"]).stdout.strip() == "active"
    assert result["downtime_seconds"] > 0 and result["cause"] == "crash"
    assert result["pids_after"] == [scratch.pid("scratch")]


def test_a_fallback_that_fails_too_is_told(scratch: Scratch) -> None:
    scratch.unit("scratch", refuse="both are bad")
    scratch.lab.exec("ops1", ["cp", "/opt/scratch/scratch.json", "/opt/scratch/previous.json"])
    copies = {"/opt/scratch/scratch.json": "/opt/scratch/previous.json"}
    result = scratch.call("scratch", watch=2, fallback_files=copies)
    assert result["failed"] and not result["restored"] and result["serving"] is False
    assert "does not run on the previous state either" in finding(result, "service.fallback")["message"]


def test_the_previous_release_is_linked_again(lab: Any, restore: Any) -> None:
    restore.restart("app1", "worklog-api")
    restore.path("app1", "/srv/worklog/current")
    lab.exec("app1", ["ln", "-sfn", "releases/1.2.0", "/srv/worklog/current"])  # crashes two seconds after it is up
    result = module(
        lab, "app1", name="worklog-api", ready=["http://127.0.0.1:8080/health"], watch=5, timeout=40,
        fallback_links={"/srv/worklog/current": "releases/1.0.0"},
    )  # fmt: skip
    assert result["failed"] and result["restored"], result["msg"]
    assert lab.exec("app1", ["readlink", "/srv/worklog/current"]).stdout.strip() == "releases/1.0.0"
    assert json.loads(lab.wait_for("app1", 8080))["version"] == "1.0.0"


# Reload, start, stop, check


def test_a_reload_is_proven_by_new_workers(lab: Any) -> None:
    result = module(lab, "lb1", name="nginx", state="reloaded", config_test="nginx", ready=["http://127.0.0.1/lb-health"],
                    watch=1)  # fmt: skip
    assert not result["failed"] and result["operation"] == "reload" and result["pids_before"] == result["pids_after"]
    assert result["downtime_seconds"] == 0
    result = module(lab, "lb2", name="haproxy", state="reload_or_restarted", config_test="haproxy", watch=1)
    assert not result["failed"] and result["operation"] == "reload"


def test_a_reload_without_effect_is_a_failure(lab: Any, restore: Any) -> None:
    # nginx returns 0 for a reload that cannot bind a new address, and goes on with the old configuration
    lab.exec("lb1", ["systemd-run", "--unit=squatter", "--quiet", "python3", "-m", "http.server", "7009"])
    restore.run("lb1", ["systemctl", "stop", "squatter"])
    restore.run("lb1", ["systemctl", "reload", "nginx"])
    restore.path("lb1", "/etc/nginx/conf.d/zz.conf")
    lab.write("lb1", "/etc/nginx/conf.d/zz.conf", "server { listen 7009; }\n")
    time.sleep(1)
    result = module(lab, "lb1", name="nginx", state="reloaded", ready=["http://127.0.0.1/lb-health"])
    assert result["failed"] and "had no effect" in result["msg"] and result["cause"] == "port"
    assert result["serving"] is True and result["downtime_seconds"] == 0


def test_started_and_stopped_act_only_when_needed(scratch: Scratch) -> None:
    scratch.unit("scratch")
    changed = [
        scratch.call("scratch", state=state, ready=[URL])["changed"]
        for state in ("started", "started", "stopped", "stopped")
    ]
    assert changed == [True, False, True, False]
    assert "nothing to reload" in scratch.call("scratch", state="reloaded")["msg"]


def test_check_mode_looks_at_everything_and_touches_nothing(scratch: Scratch, running: int) -> None:
    result = scratch.call("scratch", "--check", ports=[7001], dependencies=[URL.replace("http", "tcp").rstrip("/")])
    assert not result["failed"] and result["changed"] and result["msg"] == "would restart unit scratch.service"
    assert {entry["severity"] for entry in result["findings"]} == {"ok"} and scratch.pid("scratch") == running
    result = scratch.call("scratch", "--check", dependencies=["tcp://127.0.0.1:9"])
    assert result["refused"]


# Other units


def test_a_unit_of_a_template(scratch: Scratch) -> None:
    scratch.unit("scratch@two", file="/etc/systemd/system/scratch@.service")
    scratch.units.append("scratch@.service")
    scratch.lab.exec("ops1", ["systemctl", "start", "scratch@two"])
    scratch.until("scratch@two", "active")
    result = scratch.call("scratch@two", ready=[URL])
    assert not result["failed"] and result["operation"] == "restart" and len(result["pids_after"]) == 1


def test_a_unit_of_a_user(scratch: Scratch) -> None:
    lab = scratch.lab
    lab.exec("ops1", ["useradd", "--create-home", "scratcher"])
    try:
        refused = scratch.call("scratch", user="scratcher", manager="systemd")
        assert "loginctl enable-linger scratcher" in refused["msg"]
        uid = lab.exec("ops1", ["id", "-u", "scratcher"]).stdout.strip()
        directory = "/home/scratcher/.config/systemd/user"
        lab.exec("ops1", ["install", "-d", "-o", "scratcher", directory])
        scratch.configure("scratch", crash_after=86400)
        unit = UNIT.format(type="notify", config="scratch", more="", burst=9)
        lab.write("ops1", f"{directory}/scratch.service", unit)
        # what pam_systemd would do
        lab.exec("ops1", ["install", "-d", "-o", "scratcher", "-m", "700", f"/run/user/{uid}"])
        lab.exec("ops1", ["mkdir", "-p", f"/run/systemd/system/user@{uid}.service.d"])
        environment = f"[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/{uid}\n"
        lab.write("ops1", f"/run/systemd/system/user@{uid}.service.d/scratch.conf", environment)
        lab.exec("ops1", ["systemctl", "daemon-reload"])
        lab.exec("ops1", ["systemctl", "start", f"user@{uid}.service"])
        result = scratch.call("scratch", user="scratcher", manager="systemd", ready=[URL], ready_status="serving")
        assert not result["failed"], result
        scratch.configure("scratch", crash_after=2, exit=9, last_words="out of ideas")
        result = scratch.call("scratch", user="scratcher", manager="systemd", ready=[URL], watch=6)
        assert result["failed"] and result["exit_status"] == 9 and "out of ideas" in result["log_tail"]
        lab.exec("ops1", ["systemctl", "stop", f"user@{uid}.service"])
    finally:
        lab.exec("ops1", ["systemctl", "stop", "user.slice"], check=False)
        lab.exec("ops1", ["find", "/run/systemd/system", "-name", "user@*.service.d", "-exec", "rm", "-r", "{}", "+"])
        lab.exec("ops1", ["userdel", "--remove", "scratcher"], check=False)
        lab.exec("ops1", ["rm", "-f", "/opt/scratch/scratch.json"])


# PM2

APP = r"""
const http = require('http')
const server = http.createServer((request, response) => response.end('ok'))
setTimeout(() => server.listen(Number(process.env.PORT), () => {
  console.log('listening')
  if (process.send && !process.env.MUTE) process.send('ready')
}), Number(process.env.DELAY || 0))
if (process.env.CRASH_AFTER) setTimeout(() => {
  console.error('Error: connect ECONNREFUSED 10.0.0.9:5432')
  process.exit(7)
}, Number(process.env.CRASH_AFTER))
// a cluster's master never closes a connection that it gave to a process which ended before it answered: wait for those
process.on('SIGINT', () => server.close(() => setTimeout(() => process.exit(0), 500)))
"""


class Platform:
    """PM2 of an account of its own on app2."""

    user, home = "scratcher", "/home/scratcher/pm2-home"

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    def define(self, name: str, **options: Any) -> str:
        path = f"/home/scratcher/{name}.config.js"
        app = {"name": name, "script": "/home/scratcher/app.js", **options}
        self.lab.write("app2", path, f"module.exports = {json.dumps({'apps': [app]})}\n")
        return path

    def call(self, name: str, *options: str, **arguments: Any) -> dict[str, Any]:
        arguments = {"watch": 0, "timeout": 40, "manager": "pm2", "user": self.user, "pm2_home": self.home, **arguments}
        return module(self.lab, "app2", *options, name=name, **arguments)

    def pm2(self, *argv: str) -> str:
        environment = ["env", f"PM2_HOME={self.home}", "HOME=/home/scratcher"]
        command = ["runuser", "-u", self.user, "--", *environment, "pm2", *argv]
        return str(self.lab.exec("app2", command, check=False).stdout)


@pytest.fixture(scope="module")
def platform(lab: Any) -> Iterator[Platform]:
    lab.exec("app2", ["useradd", "--create-home", "--shell", "/bin/bash", "scratcher"])
    lab.write("app2", "/home/scratcher/app.js", APP)
    found = Platform(lab)
    yield found
    found.pm2("kill")
    lab.exec("app2", ["userdel", "--remove", "scratcher"], check=False)


def test_pm2_that_does_not_run_is_not_started_by_looking(platform: Platform) -> None:
    result = platform.call("nothing")
    assert result["refused"] and "PM2 of user scratcher does not run" in result["msg"]
    assert platform.lab.exec("app2", ["test", "-e", f"{platform.home}/pm2.pid"], check=False).returncode
    assert "no account 'nobody-here'" in platform.call("x", user="nobody-here")["msg"]
    assert "ecosystem file /no/such.js" in platform.call("x", pm2_ecosystem="/no/such.js")["msg"]


def test_pm2_starts_what_an_ecosystem_file_defines(platform: Platform) -> None:
    path = platform.define("fork", wait_ready=True, listen_timeout=20000, env={"PORT": 7101, "DELAY": 500})
    ready = ["http://127.0.0.1:7101/"]
    result = platform.call("fork", pm2_ecosystem=path, ready=ready)
    assert not result["failed"] and result["operation"] == "start" and len(result["pids_after"]) == 1, result
    result = platform.call("fork", ready=ready, ports=[7101], watch=2)
    assert not result["failed"] and result["operation"] == "restart" and result["downtime_seconds"] > 0.4
    assert result["pids_before"] != result["pids_after"] and result["restarts"] == 0
    assert platform.call("fork", state="started", ready=ready)["changed"] is False
    missing = platform.call("frok")
    assert "did you mean fork" in missing["msg"] and missing["refused"]
    undefined = platform.call("other", pm2_ecosystem=path)
    assert undefined["failed"] and "does not define a process named 'other'" in undefined["msg"]


def test_pm2_online_without_its_ready_message_is_not_ready(platform: Platform) -> None:
    path = platform.define("mute", wait_ready=True, listen_timeout=1000, env={"PORT": 7102, "MUTE": "1"})
    result = platform.call("mute", pm2_ecosystem=path, timeout=8)
    assert result["failed"] and "has not sent its 'ready' message" in result["msg"]
    assert result["state_after"] == "online" and result["serving"] is False
    platform.pm2("delete", "mute")


def test_pm2_follows_every_instance_of_a_cluster(platform: Platform) -> None:
    path = platform.define("cluster", exec_mode="cluster", instances=2, env={"PORT": 7103})
    ready = ["http://127.0.0.1:7103/"]
    started = platform.call("cluster", pm2_ecosystem=path, ready=ready)
    assert not started["failed"] and len(started["pids_after"]) == 2, started
    result = platform.call("cluster", state="reloaded", ready=ready, ports=[7103], watch=2)
    assert not result["failed"] and result["downtime_seconds"] == 0 and result["state_after"] == "2 online"
    assert not set(result["pids_before"]) & set(result["pids_after"]) and len(result["pids_after"]) == 2
    assert platform.call("cluster", state="stopped")["state_after"] == "2 stopped"
    assert platform.call("cluster", state="stopped")["changed"] is False
    platform.pm2("delete", "cluster")


def test_pm2_crashes_are_counted_and_explained(platform: Platform) -> None:
    path = platform.define("crash", env={"PORT": 7104, "CRASH_AFTER": 1500}, min_uptime=9000, max_restarts=2)
    result = platform.call("crash", pm2_ecosystem=path, watch=8)
    assert result["failed"] and result["exit_status"] == 7 and result["cause"] == "dependency", result
    assert any("ECONNREFUSED 10.0.0.9:5432" in line for line in result["log_tail"])
    assert result["restarts"] >= 1 or "errored" in result["msg"]
    limit = time.monotonic() + 120
    while "errored" not in platform.pm2("jlist") and time.monotonic() < limit:
        time.sleep(1)
    # a process that PM2 has given up is started again when told to
    path = platform.define("crash", env={"PORT": 7104, "CRASH_AFTER": ""})
    healed = platform.call("crash", pm2_ecosystem=path, ready=["http://127.0.0.1:7104/"], watch=2)
    assert not healed["failed"] and healed["state_before"] == "errored", healed
    platform.pm2("delete", "crash")


def test_the_low_code_platform_of_the_lab(lab: Any) -> None:
    result = module(
        lab, "app1", name="lowcode-platform", manager="pm2", user="lowcode", ready=["http://127.0.0.1:3002/health"],
        ports=[3002], config_test=["node", "/srv/lowcode/current/server.js", "--check"], watch=2,
    )  # fmt: skip
    assert not result["failed"] and result["downtime_seconds"] is not None


# Docker: a container of this machine's engine, reached by the engine alone


@pytest.fixture
def container(lab: Any) -> Iterator[Callable[..., str]]:
    name = f"{lab.prefix}-restart-test"

    def create(program: str, *options: str) -> str:
        image = lab.status()["ops1"]["image"]
        command = ["docker", "run", "--detach", "--name", name, "--label", "worklog.test=service_restart", "--init",
                   "--network=none", *options, image, "python3", "-uc", program]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return name

    yield create
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True, timeout=60)


def docker(lab: Any, name: str, *options: str, **arguments: Any) -> dict[str, Any]:
    arguments = {"watch": 0, "timeout": 30, "manager": "docker", **arguments}
    return module(lab, "localhost", *options, name=name, **arguments)


def test_a_container_with_a_health_check(lab: Any, container: Callable[..., str]) -> None:
    sick = "test -e /tmp/well"
    name = container(
        "import time, os; time.sleep(2); open('/tmp/well', 'w'); print('up'); time.sleep(600)",
        f"--health-cmd={sick}", "--health-interval=1s",
    )  # fmt: skip
    result = docker(lab, name, watch=2)
    assert not result["failed"] and result["state_after"] == "running (healthy)", result
    assert result["pids_before"] != result["pids_after"]
    assert docker(lab, name, state="started")["changed"] is False
    assert docker(lab, name, state="stopped")["state_after"] == "exited"
    assert "did you mean" in docker(lab, name + "x")["msg"]


def test_a_container_that_never_gets_healthy_or_crashes(lab: Any, container: Callable[..., str]) -> None:
    name = container("import time; print('up'); time.sleep(600)", "--health-cmd=false", "--health-interval=1s")
    result = docker(lab, name, timeout=6)
    assert result["failed"] and "does not call it ready" in result["msg"] and result["serving"] is False


def test_a_container_that_crashes_is_counted(lab: Any, container: Callable[..., str]) -> None:
    name = container("import time, sys; time.sleep(2); sys.exit('KeyError: \\'DATABASE_URL\\'')", "--restart=always")
    result = docker(lab, name, watch=10)
    assert result["failed"] and result["cause"] == "configuration", result
    assert any("DATABASE_URL" in line for line in result["log_tail"])


def test_a_container_killed_for_memory(lab: Any, container: Callable[..., str]) -> None:
    name = container("import time; time.sleep(2); x = bytearray(900 << 20)", "--memory=64m", "--memory-swap=64m")
    result = docker(lab, name, watch=8)
    assert result["failed"] and result["oom_killed"] and result["cause"] == "resource", result


def test_a_container_is_reloaded_by_a_signal(lab: Any, container: Callable[..., str]) -> None:
    name = container(
        "import signal, time\nsignal.signal(signal.SIGHUP, lambda *_: print('configuration read'))\n"
        "print('up')\nfor _ in range(600): time.sleep(1)"
    )
    time.sleep(2)
    result = docker(lab, name, state="reloaded", ready_log="configuration read", timeout=10)
    assert not result["failed"] and result["pids_before"] == result["pids_after"], result


# The rolling restart

API = {
    "service_restart_name": "worklog-api", "service_restart_ready": "http://127.0.0.1:8080/health",
    "service_restart_ports": "8080", "service_restart_dependencies": "tcp://db1:3306,tcp://db1:6379",
    "service_restart_watch": "1", "service_restart_pre_tasks": OUT, "service_restart_post_tasks": INTO,
}  # fmt: skip


def restart(lab: Any, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = lab.playbook(
        "worklog.maintenance.restart", *options, "-e", json.dumps({**API, **variables}), timeout=400
    )
    return done


def pids(lab: Any) -> list[str]:
    show = ["systemctl", "show", "worklog-api", "--property=MainPID", "--value"]
    return [lab.exec(node, show).stdout.strip() for node in ("app1", "app2")]


def in_rotation(lab: Any) -> set[str]:
    drained = lab.exec("lb1", ["ls", "/var/lib/lab-rotation"], check=False).stdout.split()
    return {"app1", "app2"} - {name.partition(".")[0] for name in drained}


def test_a_rolling_restart_loses_no_request(lab: Any) -> None:
    before = pids(lab)
    with lab.strict_client("http://lb2/whoami", host="worklog.example.test", seconds=150, rate=50) as client:
        done = restart(lab)
    assert done.returncode == 0, done.stdout
    assert client.result["failed"] == 0 and client.result["requests"] > 500, client.result
    assert not set(before) & set(pids(lab)) and in_rotation(lab) == {"app1", "app2"}
    last = json.loads(lab.exec("app2", ["tail", "-n", "1", "/var/log/worklog-maintenance/records.jsonl"]).stdout)
    assert (last["what"], last["result"], last["subject"]) == ("restart", "ok", "worklog-api")
    assert last["downtime_seconds"] > 0 and last["host"] == "app2"


def test_a_node_that_fails_stops_the_roll_and_stays_out(lab: Any, restore: Any) -> None:
    restore.run("lb1", ["rm", "-f", "/var/lib/lab-rotation/app1.drain"])
    restore.restart("app1", "worklog-api")
    restore.path("app1", "/srv/worklog/current")
    before = pids(lab)
    lab.exec("app1", ["ln", "-sfn", "releases/1.2.0", "/srv/worklog/current"])
    done = restart(lab, service_restart_watch=4)
    assert done.returncode != 0
    assert "app1 was not put back into service" in done.stdout and in_rotation(lab) == {"app2"}
    assert pids(lab)[1] == before[1]
    last = json.loads(lab.exec("app1", ["tail", "-n", "1", "/var/log/worklog-maintenance/records.jsonl"]).stdout)
    assert last["result"] == "failed" and last["findings"][-1]["check"] == "service.rotation"
    # put right, it is started and goes back
    lab.exec("app1", ["ln", "-sfn", "releases/1.0.0", "/srv/worklog/current"])
    done = restart(lab, "-e", "target=app1", service_restart_state="started", service_restart_watch=0)
    assert in_rotation(lab) == {"app1", "app2"}, done.stdout


def test_a_refused_restart_puts_the_node_back_untouched(lab: Any) -> None:
    before = pids(lab)
    done = restart(lab, service_restart_dependencies="tcp://db1:9")
    assert done.returncode != 0 and "nothing was touched: the dependency tcp://db1:9" in done.stdout
    assert pids(lab) == before and in_rotation(lab) == {"app1", "app2"}
    last = json.loads(lab.exec("app1", ["tail", "-n", "1", "/var/log/worklog-maintenance/records.jsonl"]).stdout)
    assert last["result"] == "refused"


def test_failures_are_tolerated_up_to_a_number(lab: Any, restore: Any) -> None:
    before = pids(lab)
    restore.run("app2", ["rm", "-f", "/etc/worklog/app2-only"])
    lab.exec("app2", ["touch", "/etc/worklog/app2-only"])
    test = ["test", "-e", "/etc/worklog/app2-only"]
    done = restart(lab, service_restart_config_test=test, service_restart_max_failures=1)
    assert done.returncode != 0 and "failed on app1" in done.stdout
    assert pids(lab)[0] == before[0] and pids(lab)[1] != before[1]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"target": "web"}, "target: no host of the inventory matches 'web'"),
        ({"service_restart_state": "restart"}, "value of service_restart_state must be one of"),
        ({"service_restart_nmae": "x"}, "no variable 'service_restart_nmae'; did you mean 'service_restart_name'"),
        ({"service_restart_watch": "long"}, "service_restart_watch"),
        ({"service_restart_pre_tasks": "/no/such.yml"}, "/no/such.yml"),
    ],
)
def test_wrong_input_gives_one_sentence_before_anything_is_touched(
    lab: Any, variables: dict[str, Any], words: str
) -> None:
    before = pids(lab)
    done = restart(lab, **variables)
    assert done.returncode != 0 and words in done.stdout
    assert pids(lab) == before and in_rotation(lab) == {"app1", "app2"}
