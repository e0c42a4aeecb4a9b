# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worklog API of the lab: records in MariaDB, a cache in Redis, uploads on disk.

Small, but it behaves like a service one can maintain: readiness on ``/health``, ``sd_notify``, a configuration test
(``--check``), graceful shutdown, and switches that make it misbehave (tests/lab/README.md).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

HOME = Path(__file__).resolve().parent
VERSION = (HOME / "VERSION").read_text(encoding="utf-8").strip()
REQUIRED = {"listen": str, "port": int, "database": dict, "redis": dict, "uploads": str, "max_upload_bytes": int}
CACHE_KEY = "records:latest"


class ConfigError(Exception):
    """The configuration file is missing or wrong."""


def load_config(path: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for name, kind in REQUIRED.items():
        if not isinstance(config.get(name), kind):
            raise ConfigError(f"{path}: '{name}' must be of type {kind.__name__}, got {config.get(name)!r}")
    if not 0 < config["port"] < 65536:
        raise ConfigError(f"{path}: 'port' must be between 1 and 65535, got {config['port']}")
    return config


def switches(config: dict[str, Any]) -> dict[str, float]:
    """Switches of the release, overlaid by those of the node; read anew each time."""
    found: dict[str, float] = {}
    for path in (HOME / "switches.json", Path(config.get("switches", ""))):
        with contextlib.suppress(OSError, ValueError):
            found.update(json.loads(path.read_text(encoding="utf-8")))
    return found


def notify(state: str) -> None:
    """Tell systemd (sd_notify) when it listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


class Server(http.server.ThreadingHTTPServer):
    """Finishes what it accepted: threads are joined on close, connections waiting in the backlog are served."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.stopping = False
        self.leak: list[bytes] = []
        self.idle: set[socket.socket] = set()
        super().__init__((config["listen"], config["port"]), Handler)

    def run(self) -> None:
        notify(f"READY=1\nSTATUS=worklog-api {VERSION} is listening")
        self.serve_forever(poll_interval=1)  # `stop` wakes it
        notify("STOPPING=1")
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.process_request(*self.get_request())
        self.socket.close()
        for sock in list(self.idle):  # keep-alive connections without a request
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        self.server_close()

    def stop(self, *_unused: object) -> None:
        self.stopping = True
        threading.Thread(target=self.shutdown).start()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server_address[1]), timeout=1):
            pass

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        import pymysql
        import pymysql.cursors

        connection = pymysql.connect(
            connect_timeout=2, read_timeout=10, autocommit=True, charset="utf8mb4",
            cursorclass=pymysql.cursors.DictCursor, **self.config["database"],
        )  # fmt: skip
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def cache(self) -> Any:
        import redis

        return redis.Redis(socket_timeout=2, socket_connect_timeout=2, **self.config["redis"])

    def dependencies(self) -> dict[str, str]:
        """State of each dependency: "ok" or what is wrong."""
        state = {"database": "ok", "redis": "ok"}
        try:
            with self.database() as cursor:
                cursor.execute("SELECT 1")
        except Exception as error:
            state["database"] = str(error)
        try:
            self.cache().ping()
        except Exception as error:
            state["redis"] = str(error)
        return state


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Server

    def handle_one_request(self) -> None:
        self.server.idle.add(self.connection)
        super().handle_one_request()

    def parse_request(self) -> bool:
        self.server.idle.discard(self.connection)
        return super().parse_request()

    def finish(self) -> None:
        self.server.idle.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        if not self.path.startswith("/health"):
            sys.stderr.write(f"{self.client_address[0]} {format % args}\n")

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body, ensure_ascii=False, default=str).encode() + b"\n"
        if self.server.stopping:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Node", socket.gethostname())
        self.send_header("X-Version", VERSION)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.dispatch("GET")

    def do_POST(self) -> None:
        self.dispatch("POST")

    def dispatch(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        name = {"/health": "health", "/whoami": "whoami", "/hold": "hold", "/api/records": "records",
                "/upload": "upload"}.get(url.path)  # fmt: skip
        action = getattr(self, f"{method.lower()}_{name}", None)
        if action is None:
            self.close_connection = True  # a body may follow that nobody reads
            return self.answer(404, {"error": f"no {method} {url.path}"})
        flags = switches(self.server.config)
        if name != "health":
            time.sleep(min(60.0, flags.get("hold", 0)))
            self.server.leak.append(b"x" * int(flags.get("leak_mb", 0) * 1024 * 1024))
            if random.random() < flags.get("error_rate", 0):
                self.close_connection = True
                return self.answer(500, {"error": "switched on by error_rate"})
        try:
            action(dict(urllib.parse.parse_qsl(url.query)))
        except Exception as error:
            self.close_connection = True
            self.answer(503, {"error": f"{type(error).__name__}: {error}"})

    def get_health(self, query: dict[str, str]) -> None:
        state = self.server.dependencies()
        ready = not self.server.stopping and set(state.values()) == {"ok"}
        self.answer(200 if ready else 503, {
            "status": "ok" if ready else "stopping" if self.server.stopping else "not ready",
            "ready": ready, "version": VERSION, "node": socket.gethostname(), "checks": state,
        })  # fmt: skip

    def get_whoami(self, query: dict[str, str]) -> None:
        self.answer(200, {"node": socket.gethostname(), "version": VERSION, "pid": os.getpid()})

    def get_hold(self, query: dict[str, str]) -> None:
        time.sleep(min(60.0, float(query.get("seconds", "1"))))
        self.get_whoami(query)

    def get_records(self, query: dict[str, str]) -> None:
        cache = self.server.cache()
        cached = cache.get(CACHE_KEY)
        if cached:
            return self.answer(200, {"cached": True, **json.loads(cached)})
        with self.server.database() as cursor:
            cursor.execute("SELECT COUNT(*) AS n FROM records")
            count = cursor.fetchone()["n"]
            cursor.execute("SELECT id, title, author, minutes, created_at FROM records ORDER BY id DESC LIMIT 10")
            body = {"count": count, "latest": cursor.fetchall()}
        cache.set(CACHE_KEY, json.dumps(body, ensure_ascii=False, default=str), ex=5)
        self.answer(200, {"cached": False, **body})

    def post_records(self, query: dict[str, str]) -> None:
        record = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        values = (str(record.get("title", "untitled")), str(record.get("author", "lab")), int(record.get("minutes", 0)))
        with self.server.database() as cursor:
            cursor.execute("INSERT INTO records (title, author, minutes, body) VALUES (%s, %s, %s, '')", values)
            new = cursor.lastrowid
        self.server.cache().delete(CACHE_KEY)
        self.answer(201, {"id": new})

    def post_upload(self, query: dict[str, str]) -> None:
        """Store a raw body, or the first part of a multipart/form-data one, under its SHA-256."""
        size, limit = int(self.headers.get("Content-Length", "0")), self.server.config["max_upload_bytes"]
        if size > limit:
            self.close_connection = True
            return self.answer(413, {"error": f"{size} bytes are more than max_upload_bytes ({limit})"})
        uploads = Path(self.server.config["uploads"])
        with tempfile.NamedTemporaryFile(dir=uploads, prefix=".upload-") as spool:
            boundary = self.headers.get_param("boundary")
            if self.headers.get_content_type() == "multipart/form-data" and boundary:
                while size > 0 and (line := self.rfile.readline(65536)) and (size := size - len(line)) and line.strip():
                    pass  # the boundary and the part's own headers
                self.copy(spool, size)
                spool.flush()
                window = min(size, 65536)
                with open(spool.name, "rb") as tail:
                    tail.seek(size - window)
                    end = tail.read().find(f"\r\n--{boundary}".encode())
                spool.truncate(size - window + end if end >= 0 else size)
            else:
                self.copy(spool, size)
            spool.flush()
            with open(spool.name, "rb") as stored:
                digest = hashlib.sha256()
                for block in iter(lambda: stored.read(1 << 20), b""):
                    digest.update(block)
            length = os.stat(spool.name).st_size
            with contextlib.suppress(FileExistsError):
                os.link(spool.name, uploads / digest.hexdigest())
        self.answer(201, {"size": length, "sha256": digest.hexdigest()})

    def copy(self, target: BinaryIO | Any, size: int) -> None:
        while size > 0:
            block = self.rfile.read(min(size, 1 << 20))
            if not block:
                raise ConnectionError("the client sent less than it announced")
            target.write(block)
            size -= len(block)


def fatal() -> None:
    os.write(2, b"FATAL: switched on by crash_after\n")
    os._exit(3)


def main() -> int:
    parser = argparse.ArgumentParser(description="The worklog API of the lab.")
    parser.add_argument("--config", default="/etc/worklog/worklog-api.json")
    parser.add_argument("--check", action="store_true", help="test the configuration and exit")
    options = parser.parse_args()
    try:
        config = load_config(options.config)
    except ConfigError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        return 78
    if options.check:
        print(f"{options.config}: configuration is fine")
        return 0
    flags = switches(config)
    time.sleep(flags.get("start_delay", 0))
    server = Server(config)
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    if flags.get("crash_after"):
        crash = threading.Timer(flags["crash_after"], fatal)
        crash.daemon = True
        crash.start()
    print(f"worklog-api {VERSION} listens on {config['listen']}:{config['port']}", flush=True)
    server.run()
    print("worklog-api stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
