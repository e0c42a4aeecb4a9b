# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host remembers of an application: which release runs, which was before it, which are bad, what is under way.

The functions take a document and return the next one; only :class:`Store` touches the disk.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.release import versions
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span

#: Where the state of a host is kept.
DIRECTORY = "/var/lib/worklog-maintenance/releases"
#: Version of the fields.
SCHEMA = 1
#: How a release can end.
RESULTS = ("good", "bad", "rolled_back", "undone")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"v?((?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}(?:[-+][0-9A-Za-z.+-]+)?)")
_LOCK_TIMEOUT = 30.0
_LEFT_ALONE = "It was left alone; look at it, and move it away when it is of no use"


class StateError(Exception):
    """What was asked does not fit what is there, or could not be written; the file is as it was.

    :param holder: the release under way, when that is the reason; empty when there is none.
    """

    def __init__(self, message: str, holder: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True)
class Begin:
    """A release that wants to begin.

    :param id: identifier of the run that does it; the same on all hosts.
    :param found: version and artefact that are live on the host, as far as that is known.
    :param lock_seconds: how long the lock holds after each step.
    :param break_lock: identifier of the release whose lock may be taken.
    :param resume: ``on`` or ``back`` where one that was interrupted may be taken over.
    """

    id: str
    version: str
    method: str
    owner: str
    reason: str
    lock_seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)
    break_lock: str = ""
    resume: str = ""


def plain_version(version: str) -> str:
    """Return a version without a leading v.

    :raises StateError: when it is none.
    """
    found = _VERSION.fullmatch(version.strip())
    if not found:
        raise StateError(f"'{version}' is no version; give MAJOR.MINOR.PATCH such as 1.4.2 or v1.4.2")
    return found.group(1)


def empty(application: str) -> dict[str, Any]:
    """Return the state of a host that has never seen a release."""
    return {
        "schema": SCHEMA,
        "application": application,
        "current": None,
        "previous": None,
        "bad": [],
        "under_way": None,
        "finished": [],
    }


def begin(state: Mapping[str, Any], asked: Begin, now: float) -> tuple[dict[str, Any], list[str]]:
    """Take the lock for a release, or take over the one that is under way.

    :returns: the next state, and sentences that an operator should know.
    :raises StateError: when another release holds the lock.
    """
    after, notes = copy.deepcopy(dict(state)), []
    # what ran before may have been put there by others, under any name
    version = (
        asked.version if asked.method == "rollback" and _NAME.fullmatch(asked.version) else plain_version(asked.version)
    )
    held = after["under_way"]
    if held is not None:
        if held["id"] == asked.id and held["version"] == version:
            return after, []
        notes.append(_may_take(held, asked, now))
        if held["version"] == version:
            held.update(
                id=asked.id, owner=asked.owner, expires=_time(now + asked.lock_seconds),
                lock_seconds=asked.lock_seconds, paused=False, resumed=held["resumed"] + 1,
            )  # fmt: skip
            return after, notes
        if held["journal"]:
            raise StateError(
                f"{_who(held)} was interrupted at the step {held['step']}; finish it with release_version="
                f"{held['version']} and release_resume=on, or undo it with release_resume=back, before another version",
                held,
            )
        _close(after, "undone", now, "its lock was taken by another release")
    live, found = after["current"], {key: value for key, value in asked.found.items() if value}
    if found and (live is None or live["artefact"] != found["artefact"]):
        if live is not None:
            notes.append(
                f"{found['artefact']} is live, but the last release recorded here is {live['version']}: somebody else "
                "has changed it; it is taken as the one to go back to"
            )
        after["current"] = live = {
            "version": found.get("version", found["artefact"]), "artefact": found["artefact"],
            "id": None, "since": None, "irreversible": False,
        }  # fmt: skip
    if live and live["irreversible"] and asked.method != "rollback" and _older(version, live["version"]):
        raise StateError(
            f"{live['version']} has contracted the database, and {version} is older and cannot work with it; restore "
            "the data first and go back with the playbook rollback, which says how, or release a newer version"
        )
    after["under_way"] = {
        "id": asked.id,
        "method": asked.method,
        "version": version,
        "step": None,
        "previous": live["version"] if live else None,
        "previous_artefact": live["artefact"] if live else None,
        "owner": asked.owner,
        "reason": asked.reason,
        "started": _time(now),
        "expires": _time(now + asked.lock_seconds),
        "lock_seconds": asked.lock_seconds,
        "resumed": 0,
        "paused": False,
        "irreversible": False,
        "weights_before": {},
        "journal": [],
    }
    return after, notes


def step(
    state: Mapping[str, Any], id: str, name: str, now: float, weights_before: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], bool]:
    """Note a step before it is done.

    A step counts as done when one after it was noted. The last one may have been cut off, and is done again.

    :param weights_before: what a load balancer was found with. What was noted first stays.
    :returns: the next state, and whether the step was done already.
    :raises StateError: when the release does not hold the lock, or no longer.
    """
    after, held = _held(state, id)
    steps = [entry["step"] for entry in held["journal"]]
    held["weights_before"] = {**(weights_before or {}), **held["weights_before"]}
    if name in steps[:-1]:
        return after, True
    if name not in steps:
        held["journal"].append({"step": name, "at": _time(now)})
        held["expires"] = _time(now + held["lock_seconds"])
    held["step"], held["paused"] = name, False
    return after, False


def irreversible(state: Mapping[str, Any], id: str) -> dict[str, Any]:
    """Note that there is no way back to the version before any more.

    :raises StateError: when the release does not hold the lock.
    """
    after, held = _held(state, id)
    held["irreversible"] = True
    return after


def pause(state: Mapping[str, Any], id: str, lock_seconds: float, now: float) -> dict[str, Any]:
    """Keep the lock for so long without a step, as while a version is held.

    :raises StateError: when the release does not hold the lock.
    """
    after, held = _held(state, id)
    if not held["paused"]:
        held.update(paused=True, expires=_time(now + lock_seconds))
    return after


def finish(
    state: Mapping[str, Any], id: str, result: str, now: float, *, reason: str = "", artefact: str = "", keep: int = 20
) -> dict[str, Any]:
    """End the release and give the lock back.

    :param result: one of :data:`RESULTS`. ``good``: the version runs. ``bad``: it does not work, the one before runs.
        ``rolled_back``: the version runs, the one before is bad. ``undone``: nothing has changed, nobody is to blame.
    :param artefact: what is live now, where the version runs.
    :param keep: how many of those that have ended are remembered.
    :raises StateError: when the release does not hold the lock.
    """
    ended = state["finished"][-1] if state["finished"] else {}
    if state["under_way"] is None and ended.get("id") == id and ended.get("result") == result:
        return copy.deepcopy(dict(state))
    after, held = _held(state, id)
    version, live = held["version"], after["current"]
    if held["irreversible"] and result in ("bad", "undone"):
        raise StateError(f"{_who(held)} has passed the point of no return and cannot end as {result}", held)
    if result == "bad":
        _blame(after, version, held["id"], reason or held["reason"], now)
    elif result in ("good", "rolled_back"):
        after["bad"] = [entry for entry in after["bad"] if entry["version"] != version]
        if result == "rolled_back" and live and live["version"] != version:
            _blame(after, live["version"], held["id"], reason or held["reason"], now)
        passed = held["irreversible"] or bool(live and live["version"] == version and live["irreversible"])
        after["current"] = {
            "version": version, "artefact": artefact, "id": held["id"], "since": _time(now), "irreversible": passed
        }  # fmt: skip
        if live and live["version"] != version:
            after["previous"] = live if result == "good" else _earlier(after)
    _close(after, result, now, reason, artefact)
    after["finished"] = after["finished"][-keep:]
    return after


def is_bad(state: Mapping[str, Any], version: str) -> Mapping[str, Any] | None:
    """Return why a version is known as bad, None when it is not."""
    return next((entry for entry in state["bad"] if entry["version"] == version), None)


def check(document: Any, application: str, path: str) -> dict[str, Any]:
    """Return a document when it is the state of this application.

    :raises StateError: when it is damaged, of another application, or of a later version of this collection.
    """
    trouble = ""
    fields = empty(application)
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        trouble = "is not the state of a release"
    elif document["schema"] > SCHEMA:
        trouble = f"was written by a later version of this collection (schema {document['schema']})"
    elif set(document) != set(fields) or not all(
        isinstance(document[name], (list if isinstance(value, list) else (dict, type(None))))
        for name, value in fields.items()
        if name not in ("schema", "application")
    ):
        trouble = "is damaged: fields are missing or wrong"
    elif document["application"] != application:
        trouble = f"is the state of '{document['application']}', not of '{application}'"
    if trouble:
        raise StateError(f"{path} {trouble}. {_LEFT_ALONE}")
    return dict(document)


class Store:
    """The file of one application on this host."""

    def __init__(self, directory: str, application: str) -> None:
        if not _NAME.fullmatch(application):
            raise StateError(
                f"'{application}' cannot be the name of an application: use letters, digits, dots, _ and -"
            )
        self.application = application
        self.directory = directory
        self.path = os.path.join(directory, f"{application}.json")

    def read(self) -> dict[str, Any]:
        """Return the state; that of a host that has seen no release when there is no file.

        :raises StateError: when the file cannot be read or is not what it should be.
        """
        try:
            if not os.path.lexists(self.path):
                return empty(self.application)
            document = json.loads(files.read(self.path))
        except files.FileError as error:
            raise StateError(str(error)) from error
        except ValueError as error:
            raise StateError(f"{self.path} is damaged: {error}. {_LEFT_ALONE}") from error
        return check(document, self.application, self.path)

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file in one step, durably.

        :raises StateError: when that fails; the old file is there then.
        """
        try:
            os.makedirs(self.directory, mode=0o750, exist_ok=True)
            files.replace(self.path, (json.dumps(state, indent=2, sort_keys=True) + "\n").encode(), mode=0o640)
        except OSError as error:
            raise StateError(f"cannot make {self.directory}: {error.strerror}") from error
        except files.FileError as error:
            raise StateError(str(error)) from error

    def note(self, id: str, step_name: str, now: float, weights_before: Mapping[str, Any]) -> dict[str, Any]:
        """Note a step, and how a load balancer was found, and return the state.

        :raises StateError: when the release does not hold the lock, or it cannot be noted.
        """
        with self.alone():
            before = self.read()
            after, _done = step(before, id, step_name, now, weights_before)
            if after != before:
                self.write(after)
        return after

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes of this host out, so that of two that begin at once only one does.

        :raises StateError: when another one does not end.
        """
        try:
            os.makedirs(self.directory, mode=0o750, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"cannot use {self.directory}: {error.strerror}") from error
        try:
            if not files.lock(descriptor, _LOCK_TIMEOUT):
                raise StateError(f"another process has kept {self.directory} for {_LOCK_TIMEOUT:g} s")
            yield
        finally:
            os.close(descriptor)


def _may_take(held: Mapping[str, Any], asked: Begin, now: float) -> str:
    """Return why the lock may be taken.

    :raises StateError: when it may not.
    """
    where = f"at the step {held['step']}" if held["step"] else "before its first step"
    if asked.break_lock:
        if asked.break_lock != held["id"]:
            raise StateError(f"the lock is not that of '{asked.break_lock}': {_who(held)}", held)
        return f"the lock was broken, as release_break_lock says: {_who(held)}"
    if now >= _seconds(held["expires"]):
        return f"its lock had expired: {_who(held)}"
    if asked.resume and asked.owner == held["owner"]:
        return f"the release that was interrupted {where} is taken over: {_who(held)}"
    if asked.resume:
        cure = f"when that run is dead, add release_break_lock={held['id']}"
    else:
        cure = (
            f"wait for it; when that run is dead, go on with release_resume=on or undo it with release_resume=back"
            f"{'' if asked.owner == held['owner'] else ', and release_break_lock=' + held['id']}"
        )
    raise StateError(f"{_who(held)} is under way {where}; {cure}", held)


def _older(version: str, than: str) -> bool:
    """Return whether a version is older than another; what was put there by others may have no version."""
    try:
        return versions.parse(version).key < versions.parse(than).key
    except ValueError:
        return False


def _who(held: Mapping[str, Any]) -> str:
    reason = f" ({held['reason']})" if held["reason"] else ""
    return (
        f"release {held['id']} of version {held['version']} by {held['owner']}{reason}, begun {held['started']}, "
        f"lock until {held['expires']}"
    )


def _held(state: Mapping[str, Any], id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    after = copy.deepcopy(dict(state))
    held = after["under_way"]
    if held is None:
        raise StateError(f"release {id} is not under way here; begin it first", {})
    if held["id"] != id:
        raise StateError(f"release {id} has lost its lock: {_who(held)}; it must do nothing more", held)
    return after, held


def _blame(state: dict[str, Any], version: str, id: str, reason: str, now: float) -> None:
    state["bad"] = [entry for entry in state["bad"] if entry["version"] != version]
    state["bad"].append({"version": version, "reason": reason, "at": _time(now), "id": id})


def _earlier(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the last release that was good, is not the current one, and is not known as bad."""
    for entry in reversed(state["finished"]):
        version = entry["version"]
        if entry["result"] in ("good", "rolled_back") and version != state["current"]["version"]:
            if is_bad(state, version):
                continue
            return {
                "version": version, "artefact": entry["artefact"], "id": entry["id"], "since": entry["ended"],
                "irreversible": False,
            }  # fmt: skip
    return None


def _close(state: dict[str, Any], result: str, now: float, reason: str, artefact: str = "") -> None:
    held = state["under_way"]
    names = ("id", "method", "version", "previous", "owner", "reason", "started", "irreversible", "resumed", "journal")
    state["finished"].append(
        {
            **{name: held[name] for name in names},
            "result": result,
            "message": reason,
            "artefact": artefact,
            "ended": _time(now),
            "seconds": round(now - _seconds(held["started"]), 1),
        }
    )
    state["under_way"] = None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


def describe(state: Mapping[str, Any], now: float) -> str:
    """Return one sentence: what runs, what was before, and what is under way."""
    live, before, held = state["current"], state["previous"], state["under_way"]
    text = f"{state['application']}: " + (f"{live['version']} runs" if live else "no release is recorded")
    if before:
        text += f", {before['version']} was before"
    if held:
        left = _seconds(held["expires"]) - now
        text += f"; {_who(held)} ({'for ' + span(left) if left > 0 else 'expired'}), step {held['step']}"
    return text
