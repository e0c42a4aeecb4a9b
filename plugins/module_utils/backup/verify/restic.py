# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories of restic, from version 0.14 on."""

from __future__ import annotations

import json
import os
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

#: Exit codes that have a meaning since 0.17; before, it is 1 and the words tell.
_NO_REPOSITORY, _LOCKED, _WRONG_PASSWORD = 10, 11, 12

_DAMAGE = (
    "repository contains errors",
    "is damaged",
    "ciphertext verification failed",
    "invalid data returned",
    "does not match",
)


class Restic:
    """A repository of restic."""

    name = "restic"

    def __init__(self, given: Given) -> None:
        self._given = given

    def look(self) -> Problem | None:
        """See :class:`Tool`."""
        return None

    def snapshots(self) -> list[Snapshot]:
        """See :class:`Tool`."""
        result = self._run("snapshots", "--json", "--no-cache")
        if not result.ok:
            raise Closed(problem(result))
        try:
            return read_snapshots(result.stdout)
        except (ValueError, KeyError, TypeError) as error:
            raise Closed(
                Problem("repository.program", f"what restic says cannot be understood: {error}", damage=False)
            ) from None

    def check(self, rotation: Rotation | None) -> tuple[list[Problem], str | None]:
        """See :class:`Tool`."""
        if rotation is None or len(rotation.due) == rotation.share.parts:
            return read_check(self._run("check", "--json", "--read-data")), None
        problems: list[Problem] = []
        for part in sorted(rotation.due):
            subset = f"--read-data-subset={part + 1}/{rotation.share.parts}"
            problems += read_check(self._run("check", "--json", subset))
        count = rotation.share.parts - len(rotation.due)
        return problems, rotation.left_out(f"the data of {count} of {rotation.share.parts} parts")

    def names(self, snapshot: Snapshot, take: Callable[[str, bool], None]) -> list[Problem]:
        """See :class:`Tool`."""

        def read(output: IO[bytes]) -> None:
            for line in output:
                node = _json(line.decode("utf-8", "replace"))
                if node.get("struct_type") == "node" or node.get("message_type") == "node":
                    take(str(node.get("path", "")), node.get("type") == "dir")

        argv = ["restic", "--no-lock", "ls", "--json", "--no-cache", snapshot.id]
        result = self._given.runner.stream(argv, read, timeout=TIMEOUT, env=self._environment())
        return [] if result.ok else [problem(result)]

    def in_use(self) -> bool:
        """See :class:`Tool`. A lock that a killed program has left looks the same."""
        if os.path.isdir(self._given.path):
            try:
                return bool(os.listdir(os.path.join(self._given.path, "locks")))
            except OSError:
                return False
        result = self._run("list", "locks", "--no-cache")
        return result.ok and bool(result.stdout.strip())

    def _run(self, *arguments: str) -> Result:
        return self._given.runner.run(["restic", "--no-lock", *arguments], timeout=TIMEOUT, env=self._environment())

    def _environment(self) -> dict[str, str]:
        given = self._given
        password = given.secret.environment(
            {"RESTIC_PASSWORD_FILE": str(given.secret.file)}, "RESTIC_PASSWORD", given.environment
        )
        if not password:
            text = "it is encrypted, and no password is given"
            raise Closed(
                Problem("repository.password", text, damage=False, advice="Set password_file or password_env.")
            )
        return {"RESTIC_REPOSITORY": given.path, **password}


def read_snapshots(text: str) -> list[Snapshot]:
    """Return what ``restic snapshots --json`` says, the oldest first.

    :raises ValueError: (also KeyError, TypeError) when it says something else.
    """
    found = [
        Snapshot(entry["id"], moment(entry["time"]), entry.get("hostname", ""), tuple(entry.get("tags") or ()))
        for entry in json.loads(text) or []
    ]
    return sorted(found, key=lambda snapshot: snapshot.time)


def read_check(result: Result) -> list[Problem]:
    """Return what ``restic check`` found; its exit code alone is no proof that it found nothing."""
    if not result.ok:
        return [problem(result)]
    summary = next((line for line in map(_json, result.stdout.splitlines()) if "num_errors" in line), None)
    if summary["num_errors"] == 0 if summary is not None else "no errors were found" in result.stdout:
        return []
    return [Problem("restic.check", f"restic check ended well, but does not say so: {_words(result)}", damage=False)]


def problem(result: Result) -> Problem:
    """Return what a failure of restic means; one that is not known is told as it is."""
    words = _words(result)
    everything = (result.stdout + result.stderr).lower()
    if result.rc == _WRONG_PASSWORD or "wrong password or no key found" in everything:
        return Problem(
            "repository.password",
            "the password does not open it: it is another one's, or the keys in it are lost",
            damage=False,
            advice="Compare the password; look whether keys/ in it is empty.",
        )
    if "empty password" in everything or "resolving password failed" in everything:
        return Problem("repository.password", f"the password cannot be used: {words}", damage=False)
    if result.rc == _LOCKED or "already locked" in everything:
        return Problem(
            "repository.in_use", f"it is locked: {words}", damage=False, advice="Check again when that has ended."
        )
    if "unable to open config file" in everything and "no such file" in everything:
        return Problem("repository.missing", f"there is no repository of restic: {words}")
    if result.rc == _NO_REPOSITORY:
        return Problem("repository.missing", f"there is no repository of restic that can be opened: {words}")
    if result.rc > 0 and any(text in everything for text in _DAMAGE):
        return Problem("restic.check", f"restic finds damage: {words}", advice="Read 'Troubleshooting' of restic.")
    ending = f"was ended by signal {-result.rc}" if result.rc < 0 else f"ended with exit code {result.rc}"
    return Problem("repository.program", f"restic {ending}: {words}", damage=False)


def _words(result: Result) -> str:
    """Return what restic says went wrong, in its own words, which may be JSON."""
    said = []
    for line in result.stderr.splitlines():
        text = str(_json(line).get("message", "")) if line.startswith("{") else line
        if text.strip() and "returned error, retrying" not in text and "repository contains errors" not in text:
            said.append(text.strip())
    return first_words(said[:3] or result.stderr.splitlines()[-1:] or result.stdout.splitlines()[-1:])


def _json(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
