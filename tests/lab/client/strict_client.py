# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP client that never retries and forgives nothing: the judge of "no request was lost".

Several keep-alive connections send requests at a steady rate for at most --seconds. Whatever is not an answer with an
expected status in time is a failed request. The result is one line of JSON on standard output:

    requests, ok, failed   counts; requests = ok + failed
    failures               {kind: count}, kind being "status 502", "timeout", "refused", "reset", "closed", …
    messages               the first ten failures: seconds since the start, kind, what happened
    nodes, versions        {X-Node: count}, {X-Version: count} of the good answers
    longest_gap            seconds, the longest time between two good answers (or start, or end)
    p50, p99, slowest      seconds, of the good answers
    seconds                how long it ran

With --log every request leaves a line there at the end: when it was sent and when its answer was complete, in seconds
since 1970, then the node and the version that answered, or "-" and the kind of the failure.

A connection that the server has announced to close (Connection: close) or that it closed while no request was under
way is opened again before the next request: that is HTTP, not a retry.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import select
import socket
import sys
import threading
import time
import urllib.parse
from pathlib import Path


class Tally:
    """What all connections saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begin = self.last_good = time.monotonic()
        self.gap = 0.0
        self.latencies: list[float] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.messages: list[str] = []
        self.nodes: collections.Counter[str] = collections.Counter()
        self.versions: collections.Counter[str] = collections.Counter()
        self.log: list[str] = []

    def good(self, latency: float, node: str, version: str) -> None:
        with self.lock:
            now = time.monotonic()
            self.note(latency, node, version)
            self.gap, self.last_good = max(self.gap, now - self.last_good), now
            self.latencies.append(latency)
            self.nodes[node] += 1
            self.versions[version] += 1

    def note(self, latency: float, node: str, version: str) -> None:
        now = time.time()
        self.log.append(f"{now - latency:.6f} {now:.6f} {node} {version}")

    def bad(self, latency: float, kind: str, message: str) -> None:
        with self.lock:
            self.note(latency, "-", kind)
            self.failures[kind] += 1
            if len(self.messages) < 10:
                self.messages.append(f"{time.monotonic() - self.begin:.2f} s: {kind}: {message}"[:300])

    def result(self) -> dict[str, object]:
        now = time.monotonic()
        ordered = sorted(self.latencies) or [0.0]
        good, failed = len(self.latencies), sum(self.failures.values())
        return {
            "requests": good + failed, "ok": good, "failed": failed,
            "failures": dict(self.failures), "messages": self.messages,
            "nodes": dict(self.nodes), "versions": dict(self.versions),
            "longest_gap": round(max(self.gap, now - self.last_good), 3),
            "p50": round(ordered[len(ordered) // 2], 4), "p99": round(ordered[int(len(ordered) * 0.99)], 4),
            "slowest": round(ordered[-1], 4), "seconds": round(now - self.begin, 2),
        }  # fmt: skip


def kind_of(error: Exception) -> str:
    for exception, kind in (
        (TimeoutError, "timeout"), (ConnectionRefusedError, "refused"), (http.client.RemoteDisconnected, "closed"),
        (ConnectionResetError, "reset"), (http.client.IncompleteRead, "cut short"), (socket.gaierror, "name"),
    ):  # fmt: skip
        if isinstance(error, exception):
            return kind
    return type(error).__name__


def closed_by_peer(connection: http.client.HTTPConnection) -> bool:
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


def work(options: argparse.Namespace, tally: Tally, number: int) -> None:
    url = urllib.parse.urlsplit(options.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = {"Host": options.host_header} if options.host_header else {}
    body = b"x" * options.body_bytes if options.method == "POST" else None
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=options.timeout)
    pause = options.connections / options.rate
    due = tally.begin + pause * number / options.connections
    until_file = Path(options.until_file) if options.until_file else None
    while (due := max(due, time.monotonic())) < tally.begin + options.seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        due += pause
        if until_file and until_file.exists():
            break
        if closed_by_peer(connection):
            connection.close()
        begin = time.monotonic()
        try:
            connection.request(options.method, target, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            tally.bad(time.monotonic() - begin, kind_of(error), str(error))
            connection.close()
            continue
        if answer.status in options.expect:
            node, version = answer.getheader("X-Node", "?"), answer.getheader("X-Version", "?")
            tally.good(time.monotonic() - begin, node, version)
        else:
            tally.bad(time.monotonic() - begin, f"status {answer.status}", text[:200].decode(errors="replace"))
    connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="for example http://lb1/health")
    parser.add_argument("--host-header", help="virtual host to ask for")
    parser.add_argument("--connections", type=int, default=4, help="default: 4")
    parser.add_argument("--rate", type=float, default=40, help="requests a second in all (default: 40)")
    parser.add_argument("--seconds", type=float, default=10, help="never longer than this (default: 10)")
    parser.add_argument("--until-file", help="end early as soon as this file exists")
    parser.add_argument("--timeout", type=float, default=10, help="seconds for one answer (default: 10)")
    parser.add_argument("--method", choices=["GET", "POST"], default="GET")
    parser.add_argument("--body-bytes", type=int, default=0, help="size of the body of a POST")
    parser.add_argument("--expect", type=int, nargs="+", default=[200, 201], help="good statuses (default: 200 201)")
    parser.add_argument("--log", help="file to write a line a request into at the end")
    parser.add_argument("--fail", action="store_true", help="end with 1 when a request failed or none was sent")
    options = parser.parse_args()
    tally = Tally()
    threads = [
        threading.Thread(target=work, args=(options, tally, number), daemon=True)
        for number in range(options.connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, tally.begin + options.seconds + options.timeout + 5 - time.monotonic()))
    result = tally.result()
    if options.log:
        Path(options.log).write_text("".join(f"{line}\n" for line in tally.log), encoding="utf-8")
    print(json.dumps(result, ensure_ascii=False))
    return 1 if options.fail and (result["failed"] or not result["requests"]) else 0


if __name__ == "__main__":
    sys.exit(main())
