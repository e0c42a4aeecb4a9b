# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine for tests: a /proc of plain files, and an nginx that reloads, or does not, when it is told to."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System

#: As Debian 12's nginx prints it, shortened.
DASH_V = """nginx version: nginx/1.22.1
built with OpenSSL 3.0.20 7 Apr 2026
TLS SNI support enabled
configure arguments: --with-cc-opt='-g -O2 -fstack-protector-strong' --prefix=/usr/share/nginx \
--conf-path={conf} --error-log-path=stderr --pid-path=/run/nginx.pid \
--http-client-body-temp-path={body} --http-proxy-temp-path=/var/lib/nginx/proxy --with-compat
"""


class Machine:
    """An nginx with one master (pid 100) and two workers; attributes say how it behaves."""

    def __init__(self, directory: Path, config: str, title: str = "/usr/sbin/nginx -g daemon on; master_process on;"):
        self.directory = directory
        self.config = directory / "nginx.conf"
        self.config.write_text(config)
        (directory / "body").mkdir(exist_ok=True)
        self.proc = directory / "proc"
        self.proc.mkdir()
        (self.proc / "self" / "ns").mkdir(parents=True)
        (self.proc / "self" / "ns" / "pid").symlink_to("pid:[1]")
        self.commands: list[list[str]] = []
        self.clock = 1000.0
        self.next_pid = 200
        self.ticks = 10**12  # after any file of the test
        self.masters = {100: title}
        self.reloads = True
        self.leaves_old = False
        self.keeps_one = False
        self.refuse = ""  # a word in the file that nginx -t refuses
        self.log = ""
        self.killed = False
        self.namespace = "pid:[1]"
        self.inspect: dict = {}
        self.start()

    def process(self, pid: int, parent: int, title: str) -> None:
        home = self.proc / str(pid)
        (home / "ns").mkdir(parents=True)
        (home / "ns" / "pid").symlink_to(self.namespace)
        (home / "exe").symlink_to("/usr/sbin/nginx")
        (home / "cmdline").write_bytes(title.encode() + b"\0\0\0")
        (home / "stat").write_text(f"{pid} (nginx) S {parent} " + "0 " * 17 + f"{self.ticks} 0\n")
        (home / "cgroup").write_text("12:pids:/x\n1:name=systemd:/docker/abc/system.slice/nginx.service\n0::/\n")

    def start(self) -> None:
        for pid, title in self.masters.items():
            self.process(pid, 1, f"nginx: master process {title}")
        self.workers(100)

    def workers(self, master: int) -> None:
        for _ignored in range(2):
            self.process(self.next_pid, master, "nginx: worker process")
            self.next_pid += 1

    def end(self, pid: int) -> None:
        for entry in sorted((self.proc / str(pid)).rglob("*"), reverse=True):
            entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        (self.proc / str(pid)).rmdir()

    def serving(self) -> list[int]:
        return sorted(
            int(entry.name)
            for entry in self.proc.iterdir()
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"nginx: worker process\0")
        )

    def run(self, argv, *, timeout, stdin=b"", env=None, cwd=None, user=None) -> Result:
        argv = list(argv)
        self.commands.append(argv if user is None else [f"as {user}:", *argv])
        if argv[0] == "docker" and argv[1] == "inspect":
            return Result(tuple(argv), 0, json.dumps([self.inspect]), "", 0.1)
        if argv[0] == "docker":
            argv = argv[argv.index("web") + 1 :]
        if argv[0] == "test":
            return Result(tuple(argv), 0 if os.path.isdir(argv[2]) else 1, "", "", 0.0)
        if argv[-1] == "-V":
            return Result(tuple(argv), 0, "", DASH_V.format(conf=self.config, body=self.directory / "body"), 0.0)
        if argv[-1] == "-t":
            if self.refuse and self.refuse in self.config.read_text():
                return Result(tuple(argv), 1, "", f"nginx: [emerg] no {self.refuse} here in nginx.conf:1", 0.0)
            if self.refuse == "hang":
                raise CommandError("'nginx -t' did not end within 120 s and was killed", argv)
            return Result(tuple(argv), 0, "", "test is successful", 0.0)
        if self.killed:
            raise KeyboardInterrupt
        if self.reloads:
            old = self.serving()
            self.workers(100)
            for pid in old[1:] if self.keeps_one else old:
                if self.leaves_old:
                    (self.proc / str(pid) / "cmdline").write_bytes(b"nginx: worker process is shutting down\0")
                else:
                    self.end(pid)
        elif self.log:
            with open(self.directory / "error.log", "a") as stream:
                stream.write(self.log)
        return Result(tuple(argv), 0, "", "", 0.0)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def system(self) -> System:
        return System(self.run, self.sleep, lambda: self.clock, str(self.proc), 100, lambda: 0.0)
