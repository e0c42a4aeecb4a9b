# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which services and whether the host have to start again, and how the services of a host are."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Needs
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.version import key

_PROPERTIES = "Id,ActiveState,SubState,NRestarts,InvocationID,Type,UnitFileState,BusName,TriggeredBy"
_MAPPED = re.compile(r" (/(?:usr|lib|lib64|bin|sbin|opt)/\S.*) \(deleted\)$", re.MULTILINE)
#: The question of systemd's state may take this long on a machine that is busy.
QUESTION = 60.0


def parse_needrestart(text: str) -> Needs:
    """Return what ``needrestart -b -r l`` printed."""
    needs = Needs()
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon:
            fields.setdefault(name, []).append(value.strip())
    state = fields.get("NEEDRESTART-KSTA", ["0"])[0]
    running, expected = (fields.get(f"NEEDRESTART-K{one}", ["?"])[0] for one in ("CUR", "EXP"))
    if state == "2":
        needs.reboot.append(f"the running kernel {running} is an older build")
    if state == "3":
        needs.reboot.append(f"kernel {running} runs, {expected} is installed")
    if fields.get("NEEDRESTART-UCSTA", ["0"])[0] == "2":
        needs.reboot.append("newer microcode of the processor is installed")
    for unit in fields.get("NEEDRESTART-SVC", []):
        needs.services[unit] = "runs on files that were replaced"
    return needs


def newer_kernel(running: str, installed: Iterable[str]) -> str:
    """Return the newest kernel when it is not the running one; a host whose own kernel is not here has no say in it.

    :param installed: versions, as in the names of ``/boot/vmlinuz-*``.
    """
    kernels = sorted(installed, key=key)
    return kernels[-1] if running in kernels and kernels[-1] != running else ""


def unit_of(cgroup: str) -> str:
    """Return the service of a process by its ``/proc/PID/cgroup``; empty when it is of none of the system's."""
    for line in cgroup.splitlines():
        parts = [part for part in line.rpartition(":")[2].split("/") if part]
        names = [part for part in parts if part.endswith(".service")]
        if names and not any(part.startswith("user@") for part in parts):
            return names[-1]
    return ""


def users_of(files: Callable[[str], bool], proc: str = "/proc") -> dict[str, str]:
    """Return the services that run one of some files now, with the file."""
    return _mapping(re.compile(r" (/\S[^\n]*)$", re.MULTILINE), files, "runs on {}, which changes", proc)


def stale(proc: str = "/proc") -> dict[str, str]:
    """Return the services that run a program or library which was replaced, with one such file."""
    return _mapping(_MAPPED, lambda path: True, "runs on {}, which was replaced", proc)


def _mapping(pattern: re.Pattern[str], wanted: Callable[[str], bool], words: str, proc: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/maps", encoding="utf-8", errors="replace") as stream:
                mapped = next((path for path in dict.fromkeys(pattern.findall(stream.read())) if wanted(path)), "")
            if mapped:
                with open(f"{proc}/{entry}/cgroup", encoding="utf-8", errors="replace") as stream:
                    unit = unit_of(stream.read())
                if unit:
                    found.setdefault(unit, words.format(mapped))
        except OSError:  # it has ended meanwhile
            continue
    return found


def read(run: Runner, exists: Callable[[str], bool] = os.path.exists) -> Needs:
    """Return what has to start again on this host: needrestart's answer where it is installed, else that of /proc."""
    if which("needrestart"):
        needs = parse_needrestart(run(["needrestart", "-b", "-r", "l"], timeout=300).stdout)
    else:
        needs = Needs(services=stale())
        boot = os.listdir("/boot") if os.path.isdir("/boot") else []
        kernel = newer_kernel(os.uname().release, [name[8:] for name in boot if name.startswith("vmlinuz-")])
        if kernel:
            needs.reboot.append(f"kernel {os.uname().release} runs, {kernel} is installed")
    if exists("/run/reboot-required"):
        needs.reboot.append(f"packages ask for it: {', '.join(_asking()) or 'not said which'}")
    return needs


def _asking() -> list[str]:
    try:
        with open("/run/reboot-required.pkgs", encoding="utf-8", errors="replace") as stream:
            return sorted(set(stream.read().split()))
    except OSError:
        return []


def parse_services(text: str) -> dict[str, dict[str, Any]]:
    """Return the services that ``systemctl show`` printed, one block each, without those that never ran."""
    found = {}
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if values.get("Id", "").endswith(".service") and values.get("ActiveState") != "inactive":
            restarts = values.get("NRestarts", "")
            found[values["Id"]] = {
                "state": values["ActiveState"],
                "sub": values.get("SubState", ""),
                "restarts": int(restarts) if restarts.isdigit() else 0,
                "invocation": values.get("InvocationID", ""),
                "once": values.get("Type") == "oneshot",
                "passing": _passing(values),
            }
    return found


def _passing(values: Mapping[str, str]) -> bool:
    """Tell whether a service ends by itself when nobody needs it: that of a login, or one that is started on demand."""
    triggered = bool(values.get("BusName") or values.get("TriggeredBy"))
    return values["Id"].startswith("user@") or (values.get("UnitFileState") == "static" and triggered)


def services(run: Runner) -> dict[str, dict[str, Any]]:
    """Return how the services of this host are."""
    done = run(["systemctl", "show", "*.service", f"--property={_PROPERTIES}"], timeout=QUESTION)
    return parse_services(done.stdout)


def worse(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return what was well and is no longer; what was broken before is not held against the change."""
    found = []
    for unit, old in before.items():
        now = after.get(unit, {"state": "inactive", "sub": "dead", "restarts": 0, "invocation": ""})
        if old["state"] != "active" or old.get("once"):
            continue
        if now["state"] == "active" or (now["state"] == "inactive" and old.get("passing")):
            continue
        words = f"{unit} was running before and is {now['state']} ({now['sub']})"
        found.append(Finding("packages.service", unit, "critical", words, advice=f"journalctl -u {unit}"))
    for unit, now in after.items():
        if now["state"] == "failed" and before.get(unit, {}).get("state") not in ("failed", "active"):
            words = f"{unit} has failed and had not before"
            found.append(Finding("packages.service", unit, "critical", words, advice=f"journalctl -u {unit}"))
    return found


def restarts(services: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how often systemd has started services again by itself; who starts one by hand sets that to 0."""
    return {unit: one["restarts"] for unit, one in services.items() if not one.get("once")}


def flapping(before: Mapping[str, int], now: Mapping[str, Mapping[str, Any]], when: str) -> list[Finding]:
    """Return the services that systemd had to start again since :func:`restarts` were counted."""
    found = []
    for unit, count in restarts(now).items():
        if count > before.get(unit, count):
            words = f"{unit} ended by itself and was started again by systemd {when}"
            found.append(Finding("packages.service", unit, "critical", words, advice=f"journalctl -u {unit}"))
    return found


def watch(
    run: Runner,
    before: Mapping[str, Mapping[str, Any]],
    settle: float,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Wait until the services are as they were before, then watch whether they stay so; return how they are.

    :param settle: seconds that they may take to come up.
    :param seconds: how long they are watched.
    """
    deadline = clock() + settle
    start = services(run)
    while worse(before, start) and clock() < deadline:
        sleep(1.0)
        start = services(run)
    found = worse(before, start)
    if found or not seconds:
        return start, found
    sleep(seconds)
    end = services(run)
    return end, [*worse(before, end), *flapping(restarts(start), end, "while it was watched")]
