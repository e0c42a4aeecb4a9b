# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was proven in one environment, to be installed in another: versions by release, when, where, and a checksum."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, Installed, PackageError
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.version import older

SCHEMA = 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Manifest:
    """A manifest that was found to be whole.

    :param releases: versions by ``name:architecture``, by the name of the release.
    """

    releases: Mapping[str, Mapping[str, str]]
    proven: datetime
    soak: float

    def versions_for(self, release: Mapping[str, str]) -> Mapping[str, str]:
        """Return the versions for a release.

        :raises PackageError: when none were proven on it.
        """
        name = release_name(release)
        if name not in self.releases:
            raise PackageError(
                f"manifest: it was proven on {', '.join(sorted(self.releases))}, and this host is {name}"
            )
        return self.releases[name]


def release_name(release: Mapping[str, str]) -> str:
    """Return the name by which versions of a release are filed, such as ``debian 12 amd64``."""
    return " ".join(release.get(part) or "?" for part in ("id", "version", "architecture"))


def make(
    hosts: Mapping[str, Mapping[str, Any]], soak: float, now: datetime, *, signer: str = "", key: str = ""
) -> dict[str, Any]:
    """Return the manifest of what hosts have proven.

    :param hosts: what the module package_state returned for each, with ``installed`` and the last ``transaction``.
    :param soak: seconds that it must have gone well since the run ended.
    :raises PackageError: when a host has not proven it; nothing is made then.
    """
    problems: list[str] = []
    ended: list[datetime] = []
    releases: dict[str, dict[str, str]] = {}
    for name, state in sorted(hosts.items()):
        last = state.get("transaction") or {}
        bad = [one["message"] for one in state.get("findings", ()) if one["severity"] == "critical"]
        if last.get("stage") != "finished":
            problems.append(f"{name}: its last run is {last.get('stage') or 'not there'}, not finished")
            continue
        finished = datetime.strptime(last["updated"], _TIME).replace(tzinfo=timezone.utc)
        if (now - finished).total_seconds() < soak:
            problems.append(f"{name}: its run ended at {last['updated']}, which is less than {soak / 3600:g} h ago")
        if state.get("since"):
            problems.append(
                f"{name}: {len(state['since'])} packages were changed after its run: {'; '.join(state['since'][:5])}; "
                "put them back (apt-get install NAME=VERSION), or promote after the next run that changes something"
            )
        if bad:
            problems.append(f"{name}: {bad[0]}")
        ended.append(finished)
        versions = releases.setdefault(release_name(state["release"]), {})
        for one in state["installed"]:
            key_of = f"{one['name']}:{one['architecture']}"
            if versions.setdefault(key_of, one["version"]) != one["version"]:
                problems.append(f"{name}: {key_of} is {one['version']}, on another host {versions[key_of]}")
    if problems or not ended:
        raise PackageError(f"nothing was proven: {'; '.join(problems) or 'there is no host'}")
    body = {
        "schema": SCHEMA,
        "made": now.strftime(_TIME),
        "proven": max(ended).strftime(_TIME),
        "soak_seconds": soak,
        "hosts": sorted(hosts),
        "signer": signer or None,
        "releases": releases,
    }
    return {**body, **_seals(body, key)}


def check(content: Any, now: datetime, *, max_age: float = 0.0, soak: float = 0.0, key: str = "") -> Manifest:
    """Return the manifest that was read, if it may be used.

    :param max_age: seconds since it was proven; 0: any age.
    :param soak: seconds that it must have been proven for.
    :param key: the secret that it must have been sealed with; empty: its checksum is enough.
    :raises PackageError: when it may not.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError as error:
            raise PackageError(f"manifest: it is no JSON: {error}") from error
    if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
        raise PackageError(f"manifest: it is none of schema {SCHEMA}; make one with the playbook patch_promote")
    body = {name: value for name, value in content.items() if name not in ("sha256", "hmac")}
    seals = _seals(body, key)
    if not hmac.compare_digest(str(content.get("sha256")), seals["sha256"]):
        raise PackageError("manifest: it was altered after it was made, its checksum does not fit; get it again")
    if key and not hmac.compare_digest(str(content.get("hmac")), seals["hmac"]):
        raise PackageError(
            "manifest: it was not sealed with the key of this site; do not use it before it is known why"
        )
    try:
        proven = datetime.strptime(body["proven"], _TIME).replace(tzinfo=timezone.utc)
        found = Manifest(body["releases"], proven, float(body["soak_seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"manifest: '{error}' is missing or wrong in it; make it again") from error
    if found.soak < soak:
        raise PackageError(f"manifest: it was proven for {found.soak / 3600:g} h, {soak / 3600:g} are asked for")
    age = (now - proven).total_seconds()
    if max_age and age > max_age:
        raise PackageError(
            f"manifest: it was proven {age / 86400:.1f} days ago, {max_age / 86400:g} are allowed; prove again"
        )
    if age < -300:
        raise PackageError(
            "manifest: it was proven in the future; correct the clock of this host or of the one that made it"
        )
    return found


def changes(versions: Mapping[str, str], installed: Mapping[str, Installed]) -> list[Change]:
    """Return what a host would change to have these versions; nothing goes back or is added, and what is held stays."""
    found = []
    for name, after in versions.items():
        now = installed.get(name)
        if now and not now.held and older(now.version, after):
            found.append(Change(now.name, now.architecture, now.version, after))
    return found


def differences(versions: Mapping[str, str], installed: Mapping[str, Installed]) -> Sequence[Mapping[str, Any]]:
    """Return where a host differs from what was proven, also where that is no matter of patching."""
    found: list[Mapping[str, Any]] = []
    for name, now in installed.items():
        proven = versions.get(name)
        if proven is None:
            found.append({"package": name, "here": now.version, "proven": None, "kind": "not proven"})
        elif proven != now.version:
            kind = "older" if older(now.version, proven) else "newer"
            found.append({"package": name, "here": now.version, "proven": proven, "kind": kind})
    return found


def _seals(body: Mapping[str, Any], key: str) -> dict[str, str]:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    seals = {"sha256": hashlib.sha256(text).hexdigest()}
    if key:
        seals["hmac"] = hmac.new(key.encode(), text, hashlib.sha256).hexdigest()
    return seals
