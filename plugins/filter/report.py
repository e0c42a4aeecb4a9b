# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of findings, records and plans for people who read a terminal or a job's output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.worklog.maintenance.plugins.plugin_utils.table import table

ORDER = {"critical": 0, "warning": 1, "info": 2, "ok": 3}


def findings_table(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the findings as lines of a table, the most severe first."""
    try:
        rows = sorted(findings, key=lambda item: ORDER[item["severity"]])
        cells = [(row["severity"], row.get("host") or "", row["check"], row["subject"], row["message"]) for row in rows]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"findings_table needs a list of findings: {error!r}") from error
    return table(("severity", "host", "check", "subject", "message"), cells)


def record_findings(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings of all records, each with its host, those that were ``ok`` left out, none twice."""
    try:
        found = [
            {**finding, "host": record["host"]}
            for record in records
            for finding in record["findings"]
            if finding["severity"] != "ok"
        ]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"record_findings needs a list of records: {error!r}") from error
    return [finding for number, finding in enumerate(found) if finding not in found[:number]]


def records_table(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the records as lines of a table, in the order in which the work ended."""
    try:
        rows = sorted(records, key=lambda item: str(item["ended"]))
        cells = [
            (
                str(row["ended"]),
                str(row["host"]),
                str(row["what"]),
                str(row.get("subject") or ""),
                str(row["result"]),
                "" if row.get("downtime_seconds") is None else f"{row['downtime_seconds']:.2f} s",
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"records_table needs a list of records: {error!r}") from error
    return table(("ended", "host", "what", "subject", "result", "downtime"), cells)


def prune_table(plan: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a plan of pruning as lines of a table, in the order in which the backups were made."""
    try:
        cells = [
            (
                "keep" if row["keep"] else "delete",
                str(row.get("host") or ""),
                str(row["subject"]),
                str(row["verdict"] or "unverified"),
                "/".join(str(row["path"]).rsplit("/", 2)[-2:]),
                str(row["reason"]),
            )
            for row in plan
        ]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"prune_table needs the plan of backup_prune: {error!r}") from error
    return table(("plan", "host", "source", "verdict", "backup", "reason"), cells)


def npm_update_table(result: Mapping[str, Any]) -> list[str]:
    """Return what is outdated and what an update changes as lines of two tables."""
    try:
        outdated = [
            (str(row["package"]), str(row["current"]), str(row["wanted"]), str(row["latest"]))
            for row in result["outdated"]
        ]
        changes = [
            (str(row["package"]), str(row["before"]) or "none", str(row["after"]) or "none")
            for row in result["changes"]
        ]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"npm_update_table needs the result of npm_update: {error!r}") from error
    lines = table(("outdated", "installed", "in the range", "newest"), outdated) if outdated else []
    return lines + (table(("changes", "from", "to"), changes) if changes else [])


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "findings_table": findings_table,
            "npm_update_table": npm_update_table,
            "record_findings": record_findings,
            "prune_table": prune_table,
            "records_table": records_table,
        }
