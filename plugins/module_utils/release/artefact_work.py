# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What release_artefact does for each state, for directories and for images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact import (
    ArtefactError,
    Finish,
    Outcome,
    Releases,
    check_name,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact_image import Images
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact_sources import (
    Archive,
    GitTag,
    Proof,
)


class DirectoryWork:
    """Release directories, of an archive, a directory or a tag."""

    def __init__(self, given: Mapping[str, Any], run: Runner) -> None:
        self._given = given
        self._run = run
        self._exclude = list(given["exclude"])
        self._releases = Releases(given["root"], run)

    def live(self) -> dict[str, str]:
        """Return what is live."""
        return self._releases.live()

    def carry_out(self, *, check_mode: bool) -> Outcome:
        """Bring about the state.

        :raises ArtefactError: when that cannot be; what was live is live.
        """
        state, version = self._given["state"], self._given["version"]
        outcome = Outcome(live=self.live(), artefact=f"releases/{version}" if version else "")
        outcome.message = f"{outcome.live.get('artefact', 'nothing')} is live"
        if state == "read":
            return outcome
        with contextlib.nullcontext() if check_mode else self._releases.alone():
            if state == "prepared":
                self._prepare(outcome, version, check_mode)
            elif state == "live":
                self._make_live(outcome, check_mode)
            elif state == "not_live":
                _let_go(self._releases, version, outcome, check_mode)
            else:
                _remove(self._releases, self._given, outcome, check_mode)
        return outcome

    def _prepare(self, outcome: Outcome, version: str, check_mode: bool) -> None:
        releases, source = self._releases, self._given["source"]
        live = outcome.live.get("artefact")
        if live and live.startswith("releases/") and live != outcome.artefact and not check_mode:
            self._adopt(str(outcome.live["version"]))
        there = os.path.isdir(releases.place(version))
        known = os.path.lexists(releases.listing(version))
        trouble = releases.trouble(version, self._exclude)
        if not trouble:
            outcome.message = f"{releases.place(version)} is there and whole"
            return
        if there and not known and (not source or live == outcome.artefact):
            outcome.changed, outcome.message = True, f"{releases.place(version)} was there, and is taken over as it is"
            if not check_mode:
                releases.seal(version, self._exclude)
            return
        if live == outcome.artefact:
            raise ArtefactError(f"{trouble}, but it is live: release another version, or put the files back")
        if there and not known:
            raise ArtefactError(f"{trouble}; it was left alone. Move it away, and it is made anew of {source}")
        if not source:
            raise ArtefactError(f"{trouble}; put it there whole, or name a source")
        fill, outcome.proof = self._source(version)
        outcome.changed, outcome.message = True, f"{releases.place(version)} was made of {source}"
        if check_mode:
            return
        if there:
            releases.remove(version)
        releases.make(version, fill, self._finish())

    def _source(self, version: str) -> tuple[Any, list[str]]:
        given = self._given
        proof = Proof(*(given[name] or "" for name in ("checksum", "checksums", "signature", "keyring")))
        if given["kind"] == "git":
            tag = GitTag(given["source"], check_name(given["tag"] or f"v{version}"), proof, self._run, given["timeout"])
            return tag.fill, tag.proof_said
        archive = Archive(given["source"], proof, self._run)
        return archive.fill, archive.prove()

    def _finish(self) -> Finish:
        given = self._given
        environment = {name: str(value) for name, value in given["environment"].items()}
        return Finish(given["owner"], given["shared"], given["commands"], environment, self._exclude, given["timeout"])

    def _adopt(self, version: str) -> None:
        """Write down the release that runs, so that it can be gone back to."""
        if not os.path.lexists(self._releases.listing(version)) and os.path.isdir(self._releases.place(version)):
            self._releases.seal(version, self._exclude)

    def _make_live(self, outcome: Outcome, check_mode: bool) -> None:
        artefact = self._given["artefact"] or outcome.artefact
        outcome.artefact = artefact
        if not self._given["artefact"]:
            trouble = self._releases.trouble(self._given["version"], self._exclude)
            if trouble:
                raise ArtefactError(f"{trouble}: it must not be made live; prepare it first")
        elif artefact.startswith("releases/"):
            check_name(artefact[len("releases/") :])
        elif not os.path.isabs(artefact):
            raise ArtefactError(f"'{artefact}' is neither releases/VERSION nor an absolute path")
        outcome.changed = outcome.live.get("artefact") != artefact
        outcome.message = f"{artefact} is live"
        if not check_mode:
            self._releases.switch(artefact)
            outcome.live = self.live()


class ImageWork:
    """Images of Docker."""

    def __init__(self, given: Mapping[str, Any], run: Runner) -> None:
        self._given = given
        self._images = Images(given["source"], run, given["timeout"])

    def live(self) -> dict[str, str]:
        """Return what is live."""
        return self._images.live()

    def carry_out(self, *, check_mode: bool) -> Outcome:
        """Bring about the state.

        :raises ArtefactError: when that cannot be; what was live is live.
        """
        images, given = self._images, self._given
        state, version = given["state"], given["version"]
        outcome = Outcome(live=self.live(), artefact=images.identifier(version) if version else "")
        outcome.message = f"{outcome.live.get('version') or 'nothing'} is live"
        if state == "prepared":
            trouble = images.trouble(version, given["checksum"] or "")
            if trouble and outcome.live.get("version") == version:
                raise ArtefactError(f"{trouble}, but it is live: release another version")
            outcome.changed = bool(trouble)
            outcome.message = f"{given['source']}:{version} is there"
            if trouble and not check_mode:
                outcome.proof = [images.make(version, given["checksum"] or "", given["archive"] or "")]
                outcome.artefact = images.identifier(version)
        elif state == "live":
            outcome.artefact = given["artefact"] or outcome.artefact
            trouble = images.trouble(version, given["checksum"] or "") if not given["artefact"] else ""
            if trouble:
                raise ArtefactError(f"{trouble}: prepare it first; what was live is live")
            outcome.changed = outcome.live.get("artefact") != outcome.artefact
            outcome.message = f"{outcome.artefact} is live"
            if not check_mode:
                images.switch(outcome.artefact)
                outcome.live = self.live()
        elif state == "not_live":
            _let_go(images, version, outcome, check_mode)
        elif state == "absent":
            _remove(images, given, outcome, check_mode)
        return outcome


def make(given: Mapping[str, Any], run: Runner) -> DirectoryWork | ImageWork:
    """Return what does the work for a kind.

    :raises ArtefactError: when an option makes no sense.
    """
    for version in (given["version"],) if given["version"] else ():
        check_name(version)
    if given["kind"] == "git" and given["state"] == "prepared" and not given["source"]:
        raise ArtefactError("nothing was changed: a tag of git needs a source, a remote or the path of a bundle")
    return ImageWork(given, run) if given["kind"] == "image" else DirectoryWork(given, run)


def _let_go(kept: Releases | Images, version: str, outcome: Outcome, check_mode: bool) -> None:
    outcome.changed = outcome.live.get("version") == version
    if outcome.changed:
        outcome.message = f"{version} is not live any more, and nothing else is"
        outcome.live = {}
        if not check_mode:
            kept.let_go()


def _remove(kept: Releases | Images, given: Mapping[str, Any], outcome: Outcome, check_mode: bool) -> None:
    version, protect = given["version"], [name for name in given["protect"] if name]
    if version in protect:
        raise ArtefactError(f"{version} is protected and cannot be removed")
    for name in [version] if version else kept.surplus(given["keep"], protect):
        if check_mode or kept.remove(name):
            outcome.removed.append(name)
    outcome.changed = bool(outcome.removed)
    outcome.message = f"removed: {', '.join(outcome.removed) or 'nothing'}"
