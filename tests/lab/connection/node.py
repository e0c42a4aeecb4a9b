# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A short way into a node for tests: `nsenter` takes 4 ms of processor time where `docker exec` takes 42.

`command` is for programs; the connection plugin, which LAB_CONNECTION=node chooses, is for Ansible. It also has a node
keep what Python has compiled of Ansible's modules, of which each takes 80 ms instead of 130 to start.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import urllib.parse
from pathlib import Path
from typing import Any

from ansible_collections.community.docker.plugins.connection import docker

DOCUMENTATION = """
name: node
short_description: Run tasks in a node of the lab
description: As community.docker.docker, but quicker where the container runs on this machine.
author: Worklog Maintenance contributors
options:
  remote_addr:
    description: Name of the container.
    default: inventory_hostname
    vars: [{name: inventory_hostname}, {name: ansible_host}, {name: ansible_docker_host}]
  remote_user:
    description: Who runs the tasks.
    vars: [{name: ansible_user}, {name: ansible_docker_user}]
  docker_extra_args:
    description: Options of the program docker.
    default: ''
  container_timeout:
    description: Seconds to wait.
    default: 10
    type: int
  extra_env:
    description: Environment.
    type: dict
  working_dir:
    description: Directory to work in.
    type: str
  privileged:
    description: Whether to have all capabilities.
    default: false
    type: boolean
"""

SOCKET = "/var/run/docker.sock"
#: Where Ansible's wrapper of a module begins to do something.
BEGIN = b"\n_ANSIBALLZ_WRAPPER = True\n"
#: Python compiles what it imports from an archive each time. Source that it has seen is found by its hash.
KEEP_COMPILED = b"""
def _keep_compiled(compile_source, place="/var/cache/lab-compiled"):
    import hashlib, importlib.util, marshal, os, tempfile

    def kept(path, source):
        name = hashlib.sha1(importlib.util.MAGIC_NUMBER + source).hexdigest()
        try:
            with open(f"{place}/{name}", "rb") as stream:
                return marshal.load(stream)
        except OSError:
            code = compile_source(path, source)
        try:
            os.makedirs(place, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place, delete=False) as stream:
                stream.write(marshal.dumps(code))
            os.chmod(stream.name, 0o644)
            os.replace(stream.name, f"{place}/{name}")
        except OSError:
            pass  # not root
        return code

    return kept

import zipimport
zipimport._compile_source = _keep_compiled(zipimport._compile_source)
"""


class Engine(http.client.HTTPConnection):
    """The API of the Docker engine on its local socket."""

    def __init__(self) -> None:
        super().__init__("docker", timeout=10)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def inspect(container: str) -> dict[str, Any]:
    """What the engine knows of a container; nothing when it does not know it or cannot be asked here."""
    if os.geteuid() or "DOCKER_HOST" in os.environ or not (shutil.which("nsenter") and shutil.which("setpriv")):
        return {}
    engine = Engine()
    try:
        engine.request("GET", f"/containers/{urllib.parse.quote(container, safe='')}/json")
        answer = engine.getresponse()
        known: dict[str, Any] = json.loads(answer.read()) if answer.status == 200 else {}
        return known
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        engine.close()


def command(container: str, argv: list[str], *, env: dict[str, str] | None = None) -> list[str]:
    """An argument list that runs another one in a container, as root, with its environment and capabilities.

    It is one of docker where there is no quicker way: the container does not run or is paused, the engine is elsewhere,
    the user is not root. The quick one has a session of its own, so that it goes on, as one of docker does, when
    the program that began it is killed.
    """
    env = env or {}
    known = inspect(container)
    state = known.get("State", {})
    process = Path("/proc", str(state.get("Pid")))
    try:
        here = state["Running"] and not state["Paused"] and known["Id"] in (process / "cgroup").read_text()
        status = (process / "status").read_text() if here else ""
    except (KeyError, OSError):
        status = ""
    if not status:
        given = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        return ["docker", "exec", "--interactive", *given, container, *argv]
    bounds = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
    allowed = ",".join(["-all", *(f"+cap_{number}" for number in range(bounds.bit_length()) if bounds >> number & 1)])
    environment = [*known["Config"]["Env"], f"HOSTNAME={known['Config']['Hostname']}", "HOME=/root"]
    environment += [f"{name}={value}" for name, value in env.items()]
    return [
        *("setsid", "setpriv", f"--bounding-set={allowed}", "--inh-caps=-all", "nsenter", f"--target={process.name}"),
        *("--mount", "--uts", "--ipc", "--net", "--pid", "env", "--ignore-environment", *environment, *argv),
    ]


class Connection(docker.Connection):
    """The connection of community.docker, with the short way."""

    transport = "node"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = False) -> tuple[int, bytes, bytes]:
        if in_data:
            in_data = in_data.replace(BEGIN, BEGIN + KEEP_COMPILED, 1)
        done: tuple[int, bytes, bytes] = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return done

    def _build_exec_cmd(self, cmd: list[str]) -> list[Any]:
        if self.remote_user not in (None, "root"):
            slow: list[Any] = super()._build_exec_cmd(cmd)
            return slow
        return command(self.get_option("remote_addr"), cmd)
