# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two versions of a small application on a load balancer, each on a UNIX socket and on a port of its own.

    python3 two_sides.py DIRECTORY

blue is version 1.0.0, at DIRECTORY/blue.sock and 127.0.0.1:9101; green is 1.1.0, at DIRECTORY/green.sock and
127.0.0.1:9102. A query `?seconds=N` holds the answer. /socket is a WebSocket (RFC 6455) that answers short texts.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import socketserver
import sys
import threading
import time
import urllib.parse
from typing import Any

SIDES = {"blue": ("1.0.0", 9101), "green": ("1.1.0", 9102)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = version = ""

    def address_string(self) -> str:
        return "-"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.talk()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        time.sleep(float(query.get("seconds", ["0"])[0]))
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps({"node": self.name, "version": self.version}).encode()
        self.send_response(200)
        for header, value in (("X-Node", self.name), ("X-Version", self.version), ("Content-Length", len(body))):
            self.send_header(header, str(value))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def talk(self) -> None:
        """Answer each text with the name of the side before it, until the client goes."""
        proof = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
        self.send_response(101)
        accept = base64.b64encode(proof.digest()).decode()
        for header in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(*header)
        self.end_headers()
        while len(head := self.rfile.read(6)) == 6:
            text = bytes(byte ^ head[2 + at % 4] for at, byte in enumerate(self.rfile.read(head[1] & 0x7F)))
            answer = f"{self.name} ".encode() + text
            self.wfile.write(bytes((0x81, len(answer))) + answer)
        self.close_connection = True


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


class Tcp(http.server.ThreadingHTTPServer):
    request_queue_size = 512


def main() -> None:
    servers: list[socketserver.BaseServer] = []
    for name, (version, port) in SIDES.items():
        handler = type(name, (Handler,), {"name": name, "version": version})
        path = os.path.join(sys.argv[1], f"{name}.sock")
        if os.path.exists(path):
            os.unlink(path)
        servers += [Unix(path, handler), Tcp(("127.0.0.1", port), handler)]
        os.chmod(path, 0o666)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()


if __name__ == "__main__":
    main()
