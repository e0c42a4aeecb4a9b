# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a unit of systemd has failed: what systemd knows, and the last lines of its journal without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

#: Lines of the journal that are kept.
LINES = 20

_TIMEOUT = 30.0
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,250}\.service")
_PROPERTIES = ("LoadState", "Result", "ExecMainCode", "ExecMainStatus", "InvocationID")

#: CLD_EXITED; with other codes the status is the number of a signal.
_EXITED = "1"

#: What systemd calls a result, and what it means.
_RESULTS = {
    "success": "has failed, and was started again meanwhile",
    "timeout": "did not end within its time limit and was stopped",
    "oom-kill": "was killed because the memory was used up",
    "start-limit-hit": "was started too often within a short time",
    "resources": "could not be started by systemd",
    "protocol": "could not be started by systemd",
}

_HIDDEN = "(hidden)"
_NAMED = re.compile(
    r"""(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential)[\w.-]*["']?\s*[:=]\s*)"""
    r"""("[^"]*"|'[^']*'|\S+)"""
)
_IDENTIFIED = re.compile(r"(?i)(identified\s+(?:by|with\s+\S+\s+as)\s+)('[^']*'|\"[^\"]*\"|\S+)")
_ADDRESS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")


@dataclass(frozen=True)
class Failure:
    """A unit that has failed.

    :param unit: its name.
    :param sentence: how it ended.
    :param result: what systemd calls that.
    :param status: exit code or number of the signal.
    :param lines: the last lines of its journal.
    """

    unit: str
    sentence: str
    result: str
    status: int
    lines: tuple[str, ...]

    def finding(self) -> Finding:
        """Return the finding for the record."""
        said = next((line for line in reversed(self.lines) if line.startswith("worklog-backup: ")), "")
        return Finding(
            "backup.unit",
            self.unit,
            "critical",
            f"{self.sentence}{'; it said: ' + said.partition(': ')[2] if said else ''}",
            observed=self.result,
            advice=f"look at it with: journalctl --unit {self.unit}; run it again with: systemctl start {self.unit}",
        )


def read(unit: str, run: Runner) -> Failure:
    """Return why a unit has failed.

    :param run: runs a program.
    :raises CommandError: when systemd cannot be asked.
    :raises ValueError: when there is no such service.
    """
    if not _UNIT.fullmatch(unit):
        raise ValueError(f"'{unit}' is not the name of a service")
    shown = run(["systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", unit], timeout=_TIMEOUT)
    if not shown.ok:
        raise CommandError(shown.describe(), list(shown.argv))
    known = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
    if known.get("LoadState") == "not-found" and known.get("Result") == "success":
        raise ValueError(f"there is no unit '{unit}'")
    lines: tuple[str, ...] = ()
    invocation = known.get("InvocationID")
    if invocation:  # what the unit's own processes said, and what systemd said of them
        found = run(
            [
                "journalctl",
                "--quiet",
                "--no-pager",
                "--output=cat",
                f"--lines={LINES}",
                f"_SYSTEMD_INVOCATION_ID={invocation}",
                "+",
                f"INVOCATION_ID={invocation}",
            ],
            timeout=_TIMEOUT,
        )
        lines = tuple(line for line in found.stdout.splitlines() if line.strip())
    return describe(unit, known, lines)


def describe(unit: str, known: dict[str, str], lines: tuple[str, ...]) -> Failure:
    """Return the failure that properties of a unit and its journal tell of."""
    result = known.get("Result") or "unknown"
    text = known.get("ExecMainStatus") or ""
    status = int(text) if text.isdigit() else 0
    if result in _RESULTS:
        sentence = f"{unit} {_RESULTS[result]}"
    elif known.get("ExecMainCode") == _EXITED:
        sentence = f"{unit} ended with exit code {status}"
    elif status:
        sentence = f"{unit} was ended by signal {status}"
    else:
        sentence = f"{unit} failed: {result}"
    return Failure(unit, sentence, result, status, tuple(without_secrets(line) for line in lines))


def without_secrets(line: str) -> str:
    """Return a line with what looks like a password, token or key taken out."""
    line = _NAMED.sub(rf"\1{_HIDDEN}", line)
    line = _IDENTIFIED.sub(rf"\1{_HIDDEN}", line)
    return _ADDRESS.sub(rf"\1{_HIDDEN}", line)
