# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd units of the system and of users, through systemctl and journalctl.

Properties: org.freedesktop.systemd1(5). Journal fields: systemd.journal-fields(7); the messages of the manager about
processes that ended carry EXIT_CODE, EXIT_STATUS and UNIT_RESULT (catalog entries in sd-messages.h).
"""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.service import process
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import (
    Exit,
    ServiceError,
    Status,
    missing,
)

PROPERTIES = (
    "Id,LoadState,LoadError,UnitFileState,Type,ActiveState,SubState,Result,MainPID,NRestarts,ExecMainCode,"
    "ExecMainStatus,InvocationID,StatusText,CanReload,CanStart,ReloadResult,ControlGroup,NeedDaemonReload,"
    "RemainAfterExit,DropInPaths"
)

#: Suffixes that make a name a full unit name (systemd.unit(5)).
SUFFIXES = (".service", ".socket", ".target", ".mount", ".timer", ".path", ".slice", ".scope", ".automount", ".swap")

#: Seconds that a question to systemd or to the journal may take.
QUESTION = 20.0


def unit_name(name: str) -> str:
    """Return the full name of a unit: ``nginx`` becomes ``nginx.service``."""
    return name if name.endswith(SUFFIXES) else f"{name}.service"


def parse_show(text: str) -> dict[str, str]:
    """Return the properties that ``systemctl show`` printed."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def status_of(properties: Mapping[str, str]) -> Status:
    """Return the status that the properties of a unit tell."""
    active, sub = properties.get("ActiveState", ""), properties.get("SubState", "")
    if properties.get("LoadState") == "not-found":
        phase = "absent"
    elif active == "active":
        phase = "running"
    elif active == "failed" or sub.startswith("auto-restart"):
        phase = "failed"  # it ended and systemd will try again: it is not up, and not merely starting
    elif active == "inactive":
        phase = "stopped"
    elif active == "deactivating":
        phase = "stopping"
    else:
        phase = "starting"
    pid = _number(properties.get("MainPID"))
    result = properties.get("Result", "")
    return Status(
        phase=phase,
        words=f"{active} ({sub})",
        pids=(pid,) if pid else (),
        restarts=_number(properties.get("NRestarts")),
        generation=properties.get("InvocationID", ""),
        returns=sub.startswith("auto-restart"),
        can_reload=properties.get("CanReload") == "yes",
        said=properties.get("StatusText", ""),
        exit=_exit(
            {"1": "exited", "2": "killed", "3": "dumped"}.get(properties.get("ExecMainCode", ""), ""),
            properties.get("ExecMainStatus", ""),
            "" if result == "success" else result,
        ),
    )


def parse_journal(text: str) -> list[dict[str, Any]]:
    """Return the entries that ``journalctl -o json`` printed, oldest first."""
    entries = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def message_of(entry: Mapping[str, Any]) -> str:
    """Return the message of a journal entry; one that is not UTF-8 arrives as a list of bytes."""
    message = entry.get("MESSAGE")
    if isinstance(message, list):
        return bytes(part for part in message if isinstance(part, int) and 0 <= part < 256).decode("utf-8", "replace")
    return message if isinstance(message, str) else ""


def exit_of(entries: list[dict[str, Any]]) -> Exit:
    """Return how the unit last ended according to what systemd wrote into the journal."""
    code = status = result = ""
    for entry in entries:
        if "EXIT_CODE" in entry:
            code, status = str(entry["EXIT_CODE"]), str(entry.get("EXIT_STATUS", ""))
        result = str(entry.get("UNIT_RESULT", result))
    return _exit(code, status, result)


class Systemd:
    """One unit of the system's or a user's service manager.

    :param name: name of the unit; ``.service`` is added when it has no suffix.
    :param run: how programs are run.
    :param user: account whose user manager has the unit; ``None``: the system manager.
    """

    kind = "systemd"
    interval = 0.25

    def __init__(self, name: str, run: Runner, user: str | None = None) -> None:
        self.name = unit_name(name)
        self.user = user
        self.title = f"unit {self.name}" + (f" of user {user}" if user else "")
        self._run = run
        self._environment: dict[str, str] = {}
        if user:
            try:
                self._uid = pwd.getpwnam(user).pw_uid
            except KeyError:
                raise ServiceError(f"there is no account '{user}' on this host; correct 'user'") from None
            runtime = f"/run/user/{self._uid}"
            self._environment = {
                "XDG_RUNTIME_DIR": runtime,
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            }

    def properties(self) -> dict[str, str]:
        """Return the properties of the unit that matter here.

        :raises ServiceError: when systemd does not answer.
        """
        result = self._systemctl("show", self.name, f"--property={PROPERTIES}", timeout=QUESTION)
        if not result.ok:
            raise ServiceError(f"systemd does not tell the state of {self.title}: {result.describe()}")
        return parse_show(result.stdout)

    def status(self) -> Status:
        """Return the state of the unit now."""
        return status_of(self.properties())

    def problems(self) -> list[tuple[str, str, str]]:
        """Return what keeps systemd from acting on the unit."""
        if self.user and not os.path.exists(f"/run/user/{self._uid}/systemd/private"):
            return [
                (
                    "service.exists",
                    f"the user manager of {self.user} does not run, so {self.title} cannot be reached",
                    f"let it run without a login: loginctl enable-linger {self.user}",
                )
            ]
        properties = self.properties()
        state = properties.get("LoadState")
        reason = properties.get("LoadError", "").partition(" ")[2].strip('"') or f"LoadState is {state}"
        if state == "not-found":
            return [missing(self.title, self.name, self._known(), "list them: systemctl list-unit-files")]
        if state == "masked":
            scope = "--user " if self.user else ""
            return [
                (
                    "service.masked",
                    f"{self.title} is masked: systemd refuses to start it",
                    f"find out who masked it and why, then: systemctl {scope}unmask {self.name}",
                )
            ]
        if state != "loaded":
            return [("service.exists", f"{self.title} cannot be loaded: {reason}", "correct the unit file")]
        if properties.get("Type") == "oneshot" and properties.get("RemainAfterExit") != "yes":
            return [
                (
                    "service.type",
                    f"{self.title} is a oneshot unit that ends when its work is done: nothing stays up",
                    "start it with ansible.builtin.systemd_service",
                )
            ]
        return []

    def stale(self) -> bool:
        """Whether the unit's file on disk is newer than what systemd has loaded."""
        return self.properties().get("NeedDaemonReload") == "yes"

    def act(self, action: str, timeout: float) -> None:
        """Start, stop, restart or reload the unit and wait for systemd's job to end."""
        try:
            result = self._systemctl(action, self.name, timeout=timeout)
        except ServiceError as error:
            if not isinstance(error.__cause__, CommandError):
                raise
            raise ServiceError(
                f"systemctl {action} of {self.title} was not done within {timeout:g} s: it is {self.status().words}"
            ) from error
        if not result.ok:
            properties = self.properties()
            reason = properties.get("ReloadResult" if action == "reload" else "Result", "")
            words = result.stderr.strip().splitlines()
            raise ServiceError(
                f"systemctl {action} of {self.title} failed"
                + (f" with result '{reason}'" if reason and reason != "success" else "")
                + (f": {words[0]}" if words else "")
            )

    def clear_failures(self) -> bool:
        """Forget failed starts (``systemctl reset-failed``), which also empties the start limit."""
        properties = self.properties()
        if properties.get("ActiveState") != "failed" and properties.get("Result") == "success":
            return False
        return self._systemctl("reset-failed", self.name, timeout=QUESTION).ok

    def mark(self) -> str | None:
        """Return the cursor of the newest journal entry, ``None`` when there is no journal."""
        result = self._journal("--lines=0", "--show-cursor")
        for line in result.stdout.splitlines():
            if line.startswith("-- cursor: "):
                return line[len("-- cursor: ") :]
        return None

    def entries(self, mark: str | None, lines: int) -> list[dict[str, Any]]:
        """Return the journal entries of the unit, at most ``lines``, since the mark."""
        if mark is None:
            return []
        if self.user:
            account = f"_UID={self._uid}"
            matches = [f"_SYSTEMD_USER_UNIT={self.name}", account, "+", f"USER_UNIT={self.name}", account]
        else:
            matches = [f"--unit={self.name}"]
        # --after-cursor would leave out the first match: it skips one, also when the entry at the cursor is no match
        found = parse_journal(self._journal("--output=json", f"--cursor={mark}", *matches).stdout)
        return [entry for entry in found if entry.get("__CURSOR") != mark][-lines:]

    def logs(self, mark: str | None, lines: int) -> list[str]:
        """Return the last messages of the unit since the mark."""
        found = (message_of(entry) for entry in self.entries(mark, lines))
        return [line for message in found for line in message.splitlines()][-lines:]

    def exited(self, mark: str | None) -> Exit:
        """Return how the unit last ended, from the journal since the mark, else from systemd's memory of it."""
        self._journal("--sync")  # what was said at the end may not be written yet
        told = exit_of(self.entries(mark, 1000))
        return told if told != Exit() else self.status().exit

    def owns(self, pid: int) -> bool:
        """Whether a process is in the control group of the unit."""
        group = self.properties().get("ControlGroup", "")
        return bool(group) and any(path == group or path.startswith(group + "/") for path in process.cgroups(pid))

    def _known(self) -> list[str]:
        suffix = self.name.rpartition(".")[2]
        names: list[str] = []
        for question in (("list-unit-files",), ("list-units", "--all")):
            result = self._systemctl(*question, f"--type={suffix}", "--no-legend", "--plain", timeout=QUESTION)
            names.extend(line.split()[0] for line in result.stdout.splitlines() if line.strip())
        return [name for name in names if name != self.name]

    def _systemctl(self, *arguments: str, timeout: float) -> Result:
        return self._ask(["systemctl", *(["--user"] if self.user else []), "--no-ask-password", *arguments], timeout)

    def _journal(self, *arguments: str) -> Result:
        # as this account, not as the user: the user may not be allowed to read the journal
        try:
            return self._run(["journalctl", "--quiet", "--no-pager", *arguments], timeout=QUESTION)
        except CommandError as error:
            raise ServiceError(str(error)) from error

    def _ask(self, argv: list[str], timeout: float) -> Result:
        try:
            return self._run(argv, timeout=timeout, env=self._environment, user=self.user)
        except CommandError as error:
            raise ServiceError(str(error)) from error


def _exit(code: str, status: str, result: str) -> Exit:
    if code == "exited":
        return Exit(code=_number(status), result=result, oom=result == "oom-kill")
    if code in ("killed", "dumped"):
        return Exit(signal=_signal(status), result=result, oom=result == "oom-kill")
    return Exit(result=result, oom=result == "oom-kill")


def _signal(status: str) -> str:
    # the journal has the name without SIG, the property has the number
    try:
        return signal.Signals(int(status)).name
    except ValueError:
        return status if status.startswith("SIG") else f"SIG{status}"


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
