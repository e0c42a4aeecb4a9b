# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories of borg 1.x."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Closed
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.repository import (
    TIMEOUT,
    Given,
    Snapshot,
    first_words,
    moment,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Rotation
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result

#: What borg's own names of errors mean.
_PASSWORD = ("PassphraseWrong", "PasscommandFailure", "NoPassphraseFailure", "PasswordRetriesExceeded")
_MISSING = ("Repository.DoesNotExist", "Repository.InvalidRepository", "Repository.ParentPathDoesNotExist")
_IN_USE = ("LockTimeout", "LockFailed", "LockError", "LockErrorT")
_DAMAGE = re.compile(
    r"IntegrityError|ObjectNotFound|CheckNeeded|NoManifestError|RepoKeyNotFoundError|InvalidRepositoryConfig"
    r"|Archive\.DoesNotExist|FileNotFoundError: .*/data/|errors found|UnpackException"
)


class Borg:
    """A repository of borg."""

    name = "borg"

    def __init__(self, given: Given) -> None:
        self._given = given

    def look(self) -> Problem | None:
        """See :class:`Tool`. Any command forgets transactions whose last segments are gone."""
        return lost_segments(self._given.path) if os.path.isdir(self._given.path) else None

    def snapshots(self) -> list[Snapshot]:
        """See :class:`Tool`."""
        result = self._run("list", "--json", "--format", "{hostname}{end}{NL}", self._given.path)
        if not result.ok:
            raise Closed(problem(result))
        try:
            return read_archives(result.stdout)
        except (ValueError, KeyError, TypeError) as error:
            raise Closed(
                Problem("repository.program", f"what borg says cannot be understood: {error}", damage=False)
            ) from None

    def check(self, rotation: Rotation | None) -> tuple[list[Problem], str | None]:
        """See :class:`Tool`. The data cannot be read in parts, so it is all of them or none."""
        left = None
        if rotation is None or rotation.whole():
            result = self._run("check", "--verify-data", self._given.path)
        else:
            result = self._run("check", "--archives-only", self._given.path)
            left = rotation.left_out("the data")
        if not result.ok:
            return [problem(result)], left
        archives = self.snapshots()
        if archives:  # a check does not see everything that makes an archive impossible to extract
            result = self._run("extract", "--dry-run", f"{self._given.path}::{archives[-1].id}")
            if not result.ok:
                return [problem(result)], left
        return [], left

    def names(self, snapshot: Snapshot, take: Callable[[str, bool], None]) -> list[Problem]:
        """See :class:`Tool`."""

        def read(output: IO[bytes]) -> None:
            for line in output:
                item = _json(line.decode("utf-8", "replace"))
                if "path" in item:
                    take(str(item["path"]), item.get("type") == "d")

        with tempfile.TemporaryDirectory(prefix="borg-") as base:
            argv = ["borg", "list", "--bypass-lock", "--json-lines", "--format", "{path}{type}{NL}"]
            argv.append(f"{self._given.path}::{snapshot.id}")
            result = self._given.runner.stream(argv, read, timeout=TIMEOUT, env=self._environment(base))
        return [] if result.ok else [problem(result)]

    def in_use(self) -> bool:
        """See :class:`Tool`. A lock that a killed program has left looks the same."""
        return any(os.path.lexists(os.path.join(self._given.path, name)) for name in ("lock.exclusive", "lock.roster"))

    def _run(self, verb: str, *arguments: str) -> Result:
        # A new directory each time: what borg remembers of the repository is no part of the verdict on it.
        with tempfile.TemporaryDirectory(prefix="borg-") as base:
            argv = ["borg", verb, "--bypass-lock", "--log-json", *arguments]
            return self._given.runner.run(argv, timeout=TIMEOUT, env=self._environment(base))

    def _environment(self, base: str) -> dict[str, str]:
        given, environ = self._given, self._given.environment
        home = environ.get("BORG_BASE_DIR") or environ.get("HOME") or os.path.expanduser("~")
        config = environ.get("BORG_CONFIG_DIR") or os.path.join(home, ".config", "borg")
        return {
            "BORG_BASE_DIR": base,
            "BORG_CONFIG_DIR": os.path.join(base, "config"),
            "BORG_CACHE_DIR": os.path.join(base, "cache"),
            "BORG_SECURITY_DIR": os.path.join(base, "security"),
            "BORG_KEYS_DIR": environ.get("BORG_KEYS_DIR") or os.path.join(config, "keys"),
            "BORG_EXIT_CODES": "legacy",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "TZ": "UTC",
            **given.secret.environment(
                {"BORG_PASSCOMMAND": f"cat -- {shlex.quote(str(given.secret.file))}"}, "BORG_PASSPHRASE", environ
            ),
        }


def lost_segments(path: str) -> Problem | None:
    """Return what is wrong when the index knows of a later segment than there is.

    borg then falls back to an earlier transaction without a word, and ``check`` passes.
    """
    try:
        known = [int(name[6:]) for name in os.listdir(path) if re.fullmatch(r"index\.[0-9]+", name)]
        data = os.path.join(path, "data")
        there = [
            int(name)
            for directory in os.listdir(data)
            if directory.isdigit()
            for name in os.listdir(os.path.join(data, directory))
            if name.isdigit()
        ]
    except OSError:
        return None  # borg will say it
    if not known or max(known) <= max(there, default=-1):
        return None
    return Problem(
        "borg.segments",
        f"its last segments are lost: the index knows of segment {max(known)}, the last one that is there is "
        f"{max(there, default=-1)}; borg was not called, because it would forget what was in them",
        advice="Make a copy of the repository before anything else touches it.",
    )


def read_archives(text: str) -> list[Snapshot]:
    """Return what ``borg list --json`` says with TZ=UTC, the oldest first.

    :raises ValueError: (also KeyError, TypeError) when it says something else.
    """
    found = [
        Snapshot(entry["name"], moment(f"{entry.get('end') or entry['time']}Z"), entry.get("hostname", ""), None)
        for entry in json.loads(text)["archives"]
    ]
    return sorted(found, key=lambda snapshot: snapshot.time)


def problem(result: Result) -> Problem:
    """Return what a failure of borg means; one that is not known is told as it is."""
    entries = [entry for entry in map(_json, result.stderr.splitlines()) if entry.get("levelname") == "ERROR"]
    names = [str(entry.get("msgid") or "") for entry in entries]
    words = _words([str(entry.get("message") or "") for entry in entries] or result.stderr.splitlines()[-3:])
    if any(name in _PASSWORD for name in names):
        return Problem(
            "repository.password",
            f"it cannot be opened: {words}",
            damage=False,
            advice="Set password_file or password_env, and compare the passphrase.",
        )
    if any(name in _MISSING for name in names):
        return Problem("repository.missing", f"there is no repository of borg that can be used: {words}")
    if any(name in _IN_USE for name in names):
        return Problem(
            "repository.in_use", f"it is locked: {words}", damage=False, advice="Check again when that has ended."
        )
    if result.rc > 0 and (any(map(_DAMAGE.search, names)) or _DAMAGE.search(result.stderr)):
        return Problem("borg.check", f"borg finds damage: {words}", advice="Make a copy before 'borg check --repair'.")
    ending = f"was ended by signal {-result.rc}" if result.rc < 0 else f"ended with exit code {result.rc}"
    return Problem("repository.program", f"borg {ending}: {words}", damage=False)


def _words(messages: list[str]) -> str:
    """Return what borg says went wrong; of a traceback only its last line."""
    said = []
    for message in messages:
        if "Traceback (most recent call last)" in message:
            found = re.findall(r"^\S*(?:Error|Exception)\b.*: .*$", message, re.MULTILINE)
            said += found[-1:]
        else:
            said.append(message)
    return first_words(said[:3])


def _json(line: str) -> dict[str, Any]:
    """Return the object in a line, which may follow a prompt that waits for an answer."""
    try:
        value = json.loads(line[line.find('{"') :])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
