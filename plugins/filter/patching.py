# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller decides when hosts are patched: whether it is the time, what was proven, what is shown.

Ansible loads every file of filters, and compiles what it imports, in each worker that needs one of them: the functions
import what they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError


def patch_window(
    windows: Sequence[str], blackout: Sequence[str] = (), zone: str = "UTC", cutoff: Any = 0, now: str | None = None
) -> dict[str, Any]:
    """Return whether a host may be begun now, and the sentence that says why."""
    from ansible_collections.worklog.maintenance.plugins.module_utils import units
    from ansible_collections.worklog.maintenance.plugins.module_utils.packages import window

    try:
        seconds = units.duration(cutoff)
    except ValueError as error:
        raise AnsibleFilterError(f"patch_window: the cutoff '{cutoff}' is not {error}") from error
    try:
        windows = [windows] if isinstance(windows, str) else windows  # as a survey of AWX gives it
        blackout = blackout.split(",") if isinstance(blackout, str) else blackout
        moment = datetime.fromisoformat(now) if now else datetime.now(timezone.utc)
        dates = [str(one) for one in blackout if one]  # YAML makes dates of them
        verdict = window.judge([one for one in windows if one], dates, zone, moment, seconds)
    except ValueError as error:
        raise AnsibleFilterError(f"patch_window: {error}") from error
    return {"open": verdict.open, "message": verdict.message}


def patch_windows_wrong(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what cannot be understood of the windows in the variables of hosts, each with the names of the hosts."""
    wrong: dict[str, list[str]] = {}
    for host in hosts:
        try:
            patch_window(
                host.get("patch_windows") or (), host.get("patch_blackout") or (), host.get("patch_timezone") or "UTC",
                host.get("patch_window_cutoff") or 0,
            )  # fmt: skip
        except AnsibleFilterError as error:
            wrong.setdefault(str(error).partition(": ")[2], []).append(str(host["inventory_hostname"]))
    return [f"{', '.join(names)}: {words}" for words, names in wrong.items()]


def patch_manifest(
    hosts: Mapping[str, Mapping[str, Any]], soak: Any, signer: str = "", key: str = ""
) -> dict[str, Any]:
    """Return the manifest of what hosts have proven, by what package_state returned of each, or why there is none."""
    from ansible_collections.worklog.maintenance.plugins.module_utils import units
    from ansible_collections.worklog.maintenance.plugins.module_utils.packages import manifest
    from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import PackageError

    try:
        seconds = units.duration(soak)
    except ValueError as error:
        return {"refused": f"nothing was proven: the soak time '{soak}' is not {error}"}
    try:
        return manifest.make(hosts, seconds, datetime.now(timezone.utc), signer=signer, key=key)
    except PackageError as error:
        return {"refused": str(error)}  # what Ansible puts before the words of an error would hide them
    except (ValueError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"patch_manifest: {error}") from error


def patch_plan(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the changes of hosts as lines of a table, and below it what an operator has to know of each host."""
    from ansible_collections.worklog.maintenance.plugins.plugin_utils.table import table

    results = list(results)
    cells, notes = [], []
    for result in results:
        host, batch = str(result["host"]), str(result.get("batch") or "")
        for one in result.get("changes", ()):
            cells.append((host, batch, one["name"], one["from"] or "new", one["to"] or "none", " ".join(one["cves"])))
        planned = result.get("outcome") == "planned"
        foreseen: Mapping[str, Any] = (result.get("foreseen") or {}) if planned else {}
        words = [f"restarts {name}" for name in sorted(foreseen.get("services", ()))]
        words += [f"reboot: {why}" for why in foreseen.get("reboot", ())]
        words += [f"reboot needed: {why}" for why in result.get("reboot", ())]
        words += [
            ": ".join(filter(None, (one["message"], one["advice"])))
            for one in result.get("findings", ())
            if one["severity"] == "warning" and one["check"] != "packages.reboot"
        ]
        words += _differences(result)
        notes.append("; ".join([f"{host}: {result['message']}", *words, *([result["window"]] if planned else [])]))
    return [*(table(("host", "batch", "package", "from", "to", "fixes"), cells) if cells else []), *notes]


def _differences(result: Mapping[str, Any]) -> list[str]:
    """Return in which packages a host is, or stays, not what was proven."""
    changed = {f"{one['name']}:{one['architecture']}" for one in result.get("changes", ())}
    found = [
        f"{one['package']} {one['here']} ({one['proven'] or 'none'})"
        for one in result.get("differences", ())
        if one["package"] not in changed
    ]
    more = [f"{len(found) - 5} more"] if len(found) > 5 else []
    return [f"not what was proven (in brackets): {', '.join(found[:5] + more)}"] if found else []


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "patch_manifest": patch_manifest,
            "patch_plan": patch_plan,
            "patch_window": patch_window,
            "patch_windows_wrong": patch_windows_wrong,
        }
