# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens on a port, and the rest of /proc, on a made-up /proc and on the real one."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import run
from ansible_collections.worklog.maintenance.plugins.module_utils.service import process

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000   100        0 112 1 0 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 113 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 114 1
   1: 00000000000000000000000001000000:0BBA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 115 1
"""


def proc(
    root: Path, pid: int, *, inodes: tuple[int, ...] = (), parent: int = 1, cgroup: str = "", name: str = "x"
) -> None:
    home = root / str(pid)
    (home / "fd").mkdir(parents=True)
    for number, inode in enumerate(inodes):
        (home / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (home / "stat").write_text(f"{pid} (a) b) S {parent} " + " ".join(["0"] * 17) + f" {pid * 10} 0\n")
    (home / "cmdline").write_text(f"/usr/bin/{name}\0-p\x008080\0")
    (home / "comm").write_text(name + "\n")
    (home / "cgroup").write_text(cgroup)


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    proc(tmp_path, 10, inodes=(111,), name="api", cgroup="1:name=systemd:/docker/4a8/system.slice/api.service\n0::/\n")
    proc(tmp_path, 11, inodes=(113, 114), name="nginx", cgroup="0::/system.slice/nginx.service\n")
    proc(tmp_path, 12, inodes=(113,), parent=11, name="nginx", cgroup="0::/user.slice/session-3.scope\n")
    return str(tmp_path)


def test_the_listeners_of_both_families_are_read() -> None:
    assert list(process.listeners(TCP)) == [(8080, "127.0.0.1", 111), (80, "0.0.0.0", 113)]
    assert list(process.listeners(TCP6)) == [(80, "::", 114), (3002, "::1", 115)]


def test_the_holder_of_a_port_is_named(root: str) -> None:
    (holder,) = process.holders(8080, run, root)
    assert holder.describe() == "process 10 (/usr/bin/api -p 8080) of unit api.service"
    assert {holder.pid for holder in process.holders(80, run, root)} == {11, 12}
    assert process.holders(81, run, root) == []


def test_a_holder_that_may_not_be_seen_is_still_a_holder(root: str) -> None:
    (holder,) = process.holders(3002, run, root)
    assert holder.pid is None and "may not see" in holder.describe()


def test_where_root_may_not_look_the_owner_is_asked(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = process._sockets_of

    def closed(pid: int, directory: str) -> set[int]:
        if pid == 10:
            raise PermissionError
        return original(pid, directory)

    monkeypatch.setattr(process, "_sockets_of", closed)
    (holder,) = process.holders(8080, run, root)
    assert holder.pid == 10


def test_parents_children_and_times(root: str) -> None:
    assert process.parent(12, root) == 11 and process.parent(99, root) == 0
    assert process.is_descendant(12, {11}, root) and not process.is_descendant(10, {11}, root)
    assert process.children(11, root) == {(12, 120)}
    assert process.unit_of(12, root) == "session-3.scope" and process.unit_of(99, root) == ""
    assert process.cgroups(10, root) == ["/docker/4a8/system.slice/api.service", "/"]
    assert process.short_name(11, root) == "nginx"


def test_the_running_system() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert os.getpid() in {holder.pid for holder in process.holders(server.getsockname()[1], run)}
    assert process.alive(os.getpid()) and not process.alive(2**22 + 1)
    assert process.memory_available() > 0 and process.resident(os.getpid()) > 1 << 20
    assert process.oom_kills() >= 0 and process.started(os.getpid()) > 0


def test_a_zombie_is_not_alive(tmp_path: Path, root: str) -> None:
    stat: Any = tmp_path / "10" / "stat"
    stat.write_text(stat.read_text().replace(") S ", ") Z "))
    assert not process.alive(10, root) and process.alive(11, root)
