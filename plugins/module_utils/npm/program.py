# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way to run npm: not as root, in a small environment, asking nobody but the registry, without scripts."""

from __future__ import annotations

import os
import pwd
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner

#: What a site needs to reach its registry.
_PASSED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NODE_EXTRA_CA_CERTS")


class NpmError(Exception):
    """npm, or what it is to work on, is not as it must be; the message says what to do."""


@dataclass(frozen=True)
class Npm:
    """npm for one project.

    :param user: account that it runs as.
    :param home: where it keeps its cache and looks for a configuration; by default the account's home.
    :param registry: address of the registry; by default that of the account's configuration.
    :param token: token for that registry.
    :param cache: directory of its cache.
    :param offline: take packages from the cache alone.
    :param scripts: whether packages may run their install scripts.
    :param timeout: seconds that one call may take.
    """

    user: str
    home: str = ""
    registry: str = ""
    token: str = field(default="", repr=False)
    cache: str = ""
    offline: bool = False
    scripts: bool = False
    timeout: float = 600.0
    run: Runner = command.run

    def __post_init__(self) -> None:
        if self.registry and urllib.parse.urlsplit(self.registry).scheme not in ("http", "https"):
            raise NpmError(f"registry: '{self.registry}' is no address; write it as https://host/path/")
        if self.token and not self.registry:
            raise NpmError("registry: name the registry that the token is for")
        try:
            account = pwd.getpwnam(self.user)
        except KeyError:
            raise NpmError(f"user: there is no account '{self.user}' on this host") from None
        if account.pw_uid == 0:
            raise NpmError("user: npm and what it runs never run as root; name the account of the application")

    def call(self, *arguments: str, cwd: str) -> Result:
        """Run npm to its end, whatever its exit code.

        :raises NpmError: when it cannot be run or takes too long.
        """
        settings = {
            "ignore_scripts": "false" if self.scripts else "true",
            # Without a registry to ask, npm audit finds nothing and ends well.
            "offline": "true" if self.offline and arguments[0] != "audit" else "false",
            "audit": "false",
            "fund": "false",
            "color": "false",
            "progress": "false",
            "update_notifier": "false",
            "loglevel": "error",
            "logs_max": "0",
            # npm's own pauses let a registry that is down cost minutes.
            "fetch_retry_mintimeout": "1000",
            "fetch_retry_maxtimeout": "5000",
        }
        if self.registry:
            settings["registry"] = self.registry
        if self.cache:
            settings["cache"] = self.cache
        environment = {f"npm_config_{name}": value for name, value in settings.items()}
        if self.token:
            place = re.sub(r"^https?:", "", self.registry).rstrip("/")
            environment[f"npm_config_{place}/:_authToken"] = self.token
        return self._call(["npm", *arguments], cwd, environment)

    def other(self, argv: Sequence[str], *, cwd: str) -> Result:
        """Run another program as the same account, which sees nothing of the registry.

        :raises NpmError: when it cannot be run or takes too long.
        """
        return self._call(argv, cwd, {"npm_config_update_notifier": "false", "npm_config_logs_max": "0"})

    def _call(self, argv: Sequence[str], cwd: str, environment: dict[str, str]) -> Result:
        path = os.path.dirname(command.which("npm") or "/usr/bin/npm")
        environment = {
            "PATH": f"{path}:/usr/local/bin:/usr/bin:/bin",
            **{name: os.environ[name] for name in _PASSED if name in os.environ},
            **({"HOME": self.home} if self.home else {}),
            **environment,
        }
        try:
            return self.run(
                command.tied(argv),
                timeout=self.timeout,
                cwd=cwd,
                user=self.user,
                env=environment,
                inherit=False,
            )
        except CommandError as error:
            raise NpmError(str(error)) from error
