# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of releases: copying one beside the others, and the link that says which one runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.npm.program import NpmError

#: How our releases are named: what they come from, and when they were made.
_NAME = re.compile(r"(?P<base>.+)-npm-\d{8}T\d{6}Z")
_PARTIAL = re.compile(r"\..+-npm-\d{8}T\d{6}Z\.partial")

MODULES = "node_modules"


@dataclass(frozen=True)
class Place:
    """A link to the release that runs, and the directory of all releases.

    :param link: the link.
    :param target: where it points to, as it is written.
    :param release: the directory behind it.
    """

    link: str
    target: str
    release: str

    @property
    def releases(self) -> str:
        """The directory of all releases."""
        return os.path.dirname(self.release)

    def target_of(self, name: str) -> str:
        """Return what the link must contain for another release: relative where it is relative now."""
        return os.path.join(os.path.dirname(self.target.rstrip("/")), name)

    def path_of(self, target: str) -> str:
        """Return the directory that a target of the link means."""
        return os.path.normpath(os.path.join(os.path.dirname(self.link), target))


def find(link: str) -> Place:
    """Return what a link says.

    :raises NpmError: when it is no link to a directory.
    """
    if not os.path.islink(link):
        state = "is a directory, not a link" if os.path.isdir(link) else "does not exist"
        raise NpmError(
            f"path: {link} {state}; the application must run from a link to its release directory, so that "
            "a new one is made beside it and never in place"
        )
    target = os.readlink(link)
    release = os.path.normpath(os.path.join(os.path.dirname(link), target))
    if not os.path.isdir(release) or os.path.islink(release):
        raise NpmError(f"path: {link} points to {target}, which is no directory; correct the link")
    return Place(link, target, release)


def name_of(release: str, stamp: str) -> str:
    """Return the name of the release that is made from another one."""
    name = os.path.basename(release)
    match = _NAME.fullmatch(name)
    return f"{match['base'] if match else name}-npm-{stamp}"


def copy(source: str, target: str) -> None:
    """Copy a release without its packages; links stay links. The copy belongs to this process's account."""

    def ignore(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if directory == source and name == MODULES]

    shutil.copytree(source, target, symlinks=True, ignore=ignore)


def give(tree: str, uid: int, gid: int) -> None:
    """Give a tree to an account; links are not followed."""
    for directory, names, others, descriptor in os.fwalk(tree, follow_symlinks=False):
        os.chown(descriptor, uid, gid)
        for name in (*names, *others):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and (status.st_uid, status.st_gid) != (uid, gid):
                raise NpmError(f"{os.path.join(directory, name)} is a hard link; it is not given to another account")
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


def give_back(tree: str, like: str) -> None:
    """Give a tree to those who own the one it was copied from, and what is new to the owner of that one."""
    owner = os.stat(like)
    give(tree, owner.st_uid, owner.st_gid)
    for directory, names, others, descriptor in os.fwalk(like, follow_symlinks=False):
        inside = os.path.relpath(directory, like)
        if inside == "." and MODULES in names:
            names.remove(MODULES)
        for name in (*names, *others):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            path = os.path.join(tree, inside, name)
            if (status.st_uid, status.st_gid) != (owner.st_uid, owner.st_gid) and os.path.lexists(path):
                os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)


def left_over(releases: str) -> list[str]:
    """Return what interrupted runs have left."""
    return [os.path.join(releases, name) for name in os.listdir(releases) if _PARTIAL.fullmatch(name)]


def surplus(releases: str, keep: int, needed: Sequence[str]) -> list[str]:
    """Return the releases of ours that are more than are to be kept, those that are needed apart."""
    names = (name for name in os.listdir(releases) if _NAME.fullmatch(name))
    ours = sorted(names, key=lambda name: name[-16:])
    rest = [path for name in ours if (path := os.path.join(releases, name)) not in needed]
    return rest[: max(0, len(rest) - keep)]
