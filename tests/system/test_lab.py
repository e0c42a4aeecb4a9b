# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself: what the other tests stand on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORKLOG, LOWCODE = "worklog.example.test", "lowcode.example.test"
SECOND = "labtest"
call = functools.partial(subprocess.run, check=False, capture_output=True, text=True, timeout=180)
LAB_PROGRAM = Path(__file__).resolve().parents[1] / "lab" / "lab.py"
UNITS = {
    "lb1": ["nginx"], "lb2": ["haproxy"], "db1": ["mariadb", "redis-server", "ferretdb"],
    "app1": ["worklog-api", "pm2-lowcode"], "app2": ["worklog-api", "pm2-lowcode"], "ops1": [],
}  # fmt: skip


@pytest.mark.parametrize("node", UNITS)
def test_every_node_is_well(lab: Any, node: str) -> None:
    assert lab.exec(node, ["systemctl", "is-system-running"]).stdout.strip() == "running"
    for unit in UNITS[node]:
        assert lab.exec(node, ["systemctl", "is-active", unit]).stdout.strip() == "active"


def test_one_application_node_runs_debian_13(lab: Any) -> None:
    releases = {node: lab.read(node, "/etc/os-release") for node in UNITS}
    assert {node for node, text in releases.items() if 'VERSION_ID="13"' in text} == {"app2"}
    assert all('VERSION_ID="12"' in text for node, text in releases.items() if node != "app2")


@pytest.mark.parametrize("balancer", ["lb1", "lb2"])
@pytest.mark.parametrize(("host", "version"), [(WORKLOG, "1.0.0"), (LOWCODE, "2.3.0")])
def test_both_applications_answer_on_both_nodes_through_each_balancer(
    lab: Any, balancer: str, host: str, version: str
) -> None:
    limit = time.monotonic() + 120  # a node that was just started again is trusted after a health check or two
    while True:
        answers = [json.loads(lab.request(balancer, 80, "/health", host=host)[1]) for _unused in range(6)]
        if (nodes := {answer["node"] for answer in answers}) == {"app1", "app2"}:
            break
        assert time.monotonic() < limit, nodes
        time.sleep(0.5)
    assert all(answer["ready"] and answer["version"] == version for answer in answers)


@pytest.mark.parametrize(
    ("host", "limit", "status"),
    [
        (WORKLOG, 10 << 20, 201),
        (WORKLOG, (10 << 20) + 1, 413),
        (LOWCODE, 20 << 20, 201),
        (LOWCODE, (20 << 20) + 1, 413),
    ],
)
def test_nginx_limits_uploads_by_site(lab: Any, host: str, limit: int, status: int) -> None:
    lab.exec("ops1", ["dd", "if=/dev/zero", "of=/tmp/body", f"bs={limit}", "count=1", "status=none"])
    argv = ["curl", "--silent", "--data-binary", "@/tmp/body", "--header", f"Host: {host}", "http://lb1/upload"]
    answer = lab.exec("ops1", [*argv, "--write-out", "\n%{http_code}"]).stdout.rpartition("\n")
    assert answer[2] == str(status), answer
    if status == 201:
        stored = json.loads(answer[0])
        assert stored == {"size": limit, "sha256": hashlib.sha256(bytes(limit)).hexdigest()}


@pytest.mark.parametrize(("port", "host"), [(8080, WORKLOG), (3002, LOWCODE)])
def test_applications_store_form_uploads_and_have_a_limit_of_their_own(lab: Any, port: int, host: str) -> None:
    content = b"line one\r\n--not the boundary\r\n\r\n" + bytes(range(256)) * 400
    body = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--frontier--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=frontier"}
    status, answer = lab.request("app2", port, "/upload", method="POST", body=body, headers=headers)
    assert (status, json.loads(answer)) == (201, {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    argv = ["curl", "--silent", "--request", "POST", "--header", "Content-Length: 52428801", "--max-time", "10"]
    answer = lab.exec("app2", [*argv, "--write-out", "%{http_code}", f"http://127.0.0.1:{port}/upload"], check=False)
    assert answer.stdout.endswith("413"), answer


def test_records_are_written_and_read_through_the_cache(lab: Any) -> None:
    before = json.loads(lab.request("app1", 8080, "/api/records")[1])["count"]
    assert before >= 600
    status, _unused = lab.request("app1", 8080, "/api/records", method="POST", body=b'{"title": "t", "minutes": "5"}')
    assert status == 201
    assert json.loads(lab.request("app2", 8080, "/api/records")[1])["count"] == before + 1
    assert json.loads(lab.request("app1", 8080, "/api/records")[1])["cached"] is True
    documents = json.loads(lab.request("app1", 3002, "/api/records")[1])["count"]
    assert documents >= 400
    assert lab.request("app2", 3002, "/api/records", method="POST", body=b'{"title": "t"}')[0] == 201
    assert json.loads(lab.request("app1", 3002, "/api/records")[1])["count"] == documents + 1


def test_the_backup_host_can_dump_every_database(lab: Any, restore: Any) -> None:
    restore.path("ops1", "/tmp/dump")
    lab.exec("ops1", ["mongodump", "--quiet", "--host", "db1", "--out", "/tmp/dump"])
    metadata = json.loads(lab.read("ops1", "/tmp/dump/worklog/work_records.metadata.json"))
    assert {index["name"] for index in metadata["indexes"]} >= {"_id_", "status_1_createdAt_-1"}
    documents = lab.exec("ops1", ["bsondump", "--quiet", "/tmp/dump/worklog/work_records.bson"]).stdout.splitlines()
    assert len(documents) >= 400
    dump = lab.exec("ops1", ["mariadb-dump", "--single-transaction", "--routines", "--databases", "worklog"]).stdout
    assert "-- Dump completed" in dump
    assert all(word in dump for word in ("CREATE TABLE `records`", "TRIGGER", "PROCEDURE", "VIEW", "🛠", "李雷"))
    assert lab.exec("ops1", ["redis-cli", "-h", "db1", "--rdb", "/tmp/dump/dump.rdb"]).returncode == 0
    assert lab.exec("ops1", ["head", "--bytes", "5", "/tmp/dump/dump.rdb"]).stdout == "REDIS"


SWITCHES = [("app1", 8080, "/srv/worklog/shared/switches.json"), ("app2", 3002, "/srv/lowcode/shared/switches.json")]


def restart(lab: Any, node: str, port: int) -> None:
    if port == 8080:
        lab.exec(node, ["systemctl", "restart", "worklog-api"])
    else:
        lab.exec(node, ["sudo", "-u", "lowcode", "-H", "pm2", "restart", "lowcode-platform"])


@pytest.mark.parametrize(("node", "port", "path"), SWITCHES)
def test_switches_make_an_application_misbehave(lab: Any, restore: Any, node: str, port: int, path: str) -> None:
    restore.path(node, path)
    lab.write(node, path, '{"error_rate": 1, "hold": 0.7}')
    begin = time.monotonic()
    assert lab.request(node, port, "/whoami")[0] == 500
    assert time.monotonic() - begin > 0.7
    assert lab.request(node, port, "/health")[0] == 200
    if port == 3002:
        assert "慢请求" in lab.read(node, "/srv/lowcode/current/logs/combined.log")
        lab.exec(node, ["rm", path])
        assert json.loads(lab.request(node, port, "/api/stats")[1])["slowRequests"] >= 1
    lab.write(node, path, '{"start_delay": 2}')
    begin = time.monotonic()
    restart(lab, node, port)
    lab.wait_for(node, port)
    assert time.monotonic() - begin > 2


@pytest.mark.parametrize(("node", "port", "link", "bad"), [
    ("app2", 8080, "/srv/worklog/current", "releases/1.2.0"), ("app1", 3002, "/srv/lowcode/current", "releases/2.5.0"),
])  # fmt: skip
def test_the_bad_release_comes_up_and_crashes(
    lab: Any, restore: Any, node: str, port: int, link: str, bad: str
) -> None:
    good = lab.exec(node, ["readlink", link]).stdout.strip()
    lab.exec(node, ["ln", "-sfn", bad, link])
    try:
        restart(lab, node, port)
        assert json.loads(lab.wait_for(node, port))["version"] == bad.partition("/")[2]
        limit = time.monotonic() + 120
        restarts = 0
        while restarts < 1 and time.monotonic() < limit:
            time.sleep(0.5)
            if port == 8080:
                counter = ["systemctl", "show", "worklog-api", "-p", "NRestarts", "--value"]
                restarts = int(lab.exec(node, counter).stdout)
            else:
                listing = lab.exec(node, ["sudo", "-u", "lowcode", "-H", "pm2", "jlist"]).stdout
                restarts = int(json.loads(listing[listing.index("[{") :])[0]["pm2_env"]["restart_time"])
        assert restarts >= 1
    finally:
        lab.exec(node, ["ln", "-sfn", good, link])
        restart(lab, node, port)
        lab.exec(node, ["systemctl", "reset-failed"])
        lab.wait_for(node, port)


@pytest.mark.parametrize(("node", "port", "config", "test"), [
    ("app1", 8080, "/etc/worklog/worklog-api.json", ["python3", "/srv/worklog/current/server.py", "--check"]),
    ("app1", 3002, "/srv/lowcode/shared/.env", ["nodejs", "/srv/lowcode/current/server.js", "--check"]),
])  # fmt: skip
def test_applications_test_their_configuration(
    lab: Any, restore: Any, node: str, port: int, config: str, test: list[str]
) -> None:
    restore.path(node, config)
    assert "configuration is fine" in lab.exec(node, test).stdout
    lab.write(node, config, '{"port": "eighty"}\nPORT=eighty\n')
    refused = lab.exec(node, test, check=False)
    assert refused.returncode == 78
    assert "configuration error" in refused.stderr
    assert lab.request(node, port, "/health")[0] == 200


@pytest.mark.parametrize("port", [8080, 3002])
def test_a_request_under_way_survives_a_stop(lab: Any, port: int) -> None:
    argv = ["docker", "exec", lab.container("app1"), "curl", "--silent", f"http://127.0.0.1:{port}/hold?seconds=3"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as held:
        time.sleep(1)
        restart(lab, "app1", port)
        answer, _unused = held.communicate(timeout=120)
    assert json.loads(answer)["node"] == "app1"
    lab.wait_for("app1", port)


ROTATION = """
- hosts: app1
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: "{{ inventory_dir }}/../../tests/lab/rotation/out_of_service.yml"
    # Not graceful at all: whoever still talks to the node notices.
    - ansible.builtin.command: {argv: [systemctl, kill, --signal=KILL, worklog-api]}
    - ansible.builtin.command: {argv: [pkill, --signal, KILL, --full, /srv/lowcode/current/server.js]}
    - ansible.builtin.uri: {url: "http://127.0.0.1:{{ item }}/health"}
      register: answer
      until: answer is success
      retries: 30
      delay: 1
      loop: "{{ lab_application_ports }}"
    - ansible.builtin.include_tasks: "{{ inventory_dir }}/../../tests/lab/rotation/into_service.yml"
"""


def test_the_short_way_of_tests_into_a_node_is_like_that_of_docker(lab: Any) -> None:
    look = ["sh", "-c", "env | sort; pwd; id; umask; grep ^Cap /proc/self/status; ps -o args= -p 1"]
    argv = lab.command("app1", look, LAB_SAYS="as it is told")
    assert "nsenter" in argv or os.geteuid(), argv
    told = ["docker", "exec", "--interactive", "--env", "LAB_SAYS=as it is told", lab.container("app1"), *look]
    assert call(argv).stdout == call(told).stdout
    assert lab.command("nowhere", look)[:2] == ["docker", "exec"]


@pytest.mark.capability("A4")
def test_no_request_is_lost_while_a_node_is_out_of_service(lab: Any, tmp_path: Path) -> None:
    playbook = tmp_path / "rotation.yml"
    playbook.write_text(ROTATION, encoding="utf-8")
    clients = []
    with contextlib.ExitStack() as stack:
        for balancer in ("lb1", "lb2"):
            for host in (WORKLOG, LOWCODE):
                client = lab.strict_client(f"http://{balancer}/hold?seconds=0.2", host=host, rate=20, connections=8)
                clients.append(stack.enter_context(client))
        done = lab.playbook(playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    for client in clients:
        assert client.result["failed"] == 0, client.result["messages"]
        assert set(client.result["nodes"]) == {"app1", "app2"}, client.result
        assert client.result["requests"] > 20


def test_the_strict_client_counts_what_is_lost(lab: Any) -> None:
    """Without the balancers' help a restart costs requests: the judge must see it."""
    with lab.strict_client("http://app1:8080/whoami", host=WORKLOG, rate=100) as client:
        lab.exec("app1", ["systemctl", "kill", "--signal=KILL", "worklog-api"])
        lab.wait_for("app1", 8080)
    assert client.result["failed"] > 0
    assert client.result["longest_gap"] > 0.5
    assert client.result["requests"] == client.result["ok"] + client.result["failed"]


@pytest.fixture
def second(lab: Any) -> Iterator[str]:
    """The prefix of a second copy, removed at the end."""
    lab.program("down", "--prefix", SECOND)
    yield SECOND
    lab.program("down", "--prefix", SECOND)


def ids(prefix: str) -> set[str]:
    argv = ["docker", "ps", "--quiet", "--filter", f"label=worklog.lab.prefix={prefix}"]
    return set(call(argv).stdout.split())


def test_a_second_copy_is_interrupted_resumed_and_removed(lab: Any, second: str) -> None:
    """Beside the first: it can be interrupted at any moment and run again, and `down` removes it and nothing else."""
    first = ids(lab.prefix)
    up = [sys.executable, str(LAB_PROGRAM), "up", "--prefix", second, "--nodes", "db1,app1,lb1"]
    for seconds in (0.6, 1.2, 1.8):
        with subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _unused, err = process.communicate(timeout=120)
        if process.returncode == 0 and seconds > 1:
            break  # what the interrupted ones had started was enough to come to the end
        assert process.returncode == 130, err
        assert "run the same command again" in err
    stranger = f"{second}-stranger"
    image = lab.status()["ops1"]["image"]
    run = ["docker", "run", "--detach", "--name", stranger, "--network", f"{second}-lab", image, "sleep", "300"]
    try:
        done = call(up)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {node: item["state"] for node, item in lab.status(second).items()} == dict.fromkeys(
            ["app1", "db1", "lb1"], "running"
        )
        whoami = [
            "docker",
            "exec",
            f"{second}-lb1",
            "curl",
            "--silent",
            "--header",
            f"Host: {WORKLOG}",
            "http://lb1/whoami",
        ]
        assert '"app1"' in call(whoami).stdout
        before = ids(second)
        again = call(up)
        assert "started nothing" in again.stdout, again.stdout
        assert ids(second) == before

        run[run.index("--network") + 1] = "none"
        call(run)
        down = lab.program("down", "--prefix", second)
        assert down.returncode == 0, down.stderr
        assert ids(second) == set()
        networks = call(["docker", "network", "ls", "--format", "{{.Name}}"])
        assert f"{second}-lab" not in networks.stdout.split()
        names = call(["docker", "ps", "--format", "{{.Names}}"])
        assert stranger in names.stdout.split()
    finally:
        call(["docker", "rm", "--force", stranger])
    assert ids(lab.prefix) == first


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["up", "--nodes", "app9"], "there is no node 'app9'"),
        (["up", "--prefix", "Bad-Prefix"], "a prefix is a lower-case letter"),
        (["exec", "app1"], "which command?"),
    ],
)
def test_mistakes_get_one_clear_sentence(lab: Any, argv: list[str], words: str) -> None:
    done = lab.program(*argv)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_engine_it_says_what_to_type(lab: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}
    done = call([sys.executable, str(LAB_PROGRAM), "up"], env=environment)
    assert done.returncode == 1
    assert "systemctl start docker" in done.stderr
    done = call([sys.executable, str(LAB_PROGRAM), "up"], env={"PATH": str(tmp_path)})
    assert "apt-get install docker.io" in done.stderr
