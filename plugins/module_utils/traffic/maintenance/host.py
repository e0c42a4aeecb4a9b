# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host itself remembers of the modes that are on, and the timer of systemd that ends them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.base import ROOT, read, write
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import (
    Memory,
    Site,
    remembered,
    service,
    timer,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: The program that ends modes.
PROGRAM = "/usr/local/sbin/worklog-maintenance-mode"
UNITS = "/etc/systemd/system"
SERVICE, TIMER = "worklog-maintenance-mode.service", "worklog-maintenance-mode.timer"
#: Seconds for one command of systemd, and to wait for another change.
_TIMEOUT = 60.0


@dataclass
class Host:
    """The modes of this host.

    :param now: the clock, in seconds since 1970.
    """

    system: System
    root: str = ROOT
    units: str = UNITS
    program: str = PROGRAM
    now: Callable[[], float] = time.time

    def path(self, site: Site) -> str:
        """Return the file about a site."""
        return os.path.join(self.root, f"{site.file}.json")

    def memory(self, site: Site) -> Memory | None:
        """Return what is remembered of a site.

        :raises TrafficError: when it is damaged.
        """
        text = read(self.path(site))
        return None if text is None else remembered(text.decode("utf-8", "replace"), self.path(site))

    def memories(self) -> list[Memory]:
        """Return what is remembered of all sites; of damaged files nothing."""
        found = []
        for name in sorted(os.listdir(self.root)) if os.path.isdir(self.root) else ():
            if name.endswith(".json"):
                path = os.path.join(self.root, name)
                with contextlib.suppress(TrafficError):
                    found.append(remembered((read(path) or b"").decode("utf-8", "replace"), path))
        return found

    def remember(self, site: Site, memory: Memory | None) -> None:
        """Keep something about a site, or nothing any more."""
        write(self.path(site), None if memory is None else memory.text().encode(), mode=0o640)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Have the modes of this host to oneself.

        :raises TrafficError: when somebody else has them for too long.
        """
        os.makedirs(self.root, mode=0o755, exist_ok=True)
        descriptor = os.open(os.path.join(self.root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not files.lock(descriptor, _TIMEOUT, self.system.monotonic, self.system.sleep):
                raise TrafficError(
                    "another change of a mode is under way on this host; run this again when it has ended", refused=True
                )
            yield
        finally:
            os.close(descriptor)

    def arranged(self) -> bool:
        """Whether the timer of systemd is as the modes that are on need it."""
        moments = [one.state.until for one in self.memories() if one.state.until is not None]
        states = self._states()
        if not moments:
            return states == ("inactive", "disabled") or not os.path.lexists(os.path.join(self.units, TIMER))
        wanted = {TIMER: timer(moments), SERVICE: service(self.program)}
        written = all(read(os.path.join(self.units, name)) == text.encode() for name, text in wanted.items())
        return written and states == ("active", "enabled")

    def arrange(self) -> None:
        """Have the modes that are on end at their time, also when the host is started anew meanwhile.

        :raises TrafficError: when that is not sure.
        """
        moments = [one.state.until for one in self.memories() if one.state.until is not None]
        if not moments:
            if os.path.lexists(os.path.join(self.units, TIMER)):
                self._systemctl("disable", "--quiet", TIMER, SERVICE)
                self._systemctl("stop", TIMER)
            return
        try:
            answer = self.system.run([self.program, "--help"], timeout=_TIMEOUT)
        except CommandError as error:
            raise TrafficError(f"no mode could be ended in time: {error}", refused=True) from error
        if not answer.ok:
            raise TrafficError(f"no mode could be ended in time: {answer.describe()}", refused=True)
        write(os.path.join(self.units, SERVICE), service(self.program).encode())
        write(os.path.join(self.units, TIMER), timer(moments).encode())
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", TIMER, SERVICE)
        self._systemctl("restart", TIMER)
        if self._states() != ("active", "enabled"):
            raise TrafficError(
                f"{TIMER} is {' and '.join(self._states())} instead of active and enabled, so the mode would not end: "
                f"see 'systemctl status {TIMER}'"
            )
        if min(moments) <= self.now():
            self._systemctl("start", "--no-block", SERVICE)

    def _states(self) -> tuple[str, ...]:
        shown = self._systemctl("show", TIMER, "--property=ActiveState,UnitFileState").stdout
        values = dict(line.partition("=")[::2] for line in shown.splitlines())
        return values.get("ActiveState", ""), values.get("UnitFileState", "")

    def _systemctl(self, *arguments: str) -> Result:
        try:
            result = self.system.run(["systemctl", *arguments], timeout=_TIMEOUT)
        except CommandError as error:
            raise TrafficError(f"{error}; a mode that nothing ends is not switched on", refused=True) from error
        if not result.ok:
            raise TrafficError(result.describe())
        return result
