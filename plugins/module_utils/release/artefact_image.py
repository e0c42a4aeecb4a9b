# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of Docker as releases: each has a tag of its version, and the tag ``current`` is what a service starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result, Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact import ArtefactError, surplus

CURRENT = "current"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]*")


class Images:
    """The images of one application.

    :param name: without tag.
    """

    def __init__(self, name: str, run: Runner, timeout: float) -> None:
        if not _NAME.fullmatch(name):
            raise ArtefactError(f"nothing was changed: '{name}' is no name of an image")
        self.name = name
        self._run = run
        self._timeout = timeout

    def live(self) -> dict[str, str]:
        """Return version and identifier of the image that the tag current names; empty when there is none."""
        found = self._inspect(f"{self.name}:{CURRENT}")
        if not found:
            return {}
        tags = [tag.rpartition(":")[2] for tag in found["RepoTags"] or [] if tag.startswith(f"{self.name}:")]
        return {"version": next((tag for tag in tags if _VERSION.match(tag)), ""), "artefact": found["Id"]}

    def trouble(self, version: str, digest: str) -> str:
        """Return why a version cannot be used, empty when its tag names the right image."""
        found = self._inspect(f"{self.name}:{version}")
        if not found:
            return f"there is no image {self.name}:{version} on this host"
        if digest and not _is(found, digest):
            return f"{self.name}:{version} is the image {found['Id']}, not {digest}"
        return ""

    def make(self, version: str, digest: str, archive: str) -> str:
        """Load or pull the image, prove it, give it its tag, and return what was proven.

        :raises ArtefactError: when it is not that image.
        """
        if not _DIGEST.fullmatch(digest):
            raise ArtefactError(
                "nothing was changed: an image needs its digest as checksum, sha256: and 64 digits; a tag can be moved"
            )
        if archive:
            if not os.path.isfile(archive):
                raise ArtefactError(f"nothing was changed: {archive} is not there; copy it to this host first")
            if not self._inspect(digest):
                self._docker(["load", "--quiet", "--input", archive])
            found = self._inspect(digest) or self._inspect(f"{self.name}@{digest}")
        else:
            self._docker(["pull", "--quiet", f"{self.name}@{digest}"])
            found = self._inspect(f"{self.name}@{digest}")
        if not found or not _is(found, digest):
            raise ArtefactError(f"nothing was changed: {archive or self.name} has no image with the digest {digest}")
        self._docker(["tag", found["Id"], f"{self.name}:{version}"])
        return f"{self.name}:{version} has the digest {digest}"

    def switch(self, artefact: str) -> bool:
        """Give the tag current to an image, and return whether that is a change.

        :raises ArtefactError: when there is no such image.
        """
        if self.live().get("artefact") == artefact:
            return False
        if not self._inspect(artefact):
            raise ArtefactError(f"there is no image {artefact} on this host; what was live is live")
        self._docker(["tag", artefact, f"{self.name}:{CURRENT}"])
        if self.live().get("artefact") != artefact:
            raise ArtefactError(f"{self.name}:{CURRENT} is not {artefact} although it was tagged so")
        return True

    def let_go(self) -> None:
        """Remove the tag current, so that nothing is live.

        :raises ArtefactError: when it cannot be removed.
        """
        self._docker(["image", "rm", f"{self.name}:{CURRENT}"])

    def identifier(self, version: str) -> str:
        """Return the identifier of the image of a version, empty when there is none."""
        return str(self._inspect(f"{self.name}:{version}").get("Id", ""))

    def remove(self, version: str) -> bool:
        """Remove the tag of a version.

        :raises ArtefactError: when it is live or in use.
        """
        if not self.identifier(version):
            return False
        if self.live().get("version") == version:
            raise ArtefactError(f"{self.name}:{version} is live and cannot be removed")
        self._docker(["image", "rm", f"{self.name}:{version}"])
        return True

    def surplus(self, keep: int, protect: Sequence[str]) -> list[str]:
        """Return the versions that are more than are to be kept, oldest first; other tags are left alone."""
        text = self._docker(["image", "ls", "--format", "{{.Tag}}\t{{.CreatedAt}}", self.name])
        found = [line.split("\t") for line in text.splitlines() if "\t" in line]
        ordered = sorted((at, tag) for tag, at in found if _VERSION.match(tag))
        return surplus([tag for _unused, tag in ordered], keep, [self.live().get("version", ""), *protect])

    def _inspect(self, reference: str) -> dict[str, Any]:
        done = self._call(["image", "inspect", "--format", "{{json .}}", reference])
        if not done.ok:
            if "No such image" in done.stderr or "not found" in done.stderr:
                return {}
            raise ArtefactError(done.describe())
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _docker(self, arguments: list[str]) -> str:
        done = self._call(arguments)
        if not done.ok:
            raise ArtefactError(f"what was live is live: {done.describe()}")
        return done.stdout

    def _call(self, arguments: list[str]) -> Result:
        return self._run(["docker", *arguments], timeout=self._timeout)


def _is(found: dict[str, Any], digest: str) -> bool:
    return found["Id"] == digest or any(one.endswith(f"@{digest}") for one in found["RepoDigests"] or [])
