# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What rpm and dnf print, as data. Known from their transcripts; nothing here changes a host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, Installed

#: What ``rpm -qa --qf`` prints for each package.
FORMAT = r"%{NAME}\t%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{SOURCERPM}\n"

_ADVISORY = re.compile(r"^(CVE-\S+)\s+\S+\s+(\S+)$", re.MULTILINE)
_NEVRA = re.compile(r"(?P<name>.+)-(?P<version>(?:\d+:)?[^-:]+-[^-]+)\.(?P<arch>[^.]+)")
_ROW = re.compile(r"^([^\s.][^\s]*)\.([^\s.]+)\s+(\S+-\S+)\s+(\S+)\s*$")


def without_epoch(version: str) -> str:
    """Return a version as dnf prints it: an epoch of 0 is not said."""
    return version[2:] if version.startswith("0:") else version


def parse_installed(
    text: str, held: frozenset[str] = frozenset(), chosen: frozenset[str] | None = None
) -> dict[str, Installed]:
    """Return the installed packages by name and architecture.

    :param held: names that ``dnf versionlock`` keeps.
    :param chosen: what ``dnf history userinstalled`` prints; ``None``: not known.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 4 or fields[0] == "gpg-pubkey":
            continue
        name, architecture, version, source_file = fields
        source = _NEVRA.fullmatch(source_file[: -len(".rpm")]) if source_file.endswith(".rpm") else None
        version = without_epoch(version)
        one = Installed(
            name, architecture, version, source["name"] if source else name, source["version"] if source else version,
            held=name in held, automatic=None if chosen is None else f"{name}-{version}.{architecture}" not in chosen,
        )  # fmt: skip
        found[one.key] = one  # of a package that may be there twice, such as the kernel, the newest
    return found


def parse_updates(text: str, installed: Mapping[str, Installed]) -> list[Change]:
    """Return what ``dnf -q check-update`` printed; what it calls obsoleting is not among it."""
    changes = []
    for line in text.partition("Obsoleting Packages")[0].splitlines():
        row = _ROW.match(line)
        if row:
            name, architecture, version, repository = row.groups()
            now = installed.get(f"{name}:{architecture}")
            changes.append(
                Change(name, architecture, now.version if now else "", without_epoch(version), (repository,))
            )
    return changes


def with_cves(changes: list[Change], text: str) -> list[Change]:
    """Return the changes with the CVEs of ``dnf -q updateinfo list cves --updates``."""
    cves: dict[str, set[str]] = {}
    for identifier, nevra in _ADVISORY.findall(text):
        parts = _NEVRA.fullmatch(nevra)
        if parts:
            cves.setdefault(f"{parts['name']}:{parts['arch']}", set()).add(identifier)
    return [replace(one, cves=tuple(sorted(cves.get(one.key, ()))), security=one.key in cves) for one in changes]


def parse_locked(text: str) -> frozenset[str]:
    """Return the names that ``dnf -q versionlock list`` printed."""
    found = (re.match(r"(?!!)(\S+?)-(?:\d+:)?\d[^-]*-[^-]+$", line.strip()) for line in text.splitlines())
    return frozenset(one.group(1) for one in found if one)


def parse_needs_restarting(text: str) -> list[str]:
    """Return the units that ``dnf -q needs-restarting -s`` printed."""
    return [line.strip() for line in text.splitlines() if line.strip().endswith(".service")]


def parse_reboot(text: str) -> list[str]:
    """Return the packages that ``dnf -q needs-restarting -r`` names; it ends with 1 when there are some."""
    return [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("* ")]
