# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask nginx itself: runs on a node, in a network of its own, and prints what nginx did as JSON.

Reads from standard input a list of ``{name, path, requests: [{host, port, path, size}]}``. Every configuration is
tested with ``nginx -t`` and, where that succeeds, started; then each request declares a body of ``size`` bytes (sent
when it is small) and the status and the body of the answer are noted.
Usage: ``unshare --net python3 nginx_oracle.py < cases``.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

SEND = 256 * 1024


def request(host: str, port: int, path: str, size: int) -> tuple[int, str]:
    """Return status and body of the answer to a POST."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        if size <= SEND:
            try:
                connection.sendall(b"x" * size)
            except OSError:
                pass  # refused meanwhile
        answer = b""
        try:
            while True:
                part = connection.recv(65536)
                answer += part
                match = re.search(rb"(?i)\r\ncontent-length: (\d+).*?\r\n\r\n", answer, re.DOTALL)
                if not part or (match and len(answer) >= match.end() + int(match.group(1))):
                    break
        except OSError:
            pass
    head_bytes, _ignored, body = answer.partition(b"\r\n\r\n")
    return (int(head_bytes.split(b" ")[1]) if head_bytes else 0), body.decode("utf-8", "replace")


def wait(port: int) -> None:
    """Wait until something listens."""
    for _ignored in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


def run(case: dict) -> dict:
    """Test, start and ask one configuration."""
    with tempfile.TemporaryDirectory() as directory:
        options = f"pid {directory}/pid; error_log {directory}/error.log;"
        argv = ["nginx", "-c", case["path"], "-g", options]
        try:
            test = subprocess.run(
                [*argv, "-t"], capture_output=True, text=True, errors="replace", timeout=20, check=False
            )
        except subprocess.TimeoutExpired:
            return {"valid": False, "words": "nginx -t did not end"}
        result: dict = {"valid": test.returncode == 0, "words": test.stderr, "answers": []}
        if test.returncode == 0 and case["requests"]:
            server = subprocess.Popen(["nginx", "-c", case["path"], "-g", options + " daemon off; worker_processes 1;"])
            try:
                wait(case["requests"][0]["port"])
                for ask in case["requests"]:
                    try:
                        result["answers"].append(request(ask["host"], ask["port"], ask["path"], ask["size"]))
                    except OSError as error:
                        result["answers"].append((0, str(error)))
            finally:
                server.terminate()
                server.wait(10)
        return result


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ["LC_ALL"] = "C"
    json.dump({case["name"]: run(case) for case in json.load(sys.stdin)}, sys.stdout)
