# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which service manager has a service of a given name."""

from __future__ import annotations

import os

from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.service.docker import Docker
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Manager, ServiceError
from ansible_collections.worklog.maintenance.plugins.module_utils.service.pm2 import Pm2
from ansible_collections.worklog.maintenance.plugins.module_utils.service.systemd import Systemd


def choose(
    name: str,
    run: Runner,
    *,
    kind: str = "auto",
    user: str | None = None,
    pm2_home: str | None = None,
    pm2_ecosystem: str | None = None,
) -> Manager:
    """Return the manager of a service.

    :param kind: ``systemd``, ``pm2``, ``docker``, or ``auto``: the one that knows the name.
    :param user: account of a user unit or of PM2.
    :raises ServiceError: when none knows the name, or several do.
    """
    if kind == "auto" and (pm2_home or pm2_ecosystem):
        kind = "pm2"
    if kind == "systemd":
        return Systemd(name, run, user)
    if kind == "docker":
        return Docker(name, run)
    pm2 = Pm2(name, run, user=user, home=pm2_home, ecosystem=pm2_ecosystem)
    if kind == "pm2":
        return pm2
    candidates: list[Manager] = []
    if which("systemctl") and os.path.isdir("/run/systemd/system"):
        candidates.append(Systemd(name, run, user))
    if which("pm2") and pm2.daemon:
        candidates.append(pm2)
    if which("docker") and os.path.exists("/var/run/docker.sock"):
        candidates.append(Docker(name, run))
    asked = [(candidate, candidate.problems()) for candidate in candidates]
    found = [candidate for candidate, problems in asked if "service.exists" not in [problem[0] for problem in problems]]
    if len(found) == 1:
        return found[0]
    if found:
        titles = " and ".join(candidate.title for candidate in found)
        raise ServiceError(f"'{name}' is ambiguous on this host: {titles}; say which with 'manager'")
    if not asked:
        raise ServiceError("this host has neither systemd, PM2 nor Docker running; there is no service to restart")
    reasons = ". ".join(f"{problem[1]}; {problem[2]}" for entry in asked for problem in entry[1])
    raise ServiceError(f"no service named '{name}' was found: {reasons}")
