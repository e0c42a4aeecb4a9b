# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a load balancer has to be able to do for a mode: be set up once, be switched without a reload, be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import (
    Access,
    Site,
    intact,
    sealed,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: Where the modes of a host are kept.
ROOT = "/var/lib/worklog-maintenance/mode"


@dataclass(frozen=True)
class Change:
    """One file of the set-up that is not as it should be.

    :param old: its content, None where it is not there; ``new`` likewise.
    :param ours: whether all of it was generated here; of other files a copy is kept.
    :param secret: whether nobody but root may read it, not in a diff either.
    """

    path: str
    old: bytes | None
    new: bytes | None
    ours: bool = True
    secret: bool = False


@dataclass
class Switchable:
    """One site of one load balancer.

    :param root: where the modes of this host are kept.
    :param findings: what an operator should know, added to as things are seen.
    :param asked: whether a reload was asked for.
    """

    site: Site
    access: Access
    system: System
    root: str = ROOT
    findings: list[Finding] = field(default_factory=list)
    asked: bool = False

    def running(self) -> bool:
        """Whether it runs.

        :raises TrafficError: when that cannot be told.
        """
        raise NotImplementedError

    def changes(self, *, present: bool, overwrite: bool) -> list[Change]:
        """Return what of the set-up is to be written, or to be removed.

        :raises TrafficError: when the site is not known, or a generated file was edited by hand.
        """
        raise NotImplementedError

    def stale(self) -> bool:
        """Whether the set-up is on disk, but not loaded: a run was cut off between the two."""
        raise NotImplementedError

    def load(self) -> dict[str, Any]:
        """Have the configuration on disk tested and loaded; return what shows that it is in force.

        :raises TrafficError: when it is not.
        """
        raise NotImplementedError

    def no_limit(self) -> str:
        """Return why the site cannot be limited; empty when it can."""
        raise NotImplementedError

    def mode(self) -> str:
        """Return the mode that is switched on.

        :raises TrafficError: when it cannot be read.
        """
        raise NotImplementedError

    def switch(self, mode: str) -> None:
        """Switch to a mode, without a reload.

        :raises TrafficError: when that fails.
        """
        raise NotImplementedError

    def generated(self, wanted: Mapping[str, str], overwrite: bool, secret: Iterable[str] = ()) -> list[Change]:
        """Return what is to be written of generated files.

        :param wanted: path → content without its seal.
        :param overwrite: whether files that were edited by hand are replaced all the same.
        :raises TrafficError: when one was.
        """
        found = []
        for path, text in wanted.items():
            old, new = read(path), sealed(text).encode()
            self.refuse_edited(path, old, overwrite)
            if old != new:
                found.append(Change(path, old, new, secret=path in secret))
        return found

    def refuse_edited(self, path: str, old: bytes | None, overwrite: bool) -> None:
        """See that a generated text is as it was generated.

        :raises TrafficError: when somebody has edited it.
        """
        if old is None or intact(old.decode("utf-8", "surrogateescape")):
            return
        if not overwrite:
            raise TrafficError(
                f"{path} was edited by hand and is left alone: move what was added into a file of your own, then run "
                "this with 'overwrite: true'",
                refused=True,
            )
        self.note("edited", path, "warning", f"{path} had been edited by hand and was written anew")

    def note(self, check: str, subject: str, severity: str, message: str, advice: str | None = None) -> None:
        """Add a finding, once."""
        found = Finding(f"maintenance.{check}", subject, severity, message, advice=advice)
        self.findings += [found] if found not in self.findings else []


def read(path: str) -> bytes | None:
    """Return the content of a file, None when there is none.

    :raises TrafficError: when it cannot be read.
    """
    try:
        return files.read(path) if os.path.lexists(path) else None
    except files.FileError as error:
        raise TrafficError(f"{error}; set become: true", refused=True) from error


def write(path: str, content: bytes | None, *, old: bytes | None = None, mode: int = 0o644) -> None:
    """Replace, make or remove a file.

    :param old: what it is believed to contain; None: whatever there is.
    :raises TrafficError: when that fails; it is as it was then.
    """
    try:
        if content is not None:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            files.replace(path, content, expected=old, mode=mode)
        elif os.path.lexists(path):
            os.unlink(path)
            files.sync_directory(os.path.dirname(path))
    except (files.FileError, OSError) as error:
        raise TrafficError(str(error)) from error
