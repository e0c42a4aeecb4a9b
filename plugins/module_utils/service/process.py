# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts about processes and sockets, read from /proc (proc(5))."""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner

#: State of a listening socket in /proc/net/tcp (TCP_LISTEN in the kernel's net/tcp_states.h).
LISTEN = "0A"


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port.

    :param port: the TCP port.
    :param address: the address it listens on.
    :param pid: the process, ``None`` when it could not be seen.
    :param command: its command line, at most 200 characters.
    :param unit: the systemd unit it belongs to, empty when there is none.
    """

    port: int
    address: str
    pid: int | None
    command: str = ""
    unit: str = ""

    def describe(self) -> str:
        """Return what an operator needs to find it."""
        if self.pid is None:
            return "a process that this account may not see"
        return f"process {self.pid} ({self.command})" + (f" of unit {self.unit}" if self.unit else "")


def listeners(table: str) -> Iterator[tuple[int, str, int]]:
    """Yield (port, address, inode) of every listening socket in a /proc/net/tcp or tcp6 table."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, port = fields[1].split(":")
            yield int(port, 16), _address(address), int(fields[9])


def holders(port: int, run: Runner, proc: str = "/proc") -> list[Holder]:
    """Return the processes that listen on a TCP port of this network namespace.

    :param run: how programs are run; used to look as another account where root may not look (in a container without
        CAP_SYS_PTRACE).
    """
    sockets: dict[int, str] = {}
    for name in ("tcp", "tcp6"):
        for number, address, inode in listeners(_read(f"{proc}/net/{name}")):
            if number == port:
                sockets[inode] = address
    if not sockets:
        return []
    held: list[tuple[int, int]] = []
    closed: dict[int, list[int]] = {}
    for pid in pids(proc):
        try:
            held.extend((pid, inode) for inode in _sockets_of(pid, proc) & set(sockets))
        except PermissionError:
            closed.setdefault(os.stat(f"{proc}/{pid}").st_uid, []).append(pid)
        except OSError:
            pass  # it is gone
    seen = {inode for pid, inode in held}
    if seen != set(sockets):
        held.extend(_look_as_owner(closed, set(sockets) - seen, run, proc))
        seen = {inode for pid, inode in held}
    found = [
        Holder(port, sockets[inode], pid, command_line(pid, proc), unit_of(pid, proc)) for pid, inode in sorted(held)
    ]
    found.extend(Holder(port, address, None) for inode, address in sockets.items() if inode not in seen)
    return found


def pids(proc: str = "/proc") -> list[int]:
    """Return all process ids."""
    return sorted(int(entry) for entry in os.listdir(proc) if entry.isdigit())


def command_line(pid: int, proc: str = "/proc") -> str:
    """Return the command line of a process, its short name for a kernel thread, empty when it is gone."""
    words = _read(f"{proc}/{pid}/cmdline").replace("\0", " ").strip()
    return (words or _read(f"{proc}/{pid}/comm").strip())[:200]


def short_name(pid: int, proc: str = "/proc") -> str:
    """Return the name of the program a process runs (its ``comm``), empty when it is gone."""
    return _read(f"{proc}/{pid}/comm").strip()


def alive(pid: int, proc: str = "/proc") -> bool:
    """Whether a process exists and is not a zombie."""
    return _stat(pid, proc)[:1] not in ([], ["Z"], ["X"])


def parent(pid: int, proc: str = "/proc") -> int:
    """Return the parent of a process, 0 when it is gone."""
    fields = _stat(pid, proc)
    return int(fields[1]) if len(fields) > 1 else 0


def started(pid: int, proc: str = "/proc") -> int:
    """Return when a process started, in clock ticks since boot, 0 when it is gone."""
    fields = _stat(pid, proc)
    return int(fields[19]) if len(fields) > 19 else 0


def is_descendant(pid: int, ancestors: set[int], proc: str = "/proc") -> bool:
    """Whether a process is one of the ancestors or comes from one of them."""
    while pid > 1:
        if pid in ancestors:
            return True
        pid = parent(pid, proc)
    return False


def children(pid: int, proc: str = "/proc") -> set[tuple[int, int]]:
    """Return (process, start time) of the direct children of a process; the time tells apart reused numbers."""
    return {(child, started(child, proc)) for child in pids(proc) if parent(child, proc) == pid}


def cgroups(pid: int, proc: str = "/proc") -> list[str]:
    """Return the control groups of a process, of cgroup v1 and v2 alike."""
    return [line.split(":", 2)[2] for line in _read(f"{proc}/{pid}/cgroup").splitlines() if line.count(":") >= 2]


def unit_of(pid: int, proc: str = "/proc") -> str:
    """Return the systemd service or scope a process belongs to, empty when there is none."""
    for line in _read(f"{proc}/{pid}/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[1] in ("", "name=systemd"):
            names = re.findall(r"/([^/]+\.(?:service|scope))(?=/|$)", parts[2])
            if names:
                return str(names[-1])
    return ""


def oom_kills(proc: str = "/proc") -> int:
    """Return how many processes the kernel has killed for want of memory since boot (Linux 4.13 and newer)."""
    match = re.search(r"^oom_kill (\d+)$", _read(f"{proc}/vmstat"), re.MULTILINE)
    return int(match.group(1)) if match else 0


def memory_available(proc: str = "/proc") -> int:
    """Return the bytes of memory that can be had without swapping (MemAvailable)."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(f"{proc}/meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def resident(pid: int, proc: str = "/proc") -> int:
    """Return the bytes of memory a process uses (VmRSS), 0 when it is gone."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", _read(f"{proc}/{pid}/status"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def _address(word: str) -> str:
    raw = bytes.fromhex(word)
    # the kernel prints each 32-bit word in host byte order
    swapped = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, swapped)


def _sockets_of(pid: int, proc: str) -> set[int]:
    found = set()
    for entry in os.scandir(f"{proc}/{pid}/fd"):
        match = re.match(r"socket:\[(\d+)\]$", os.readlink(entry.path))
        if match:
            found.add(int(match.group(1)))
    return found


def _look_as_owner(closed: dict[int, list[int]], inodes: set[int], run: Runner, proc: str) -> Iterator[tuple[int, int]]:
    for uid, candidates in closed.items():
        for inode in inodes:
            directories = [f"{proc}/{pid}/fd" for pid in candidates]
            argv = ["find", *directories, "-maxdepth", "1", "-lname", f"socket:\\[{inode}\\]"]
            try:
                words = run(argv, timeout=10, user=pwd.getpwuid(uid).pw_name).stdout
            except (CommandError, KeyError):
                continue
            for pid in {int(line.split("/")[-3]) for line in words.splitlines() if line.count("/") > 2}:
                yield pid, inode


def _stat(pid: int, proc: str) -> list[str]:
    # the second field is the name in parentheses and may contain anything
    return _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
