# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nginx itself answers: the raised limits hold, also after a failed attempt, and no other has changed."""

from __future__ import annotations

import os
from typing import Any

import pytest

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-lb1"]
MIB = 1 << 20


#: Declares a body and reads the first line of the answer; nothing of the body is sent.
ASK = """
import socket, sys
name, path, size = sys.argv[1:]
with socket.create_connection(("127.0.0.1", 80), 10) as nginx:
    head = f"POST {path} HTTP/1.1\\r\\nHost: {name}\\r\\nContent-Length: {size}\\r\\nExpect: 100-continue\\r\\n\\r\\n"
    nginx.sendall(head.encode())
    print(nginx.recv(100).split()[1].decode())
"""


def refused(host: Any, name: str, path: str, size: int) -> bool:
    """Whether nginx answers a declared body with 413."""
    return bool(host.check_output("python3 -c %s %s %s %s", ASK, name, path, str(size)) == "413")


@pytest.mark.parametrize(
    ("name", "path", "limit"),
    [
        ("worklog.example.test", "/upload", 50 * MIB),
        ("worklog.example.test", "/", 50 * MIB),
        ("lowcode.example.test", "/upload", 30 * MIB),
        ("lowcode.example.test", "/other", 10 * MIB),
        ("nobody.example.test", "/", 10 * MIB),
    ],
)
def test_limit(host: Any, name: str, path: str, limit: int) -> None:
    assert not refused(host, name, path, limit)
    assert refused(host, name, path, limit + 1)


def test_only_the_lines_that_were_meant_differ(host: Any) -> None:
    limits = host.check_output("grep --recursive --no-filename client_max_body_size /etc/nginx").split("\n")
    assert sorted(line.strip() for line in limits) == [
        "client_max_body_size 10m;",
        "client_max_body_size 30m;",
        "client_max_body_size 50m;",
    ]
    assert host.file("/etc/nginx/sites-enabled/worklog.example.test").is_symlink
