# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker containers, through the docker program (``docker inspect``, Engine API "ContainerInspect")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.service import process
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import (
    Exit,
    ServiceError,
    Status,
    missing,
)

#: Seconds that a question to the engine may take.
QUESTION = 30.0


def parse_inspect(text: str) -> dict[str, Any]:
    """Return the one container that ``docker inspect`` printed.

    :raises ValueError: when there is none.
    """
    value = json.loads(text)
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise ValueError("it printed no container")
    return value[0]


def status_of(container: Mapping[str, Any]) -> Status:
    """Return the status that an inspected container tells."""
    state = container.get("State", {})
    word = str(state.get("Status", ""))
    health = state.get("Health") or {}
    healthy = str(health.get("Status", "none"))
    phase = {
        "running": "running",
        "restarting": "failed",
        "exited": "stopped" if state.get("ExitCode") == 0 else "failed",
        "dead": "failed",
        "created": "stopped",
        "paused": "starting",
        "removing": "stopping",
    }.get(word, "stopped")
    log = health.get("Log") or []
    pid = int(state.get("Pid") or 0)
    return Status(
        phase=phase,
        words=f"{word} ({healthy})" if health and word == "running" else word,
        pids=(pid,) if pid else (),
        restarts=int(container.get("RestartCount") or 0),
        generation=f"{container.get('Id', '')[:12]} {state.get('StartedAt', '')}",
        ready=None if healthy == "none" else healthy == "healthy",
        returns=word == "restarting",
        can_reload=word == "running",
        said=str(log[-1].get("Output", "")).strip()[:500] if log else "",
        exit=exit_of(state),
    )


def exit_of(state: Mapping[str, Any]) -> Exit:
    """Return how the container last ended; 128 + n is the engine's way to say signal n."""
    code = int(state.get("ExitCode") or 0)
    if state.get("Running") and not state.get("Restarting") and not code:
        return Exit()
    named = {129: "SIGHUP", 130: "SIGINT", 132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL",
             139: "SIGSEGV", 143: "SIGTERM"}.get(code)  # fmt: skip
    result = str(state.get("Error") or "")
    return Exit(code=None if named else code, signal=named, result=result, oom=bool(state.get("OOMKilled")))


def published_ports(container: Mapping[str, Any]) -> set[int]:
    """Return the TCP ports of the host that lead into the container."""
    bindings = container.get("HostConfig", {}).get("PortBindings") or {}
    return {
        int(binding["HostPort"])
        for inner, bound in bindings.items()
        if inner.endswith("/tcp")
        for binding in bound or []
        if str(binding.get("HostPort", "")).isdigit()
    }


class Docker:
    """One container.

    :param name: name or id of the container.
    :param run: how programs are run.
    """

    kind = "docker"
    interval = 0.5

    def __init__(self, name: str, run: Runner) -> None:
        self.name = name
        self.title = f"container {name}"
        self._run = run

    def inspect(self) -> dict[str, Any] | None:
        """Return what the engine tells about the container, ``None`` when it does not exist.

        :raises ServiceError: when the engine does not answer.
        """
        result = self._docker("container", "inspect", self.name)
        if not result.ok and "no such container" in result.stderr.lower():
            return None
        try:
            return parse_inspect(result.stdout)
        except ValueError as error:
            raise ServiceError(f"Docker does not tell the state of {self.title}: {result.describe()}") from error

    def status(self) -> Status:
        """Return the state of the container now."""
        container = self.inspect()
        return status_of(container) if container else Status("absent", "does not exist")

    def problems(self) -> list[tuple[str, str, str]]:
        """Return what keeps Docker from acting on the container."""
        container = self.inspect()
        if container is None:
            known = self._docker("container", "ls", "--all", "--format", "{{.Names}}").stdout.split()
            return [missing(self.title, self.name, known, "list them: docker ps --all")]
        if container.get("State", {}).get("Paused"):
            return [("service.masked", f"{self.title} is paused", f"docker unpause {self.name}")]
        return []

    def act(self, action: str, timeout: float) -> None:
        """Start, stop or restart the container, or send SIGHUP to its main process to reload it."""
        arguments = ("kill", "--signal=HUP") if action == "reload" else (action,)
        result = self._docker("container", *arguments, self.name, timeout=timeout)
        if not result.ok:
            raise ServiceError(f"docker {action} of {self.title} failed: {result.stderr.strip() or result.describe()}")

    def clear_failures(self) -> bool:
        """Nothing to forget: the engine counts from 0 after every start by hand."""
        return False

    def mark(self) -> str:
        """Return the time now."""
        return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def logs(self, mark: str, lines: int) -> list[str]:
        """Return the last lines of the container's standard output and error since the mark."""
        result = self._docker("container", "logs", f"--since={mark}", f"--tail={lines}", self.name)
        return (result.stdout + result.stderr).splitlines()[-lines:] if result.ok else []

    def exited(self, mark: str) -> Exit:
        """Return how the container last ended; the engine remembers only the last time."""
        container = self.inspect()
        return exit_of(container.get("State", {})) if container else Exit()

    def owns(self, pid: int) -> bool:
        """Whether a process runs in the container, or is the proxy of one of its published ports."""
        container = self.inspect()
        if container is None:
            return False
        if any(container["Id"] in path for path in process.cgroups(pid)):
            return True
        words = process.command_line(pid).split()
        ports = {str(port) for port in published_ports(container)}
        return "docker-proxy" in " ".join(words[:1]) and any(
            flag == "-host-port" and value in ports for flag, value in zip(words, words[1:])
        )

    def _docker(self, *arguments: str, timeout: float = QUESTION) -> Result:
        try:
            return self._run(["docker", *arguments], timeout=timeout)
        except CommandError as error:
            raise ServiceError(str(error)) from error
