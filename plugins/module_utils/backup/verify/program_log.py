# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the programs that made a backup said: their errors and warnings, which their exit codes often hide."""

from __future__ import annotations

import re

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: Longest line that is looked at, in bytes.
_MAX_LINE = 8192

#: What says nothing about the backup, although it looks as if.
_HARMLESS = re.compile(
    r"tar: Removing leading "
    r"|tar: .*: socket ignored"
    r"|\[\d\d\] .* password: "
    r"|(?:mysqldump|mariadb-dump|xtrabackup): \[Warning\] Using a password on the command line"
    r"|Warning: Using a password with "
)

#: Lines of one program, and what any program says when the machine fails it.
_ERRORS = re.compile(
    r"(?:mariadb-dump|mysqldump): (?!\[?Warning|\[Note)"
    r"|\[\d\d\] (?:FATAL ERROR|Error)"
    r"|\[\d\d\] \d{4}-\S+ \S+ (?:Error|error|Failed|failed)\b"
    r"|(?:mariadb-backup|mariabackup|xtrabackup): (?:\[ERROR\]|[Ee]rror)"
    r"|.*\[ERROR\]"
    r"|\S+\t(?:Failed: |error |assertion: )"
    r"|Could not connect to Redis"
    r"|SYNC with master failed"
    r"|AUTH failed: "
    r"|Error (?:opening|writing|reading|allocating|sending|in) ?"
    r"|Fail to fsync"
    r"|rsync: (?!.*warning:)"
    r"|rsync error: "
    r"|IO error encountered"
    r"|Fatal: "
    r"|error: "
    r"|error for tree "
    r"|unable to (?:create lock|open|save|read|load)"
    r"|(?:Warning: )?[Aa]t least one source file could not be read"
    r"|pack \S+ (?:failed|contains|does not|is)"
    r"|(?:\S*/)?tar: .*: (?:Cannot |Read error|Wrote only|File shrank)"
    r"|(?:\S*/)?tar: (?:Error|Exiting with failure|Unexpected EOF|Child returned)"
    r"|(?:gzip|pigz|xz|bzip2): (?!.*warning)"
    r"|zstd: error"
    r"|age: error: "
    r"|(?:ERROR|FATAL|CRITICAL|Error|Traceback)\b"
    r"|.*(?:No space left on device|no space left on device|Input/output error|Cannot allocate memory|Out of memory"
    r"|Segmentation fault|command not found|Permission denied|Read-only file system)"
    r"|Killed$"
)
_WARNINGS = re.compile(
    r"rsync warning: "
    r"|file has vanished: "
    r"|skipping non-regular file"
    r"|cannot delete non-empty directory"
    r"|(?:\S*/)?tar: .*: (?:file changed as we read it|File removed before we read it|Unknown file type)"
    r"|REPLCONF .* error: "
    r"|.* returned error, retrying after "
    r"|.*(?:\[Warning\]|\[WARNING\]|\bWARNING\b|\b[Ww]arning: )"
)

#: Lines that only mariadb-backup writes, the first one of a run, and the one without which it has not ended well.
_BACKUP = re.compile(r"\[\d\d\] (?:FATAL ERROR: )?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_BACKUP_BEGINS = re.compile(r"\[\d\d\] \S+ \S+ Connecting to (?:MariaDB|MySQL) server host")
_BACKUP_ENDED = re.compile(r".*\bcompleted OK!")

#: What logs and the journal put before a line: a time, a host, a program with its process.
_STAMP = re.compile(
    r"(?:\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S*|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+)\s+"
    r"(?:\[\d+\]|[^\s:]+\[\d+\]:)?\s*"
)

_SECRET = re.compile(r"(?i)(pass(?:word|phrase|wd)?['\"]?\s*[=:]\s*|://[^/\s:@]*:)[^\s'\"@]+")


class LogWalker(Walker):
    """Follows a log in bounded memory. An error in it makes the backup doubtful, a warning is told.

    :param name: what to call it; the name of mariadb-backup promises its closing line.
    """

    format = "log"

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._line = 0
        self._rest = b""
        self._errors: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []
        self._is_backup = bool(re.search(r"(?:mariadb-backup|mariabackup|xtrabackup)[^/]*$", name))
        self._completed = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[:_MAX_LINE]
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """Take the end, and judge."""
        if self._rest:
            self._take(self._rest)
        for kind, found in (("error", self._errors), ("warning", self._warnings)):
            if found:
                line, text = found[0]
                more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                self.problems.append(
                    Problem(
                        f"log.{kind}",
                        f"{kind} in line {line}{more} of the log {printable(self._name)}: {text}",
                        damage=False,
                        advice="Read the log, put right what failed, and make the backup again.",
                        note=kind == "warning",
                    )
                )
        if self._is_backup and not self._completed:
            self.problems.append(
                Problem(
                    "log.incomplete",
                    f"the log {printable(self._name)} does not say 'completed OK!': mariadb-backup has not ended well",
                    advice="Make the backup again.",
                )
            )

    def _take(self, line: bytes) -> None:
        self._line += 1
        # A progress bar writes over its line.
        text = line[:_MAX_LINE].decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2].strip()
        if _BACKUP.match(text):
            self._is_backup = True
            if _BACKUP_BEGINS.match(text):  # what earlier runs said in the same file is over
                self._completed = False
                self._errors.clear()
                self._warnings.clear()
        if self._is_backup and _BACKUP_ENDED.match(text):
            self._completed = True
        said = _STAMP.sub("", text, count=1) if _STAMP.match(text) else text
        if not text or _HARMLESS.match(text) or _HARMLESS.match(said):
            return
        if _ERRORS.match(text) or _ERRORS.match(said):
            self._keep(self._errors, text)
        elif _WARNINGS.match(text) or _WARNINGS.match(said):
            self._keep(self._warnings, text)

    def _keep(self, found: list[tuple[int, str]], text: str) -> None:
        if len(found) < 10_000:
            found.append((self._line, printable(_SECRET.sub(r"\1***", text), 300) if not found else ""))
