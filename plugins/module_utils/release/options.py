# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes sources, metrics and requests of what was given; all of it is checked before anything is asked."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.release.access_log import AccessLogSource, Format
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    BASELINE,
    CANDIDATE,
    Source,
    listing,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.haproxy import HaproxySource
from ansible_collections.worklog.maintenance.plugins.module_utils.release.http import check_url
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import (
    IN_A_ROW,
    LevelThreshold,
    Metric,
    RankMetric,
    RateMetric,
    RateThreshold,
    RelativeRateMetric,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import ProbeSource, Request
from ansible_collections.worklog.maintenance.plugins.module_utils.release.prometheus import (
    EXPRESSIONS,
    PrometheusSource,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.units import share

#: What a request may have, for the argument specifications of modules.
REQUEST_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "path": {"type": "str", "required": True},
    "method": {"type": "str", "default": "GET"},
    "headers": {"type": "dict", "no_log": True},
    "body": {"type": "str", "no_log": True},
    "status": {"type": "list", "elements": "int", "default": []},
    "matches": {"type": "str"},
    "max_time": {"type": "float", "default": 5},
}
#: Which tests suit a metric; the first is the default.
TESTS = {"errors": ("sprt", "threshold"), "latency": ("mann_whitney", "threshold"), "value": ("threshold",)}
#: Fewest samples of a decision, by the test.
LEAST = {"sprt": 100, "threshold": 100, "mann_whitney": 20}

_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")


class OptionError(ValueError):
    """Options that make no sense; the message is one sentence that says which."""


def make_requests(given: Sequence[Mapping[str, Any]], verify: bool) -> list[Request]:
    """Return the requests to send.

    :raises OptionError: when one of them cannot be sent.
    """
    made = []
    for item in given:
        title = item["name"] or item["path"]
        if not item["path"].startswith("/"):
            raise OptionError(f"the path of the request '{title}' must begin with /, but it is '{item['path']}'")
        try:
            re.compile(item["matches"] or "")
        except re.error as error:
            raise OptionError(f"'matches' of the request '{title}' is not a regular expression: {error}") from error
        _positive(f"max_time of the request '{title}'", item["max_time"])
        made.append(
            Request(
                item["path"],
                item["method"],
                {name: str(value) for name, value in (item["headers"] or {}).items()},
                item["body"] or "",
                tuple(item["status"]),
                item["matches"] or "",
                item["max_time"],
                item["name"] or "",
                verify,
            )
        )
    return made


def check_targets(targets: Sequence[str]) -> Sequence[str]:
    """Return addresses of servers.

    :raises OptionError: when one is none.
    """
    try:
        return [check_url(target) for target in targets]
    except ValueError as error:
        raise OptionError(str(error)) from error


def check_times(duration: float, interval: float) -> None:
    """Refuse times that make no sense.

    :raises OptionError: with one sentence.
    """
    _positive("duration", duration)
    _positive("interval", interval)
    if interval > duration:
        raise OptionError(f"interval ({interval:g} s) must not be longer than duration ({duration:g} s)")


def make_sources(given: Sequence[Mapping[str, Any]], verify: bool, read: Callable[[str], str]) -> dict[str, Source]:
    """Return the sources by name.

    :param read: reads a file, for the bearer token.
    :raises OptionError: when one is described wrongly.
    """
    made: dict[str, Source] = {}
    for item in given:
        name = item["name"] or item["type"]
        if name in made:
            raise OptionError(f"two sources are called '{name}'; give each a name of its own")
        try:
            made[name] = _MAKERS[item["type"]](item, verify, read)
        except ValueError as error:
            raise OptionError(f"source '{name}': {error}") from error
        except OSError as error:
            raise OptionError(f"source '{name}': {error.filename}: {error.strerror}") from error
    return made


def make_metrics(given: Sequence[Mapping[str, Any]], sources: Mapping[str, Source]) -> list[Metric]:
    """Return the metrics.

    :raises OptionError: when one is described wrongly or its source has no figures for it.
    """
    made: list[Metric] = []
    names = set()
    for item in given:
        kind = item["metric"]
        source = item["source"] or (next(iter(sources)) if len(sources) == 1 else "")
        name = item["name"] or (f"{kind} of {source}" if len(sources) > 1 else kind)
        if not source:
            raise OptionError(f"metric '{name}': say with source which of {listing(list(sources))} it is about")
        if source not in sources:
            raise OptionError(f"metric '{name}': there is no source '{source}'; there is {listing(list(sources))}")
        test = item["test"] or TESTS[kind][0]
        if test not in TESTS[kind]:
            raise OptionError(f"metric '{name}': the test {test} is not for {kind}; use {' or '.join(TESTS[kind])}")
        if name in names:
            raise OptionError(f"two metrics are called '{name}'; give each a name of its own")
        names.add(name)
        try:
            _check_source(sources[source], item, test)
            made.append(_metric(name, item, source, sources[source], test))
        except ValueError as error:
            raise OptionError(f"metric '{name}': {error}") from error
    unused = sorted(set(sources) - {metric.source for metric in made})
    if unused:
        raise OptionError(f"no metric is about the source '{unused[0]}'")
    return made


def _check_source(source: Source, item: Mapping[str, Any], test: str) -> None:
    kind = item["metric"]
    if kind not in source.metrics:
        raise ValueError(f"{source.title} has no figures for {kind}; it has them for {listing(sorted(source.metrics))}")
    if test == "mann_whitney" and not source.single_latencies:
        raise ValueError(
            f"mann_whitney needs the latency of single requests, which {source.title} does not know; use an access "
            "log, or the test threshold"
        )
    relative = test == "mann_whitney" or item["ratio"] is not None or item["against"] == "baseline"
    if relative and not source.has_baseline:
        raise ValueError(f"it is compared with a baseline, but {source.title} was not told where that is")


def _metric(name: str, item: Mapping[str, Any], at: str, source: Source, test: str) -> Metric:
    least = item["min_samples"]
    if least is not None and least < 1:
        raise ValueError(f"min_samples must be 1 or more, but it is {least}")
    counted = "errors" in source.metrics and item["metric"] != "value"
    if least is None:
        least = LEAST[test] if counted else IN_A_ROW
    alpha, beta = _share(item, "alpha"), _share(item, "beta")
    if test == "sprt":
        kind = RelativeRateMetric if item["against"] == "baseline" else RateMetric
        return kind(name, at, _share(item, "p0"), _share(item, "p1"), alpha, beta, least)
    if test == "mann_whitney":
        tolerance = (item["slower_ratio"], item["slower_seconds"])
        return RankMetric(name, at, *tolerance, item["effect"], alpha, beta, least, random.Random(least))
    if item["metric"] == "errors":
        if item["limit"] is None:
            raise ValueError("a threshold of errors needs limit, such as 1%")
        return RateThreshold(name, at, _share(item, "limit"), least, beta)
    limit = None if item["limit"] is None else _number(item["limit"])
    single = source.single_latencies and item["metric"] == "latency"
    levels = (limit, item["ratio"], item["quantile"])
    return LevelThreshold(name, item["metric"], at, *levels, least, counted, single, random.Random(least))


def _share(item: Mapping[str, Any], option: str) -> float:
    try:
        return share(item[option])
    except ValueError as error:
        raise ValueError(f"{option} is '{item[option]}', but should be {error}") from error


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"limit is '{value}', but should be a number")
    return number


def _positive(what: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise OptionError(f"{what} must be above 0, but it is {value:g}")


def _sides(item: Mapping[str, Any]) -> dict[str, list[str]]:
    sides = {side: list(item[side] or []) for side in (CANDIDATE, BASELINE)}
    if not sides[CANDIDATE]:
        raise ValueError("it needs candidate, which tells the new version's figures from the others")
    both = set(sides[CANDIDATE]) & set(sides[BASELINE])
    if both:
        raise ValueError(f"'{min(both)}' stands for the candidate and for the baseline")
    return sides


def _need(item: Mapping[str, Any], option: str) -> Any:
    if not item[option]:
        raise ValueError(f"a source of type {item['type']} needs {option}")
    return item[option]


def _statuses(item: Mapping[str, Any]) -> list[str]:
    for status in item["errors"]:
        if not _STATUS.fullmatch(status):
            raise ValueError(f"'{status}' in errors is neither a status such as 499 nor a class such as 5xx")
    return list(item["errors"])


def _haproxy(item: Mapping[str, Any], verify: bool, read: Callable[[str], str]) -> Source:
    sockets = _need(item, "sockets")
    for address in sockets:
        host, _unused, port = address.rpartition(":")
        if not address.startswith("/") and not (host and port.isdigit()):
            raise ValueError(f"'{address}' is neither the path of a socket nor host:port")
    classes = _statuses(item)
    for status in classes:
        if not status.endswith("xx"):
            raise ValueError(f"HAProxy counts classes of statuses such as 5xx, and not '{status}'")
        if status == "1xx":
            raise ValueError("1xx are no answers, so they cannot be errors")
    return HaproxySource(sockets, _sides(item), classes)


def _access_log(item: Mapping[str, Any], verify: bool, read: Callable[[str], str]) -> Source:
    log_format = Format(item["format"], item["version_variable"], item["time_variable"] or "", item["time_unit"])
    return AccessLogSource(_need(item, "paths"), log_format, _sides(item), _statuses(item))


def _prometheus(item: Mapping[str, Any], verify: bool, read: Callable[[str], str]) -> Source:
    sides = {}
    for side in (CANDIDATE, BASELINE):
        expressions = {name: str(value) for name, value in (item[f"{side}_queries"] or {}).items()}
        unknown = sorted(set(expressions) - set(EXPRESSIONS))
        if unknown:
            raise ValueError(f"'{unknown[0]}' in {side}_queries is none of {', '.join(EXPRESSIONS)}")
        if expressions or side == CANDIDATE:
            sides[side] = expressions
    if not sides[CANDIDATE]:
        raise ValueError("a source of type prometheus needs candidate_queries")
    if BASELINE in sides and set(sides[BASELINE]) != set(sides[CANDIDATE]):
        raise ValueError("candidate_queries and baseline_queries must have the same names")
    if ("requests" in sides[CANDIDATE]) != ("errors" in sides[CANDIDATE]):
        raise ValueError("errors and requests belong together; give both queries")
    url = check_url(_need(item, "url"))
    _positive("timeout", item["timeout"])
    token = read(item["bearer_token_file"]).strip() if item["bearer_token_file"] else ""
    if item["bearer_token_file"] and not (token and token.isprintable() and token.isascii()):
        raise ValueError(f"{item['bearer_token_file']} does not hold a token")
    return PrometheusSource(url, sides, token, verify, item["timeout"])


def _probe(item: Mapping[str, Any], verify: bool, read: Callable[[str], str]) -> Source:
    sides = {side: check_targets(targets) for side, targets in _sides(item).items()}
    return ProbeSource(sides, make_requests(_need(item, "requests"), verify))


_MAKERS: dict[str, Callable[[Mapping[str, Any], bool, Callable[[str], str]], Source]] = {
    "haproxy": _haproxy,
    "access_log": _access_log,
    "prometheus": _prometheus,
    "probe": _probe,
}
