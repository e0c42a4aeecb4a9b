# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Updating the packages of an application in a new release, and switching to it and back.

The running tree is only read. What was switched and not confirmed yet stands in a journal, so that a run that was
interrupted is gone on with, and the way back is known.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result
from ansible_collections.worklog.maintenance.plugins.module_utils.npm import manifest, releases
from ansible_collections.worklog.maintenance.plugins.module_utils.npm.program import Npm, NpmError
from ansible_collections.worklog.maintenance.plugins.module_utils.npm.releases import MODULES, Place
from ansible_collections.worklog.maintenance.plugins.module_utils.vulnerability import reports
from ansible_collections.worklog.maintenance.plugins.module_utils.vulnerability.model import ScanError

#: Where the journals are kept.
STATE = "/var/lib/worklog-maintenance/npm_update"

PACKAGE, LOCK = "package.json", "package-lock.json"


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    :param update: whether packages are updated within the ranges of package.json.
    :param only: the packages to update; empty for all.
    :param audit_fix: whether ``npm audit fix`` changes what is vulnerable, without force.
    :param test: argument list of the test; empty for the application's own.
    :param omit_dev: whether packages for development are removed after the test.
    """

    update: bool = True
    only: Sequence[str] = ()
    audit_fix: bool = True
    test: Sequence[str] = ()
    omit_dev: bool = False


@dataclass
class Plan:
    """What an update would change.

    :param changes: versions before and after, by place.
    :param outdated: direct dependencies that are not the newest.
    :param before: vulnerabilities of the lock file that is there; none when nobody was asked.
    :param contents: the new package.json and package-lock.json.
    :param old: the old ones.
    """

    changes: list[dict[str, str]] = field(default_factory=list)
    outdated: list[dict[str, str]] = field(default_factory=list)
    before: list[str] | None = None
    after: list[str] | None = None
    old: dict[str, bytes] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)


@contextlib.contextmanager
def locked(link: str) -> Iterator[None]:
    """Keep other runs on the same application away; the lock is the directory of the link, so nothing is written.

    :raises NpmError: when another run is at work.
    """
    directory = os.path.dirname(os.path.abspath(link))
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NpmError(f"path: {directory} cannot be opened: {error.strerror}; correct the path") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NpmError(f"another run updates {link} right now; wait until it has ended") from None
        yield
    finally:
        os.close(descriptor)


def journal_of(link: str, state: str = STATE) -> str:
    """Return the path of the journal of an application."""
    return os.path.join(state, os.path.abspath(link).strip("/").replace("-", "--").replace("/", "-") + ".json")


def unconfirmed(journal: str, place: Place) -> dict[str, str]:
    """Return the release before and the new one of a switch that was neither confirmed nor undone; empty for none.

    A journal that no longer fits the link, or of which a release is gone, is about the past.
    """
    found = _entry(journal)
    there = all(os.path.isdir(place.path_of(target)) for target in found.values())
    return found if there and place.target in found.values() else {}


def plan(npm: Npm, place: Place, wish: Wish) -> Plan:
    """Work out what an update changes, in a directory of its own that is gone afterwards.

    :raises NpmError: when npm fails or the registry gives no answer.
    """
    found = Plan(old={name: files.read(os.path.join(place.release, name)) for name in (PACKAGE, LOCK)})
    before = manifest.packages(manifest.read(found.old[LOCK], LOCK), LOCK)
    if manifest.read(found.old[PACKAGE], PACKAGE).get("workspaces"):
        raise NpmError(f"{place.release}/{PACKAGE} has workspaces, which this does not update; update them by hand")
    account = pwd.getpwnam(npm.user)
    with tempfile.TemporaryDirectory(prefix="npm-update-") as directory:
        for name in (PACKAGE, LOCK, ".npmrc"):
            if os.path.isfile(os.path.join(place.release, name)):
                shutil.copyfile(os.path.join(place.release, name), os.path.join(directory, name))
        releases.give(directory, account.pw_uid, account.pw_gid)
        if wish.audit_fix:
            found.before = _audit(npm, directory, before)
        found.outdated = manifest.outdated(npm.call("outdated", "--json", cwd=directory).stdout, before)
        if wish.update:
            _good(npm.call("update", "--package-lock-only", *wish.only, cwd=directory), "the packages are not updated")
        if wish.audit_fix:
            same = files.read(os.path.join(directory, LOCK)) == found.old[LOCK]
            found.after = found.before if same else _audit(npm, directory, before)
            if found.after:
                # It ends with 1 when something is left, so what it did is looked at, not what it says.
                npm.call("audit", "fix", "--package-lock-only", cwd=directory)
                found.after = _audit(npm, directory, before)
        found.contents = {name: files.read(os.path.join(directory, name)) for name in (PACKAGE, LOCK)}
    after = manifest.packages(manifest.read(found.contents[LOCK], LOCK), LOCK)
    found.changes = manifest.differences(before, after)
    if before and not after:
        raise NpmError("npm wrote a lock file without any package; nothing was taken from it")
    return found


def build(npm: Npm, place: Place, found: Plan, wish: Wish, name: str) -> str:
    """Make, fill and test a new release beside the others, and return its directory; when that fails it is gone.

    :raises NpmError: with what failed.
    """
    for path in releases.left_over(place.releases):
        shutil.rmtree(path)
    final = os.path.join(place.releases, name)
    partial = os.path.join(place.releases, f".{name}.partial")
    test = list(wish.test) or manifest.test_of(manifest.read(found.contents[PACKAGE], PACKAGE))
    account = pwd.getpwnam(npm.user)
    try:
        releases.copy(place.release, partial)
        for file, content in found.contents.items():
            files.replace(os.path.join(partial, file), content)
        releases.give(partial, account.pw_uid, account.pw_gid)
        _good(npm.call("ci", cwd=partial), "the packages of the lock file cannot be installed")
        _good(npm.other(test, cwd=partial), "the application fails its test with the new packages")
        if wish.omit_dev:
            _good(npm.call("prune", "--omit=dev", cwd=partial), "the packages for development cannot be removed")
        wrong = manifest.not_installed(manifest.read(found.contents[LOCK], LOCK), partial, dev=not wish.omit_dev)
        if wrong:
            raise NpmError(f"npm said that it was done, but it did not install {', '.join(wrong[:5])}")
        if files.read(os.path.join(partial, LOCK)) != found.contents[LOCK]:
            raise NpmError("the lock file has changed during the installation or the test; the release is thrown away")
        releases.give_back(partial, place.release)
        os.sync()
        os.rename(partial, final)
        files.sync_directory(place.releases)
    except (OSError, shutil.Error) as error:
        raise NpmError(f"the new release cannot be made: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def switch(journal: str, place: Place, candidate: str, previous: str) -> None:
    """Have the link point to the new release; the way back is written down before.

    :raises NpmError: when that cannot be done; the old link is there then.
    """
    if not os.path.isdir(os.path.join(place.path_of(candidate), MODULES)):
        raise NpmError(f"candidate: {place.path_of(candidate)} is no release with packages; make one with 'built'")
    entry = {"link": place.link, "previous": previous, "candidate": candidate}
    try:
        os.makedirs(os.path.dirname(journal), mode=0o750, exist_ok=True)
        files.replace(journal, json.dumps(entry, indent=1).encode() + b"\n", mode=0o640)
        files.switch_link(place.link, candidate)
    except (OSError, files.FileError) as error:
        raise NpmError(f"{place.link} cannot be switched to {candidate}: {error}") from error


def back(place: Place, previous: str) -> bool:
    """Have the link point to the release before again, and return whether that changed anything.

    :raises NpmError: when that cannot be done.
    """
    if place.target == previous:
        return False
    if not os.path.isdir(place.path_of(previous)):
        raise NpmError(f"{place.link} cannot be switched back: {previous} does not exist")
    try:
        files.switch_link(place.link, previous)
    except OSError as error:
        raise NpmError(f"{place.link} cannot be switched back to {previous}: {error}") from error
    return True


def finish(journal: str, place: Place, keep: int) -> list[str]:
    """Forget the way back, remove what is not needed any more, and return what was removed.

    A new release that was switched back from goes at once; of the others that were made here, the newest stay.
    """
    entry = _entry(journal)
    needed = [place.release]
    gone = []
    if entry and place.target == entry["previous"] != entry["candidate"]:
        gone = [path for path in [place.path_of(entry["candidate"])] if os.path.isdir(path)]
    elif entry:
        needed.append(place.path_of(entry["previous"]))
    try:
        gone += [path for path in releases.surplus(place.releases, keep, needed) if path not in gone]
        for path in gone:
            shutil.rmtree(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(journal)
            files.sync_directory(os.path.dirname(journal))
    except OSError as error:
        raise NpmError(f"old releases of {place.link} cannot be removed: {error}") from error
    return gone


def _entry(journal: str) -> dict[str, str]:
    try:
        entry = json.loads(files.read(journal))
        return {name: str(entry[name]) for name in ("previous", "candidate")}
    except (files.FileError, ValueError, KeyError, TypeError):
        return {}


def _audit(npm: Npm, directory: str, versions: Mapping[str, str]) -> list[str]:
    """Return the vulnerabilities of a lock file, each as one line."""
    result = npm.call("audit", "--json", "--package-lock-only", cwd=directory)
    try:
        report = reports.load(result.stdout or result.stderr, "npm audit")
        found = reports.parse_npm(report, directory, versions)
    except ScanError as error:
        raise NpmError(f"{error}; or set audit_fix to false") from error
    return sorted(f"{one.package} {one.id} ({one.severity})" for one in found)


def _good(result: Result, failure: str) -> None:
    if not result.ok:
        raise NpmError(f"{failure}: {_words(result)}")


def _words(result: Result) -> str:
    argv: list[Any] = [part for part in result.argv if part not in ("setpriv", "--pdeathsig", "KILL")]
    words = "\n".join(filter(str.strip, (result.stdout[-1500:], result.stderr[-1500:]))).strip()
    return f"'{' '.join(argv)}' ended with {result.rc}: {words or 'it printed nothing'}"
