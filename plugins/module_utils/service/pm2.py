# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PM2 processes of any account: fork and cluster mode, one or many instances, ecosystem files.

``pm2 jlist`` prints an array of processes; the fields used are ``name``, ``pm_id``, ``pid`` and in ``pm2_env``
``status``, ``restart_time``, ``pm_uptime`` (milliseconds since 1970), ``exec_mode``, ``wait_ready`` and the log paths
(PM2's lib/API.js and lib/God.js). Exits are read from ``pm2.log``. Whether a process has really sent ``ready`` is told
only by PM2's bus, ``pub.sock``: after ``listen_timeout`` PM2 calls it online all the same, and we go on waiting.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.service import process
from ansible_collections.worklog.maintenance.plugins.module_utils.service.logfile import Place, place, read_since
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import (
    Exit,
    ServiceError,
    Status,
    missing,
)

#: Seconds that a question to PM2 may take; starting Node.js alone takes most of one.
QUESTION = 30.0

_EXITED = re.compile(r"App \[.*:(?P<id>\d+)\] exited with code \[(?P<code>\d+)\] via signal \[(?P<signal>\w+)\]")
_STOPPING = re.compile(r"Stopping app:.* id:(?P<id>\d+)$")


def parse_jlist(text: str) -> list[dict[str, Any]]:
    """Return the processes that ``pm2 jlist`` printed, whatever banner PM2 printed before or after them.

    :raises ValueError: when there is no list in it.
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\[(?=\s*[{\]])", text):
        try:
            value, _end = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if isinstance(value, list) and all(isinstance(item, dict) and "pm2_env" in item for item in value):
            return value
    raise ValueError("it printed no list of processes")


def status_of(instances: list[dict[str, Any]]) -> Status:
    """Return what the instances of one process are together: as bad as the worst of them."""
    words = [str(instance["pm2_env"].get("status", "")) for instance in instances]
    states = set(words)
    if not instances:
        phase = "absent"
    elif states & {"errored", "waiting restart"}:
        phase = "failed"
    elif states & {"launching", "one-launch-status"}:
        phase = "starting"
    elif "stopping" in states:
        phase = "stopping"
    elif states == {"online"}:
        phase = "running"
    elif "online" in states:
        phase = "failed"
    else:
        phase = "stopped"
    counted = ", ".join(f"{words.count(word)} {word}" if len(words) > 1 else word for word in sorted(states))
    return Status(
        phase=phase,
        words=counted or "not defined",
        pids=tuple(sorted(int(instance.get("pid") or 0) for instance in instances if instance.get("pid"))),
        restarts=sum(int(instance["pm2_env"].get("restart_time") or 0) for instance in instances),
        generation=" ".join(
            f"{instance.get('pm_id')}:{instance['pm2_env'].get('pm_uptime')}"
            for instance in sorted(instances, key=lambda instance: int(instance.get("pm_id") or 0))
        ),
        returns="waiting restart" in states,
        can_reload=True,
    )


def unplanned_exits(lines: Iterable[str], ids: Iterable[int]) -> list[Exit]:
    """Return how the instances ended in a piece of pm2.log by themselves since they were last told to stop."""
    wanted = {str(number) for number in ids}
    told: set[str] = set()
    found: list[tuple[str, Exit]] = []
    for line in lines:
        stopping = _STOPPING.search(line)
        if stopping and stopping["id"] in wanted:
            told.add(stopping["id"])
            # how the process before this one ended does not matter any more
            found = [(number, end) for number, end in found if number != stopping["id"]]
        ended = _EXITED.search(line)
        if ended and ended["id"] in told:
            told.discard(ended["id"])
        elif ended and ended["id"] in wanted:
            # for a process that ended by itself PM2 names SIGINT, the signal it would have sent
            died = ended["signal"] not in ("SIGINT", "undefined", "null")
            found.append((ended["id"], Exit(signal=ended["signal"]) if died else Exit(code=int(ended["code"]))))
    return [end for number, end in found]


def bus_messages(buffer: bytes) -> tuple[list[tuple[str, Any]], bytes]:
    """Return the (topic, content) of the messages in a piece of PM2's bus, and the bytes left over.

    The bus speaks AMP: a byte with the number of arguments in its low half, then for each a 32-bit length and bytes
    that begin with ``s:`` (a string) or ``j:`` (JSON).
    """
    messages: list[tuple[str, Any]] = []
    while buffer:
        count, offset, arguments = buffer[0] & 0x0F, 1, []
        for _index in range(count):
            if len(buffer) < offset + 4:
                return messages, buffer
            (length,) = struct.unpack_from(">I", buffer, offset)
            offset += 4
            if len(buffer) < offset + length:
                return messages, buffer
            arguments.append(buffer[offset : offset + length])
            offset += length
        buffer = buffer[offset:]
        if len(arguments) == 2 and arguments[0].startswith(b"s:") and arguments[1].startswith(b"j:"):
            try:
                messages.append((arguments[0][2:].decode("utf-8", "replace"), json.loads(arguments[1][2:])))
            except ValueError:
                continue
    return messages, buffer


class Pm2:
    """One process of PM2 with all its instances.

    :param name: name of the process.
    :param run: how programs are run.
    :param user: account that PM2 runs as; ``None``: the current one.
    :param home: PM2_HOME; ``None``: ``.pm2`` in the account's home.
    :param ecosystem: file that defines the process; it is read again with every action.
    """

    kind = "pm2"
    interval = 2.0

    def __init__(
        self, name: str, run: Runner, *, user: str | None = None, home: str | None = None, ecosystem: str | None = None
    ) -> None:
        try:
            account = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
        except KeyError:
            raise ServiceError(f"there is no account '{user}' on this host; correct 'user'") from None
        self.name = name
        self.user = account.pw_name
        self.home = home or os.path.join(account.pw_dir, ".pm2")
        self.title = f"PM2 process {name} of user {self.user}"
        self._ecosystem = ecosystem
        self._run = run
        self._account = account
        self._ids: list[int] = []
        self._offset: int | None = None
        self._bus: _Bus | None = None
        self._known: list[dict[str, Any]] = []
        self._fresh = False

    @property
    def daemon(self) -> int:
        """The process id of the PM2 daemon, 0 when it does not run."""
        try:
            with open(os.path.join(self.home, "pm2.pid"), encoding="ascii") as stream:
                pid = int(stream.read().strip() or 0)
        except (OSError, ValueError):
            return 0
        return pid if pid and process.alive(pid) else 0

    def instances(self) -> list[dict[str, Any]]:
        """Return the entries of the process in PM2's list; none when the daemon does not run.

        :raises ServiceError: when PM2 does not answer.
        """
        self._known = [entry for entry in self._list() if entry.get("name") == self.name]
        return self._known

    def status(self) -> Status:
        """Return the state of all instances now."""
        instances = self._known if self._fresh else self.instances()
        self._fresh = False
        self._ids = [int(instance.get("pm_id") or 0) for instance in instances]
        status = status_of(instances)
        waiting = {int(entry.get("pm_id") or 0) for entry in instances if entry["pm2_env"].get("wait_ready")}
        if self._offset is None:
            self._offset = status.restarts  # it counts since it was defined, and our restarts too
        ready = None if self._bus is None or not waiting else waiting <= self._bus.ready
        if ready and self._bus:
            self._bus.close()  # what they said stays known
        return Status(
            **{
                **status.__dict__,
                "restarts": max(0, status.restarts - self._offset),
                "ready": ready,
                "said": "but has not sent its 'ready' message" if ready is False else "",
            }
        )

    def problems(self) -> list[tuple[str, str, str]]:
        """Return what keeps PM2 from acting on the process."""
        if which("pm2") is None:
            return [("service.exists", "the program 'pm2' is not installed on this host", "npm install -g pm2")]
        if self._ecosystem and not os.path.isfile(self._ecosystem):
            return [
                (
                    "service.exists",
                    f"the ecosystem file {self._ecosystem} of {self.title} does not exist",
                    "correct 'pm2_ecosystem'",
                )
            ]
        processes = self._list()
        if self._ecosystem or any(entry.get("name") == self.name for entry in processes):
            return []
        if not self.daemon:
            return [
                (
                    "service.exists",
                    f"PM2 of user {self.user} does not run ({self.home})",
                    "name the account with 'user', its directory with 'pm2_home', or the file that defines the process "
                    "with 'pm2_ecosystem'",
                )
            ]
        known = [str(entry.get("name")) for entry in processes]
        return [missing(self.title, self.name, known, "or name the file that defines it with 'pm2_ecosystem'")]

    def act(self, action: str, timeout: float) -> None:
        """Start, stop, restart or reload all instances and wait for PM2 to be done."""
        log = os.path.join(self.home, "pm2.log")
        mark = {log: place(log)}
        if self._ecosystem and action != "stop":
            verb = {"start": "start", "restart": "startOrRestart", "reload": "startOrReload"}[action]
            arguments = [verb, self._ecosystem, "--only", self.name]
        else:
            arguments = [action, self.name]
        if self._bus:
            self._bus.close()
        self._bus = None
        if action != "stop":
            bus = _Bus(os.path.join(self.home, "pub.sock"))
            self._bus = bus if bus.connected else None
        result = self._pm2(*arguments, timeout=timeout)
        if not result.ok:
            words = re.findall(r"\[PM2\]\[ERROR\] (.*)", result.stdout + result.stderr)
            raise ServiceError(f"pm2 {action} of {self.title} failed: {words[-1] if words else result.describe()}")
        instances = self.instances()
        if not instances:
            raise ServiceError(
                f"{self._ecosystem} does not define a process named '{self.name}', PM2 started nothing; correct it"
                if self._ecosystem
                else f"{self.title} is gone after pm2 {action}"
            )
        if action == "stop":
            return
        self._ids = [int(instance.get("pm_id") or 0) for instance in instances]
        # PM2 counts the restart that we asked for; what ended by itself since is not ours
        self._fresh = True
        early = len(self._ended(mark))
        self._offset = max(0, status_of(instances).restarts - early)

    def clear_failures(self) -> bool:
        """Nothing to forget: PM2 starts a process again whenever it is told to."""
        return False

    def mark(self) -> dict[str, Place]:
        """Return where the logs of PM2 and of all instances end now."""
        paths = [os.path.join(self.home, "pm2.log")]
        for instance in self._known or self.instances():
            for key in ("pm_out_log_path", "pm_err_log_path"):
                paths.append(str(instance["pm2_env"].get(key) or os.devnull))
        return {path: place(path) for path in paths}

    def logs(self, mark: Mapping[str, Place], lines: int) -> list[str]:
        """Return the last lines of standard output, then of standard error of all instances since the mark."""
        found: list[str] = []
        for key in ("pm_out_log_path", "pm_err_log_path"):
            for path in dict.fromkeys(str(instance["pm2_env"].get(key) or "") for instance in self._known):
                if path:
                    found.extend(read_since(path, mark.get(path, Place(0, 0))))
        return found[-lines:]

    def exited(self, mark: Mapping[str, Place]) -> Exit:
        """Return how an instance last ended by itself since the mark."""
        ended = self._ended(mark)
        return ended[-1] if ended else Exit()

    def owns(self, pid: int) -> bool:
        """Whether a process is an instance, comes from one, or is the daemon that listens for a cluster."""
        instances = self._known or self.instances()
        mains = {int(instance.get("pid") or 0) for instance in instances} - {0}
        cluster = any(instance["pm2_env"].get("exec_mode") == "cluster_mode" for instance in instances)
        return process.is_descendant(pid, mains) or (cluster and pid == self.daemon)

    def _ended(self, mark: Mapping[str, Place]) -> list[Exit]:
        path = os.path.join(self.home, "pm2.log")
        return unplanned_exits(read_since(path, mark.get(path, Place(0, 0))), self._ids)

    def _list(self) -> list[dict[str, Any]]:
        if not self.daemon:
            return []  # asking would start it
        result = self._pm2("jlist", timeout=QUESTION)
        try:
            return parse_jlist(result.stdout)
        except ValueError as error:
            words = f"PM2 of user {self.user} does not tell its processes, {error}: {result.describe()}"
            raise ServiceError(_without_environment(words)) from error

    def _pm2(self, *arguments: str, timeout: float) -> Result:
        program = which("pm2") or "pm2"
        # An environment of its own: PM2 hands down what it sees to the processes it starts.
        environment = {
            "HOME": self._account.pw_dir,
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": self._account.pw_shell or "/bin/sh",
            "LANG": "C.UTF-8",
            "PATH": f"{os.path.dirname(program)}:/usr/local/bin:/usr/bin:/bin",
            "PM2_HOME": self.home,
            "PM2_DISCRETE_MODE": "true",
        }
        argv = ["env", "-i", *(f"{key}={value}" for key, value in environment.items()), program, *arguments]
        try:
            return self._run(argv, timeout=timeout, user=self.user, cwd=self._account.pw_dir)
        except CommandError as error:
            raise ServiceError(f"pm2 {arguments[0]} of {self.title}: {_without_environment(str(error))}") from error


class _Bus:
    """Listens on PM2's bus for the instances that say they are ready, until it is closed."""

    def __init__(self, path: str) -> None:
        self.ready: set[int] = set()
        self._end = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(0.2)
        try:
            self._socket.connect(path)
        except OSError:
            self.connected = False
            self._socket.close()
            return
        self.connected = True
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """End listening."""
        self._end.set()

    def _listen(self) -> None:
        buffer = b""
        with self._socket:
            while not self._end.is_set():
                try:
                    piece = self._socket.recv(65536)
                except socket.timeout:
                    continue
                except OSError:
                    return
                if not piece:
                    return
                messages, buffer = bus_messages(buffer + piece)
                self.ready.update(ready_ids(messages))


def ready_ids(messages: Iterable[tuple[str, Any]]) -> Iterator[int]:
    """Yield the ``pm_id`` of each process that sent ``ready``."""
    for topic, content in messages:
        if topic == "process:msg" and isinstance(content, dict) and content.get("raw") == "ready":
            number = content.get("process", {}).get("pm_id")
            if isinstance(number, int):
                yield number


def _without_environment(words: str) -> str:
    return re.sub(r"'env -i .*? (\S*pm2) ", r"'\1 ", words)
