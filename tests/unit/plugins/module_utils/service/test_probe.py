# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes on real sockets, and the arithmetic of the downtime."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.service.probe import (
    Gap,
    Probe,
    Sampler,
    all_good,
    parse_address,
)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hang":
            time.sleep(1)
        self.send_response(int(self.path.strip("/?") or 200) if self.path[1:].isdigit() else 200)
        self.end_headers()
        self.wfile.write(f'{{"ready": true, "host": "{self.headers["Host"]}"}}'.encode())

    def log_message(self, *_unused: object) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_http(base: str) -> None:
    assert Probe(base).ask().good
    assert Probe(base + "/204").ask().good
    assert Probe(base + "/503").ask().said == "HTTP 503"
    assert not Probe(base + "/302").ask().good
    assert Probe(base + "/503", statuses=(503,)).ask().good
    assert Probe(base, body='"ready": *true').ask().good
    assert "does not match" in Probe(base, body="version 2").ask().said
    assert Probe(base, body='"host": "x.example.test"', headers={"Host": "x.example.test"}).ask().good
    assert Probe(base + "/hang").ask(0.1).said == "no answer within 0.1 s"


def test_tcp_and_unix(base: str, tmp_path: Path) -> None:
    assert Probe(base.replace("http", "tcp")).ask().good
    assert Probe(f"tcp://127.0.0.1:{closed_port()}").ask().said == "connection refused"
    path = str(tmp_path / "s")
    assert "no such file" in Probe(f"unix://{path}").ask().said
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert not Probe(f"unix://{path}").ask().good
        server.listen()
        assert Probe(f"unix://{path}").ask().good


def test_a_name_that_does_not_resolve_is_an_answer_too() -> None:
    assert not Probe("http://no-such-host.invalid/").ask().good


def test_what_is_no_http_is_not_good() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"220 smtp\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert not Probe(f"http://127.0.0.1:{server.getsockname()[1]}/").ask(1).good


def test_the_first_that_is_not_good_is_named_without_its_password(base: str) -> None:
    bad = f"http://user:secret@127.0.0.1:{closed_port()}/"
    answer = all_good([Probe(base), Probe(bad), Probe(base + "/503")])
    assert not answer.good and "connection refused" in answer.said and "secret" not in answer.said
    assert all_good([]).good


@pytest.mark.parametrize("url", ["http://x/", "https://x:8443/y?z", "tcp://[::1]:80", "unix:///run/x.sock"])
def test_addresses(url: str) -> None:
    assert parse_address(url) == url


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "x", "tcp://x", "tcp://x:port", "unix://run/x", "unix://", "ftp://x/", "http:///x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        parse_address(url)


@pytest.mark.parametrize(
    ("samples", "seconds", "lasting"),
    [
        ([], None, None),
        ([(0, True), (1, True)], 0.0, 0.0),
        ([(0, True), (1, False), (2, False), (3, True)], 3.0, 3.0),
        ([(0, True), (1, True), (2, False), (2.5, True), (3, True)], 1.5, 1.5),
        ([(0, True), (1, False), (2, True), (3, False), (4, True)], 4.0, 4.0),
        ([(0, True), (1, False), (2, False)], None, 10.0),
        ([(0, False), (1, False)], None, None),
        ([(0, False), (1, True)], 0.0, 0.0),
    ],
)
def test_the_downtime_is_from_the_last_good_to_the_first_good_answer(
    samples: list[tuple[float, bool]], seconds: float | None, lasting: float | None
) -> None:
    gap = Gap()
    for moment, good in samples:
        gap.add(moment, good)
    assert gap.seconds == seconds
    assert gap.lasting(10) == lasting


def test_the_sampler_measures_a_real_outage() -> None:
    down = threading.Event()
    sampler = Sampler(lambda: not down.is_set(), time.monotonic)
    sampler.start()
    time.sleep(0.2)
    down.set()
    time.sleep(0.5)
    down.clear()
    time.sleep(0.3)
    sampler.stop()
    sampler.stop()
    assert sampler.began_good and sampler.gap.seconds is not None
    assert 0.45 <= sampler.gap.seconds <= 0.9
