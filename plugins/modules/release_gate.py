# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_gate
short_description: Watch a new version under traffic and answer promote, hold or abort
description:
  - Watches the new version (the candidate) for a time, where it is useful beside the old one (the baseline), and
    answers with a decision and with all the figures that it was made on.
  - The figures come from the counters of HAProxy, the access logs of nginx or Apache, Prometheus, or requests that the
    module sends itself. Errors are judged by a sequential test, which may look after every request and ends as soon as
    it is clear that the candidate is bad, latencies by ranks, and both by fixed limits where one wants that.
  - V(promote) is said only when enough was seen to have found what is looked for. No data, too few data, or a source
    that cannot be read is V(hold). Of several metrics the worst decision counts.
  - Before that, a list of requests can be sent to the candidate's servers once. If one is not answered as it should be,
    the decision is V(abort) at once, and nothing is watched.
version_added: 1.1.0
options:
  targets:
    description: Addresses of the candidate's servers to which O(requests) are sent, such as C(http://app2:8080).
    type: list
    elements: str
    default: []
  requests:
    description: Requests that test the function of the candidate, each sent once to every one of O(targets) at first.
    type: list
    elements: dict
    default: []
    suboptions: &request
      name:
        description: What messages call it. By default method and path.
        type: str
      path:
        description: Path and query.
        type: str
        required: true
      method:
        description: HTTP method.
        type: str
        default: GET
      headers:
        description: Headers to send, such as C(Host). Their values are hidden wherever they occur in the result.
        type: dict
      body:
        description: Body to send. It is hidden like the headers.
        type: str
      status:
        description: Good statuses. By default 200 to 299. Redirects are not followed.
        type: list
        elements: int
        default: []
      matches:
        description: Regular expression that the body must contain.
        type: str
      max_time:
        description: Seconds that the whole answer may take.
        type: float
        default: 5
  duration:
    description:
      - Seconds to watch. It ends earlier when the decision is V(abort).
      - With the defaults, and 10 requests a second to the candidate, an error rate of 1 % ends in V(abort) in 85 of 100
        releases within 60 seconds, and in 97 within 120.
    type: float
    default: 120
  interval:
    description: Seconds from one look to the next.
    type: float
    default: 1
  promote_early:
    description:
      - Whether it also ends as soon as the decision is V(promote). Then a candidate that fails only after a while gets
        less chance to do so under the gate's eyes.
    type: bool
    default: false
  fail_on:
    description:
      - The decisions with which the task fails. By default all but V(promote), so that a play goes on only when the
        candidate has passed. A C(rescue) finds the decision in the registered result.
      - With an empty list the task never fails by a decision, and the play must look at it.
    type: list
    elements: str
    choices: [abort, hold]
    default: [abort, hold]
  sources:
    description: Where figures come from.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What metrics and messages call it. By default its type.
        type: str
      type:
        description:
          - V(haproxy) reads the counters of servers or backends through the runtime socket. Errors are answers with a
            status of O(sources[].errors), answers that did not come or were cut short, and attempts to connect that
            failed, also where HAProxy tried again or took another server. Of a whole backend only what clients saw
            counts. When HAProxy calls one of the candidate's servers C(DOWN), the decision is V(abort).
          - V(access_log) follows access logs on this host from now on, also when they are rotated. A server that nginx
            gave up for another one has failed.
          - V(prometheus) asks the HTTP API of a Prometheus server, by instant queries.
          - V(probe) sends O(sources[].requests) to every server at every look. They should be harmless.
        type: str
        required: true
        choices: [haproxy, access_log, prometheus, probe]
      candidate:
        description:
          - What belongs to the new version.
          - For V(haproxy), servers as C(backend/server), or whole backends. For V(access_log), values of
            O(sources[].version_variable). For V(probe), addresses such as C(http://app2:8080).
        type: list
        elements: str
      baseline:
        description: What belongs to the old version, in the same way.
        type: list
        elements: str
      errors:
        description: Statuses that are errors, as classes, or single ones where the source knows them, such as V(499).
        type: list
        elements: str
        default: [5xx]
      sockets:
        description: Runtime sockets of V(haproxy), each as a path or C(host:port). All of them must have the same
          servers.
        type: list
        elements: str
      paths:
        description: Logs of V(access_log).
        type: list
        elements: path
      format:
        description:
          - Format of the logs, written as C(log_format) of nginx is, or V(combined). It needs C($status) or
            C($upstream_status). For Apache it is written in the same way, with any names for the variables.
        type: str
        default: combined
      version_variable:
        description: Variable of O(sources[].format) that tells the versions apart.
        type: str
        default: upstream_addr
      time_variable:
        description:
          - Variable of O(sources[].format) with the latency. By default C(upstream_response_time), else
            C(request_time).
        type: str
      time_unit:
        description: Unit of that variable.
        type: str
        choices: [s, ms, us]
        default: s
      url:
        description: Address of V(prometheus), without C(/api/v1).
        type: str
      candidate_queries:
        description:
          - Queries of V(prometheus) for the new version, each with one result. C(requests) and C(errors) are counters
            that only grow, C(latency) (seconds) and C(value) are levels.
          - A query without a result is no data. Where a counter of errors appears only with the first error, add V(or
            vector(0\)).
        type: dict
      baseline_queries:
        description: The same for the old version.
        type: dict
      bearer_token_file:
        description: File on this host with the bearer token for V(prometheus).
        type: path
      timeout:
        description: Seconds that V(prometheus) may take for one answer.
        type: float
        default: 5
      requests:
        description: Requests of V(probe).
        type: list
        elements: dict
        default: []
        suboptions: *request
  metrics:
    description: What is asked of the sources.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What messages call it. By default the metric.
        type: str
      metric:
        description: The figure, V(errors) of all requests, V(latency) of the good ones, or any V(value) of Prometheus.
        type: str
        required: true
        choices: [errors, latency, value]
      source:
        description: Name of the source. May be left out when there is only one.
        type: str
      test:
        description:
          - V(sprt) is for errors, and their default. It is a sequential probability ratio test of the rates
            O(metrics[].p0) and O(metrics[].p1).
          - V(mann_whitney) is for latencies, and their default. It compares ranks with the baseline's, and needs single
            latencies, which access logs and probes have.
          - V(threshold) compares errors, a quantile of the latency, or a level with a fixed limit. A level must be
            beyond it in three looks in a row.
        type: str
        choices: [sprt, threshold, mann_whitney]
      against:
        description:
          - With V(fixed), V(sprt) compares with O(metrics[].p0) itself. With V(baseline) it compares with the
            baseline's rate at the same time if that is higher, and looks for an excess of O(metrics[].p1) minus
            O(metrics[].p0). That needs more requests, but does not blame the candidate for trouble that both have.
        type: str
        choices: [fixed, baseline]
        default: fixed
      p0:
        description: Error rate that is tolerated, as a share or with C(%). At this rate an alarm has the risk
          O(metrics[].alpha).
        type: str
        default: 0.1%
      p1:
        description: Error rate that must be found. At this rate a pass has the risk O(metrics[].beta).
        type: str
        default: 1%
      alpha:
        description: Risk of an alarm without cause, over the whole watch, however often it looks.
        type: str
        default: 1%
      beta:
        description: Risk of a pass that should not have been.
        type: str
        default: 5%
      min_samples:
        description:
          - Fewest samples of a pass, and with V(threshold) and V(mann_whitney) of any decision.
          - By default 100, for V(mann_whitney) 20, and 3 looks for values.
          - A pass needs more when the test itself does.
        type: int
      limit:
        description: Highest value that passes V(threshold), for errors a share or with C(%), for latencies in seconds.
        type: str
      ratio:
        description: Highest multiple of the baseline's latency or value that passes V(threshold).
        type: float
      quantile:
        description: Quantile of the latency that V(threshold) compares, where single latencies are known.
        type: float
        default: 0.95
      slower_ratio:
        description: How many times slower V(mann_whitney) lets the candidate be.
        type: float
        default: 1.2
      slower_seconds:
        description: How many seconds slower on top of that.
        type: float
        default: 0.005
      effect:
        description:
          - Smallest effect with which V(mann_whitney) aborts, as the probability that a request of the candidate takes
            longer than one of the baseline after the tolerance. V(0.5) would be no difference.
        type: float
        default: 0.6
  validate_certs:
    description: Whether the certificates of https addresses must be valid.
    type: bool
    default: true
attributes:
  check_mode:
    description: It only reads, so it does the same.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  idempotent:
    description: It never changes anything.
    support: full
notes:
  - The socket of HAProxy and the logs usually need C(become).
  - A task that is interrupted or runs into a time limit has not said V(promote).
  - Which test is for what, and how many requests it needs, is in docs/release-gates.md, with measured figures.
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Test the function of the new version before it gets any traffic
  worklog.maintenance.release_gate:
    targets: [http://app2:8080]
    requests:
      - path: /health
        matches: '"version": "1.2.0"'
      - path: /api/records
        max_time: 2

- name: Give the canary two minutes on HAProxy's own counters, and go back when it does not pass
  block:
    - name: Watch the canary
      worklog.maintenance.release_gate:
        sources:
          - type: haproxy
            sockets: [/run/haproxy/admin.sock]
            candidate: [worklog_api/app2]
        metrics:
          - metric: errors
      register: gate
      become: true
  rescue:
    - name: Take the traffic from it
      community.general.haproxy:
        socket: /run/haproxy/admin.sock
        backend: worklog_api
        host: app2
        state: drain
      become: true

- name: Compare errors and latency with the old version by the access log of nginx
  worklog.maintenance.release_gate:
    duration: 300
    sources:
      - type: access_log
        paths: [/var/log/nginx/upstream.log]
        format: '$remote_addr [$time_local] "$request" $status $upstream_addr $upstream_status $upstream_response_time'
        candidate: ["10.0.0.12:8080"]
        baseline: ["10.0.0.11:8080"]
    metrics:
      - metric: errors
        against: baseline
      - metric: latency
  become: true

- name: Watch error rate and memory of a new version by Prometheus, and decide in the play
  worklog.maintenance.release_gate:
    duration: 600
    interval: 15
    fail_on: []
    sources:
      - type: prometheus
        url: https://prometheus.example.com
        bearer_token_file: /etc/worklog/prometheus.token
        candidate_queries:
          requests: sum(http_requests_total{version="1.2.0"})
          errors: sum(http_requests_total{version="1.2.0", code=~"5.."}) or vector(0)
          value: max(process_resident_memory_bytes{version="1.2.0"})
    metrics:
      - metric: errors
        p0: 0.2%
        p1: 1%
      - metric: value
        limit: "500000000"
  register: gate
"""

RETURN = r"""
decision:
  description: The worst decision of all, C(promote), C(hold) or C(abort).
  returned: always
  type: str
  sample: abort
reason:
  description: One sentence, with all metrics that have this decision.
  returned: always
  type: str
  sample: >-
    errors: 3 of 17 requests of the candidate failed (17.6 %), which speaks for 1 % and not 0.1 %
    (log likelihood ratio 6.78, limit 3.89)
decided_at:
  description: When the decision was made, in seconds since 1970 by the clock of this host.
  returned: always
  type: float
seconds:
  description: How long was watched.
  returned: always
  type: float
  sample: 2.01
metrics:
  description: Each metric with its decision and the figures that it was made on. A figure that its test does not use is
    none.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The metric's name.
      type: str
    metric:
      description: C(errors), C(latency) or C(value).
      type: str
    source:
      description: Name of its source.
      type: str
    test:
      description: Name of its test.
      type: str
    decision:
      description: C(promote), C(hold) or C(abort).
      type: str
    reason:
      description: Why.
      type: str
    candidate_samples:
      description: Requests of the candidate, good requests where latencies are judged, looks where requests are not
        counted.
      type: int
    candidate_errors:
      description: How many of them failed.
      type: int
    candidate_rate:
      description: Failed per request.
      type: float
    candidate_value:
      description: The latency in seconds (a median, or the quantile that is compared) or the value.
      type: float
    baseline_samples:
      description: The same of the baseline.
      type: int
    baseline_errors:
      description: The same of the baseline.
      type: int
    baseline_rate:
      description: The same of the baseline.
      type: float
    baseline_value:
      description: The same of the baseline.
      type: float
    llr:
      description: Logarithm of the likelihood ratio of C(sprt).
      type: float
    llr_abort:
      description: The boundary from which on it is an abort.
      type: float
    llr_promote:
      description: The boundary from which down it is a pass.
      type: float
    p_value:
      description: How probable what was seen would be by chance, at the last look.
      type: float
    p_limit:
      description: The p value from which down it is an abort, at that look.
      type: float
    effect:
      description: Probability that a request of the candidate takes longer than one of the baseline, after the
        tolerance.
      type: float
    limit:
      description: The rate, value or effect that it was compared with.
      type: float
    samples_needed:
      description: Samples of the candidate that a pass needs if no further error comes.
      type: int
  sample:
    - name: errors
      metric: errors
      source: haproxy
      test: sprt
      decision: abort
      reason: >-
        3 of 17 requests of the candidate failed (17.6 %), which speaks for 1 % and not 0.1 %
        (log likelihood ratio 6.78, limit 3.89)
      candidate_samples: 17
      candidate_errors: 3
      candidate_rate: 0.176471
      candidate_value:
      baseline_samples: 0
      baseline_errors: 0
      baseline_rate:
      baseline_value:
      llr: 6.78117
      llr_abort: 3.89421
      llr_promote: -2.99573
      p_value:
      p_limit:
      effect:
      limit: 0.01
      samples_needed: 1098
sources:
  description:
    - Each source with its looks, those of them that failed, and what is to be known of the reading. These are C(resets)
      of counters, C(rotations) of logs, and their C(lines), with those that are C(unreadable) or belong to C(others).
  returned: always
  type: list
  elements: dict
  sample:
    - name: haproxy
      title: HAProxy /run/haproxy/admin.sock
      polls: 2
      failed_polls: 0
      resets: 0
requests:
  description: Each of O(requests) on each of O(targets) with what came back.
  returned: always
  type: list
  elements: dict
  sample:
    - name: GET /health
      target: http://app2:8080
      good: true
      said: HTTP 200
      seconds: 0.0043
findings:
  description: Every answer as a record of this collection.
  returned: always
  type: list
  elements: dict
  sample:
    - check: release.errors
      subject: errors
      severity: critical
      message: >-
        errors: 3 of 17 requests of the candidate failed (17.6 %), which speaks for 1 % and not 0.1 %
        (log likelihood ratio 6.78, limit 3.89)
      observed: 0.176471
      limit: 0.01
      unit: ratio
      advice: take the traffic from the candidate
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import SourceError
from ansible_collections.worklog.maintenance.plugins.module_utils.release.gate import Gate, Outcome, judge_requests
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import ABORT, HOLD
from ansible_collections.worklog.maintenance.plugins.module_utils.release.options import (
    OptionError,
    check_targets,
    check_times,
    make_metrics,
    make_requests,
    make_sources,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import try_all

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
SOURCE_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "type": {"type": "str", "required": True, "choices": ["haproxy", "access_log", "prometheus", "probe"]},
    "candidate": {"type": "list", "elements": "str"},
    "baseline": {"type": "list", "elements": "str"},
    "errors": {"type": "list", "elements": "str", "default": ["5xx"]},
    "sockets": {"type": "list", "elements": "str"},
    "paths": {"type": "list", "elements": "path"},
    "format": {"type": "str", "default": "combined"},
    "version_variable": {"type": "str", "default": "upstream_addr"},
    "time_variable": {"type": "str"},
    "time_unit": {"type": "str", "choices": ["s", "ms", "us"], "default": "s"},
    "url": {"type": "str"},
    "candidate_queries": {"type": "dict"},
    "baseline_queries": {"type": "dict"},
    "bearer_token_file": {"type": "path", "no_log": False},
    "timeout": {"type": "float", "default": 5},
    "requests": {"type": "list", "elements": "dict", "default": [], "options": REQUEST_SPEC},
}
METRIC_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "metric": {"type": "str", "required": True, "choices": ["errors", "latency", "value"]},
    "source": {"type": "str"},
    "test": {"type": "str", "choices": ["sprt", "threshold", "mann_whitney"]},
    "against": {"type": "str", "choices": ["fixed", "baseline"], "default": "fixed"},
    "p0": {"type": "str", "default": "0.1%"},
    "p1": {"type": "str", "default": "1%"},
    "alpha": {"type": "str", "default": "1%"},
    "beta": {"type": "str", "default": "5%"},
    "min_samples": {"type": "int"},
    "limit": {"type": "str"},
    "ratio": {"type": "float"},
    "quantile": {"type": "float", "default": 0.95},
    "slower_ratio": {"type": "float", "default": 1.2},
    "slower_seconds": {"type": "float", "default": 0.005},
    "effect": {"type": "float", "default": 0.6},
}


def work(given: dict[str, Any], outcome: Outcome) -> None:
    """Test the function, then watch.

    :raises OptionError: when an option makes no sense.
    :raises SourceError: when a source cannot be used as it was described.
    """
    verify = given["validate_certs"]
    requests = make_requests(given["requests"], verify)
    targets = check_targets(given["targets"])
    if bool(requests) != bool(targets):
        raise OptionError("targets and requests belong together: the servers, and what to send to them")
    sources = make_sources(given["sources"], verify, lambda path: Path(path).read_text(encoding="utf-8"))
    metrics = make_metrics(given["metrics"], sources)
    if not (requests or metrics):
        raise OptionError("there is nothing to judge by: give requests, or sources and metrics")
    check_times(given["duration"], given["interval"])
    if requests and not judge_requests(try_all(requests, targets), outcome):
        return
    if metrics:
        Gate(
            sources,
            metrics,
            duration=given["duration"],
            interval=given["interval"],
            early=given["promote_early"],
            clock=time.monotonic,
            sleep=time.sleep,
        ).watch(outcome)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "list", "elements": "str", "default": []},
            "requests": {"type": "list", "elements": "dict", "default": [], "options": REQUEST_SPEC},
            "duration": {"type": "float", "default": 120},
            "interval": {"type": "float", "default": 1},
            "promote_early": {"type": "bool", "default": False},
            "fail_on": {"type": "list", "elements": "str", "choices": [ABORT, HOLD], "default": [ABORT, HOLD]},
            "sources": {"type": "list", "elements": "dict", "default": [], "options": SOURCE_SPEC},
            "metrics": {"type": "list", "elements": "dict", "default": [], "options": METRIC_SPEC},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    outcome = Outcome()
    try:
        work(module.params, outcome)
    except (OptionError, SourceError) as error:
        outcome.decision, outcome.reason = HOLD, f"nothing was watched: {error}"
        module.fail_json(msg=outcome.reason, decided_at=time.time(), **outcome.as_dict())
    decided_at = time.time()
    message = f"{outcome.decision}: {outcome.reason}"
    result = {"decided_at": decided_at, **outcome.as_dict()}
    if outcome.decision in module.params["fail_on"]:
        module.fail_json(msg=message, **result)
    module.exit_json(changed=False, msg=message, **result)


if __name__ == "__main__":
    main()
