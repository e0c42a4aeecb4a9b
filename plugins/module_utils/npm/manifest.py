# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading package.json, package-lock.json and ``npm outdated``, and what differs between two lock files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.npm.program import NpmError

#: The script that npm init writes where there is no test.
_NO_TEST = "no test specified"


def read(content: bytes, path: str) -> dict[str, Any]:
    """Return a JSON object of npm.

    :raises NpmError: when it is something else.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise NpmError(f"{path} is no JSON ({error}); put back a good copy") from error
    if not isinstance(value, dict):
        raise NpmError(f"{path} is no file of npm: it holds no object")
    return value


def packages(lock: Mapping[str, Any], path: str) -> dict[str, str]:
    """Return the version of every package of a lock file by its place, such as ``node_modules/a``.

    :raises NpmError: when it was written by npm 6 or older.
    """
    entries = lock.get("packages")
    if not isinstance(entries, dict):
        raise NpmError(f"{path} was written by npm 6 or older; renew it with npm 7 or newer and test the application")
    return {place: str(entry.get("version", "")) for place, entry in entries.items() if place and not entry.get("link")}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what an update changes, by place; an empty version stands for a package that is not there."""
    return [
        {"package": place, "before": before.get(place, ""), "after": after.get(place, "")}
        for place in sorted({*before, *after})
        if before.get(place) != after.get(place)
    ]


def outdated(text: str, installed: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the direct dependencies that are not the newest, from ``npm outdated --json``.

    :param installed: version of each package by place, from the lock file.
    :raises NpmError: when the registry gave no answer.
    """
    answer = read(text.encode() or b"{}", "the answer of npm outdated")
    if "error" in answer and "code" in (answer["error"] or {}):
        raise NpmError(f"npm outdated got no answer: {answer['error'].get('summary') or answer['error']['code']}")
    found = []
    for name, entry in answer.items():
        for one in entry if isinstance(entry, list) else [entry]:
            current = str(one.get("current") or installed.get(f"node_modules/{name}", ""))
            wanted, latest = str(one.get("wanted", "")), str(one.get("latest", ""))
            if {wanted, latest} != {current}:
                found.append({"package": name, "current": current, "wanted": wanted, "latest": latest})
    return found


def not_installed(lock: Mapping[str, Any], directory: str, *, dev: bool) -> list[str]:
    """Return the packages of a lock file that are not there in their version; optional ones may be missing.

    :param dev: whether packages for development must be there.
    """
    wrong = []
    for place, entry in lock.get("packages", {}).items():
        needless = not dev and (entry.get("dev") or entry.get("devOptional"))
        if not place or needless or any(entry.get(key) for key in ("link", "optional", "devOptional", "peer")):
            continue
        try:
            with open(os.path.join(directory, place, "package.json"), encoding="utf-8") as stream:
                version = json.load(stream).get("version")
        except (OSError, ValueError, AttributeError):
            version = None
        if version != entry.get("version"):
            wrong.append(f"{place} {entry.get('version')}")
    return wrong


def test_of(package: Mapping[str, Any]) -> list[str]:
    """Return the argument list of the application's own test.

    :raises NpmError: when it has none.
    """
    script = str((package.get("scripts") or {}).get("test", ""))
    if not script or _NO_TEST in script:
        raise NpmError(
            "the application has no test: package.json has no script 'test'; name one in 'test', "
            "such as [node, server.js, --check]"
        )
    return ["npm", "test"]
