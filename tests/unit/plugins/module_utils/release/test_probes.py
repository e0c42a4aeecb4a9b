# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to real servers on this machine, good ones and malicious ones."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import SourceError
from ansible_collections.worklog.maintenance.plugins.module_utils.release.http import Call, HttpError, check_url, send
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import (
    ProbeSource,
    Request,
    try_all,
    try_request,
)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path[1:4]) if self.path[1:4].isdigit() else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()
        length = int(self.headers.get("Content-Length") or 0)
        self.wfile.write(f"{self.command} {self.headers.get('X-Key')} {self.rfile.read(length).decode()}".encode())

    do_POST = do_GET

    def log_message(self, *_unused: object) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def rude() -> Iterator[Callable[[list[bytes], float], str]]:
    """A server that answers with the given pieces, and waits after each."""
    servers = []

    def start(pieces: list[bytes], pause: float) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def work() -> None:
            try:
                connection, _unused = server.accept()
                with connection:
                    connection.recv(65536)
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)
            except OSError:
                pass

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def test_what_was_sent_and_what_came_back(base: str) -> None:
    reply = send(Call(base + "/x?a=1", "POST", {"X-Key": "k"}, b"body"), 5)
    assert (reply.status, reply.body) == (200, "POST k body") and 0 < reply.seconds < 5


@pytest.mark.parametrize(
    ("request_", "good", "said"),
    [
        (Request("/"), True, "HTTP 200"),
        (Request("/204"), True, "HTTP 204"),
        (Request("/500"), False, "HTTP 500 instead of 200 to 299"),
        (Request("/302"), False, "HTTP 302 instead of 200 to 299"),
        (Request("/302", statuses=(301, 302)), True, "HTTP 302"),
        (Request("/", statuses=(301, 302)), False, "HTTP 200 instead of 301 or 302"),
        (Request("/", matches="GET N[o]ne"), True, "HTTP 200"),
        (Request("/", matches="version 2"), False, "HTTP 200, but its body does not match 'version 2'"),
    ],
)
def test_a_request_is_judged(base: str, request_: Request, good: bool, said: str) -> None:
    result = try_request(request_, base + "/")
    assert (result.good, result.said, result.seconds is not None) == (good, said, True)


def test_every_request_goes_to_every_server(base: str) -> None:
    results = try_all([Request("/", name="page"), Request("/404")], [base, "http://127.0.0.1:1"])
    assert [(result.name, result.good) for result in results] == [
        ("page", True), ("GET /404", False), ("page", False), ("GET /404", False),
    ]  # fmt: skip
    assert results[2].said == "connection refused"


@pytest.mark.parametrize(
    ("pieces", "pause", "words"),
    [
        ([b""], 2.0, "no answer within 0.5 s|no complete answer within 0.5 s"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 20], 0.1, "no complete answer within 0.5 s"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 20], 0.1, "no complete answer within 0.5 s"),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *[b"x"] * 20], 0.1, "no complete answer within 0.5 s"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx"], 0.0, "cut short"),
        ([b"nonsense\r\n\r\n"], 0.0, "nonsense"),
        ([b""], 0.0, "closed connection"),
    ],
)
def test_a_server_that_drips_stops_or_lies_costs_no_more_than_the_limit(
    rude: Callable[[list[bytes], float], str], pieces: list[bytes], pause: float, words: str
) -> None:
    begin = time.monotonic()
    with pytest.raises(HttpError, match=words):
        send(Call(rude(pieces, pause)), 0.5)
    assert time.monotonic() - begin < 1.5


def test_probes_are_a_source_of_both_sides(base: str) -> None:
    requests = [Request("/"), Request("/500")]
    source = ProbeSource({"candidate": [base], "baseline": ["http://127.0.0.1:1"]}, requests)
    source.begin()
    seen = source.poll()
    assert (seen.candidate.requests, seen.candidate.errors, len(seen.candidate.latencies)) == (2, 1, 1)
    assert (seen.baseline.requests, seen.baseline.errors, seen.baseline.latencies) == (2, 2, [])
    with pytest.raises(SourceError, match="needs requests"):
        ProbeSource({"candidate": [base]}, []).begin()


@pytest.mark.parametrize(
    "url", ["", "app2:8080", "ftp://a/", "http://", "http://a:x/", "http://a:99999/", "http://a:0/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        check_url(url)


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="holds an account") as caught:
        check_url("http://user:secret@a/")
    assert "secret" not in str(caught.value)
