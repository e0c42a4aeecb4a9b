# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options: whatever makes no sense is refused with one sentence, before anything is asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.gate import Outcome
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import (
    LevelThreshold,
    RankMetric,
    RateMetric,
    RateThreshold,
    RelativeRateMetric,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.options import (
    OptionError,
    check_targets,
    check_times,
    make_metrics,
    make_requests,
    make_sources,
)
from ansible_collections.worklog.maintenance.plugins.modules.release_gate import (
    METRIC_SPEC,
    REQUEST_SPEC,
    SOURCE_SPEC,
    work,
)

UPSTREAM = "$status $upstream_addr $request_time"
QUERIES = {"requests": "r", "errors": "e", "latency": "l", "value": "v"}
LB: dict[str, Any] = {"type": "haproxy", "sockets": ["/run/h.sock"], "candidate": ["b/new"], "baseline": ["b/old"]}
LOG: dict[str, Any] = {"type": "access_log", "paths": ["/l"], "format": UPSTREAM, "candidate": ["n"], "baseline": ["o"]}
PROM: dict[str, Any] = {
    "type": "prometheus", "url": "http://p:9090", "candidate_queries": QUERIES, "baseline_queries": QUERIES,
}  # fmt: skip
PROBE: dict[str, Any] = {"type": "probe", "candidate": ["http://n"], "requests": [{"path": "/"}]}


def complete(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What AnsibleModule makes of it."""
    unknown = set(given) - set(spec)
    assert not unknown
    made = {name: given.get(name, options.get("default")) for name, options in spec.items()}
    if "requests" in made:
        made["requests"] = [complete(REQUEST_SPEC, request) for request in made["requests"]]
    return made


def read(path: str) -> str:
    if path == "/none":
        raise FileNotFoundError(2, "No such file or directory", path)
    return {"/token": "secret\n", "/empty": "\n", "/bad": "a\nb"}[path]


def gate(sources: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> list[Any]:
    made = make_sources([complete(SOURCE_SPEC, item) for item in sources], True, read)
    return make_metrics([complete(METRIC_SPEC, item) for item in metrics], made)


@pytest.mark.parametrize(
    ("source", "metric", "kind"),
    [
        (LB, {"metric": "errors"}, RateMetric),
        (LB, {"metric": "errors", "against": "baseline"}, RelativeRateMetric),
        (LB, {"metric": "errors", "test": "threshold", "limit": "2%"}, RateThreshold),
        (LB, {"metric": "latency", "test": "threshold", "limit": "0.5"}, LevelThreshold),
        (LOG, {"metric": "latency"}, RankMetric),
        (PROM, {"metric": "value", "ratio": 1.5}, LevelThreshold),
        ({**PROM, "bearer_token_file": "/token"}, {"metric": "errors", "p0": "0.002", "p1": "2 %"}, RateMetric),
        (PROBE, {"metric": "errors", "name": "x"}, RateMetric),
        ({**LB, "sockets": ["lb2:9999", "[::1]:9999"]}, {"metric": "errors"}, RateMetric),
    ],
)
def test_what_makes_sense_is_made(source: dict[str, Any], metric: dict[str, Any], kind: type) -> None:
    (made,) = gate([source], [metric])
    assert isinstance(made, kind) and made.source == source["type"]
    assert made.name == metric.get("name", metric["metric"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({**LB, "sockets": []}, "source 'haproxy': a source of type haproxy needs sockets"),
        ({**LB, "sockets": ["admin.sock"]}, "'admin.sock' is neither the path of a socket nor host:port"),
        ({**LB, "candidate": None}, "it needs candidate"),
        ({**LB, "baseline": ["b/new"]}, "'b/new' stands for the candidate and for the baseline"),
        ({**LB, "errors": ["499"]}, "HAProxy counts classes of statuses such as 5xx, and not '499'"),
        ({**LB, "errors": ["1xx"]}, "1xx are no answers"),
        ({**LB, "errors": ["6xx"]}, "'6xx' in errors is neither a status such as 499 nor a class"),
        ({**LOG, "paths": None}, "needs paths"),
        ({**LOG, "format": "$upstream_addr"}, "neither $status nor $upstream_status"),
        ({**LOG, "format": "combined"}, "the log format has no $upstream_addr"),
        ({**PROM, "url": None}, "needs url"),
        ({**PROM, "url": "p:9090"}, "'p:9090' is not an address"),
        ({**PROM, "candidate_queries": None}, "needs candidate_queries"),
        ({**PROM, "candidate_queries": {"reqs": "x"}}, "'reqs' in candidate_queries is none of requests, errors"),
        ({**PROM, "candidate_queries": {"errors": "x"}, "baseline_queries": None}, "give both queries"),
        ({**PROM, "baseline_queries": {"value": "x"}}, "must have the same names"),
        ({**PROM, "bearer_token_file": "/none"}, "source 'prometheus': /none: No such file or directory"),
        ({**PROM, "bearer_token_file": "/empty"}, "/empty does not hold a token"),
        ({**PROM, "bearer_token_file": "/bad"}, "/bad does not hold a token"),
        ({**PROM, "timeout": 0.0}, "timeout must be above 0"),
        ({**PROBE, "candidate": ["app2:8080"]}, "'app2:8080' is not an address"),
        ({**PROBE, "requests": []}, "needs requests"),
        ({**PROBE, "requests": [{"path": "health"}]}, "the path of the request 'health' must begin with /"),
        ({**PROBE, "requests": [{"path": "/", "matches": "("}]}, "'matches' of the request '/' is not a regular"),
        ({**PROBE, "requests": [{"path": "/", "max_time": 0}]}, "max_time of the request '/' must be above 0"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(source: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        gate([source], [])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "metric", "words"),
    [
        (LB, {"metric": "errors", "p0": "1%", "p1": "0.1%"}, "metric 'errors': p0 must be above 0, p1 above p0"),
        (LB, {"metric": "errors", "p0": "a"}, "p0 is 'a', but should be a share such as 0.5 or 50%"),
        (LB, {"metric": "errors", "alpha": "1"}, "alpha must be above 0 and below 0.5, but it is 1"),
        (LB, {"metric": "errors", "min_samples": 0}, "min_samples must be 1 or more"),
        (LB, {"metric": "errors", "test": "mann_whitney"}, "the test mann_whitney is not for errors; use sprt or"),
        (LB, {"metric": "errors", "test": "threshold"}, "needs limit, such as 1%"),
        (LB, {"metric": "latency"}, "needs the latency of single requests, which HAProxy /run/h.sock does not know"),
        (LB, {"metric": "latency", "test": "threshold"}, "a threshold needs limit or ratio"),
        (LB, {"metric": "latency", "test": "threshold", "limit": "2s"}, "limit is '2s', but should be a number"),
        (LB, {"metric": "latency", "test": "threshold", "limit": "nan"}, "should be a number"),
        (LB, {"metric": "value", "limit": "1"}, "has no figures for value; it has them for errors, latency"),
        ({**LOG, "format": "$status $upstream_addr"}, {"metric": "latency"}, "has no figures for latency"),
        ({**LB, "baseline": None}, {"metric": "errors", "against": "baseline"}, "was not told where that is"),
        ({**LOG, "baseline": None}, {"metric": "latency"}, "was not told where that is"),
        ({**LOG, "baseline": None}, {"metric": "latency", "test": "threshold", "ratio": 2.0}, "was not told where"),
        (LOG, {"metric": "latency", "effect": 0.4}, "effect must be above 0.5"),
        (LB, {"metric": "errors", "source": "lb"}, "there is no source 'lb'; there is haproxy"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(source: dict[str, Any], metric: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        gate([source], [metric])
    assert words in str(caught.value)


def test_names_tell_several_apart() -> None:
    metrics = gate([LB, LOG], [{"metric": "errors", "source": "haproxy"}, {"metric": "errors", "source": "access_log"}])
    assert [metric.name for metric in metrics] == ["errors of haproxy", "errors of access_log"]
    for sources, asked, words in (
        ([LB, LB], [], "two sources are called 'haproxy'"),
        ([LB, LOG], [{"metric": "errors"}], "say with source which of haproxy, access_log"),
        ([LB], [{"metric": "errors"}, {"metric": "errors"}], "two metrics are called 'errors'"),
        ([LB, LOG], [{"metric": "errors", "source": "haproxy"}], "no metric is about the source 'access_log'"),
    ):
        with pytest.raises(OptionError, match=words):
            gate(sources, asked)


@pytest.mark.parametrize(
    ("duration", "interval"), [(0, 1), (-1, 1), (10, 0), (10, 11), (math.inf, 1), (math.nan, 1), (10, math.nan)]
)
def test_times_that_make_no_sense_are_refused(duration: float, interval: float) -> None:
    with pytest.raises(OptionError, match="must"):
        check_times(duration, interval)


def test_requests_and_targets() -> None:
    given = {"path": "/x", "headers": {"X-Number": 7}, "status": [200, 404], "name": "n"}
    (request,) = make_requests([complete(REQUEST_SPEC, given)], False)
    assert (request.headers, request.statuses, request.title, request.verify) == (
        {"X-Number": "7"},
        (200, 404),
        "n",
        False,
    )
    assert check_targets(["http://a"]) == ["http://a"]
    with pytest.raises(OptionError, match="holds an account"):
        check_targets(["http://u:p@a"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "there is nothing to judge by"),
        ({"targets": ["http://a"]}, "targets and requests belong together"),
        ({"requests": [complete(REQUEST_SPEC, {"path": "/"})]}, "targets and requests belong together"),
        ({"sources": [complete(SOURCE_SPEC, LB)]}, "no metric is about the source 'haproxy'"),
        ({"metrics": [complete(METRIC_SPEC, {"metric": "errors"})]}, "say with source which of none"),
        (
            {
                "sources": [complete(SOURCE_SPEC, LB)],
                "metrics": [complete(METRIC_SPEC, {"metric": "errors"})],
                "duration": 0,
            },
            "duration must be above 0",
        ),
    ],
)
def test_a_gate_without_a_question_is_refused(given: dict[str, Any], words: str) -> None:
    empty: dict[str, Any] = {"targets": [], "requests": [], "sources": [], "metrics": []}
    with pytest.raises(OptionError, match=words):
        work(
            {**empty, "duration": 120.0, "interval": 1.0, "promote_early": False, "validate_certs": True, **given},
            Outcome(),
        )
