# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers as Prometheus 2.42 of Debian 12 gave them (fixtures/prometheus).

Three rounds of the same queries about itself, of which the first found no request yet and the third three that failed;
then the special ones, the last two with a wrong account and a wrong path.
"""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Observation, SourceError
from ansible_collections.worklog.maintenance.plugins.module_utils.release.http import Call, HttpError, Reply
from ansible_collections.worklog.maintenance.plugins.module_utils.release.prometheus import PrometheusSource

TRANSCRIPT = json.loads((Path(__file__).parent / "fixtures/prometheus/transcript.json").read_text(encoding="utf-8"))
REQUESTS = 'sum(prometheus_http_requests_total{handler="/api/v1/query"})'
ERRORS = 'sum(prometheus_http_requests_total{handler="/api/v1/query", code=~"[45].."})'
NO_ERRORS = 'sum(prometheus_http_requests_total{handler="/api/v1/query", code="599"})'


class Server:
    """Answers as written down."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.answers = {answer["query"]: answer for answer in answers}
        self.calls: list[Call] = []

    def __call__(self, call: Call, limit: float) -> Reply:
        self.calls.append(call)
        (query,) = urllib.parse.parse_qs((call.body or b"").decode())["query"]
        answer = self.answers[query]
        return Reply(answer["status"], answer["body"], 0.01)


def rounds(requests: str, errors: str, order: tuple[int, ...] = (0, 1, 2)) -> tuple[list[Observation], int]:
    server = Server([])
    source = PrometheusSource("http://p:9090/", {"candidate": {"requests": requests, "errors": errors}}, sender=server)
    seen = []
    for index, number in enumerate(order):
        server.answers = {answer["query"]: answer for answer in TRANSCRIPT["rounds"][number]}
        if index == 0:
            source.begin()
        else:
            seen.append(source.poll())
    return seen, source.resets


def counts(seen: list[Observation]) -> list[tuple[int, int]]:
    return [(one.candidate.requests, one.candidate.errors) for one in seen]


def test_counters_are_followed_from_when_they_are_there() -> None:
    assert counts(rounds(REQUESTS, f"{ERRORS} or vector(0)")[0]) == [(0, 0), (15, 3)]


def test_a_counter_that_is_missing_is_no_data_and_not_zero() -> None:
    assert counts(rounds(REQUESTS, NO_ERRORS)[0]) == [(0, 0), (0, 0)]
    assert counts(rounds(REQUESTS, f"{NO_ERRORS} or vector(0)")[0]) == [(0, 0), (15, 0)]


def test_a_counter_that_begins_anew_is_recognised() -> None:
    seen, resets = rounds(REQUESTS, f"{ERRORS} or vector(0)", (2, 1, 2))
    assert counts(seen) == [(12, 0), (15, 3)] and resets == 2  # both counters


def special(query: str) -> float | None:
    return PrometheusSource(
        "http://p:9090", {"candidate": {"value": query}}, sender=Server(TRANSCRIPT["special"][:-2])
    ).query(query)


def test_numbers() -> None:
    assert special("scalar(vector(3))") == 3.0
    assert special("0/0") is None and special("1/0") is None


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("up", r"the query 'up' has 2 results, but one is needed; put sum\(…\) around it"),
        ('"text"', "has a string as its result"),
        ("up[5s]", "has a matrix as its result"),
        ("sum(", r"refuses the query 'sum\(': invalid parameter .* parse error: unclosed left parenthesis"),
    ],
)
def test_a_query_that_is_no_number_is_refused(query: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        special(query)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (TRANSCRIPT["special"][-2], "answers 401, so it does not accept the token; give bearer_token_file"),
        (TRANSCRIPT["special"][-1], "answers 404, and not as Prometheus does; is its address"),
        ({"query": "up", "status": 200, "body": "<html>"}, "not as Prometheus does"),
        ({"query": "up", "status": 200, "body": "[]"}, "not as Prometheus does"),
        ({"query": "up", "status": 200, "body": '{"status":"success"}'}, "has a None as its result"),
        (
            {"query": "up", "status": 200, "body": '{"status":"success","data":{"resultType":"vector","result":[{}]}}'},
            "is no number",
        ),
    ],
)
def test_a_server_that_refuses_or_is_another_is_said(answer: dict[str, Any], words: str) -> None:
    source = PrometheusSource("http://p:9090", {"candidate": {"value": "up"}}, sender=Server([answer]))
    with pytest.raises(SourceError, match=words):
        source.begin()


def test_a_server_that_does_not_answer_is_said() -> None:
    def sender(call: Call, limit: float) -> Reply:
        raise HttpError(f"no answer within {limit:g} s")

    source = PrometheusSource("http://p:9090", {"candidate": {"value": "up"}}, patience=3, sender=sender)
    with pytest.raises(SourceError, match="Prometheus http://p:9090 does not answer: no answer within 3 s"):
        source.begin()


def test_levels_and_the_token() -> None:
    server = Server(TRANSCRIPT["special"][:-2])
    sides = {
        "candidate": {"value": "scalar(vector(3))", "latency": "0/0"},
        "baseline": {"value": "0/0", "latency": "1/0"},
    }
    source = PrometheusSource("https://p", sides, "secret", verify=False, sender=server)
    assert source.metrics == {"value", "latency"} and source.has_baseline
    seen = source.poll()
    assert seen.candidate.levels == {"value": 3.0} and seen.baseline.levels == {}
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer secret"}
    assert all(call.url == "https://p/api/v1/query" and not call.verify for call in server.calls)
    assert "secret" not in source.title
