# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting back what a service ran on before: configuration files and the link to the release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import ServiceError


@dataclass(frozen=True)
class Fallback:
    """What to put back when the service fails.

    :param contents: the previous content of each configuration file, by path.
    :param links: where each link shall point again, by path of the link.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.contents or self.links)

    def describe(self) -> str:
        """Return what is put back, for a sentence."""
        return " and ".join([*sorted(self.contents), *(f"{link} -> {self.links[link]}" for link in sorted(self.links))])


def prepare(previous: Mapping[str, str], links: Mapping[str, str]) -> Fallback:
    """Read everything that putting back needs, before anything is touched.

    :param previous: path of the previous copy of each configuration file, by path of the file.
    :param links: previous target of each link, by path of the link.
    :raises ServiceError: when a copy or a target does not exist, or a link is something else.
    """
    contents = {}
    for path, copy in previous.items():
        try:
            contents[path] = files.read(copy)
        except files.FileError as error:
            raise ServiceError(f"{path} could not be put back: {error}; correct the path of its copy") from error
    for link, target in links.items():
        if not os.path.islink(link):
            raise ServiceError(f"{link} is not a symbolic link, so it cannot be switched back; correct the fallback")
        if not os.path.exists(os.path.join(os.path.dirname(link), target)):
            raise ServiceError(f"{link} cannot be switched back: {target} does not exist; correct the fallback")
    return Fallback(contents, dict(links))


def restore(fallback: Fallback) -> None:
    """Put everything back.

    :raises ServiceError: when something could not be put back.
    """
    try:
        files.restore_all(fallback.contents)
        for link, target in fallback.links.items():
            files.switch_link(link, target)
    except (files.FileError, OSError) as error:
        raise ServiceError(f"the previous state could not be put back: {error}") from error
