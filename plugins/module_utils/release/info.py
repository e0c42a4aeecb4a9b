# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host says of an application before a release: the version that runs, who works on it, whether it is well."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import Request, Result
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span


@dataclass
class Host:
    """What was found.

    :param version: the version that runs; empty when it is not known.
    :param bad: versions that are known as bad here.
    :param under_way: the release that holds the lock, as its state has it.
    """

    version: str = ""
    artefact: str = ""
    previous: str = ""
    bad: list[str] = field(default_factory=list)
    under_way: Mapping[str, Any] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def live(root: str) -> str:
    """Return what the link ``current`` of a directory names, such as ``releases/1.4.2``; empty without one."""
    try:
        return os.readlink(os.path.join(root, "current")) if root else ""
    except OSError:
        return ""


def look(state: Mapping[str, Any], linked: str, subject: str, now: float) -> Host:
    """Return what the state and the link say.

    :param linked: what is live, as :func:`live` says.
    :param subject: what findings are about.
    :param now: seconds since 1970.
    """
    recorded, held = state["current"], state["under_way"]
    found = Host(
        version=os.path.basename(linked) or (recorded["version"] if recorded else ""),
        artefact=linked or (recorded["artefact"] if recorded else ""),
        previous=state["previous"]["version"] if state["previous"] else "",
        bad=[entry["version"] for entry in state["bad"]],
        under_way=held,
    )
    if recorded and linked and recorded["artefact"] != linked and not held:
        message = (
            f"{linked} is live, but the release recorded here is {recorded['version']}: somebody else has changed it"
        )
        found.findings.append(Finding("release.state", subject, "warning", message, linked, recorded["artefact"]))
    if held is not None:
        left = datetime.strptime(held["expires"], "%Y-%m-%dT%H:%M:%S%z").timestamp() - now
        reason = f" ({held['reason']})" if held["reason"] else ""
        where = f"at the step {held['step']}" if held["step"] else "before its first step"
        message = f"{held['owner']} holds the lock for {held['version']}{reason} since {held['started']}, {where}, " + (
            f"for another {span(left)}" if left > 0 else "but it has expired"
        )
        advice = "wait for it, or end it with release_resume=on or release_resume=back"
        found.findings.append(Finding("release.lock", subject, "critical", message, held["id"], advice=advice))
    return found


def fill(requests: Sequence[Request], version: str) -> list[Request]:
    """Return the requests with the version that runs in place of ``<version>``; any version where it is not known."""
    pattern = re.escape(version) if version else '[^"]*'
    return [replace(request, matches=request.matches.replace("<version>", pattern)) for request in requests]


def judge(results: Sequence[Result], subject: str) -> list[Finding]:
    """Return whether the application is well now; a release must not begin on one that is not."""
    failed = [result for result in results if not result.good]
    if failed:
        said = "; ".join(f"{result.name}: {result.said}" for result in failed)
        advice = "bring it into order first, or what fails now will be taken for a fault of the new version"
        return [
            Finding("release.health", subject, "critical", f"it is not well before the release: {said}", advice=advice)
        ]
    if results:
        return [Finding("release.health", subject, "ok", f"all {len(results)} requests are answered as they should be")]
    return []
