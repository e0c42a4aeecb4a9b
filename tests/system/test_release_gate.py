# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""release_gate on real balancers under real traffic: app2 is the candidate, app1 the baseline."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Lab, Restore

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.capability("B3")]
SWITCHES = "/srv/worklog/shared/switches.json"
HOST = "worklog.example.test"
LOG = "/var/log/nginx/gate.log"
LOG_FORMAT = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $upstream_addr $upstream_status '
    '$upstream_response_time "$http_user_agent"'
)
HAPROXY = {
    "type": "haproxy", "sockets": ["/run/haproxy/admin.sock"],
    "candidate": ["worklog_api/app2"], "baseline": ["worklog_api/app1"],
}  # fmt: skip
ERRORS = {"metric": "errors"}
#: Needs few requests, so that a busy machine has them in time.
COARSE = {"metric": "errors", "p0": "1%", "p1": "5%"}


def gate(lab: Lab, node: str, *options: str, **arguments: Any) -> dict[str, Any]:
    """Call the module; it decides and changes nothing."""
    result = lab.module(node, "release_gate", *options, **arguments)
    assert "decision" in result and not result.get("changed"), result
    return result


@contextlib.contextmanager
def watching(lab: Lab, node: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The same while the block runs; the result is there when the block has ended."""
    result: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: result.update(gate(lab, node, **arguments)))
    thread.start()
    try:
        yield result
    finally:
        thread.join()
    assert result, "the gate gave no result"


def until(condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def until_it_watches(lab: Lab, node: str) -> None:
    """Wait until the module runs on the node, and has had the time to begin."""
    find = ["pgrep", "--full", "modules.release_gate"]
    until(lambda: bool(lab.exec(node, find, check=False).stdout), "the module does not run")
    time.sleep(1.5)


@pytest.fixture(scope="module")
def addresses(lab: Lab) -> Iterator[dict[str, Any]]:
    """An access log on lb1 that tells who answered, as a source."""
    conf = "/etc/nginx/conf.d/gate.conf"
    lab.write("lb1", conf, f"log_format gate '{LOG_FORMAT}';\naccess_log {LOG} gate;\n")
    lab.exec("lb1", ["nginx", "-s", "reload"])
    until(lambda: not lab.exec("lb1", ["test", "-e", LOG], check=False).returncode, "nginx does not write the log")
    found = {node: lab.exec("lb1", ["getent", "ahostsv4", node]).stdout.split()[0] for node in ("app1", "app2")}
    yield {
        "type": "access_log", "paths": [LOG], "format": LOG_FORMAT,
        "candidate": [f"{found['app2']}:8080"], "baseline": [f"{found['app1']}:8080"],
    }  # fmt: skip
    lab.exec("lb1", ["rm", "-f", conf])
    lab.exec("lb1", ["nginx", "-s", "reload"])
    lab.exec("lb1", ["rm", "-f", LOG, LOG + ".1", LOG + ".2"])


def misbehave(lab: Lab, restore: Restore, **switches: float) -> None:
    restore.path("app2", SWITCHES)
    lab.write("app2", SWITCHES, json.dumps(switches))


def test_a_candidate_with_20_percent_errors_is_aborted_within_seconds(lab: Lab, restore: Restore) -> None:
    misbehave(lab, restore, error_rate=0.2)
    with lab.strict_client("http://lb2/whoami", host=HOST, rate=20):
        result = gate(lab, "lb2", duration=60, sources=[HAPROXY], metrics=[ERRORS])
    (metric,) = result["metrics"]
    print(f"20 % errors at 10 requests/s: {result['decision']} after {result['seconds']} s: {metric['reason']}")
    assert result["decision"] == "abort" and result["failed"] and result["seconds"] < 15
    assert "which speaks for 1 % and not 0.1 %" in result["msg"]
    assert metric["baseline_samples"] and metric["baseline_errors"] == 0
    assert [entry["severity"] for entry in result["findings"]] == ["critical"]


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["run", "check mode"])
def test_a_healthy_candidate_is_promoted_and_the_requests_are_counted_right(lab: Lab, options: tuple[str]) -> None:
    metrics = [ERRORS, {"metric": "errors", "name": "against the baseline", "against": "baseline"}]
    with lab.strict_client("http://lb2/whoami", host=HOST, rate=200) as client:
        result = gate(lab, "lb2", *options, duration=60, promote_early=True, sources=[HAPROXY], metrics=metrics)
    assert result["decision"] == "promote" and not result["failed"], result["msg"]
    fixed, relative = result["metrics"]
    assert fixed["candidate_errors"] == relative["baseline_errors"] == 0
    assert fixed["samples_needed"] <= fixed["candidate_samples"] <= client.result["requests"] / 2 + 1
    assert result["seconds"] < 60
    assert abs(fixed["candidate_samples"] - relative["baseline_samples"]) <= 5
    assert client.result["failed"] == 0


def test_no_traffic_is_hold_and_fails_unless_the_play_wants_to_look_itself(lab: Lab) -> None:
    given = {"duration": 2, "sources": [HAPROXY], "metrics": [ERRORS]}
    result = gate(lab, "lb2", **given)
    assert result["failed"] and result["msg"] == "hold: errors: no request of the candidate was seen"
    result = gate(lab, "lb2", **given, fail_on=["abort"])
    assert not result["failed"] and result["decision"] == "hold"


def test_too_little_traffic_is_hold_with_the_number_that_is_needed(lab: Lab) -> None:
    with lab.strict_client("http://lb2/whoami", host=HOST, rate=20):
        result = gate(lab, "lb2", duration=3, sources=[HAPROXY], metrics=[ERRORS])
    assert result["decision"] == "hold" and "332 requests without a further error are needed" in result["msg"]
    assert result["metrics"][0]["samples_needed"] == 332


def test_haproxy_is_reloaded_in_the_middle(lab: Lab) -> None:
    with (
        lab.strict_client("http://lb2/whoami", host=HOST, rate=160) as client,
        watching(lab, "lb2", duration=6, sources=[HAPROXY], metrics=[COARSE]) as result,
    ):
        until_it_watches(lab, "lb2")
        lab.exec("lb2", ["systemctl", "reload", "haproxy"])
    assert result["decision"] == "promote", result["msg"]
    (source,), (metric,) = result["sources"], result["metrics"]
    assert source["resets"] == 1 and metric["candidate_errors"] == 0
    # what the old process counted after the last look is lost, at most a second of six
    expected = client.result["requests"] / client.result["seconds"] / 2 * result["seconds"]
    assert 0.6 * expected <= metric["candidate_samples"] <= 1.2 * expected


def test_a_candidate_that_haproxy_calls_down_is_aborted(lab: Lab, restore: Restore) -> None:
    restore.run("app2", ["systemctl", "start", "worklog-api"])
    with (
        lab.strict_client("http://lb2/whoami", host=HOST, rate=20),
        watching(lab, "lb2", duration=30, sources=[HAPROXY], metrics=[ERRORS]) as result,
    ):
        until_it_watches(lab, "lb2")
        lab.exec("app2", ["systemctl", "kill", "--signal=KILL", "worklog-api"])
        lab.exec("app2", ["systemctl", "stop", "worklog-api"])
    assert result["decision"] == "abort" and result["seconds"] < 15, result["msg"]
    assert "worklog_api/app2 is DOWN" in result["msg"] or "requests of the candidate failed" in result["msg"]
    lab.exec("app2", ["systemctl", "start", "worklog-api"])
    lab.wait_for("app2", 8080)


def test_a_slow_candidate_is_aborted_by_ranks(lab: Lab, restore: Restore, addresses: dict[str, Any]) -> None:
    misbehave(lab, restore, hold=0.1)
    metrics = [ERRORS, {"metric": "latency"}]
    with lab.strict_client("http://lb1/whoami", host=HOST, rate=40, connections=8):
        result = gate(lab, "lb1", duration=30, sources=[addresses], metrics=metrics)
    errors, latency = result["metrics"]
    print(f"100 ms slower at 20 requests/s: {result['decision']} after {result['seconds']} s: {latency['reason']}")
    assert (result["decision"], latency["decision"], errors["decision"]) == ("abort", "abort", "hold")
    assert latency["candidate_value"] > 0.1 > latency["baseline_value"] and result["seconds"] < 15


def test_every_request_is_read_from_a_log_that_is_rotated_twice(lab: Lab, addresses: dict[str, Any]) -> None:
    with watching(
        lab, "lb1", duration=15, sources=[addresses], metrics=[COARSE, {"metric": "latency", "effect": 0.75}]
    ) as result:
        until_it_watches(lab, "lb1")
        with lab.strict_client("http://lb1/whoami", host=HOST, rate=160) as client:
            time.sleep(1)
            lab.exec("lb1", ["mv", LOG, LOG + ".1"])  # as logrotate does
            time.sleep(0.5)
            lab.exec("lb1", ["nginx", "-s", "reopen"])
            time.sleep(1)
            lab.exec("lb1", ["mv", LOG, LOG + ".2"])
            lab.exec("lb1", ["nginx", "-s", "reopen"])
            time.sleep(1)
        assert not result, "the watch was over before the client was"
    errors, _latency = result["metrics"]
    (source,) = result["sources"]
    assert source["rotations"] == 2 and source["unreadable"] == 0
    # every request was seen, and seen once
    assert errors["candidate_samples"] + errors["baseline_samples"] == client.result["requests"]
    assert client.result["failed"] == 0 and result["decision"] == "promote", result["msg"]


def test_a_log_that_is_truncated_and_written_to_by_attackers_is_read_on(lab: Lab, addresses: dict[str, Any]) -> None:
    program = (
        "import socket\n"
        "for agent in (b'\\xff\\xfe\\x00\\x01', b'\\\" 500 10.0.0.1:8080 500', b'a' * 7000, b'\\\\', b'\\x1b[31m'):\n"
        "    s = socket.create_connection(('lb1', 80))\n"
        "    s.sendall(b'GET /whoami?\\xff\\\" HTTP/1.1\\r\\nHost: worklog.example.test\\r\\nConnection: close\\r\\n"
        "Authorization: Basic YSBbYl0gIiA1MDAgOng=\\r\\nUser-Agent: ' + agent + b'\\r\\n\\r\\n')\n"
        "    while s.recv(9999): pass\n"
    )
    with watching(lab, "lb1", duration=6, sources=[addresses], metrics=[ERRORS], fail_on=[]) as result:
        until_it_watches(lab, "lb1")
        with lab.strict_client("http://lb1/whoami", host=HOST, rate=50) as client:
            time.sleep(0.5)
            lab.exec("lb1", ["truncate", "--size=0", LOG])
            lab.exec("ops1", ["python3", "-c", program])
    (metric,), (source,) = result["metrics"], result["sources"]
    assert source["rotations"] == 1 and metric["candidate_errors"] == metric["baseline_errors"] == 0
    assert source["unreadable"] == 5  # the user name has a space and a bracket: data that does not match
    # what was written between the last look and the truncation is lost, at most a second
    assert client.result["requests"] - 60 <= metric["candidate_samples"] + metric["baseline_samples"]


def test_a_wrong_version_is_found_before_it_gets_traffic(lab: Lab) -> None:
    version = json.loads(lab.request("app2", 8080, "/whoami")[1])["version"]
    requests: list[dict[str, Any]] = [
        {"path": "/health", "matches": '"ready": *true', "max_time": 5},
        {"path": "/whoami", "name": "version", "matches": f'"version": *"{version}"'},
        {"path": "/nothing", "status": [404]},
    ]
    good = gate(lab, "lb2", targets=["http://app2:8080"], requests=requests)
    assert good["decision"] == "promote" and [entry["said"] for entry in good["requests"]] == [
        "HTTP 200", "HTTP 200", "HTTP 404",
    ]  # fmt: skip
    requests[1]["matches"] = '"version": *"9.9.9"'
    bad = gate(lab, "lb2", targets=["http://app2:8080"], requests=requests, sources=[HAPROXY], metrics=[ERRORS])
    assert bad["failed"] and bad["decision"] == "abort" and bad["seconds"] == 0 and not bad["metrics"]
    assert bad["msg"].startswith("abort: version on http://app2:8080: HTTP 200, but its body does not match")
    assert len([entry for entry in bad["findings"] if entry["severity"] == "critical"]) == 1


def test_probes_of_its_own_find_errors_without_any_traffic(lab: Lab, restore: Restore) -> None:
    misbehave(lab, restore, error_rate=0.5)
    source = {"type": "probe", "candidate": ["http://app2:8080"], "requests": [{"path": "/whoami"}]}
    result = gate(lab, "lb2", duration=20, interval=0.2, sources=[source], metrics=[ERRORS])
    assert result["decision"] == "abort" and result["seconds"] < 10, result["msg"]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ({"sources": [HAPROXY], "metrics": [ERRORS]}, ("--become-user=www-data",), "set become: true"),
        ({"sources": [{**HAPROXY, "candidate": ["worklog_api/app3"]}], "metrics": [ERRORS]}, (), "has no 'worklog_api"),
        ({"sources": [{**HAPROXY, "sockets": ["/run/none"]}], "metrics": [ERRORS]}, (), "answers at /run/none"),
        ({"sources": [HAPROXY], "metrics": [{**ERRORS, "p0": "2%"}]}, (), "p1 above p0"),
        (
            {"sources": [{"type": "prometheus", "url": "http://127.0.0.1:9", "candidate_queries": {"value": "up"}}],
             "metrics": [{"metric": "value", "limit": "1"}]}, (), "does not answer: connection refused",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_before_anything_is_watched(
    lab: Lab, arguments: dict[str, Any], options: tuple[str, ...], words: str
) -> None:
    result = gate(lab, "lb2", *options, **arguments)
    assert result["failed"] and result["decision"] == "hold" and result["seconds"] == 0
    assert result["msg"].startswith("nothing was watched: ") and words in result["msg"]
