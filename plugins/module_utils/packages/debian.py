# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What dpkg, apt-get and apt-cache print, as data."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, Installed

#: What dpkg-query prints for each package; the last field is desired state, state and error, a letter each.
FORMAT = r"${Package}\t${Architecture}\t${Version}\t${source:Package}\t${source:Version}\t${db:Status-Abbrev}\n"

_STATES = {
    "n": "not installed", "c": "only its configuration is there", "H": "half installed",
    "U": "unpacked but not configured",
    "F": "half configured", "W": "waits for a trigger", "t": "its trigger was not run", "i": "ok",
}  # fmt: skip
_INSTALL = re.compile(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+) (.*?) ?\[(\S+)\]\)")
_REMOVE = re.compile(r"(?:Remv|Purg) (\S+)")
_KEPT = re.compile(
    r"^(?:The following packages have been kept back|Not upgrading[^:\n]*):\n((?: .*\n?)+)", re.MULTILINE
)
_CVE = re.compile(r"\bCVE-\d{4}-\d{4,}\b")
_ENTRY = re.compile(r"^\S+ \(([^)\s]+)\)", re.MULTILINE)
#: Words of apt-get update when data could not be fetched or verified; its other warnings change nothing of them.
_UNUSABLE = re.compile(
    r"failed to fetch|skipping acquire|gpg error|no_pubkey|signature verification|signatures were invalid"
    r"|(?:not|no longer) signed|(?:not have|no longer has) a release file|weak security|hash|not valid yet|expired",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"^ -- .*>  (.+)$", re.MULTILINE)


def parse_installed(text: str, automatic: frozenset[str] = frozenset()) -> dict[str, Installed]:
    """Return the packages that ``dpkg-query -W -f FORMAT`` printed, by name and architecture.

    What is not installed, or left only its configuration, is not among them.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 6 or len(fields[5]) < 2 or fields[5][1] in "nc":
            continue
        name, architecture, version, source, source_version, letters = fields
        state = _STATES.get(letters[1], letters[1])
        if letters[2:3].strip():
            state = "has to be installed again"
        one = Installed(name, architecture, version, source, source_version, letters[0] == "h", state=state)
        found[one.key] = replace(one, automatic=one.key in automatic)
    return found


def parse_automatic(text: str, native: str) -> frozenset[str]:
    """Return name and architecture of what the file ``extended_states`` of apt calls automatically installed."""
    keys = set()
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if fields.get("Auto-Installed") == "1" and "Package" in fields:
            keys |= {f"{fields['Package']}:{one}" for one in (fields.get("Architecture", native), "all")}
    return frozenset(keys)


def parse_simulation(text: str) -> tuple[list[Change], list[str]]:
    """Return what ``apt-get -s`` would install, and the names of what it would remove."""
    changes, removed = [], []
    for line in text.splitlines():
        install = _INSTALL.match(line)
        if install:
            name, before, after, origins, architecture = install.groups()
            named = tuple(origin.strip() for origin in origins.split(",") if origin.strip())
            security = any("security" in origin.lower() for origin in named)
            changes.append(Change(name.partition(":")[0], architecture, before or "", after, named, security))
        remove = _REMOVE.match(line)
        if remove:
            removed.append(remove.group(1))
    return changes, removed


def parse_kept_back(text: str) -> list[str]:
    """Return the packages that apt-get leaves at their version, since more than an upgrade would be needed."""
    return [name for block in _KEPT.findall(text) for name in block.split()]


def parse_update(text: str) -> list[Finding]:
    """Return what ``apt-get update`` complained about; it ends with 0 also when a repository failed.

    A warning stands in the way only when it says that data could not be fetched or verified.

    :param text: standard output and standard error.
    """
    found = []
    for line in dict.fromkeys(text.splitlines()):
        kind, _unused, words = line.partition(": ")
        if kind not in ("W", "E") or words.startswith(("Some index files failed", "Target ")):
            continue
        named = re.search(r"[a-z+]+:/\S+( \S+)?", words)
        lower = words.lower()
        usable = kind == "W" and not _UNUSABLE.search(words)
        if usable:
            advice = "nothing has to be done now; see to it before a newer apt refuses it"
        elif "signature" in lower or "not signed" in lower or "no_pubkey" in lower or "gpg error" in lower:
            advice = (
                "do not install from it before it is known why; renew its key when its owner says that it has changed"
            )
        elif "not valid yet" in lower or "expired" in lower:
            advice = "correct the clock of the host, or have the mirror brought up to date"
        else:
            advice = "make it reachable, or take it out of the sources when it is gone"
        found.append(
            Finding(
                "packages.repository",
                named.group().rstrip(":'") if named else "apt",
                "warning" if usable else "critical",
                f"apt-get update says: {words}", advice=advice,
            )
        )  # fmt: skip
    return found


def parse_show(text: str) -> dict[str, dict[str, str]]:
    """Return the fields that ``apt-cache show`` printed, by ``name:architecture=version``."""
    found: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            if line[:1] not in (" ", "\t", ""):
                name, _unused, value = line.partition(":")
                fields[name] = value.strip()
        if {"Package", "Version", "Architecture"} <= fields.keys():
            found.setdefault(f"{fields['Package']}:{fields['Architecture']}={fields['Version']}", fields)
    return found


def parse_uris(text: str) -> dict[str, str]:
    """Return the address of each file that ``apt-get --print-uris`` would fetch, by the name it gets in the cache."""
    return {name: uri for uri, name in re.findall(r"^'(\S+)' (\S+\.deb) \d+", text, re.MULTILINE)}


def parse_fields(text: str) -> dict[str, str]:
    """Return the fields that ``dpkg-deb -f`` printed."""
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in text.splitlines())}


def fixed_by_changelog(text: str, since: str, older: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the CVEs named by the entries of a changelog that are newer than a version.

    :param older: for each version of the changelog whether it is the given one or older; see :func:`versions_of`.
    """
    starts = [(match.start(), match.group(1)) for match in _ENTRY.finditer(text)]
    end = next((start for start, version in starts if version == since or older.get(version)), len(text))
    return tuple(sorted(set(_CVE.findall(text[:end]))))


def versions_of(text: str) -> Iterator[str]:
    """Yield the versions of a changelog, newest first."""
    for match in _ENTRY.finditer(text):
        yield match.group(1)


def changed_at(text: str) -> float | None:
    """Return when the newest entry of a changelog was signed, in seconds since 1970."""
    signed = _SIGNED.search(text)
    try:
        return email.utils.parsedate_to_datetime(signed.group(1)).timestamp() if signed else None
    except (TypeError, ValueError):
        return None


def parse_conffiles(text: str) -> dict[str, str]:
    """Return the conffiles with the MD5 sum they were shipped with, as ``${Conffiles}`` of dpkg-query prints them."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].startswith("/") and words[-1] != "obsolete":
            found[" ".join(words[:-1])] = words[-1]
    return found


def broken(installed: Iterable[Installed]) -> list[str]:
    """Return what dpkg has not finished, one sentence each."""
    return [f"{one.key} {one.version}: {one.state}" for one in installed if one.state != "ok"]
