# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of releases: who may take a lock, what a step is, how a release ends, what is refused to be overwritten."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release import state as releases

NOW = 1_800_000_000.0
OLD = {"version": "1.0.0", "artefact": "releases/1.0.0"}


def asked(id: str = "job-1", version: str = "1.1.0", owner: str = "ann", **more: Any) -> releases.Begin:
    options: dict[str, Any] = {"method": "in_place", "reason": "faster", "lock_seconds": 3600, "found": OLD, **more}
    return releases.Begin(id, version, owner=owner, **options)


def begun(*steps: str, **more: Any) -> dict[str, Any]:
    state, _unused = releases.begin(releases.empty("api"), asked(**more), NOW)
    for name in steps:
        state, _unused_too = releases.step(state, "job-1", name, NOW)
    return state


def ended(result: str, version: str, before: dict[str, Any], *, id: str, forever: bool = False) -> dict[str, Any]:
    state, _unused = releases.begin(before, asked(id, version, found={}), NOW)
    if forever:
        state = releases.irreversible(state, id)
    return releases.finish(state, id, result, NOW + 5, reason="slow", artefact=f"releases/{version}")


def test_a_release_remembers_what_was_live() -> None:
    held = begun()["under_way"]
    assert (held["previous"], held["previous_artefact"], held["version"]) == ("1.0.0", "releases/1.0.0", "1.1.0")
    assert held["expires"] == "2027-01-15T09:00:00Z"


@pytest.mark.parametrize(
    ("given", "plain"), [("1.2.3", "1.2.3"), ("v1.2.3", "1.2.3"), (" 1.0.0-rc.1", "1.0.0-rc.1"), ("10.0.0", "10.0.0")]
)
def test_a_version(given: str, plain: str) -> None:
    assert releases.plain_version(given) == plain


@pytest.mark.parametrize("given", ["", "1.2", "1.2.3.4", "latest", "01.2.3", "1.2.3/../x", "1.2.3\nx", "../1.2.3"])
def test_no_version(given: str) -> None:
    with pytest.raises(releases.StateError, match=r"give MAJOR\.MINOR\.PATCH"):
        releases.plain_version(given)


@pytest.mark.parametrize(
    ("steps", "more", "later", "answer"),
    [
        # the same run
        (["drain"], {}, 0, ""),
        # another run while the lock holds
        ([], {"id": "job-2"}, 10, "!release job-1 of version 1.1.0 by ann (faster), begun"),
        (["drain"], {"id": "job-2"}, 10, "!under way at the step drain; wait for it"),
        (["drain"], {"id": "job-2", "owner": "bob"}, 10, "!and release_break_lock=job-1"),
        (["drain"], {"id": "job-2", "owner": "bob", "resume": "on"}, 10, "!add release_break_lock=job-1"),
        (["drain"], {"id": "job-2", "resume": "on"}, 10, "interrupted at the step drain is taken over"),
        (["drain"], {"id": "job-2", "resume": "back"}, 10, "is taken over"),
        (["drain"], {"id": "job-2", "version": "1.2.0"}, 10, "!wait for it"),
        (["drain"], {"id": "job-2", "version": "1.2.0", "resume": "on"}, 10, "!before another version"),
        # the lock is over
        (["drain"], {"id": "job-2", "owner": "bob"}, 4000, "its lock had expired"),
        ([], {"id": "job-2", "owner": "bob", "version": "1.2.0"}, 4000, "its lock had expired"),
        (["drain"], {"id": "job-2", "version": "1.2.0"}, 4000, "!before another version"),
        # broken
        (["drain"], {"id": "job-2", "owner": "bob", "break_lock": "job-1"}, 10, "the lock was broken"),
        (["drain"], {"id": "job-2", "owner": "bob", "break_lock": "yes"}, 10, "!the lock is not that of 'yes'"),
        ([], {"id": "job-2", "version": "1.2.0", "break_lock": "job-1"}, 10, "the lock was broken"),
        (["drain"], {"id": "job-2", "version": "1.2.0", "break_lock": "job-1"}, 10, "!release_resume=back, before"),
    ],
)
def test_who_may_take_a_lock(steps: list[str], more: dict[str, Any], later: float, answer: str) -> None:
    before = begun(*steps)
    if answer.startswith("!"):
        with pytest.raises(releases.StateError) as error:
            releases.begin(before, asked(**more), NOW + later)
        assert answer[1:] in str(error.value)
        assert error.value.holder is not None and error.value.holder["id"] == "job-1"
        return
    after, notes = releases.begin(before, asked(**more), NOW + later)
    assert answer in " ".join(notes)
    assert after["under_way"]["id"] == more.get("id", "job-1")
    if more.get("version", "1.1.0") == "1.1.0":
        assert [entry["step"] for entry in after["under_way"]["journal"]] == steps, "it goes on where it was"
    if after["under_way"]["id"] != "job-1":
        with pytest.raises(releases.StateError, match="has lost its lock"):
            releases.step(after, "job-1", "switch", NOW)


def test_a_step_is_done_when_one_after_it_was_noted() -> None:
    state = begun("prepare", "drain")
    assert releases.step(state, "job-1", "prepare", NOW) == (state, True)
    assert releases.step(state, "job-1", "drain", NOW + 9) == (state, False), "the last one may have been cut off"
    after, done = releases.step(state, "job-1", "switch", NOW + 60)
    assert not done and after["under_way"]["step"] == "switch"
    assert after["under_way"]["expires"] == "2027-01-15T09:01:00Z", "each step keeps the lock"


def test_the_weights_that_were_found_first_stay() -> None:
    state, _unused = releases.step(begun(), "job-1", "drain", NOW, {"app1": {"app1": 50}})
    state, _unused = releases.step(state, "job-1", "drain", NOW, {"app1": {"app1": 0}, "app2": {"app2": 50}})
    assert state["under_way"]["weights_before"] == {"app1": {"app1": 50}, "app2": {"app2": 50}}


def test_good_and_bad_and_back() -> None:
    state = ended("good", "1.0.0", releases.empty("api"), id="job-1")
    assert (state["current"]["version"], state["previous"]) == ("1.0.0", None)
    state = ended("good", "1.1.0", state, id="job-2")
    assert (state["current"]["version"], state["previous"]["version"]) == ("1.1.0", "1.0.0")
    state = ended("bad", "1.2.0", state, id="job-3")
    assert (state["current"]["version"], state["previous"]["version"]) == ("1.1.0", "1.0.0")
    assert releases.is_bad(state, "1.2.0") and state["finished"][-1]["seconds"] == 5
    state = ended("rolled_back", "1.0.0", state, id="job-4")
    assert (state["current"]["version"], state["previous"]) == ("1.0.0", None), "1.1.0 is bad, nothing was before"
    assert [entry["version"] for entry in state["bad"]] == ["1.2.0", "1.1.0"]
    state = ended("good", "1.2.0", state, id="job-5")
    assert releases.is_bad(state, "1.2.0") is None
    assert state["previous"]["version"] == "1.0.0"
    state = ended("good", "2.0.0", state, id="job-6", forever=True)
    assert state["current"]["irreversible"]


@pytest.mark.parametrize("version", ["1.1.0", "2.0.0-rc.1"])
def test_nothing_older_is_released_past_the_point_of_no_return(version: str) -> None:
    state = ended("good", "2.0.0", releases.empty("api"), id="job-1", forever=True)
    with pytest.raises(releases.StateError, match=f"2.0.0 has contracted the database, and {version} is older"):
        releases.begin(state, asked("job-2", version, found={}), NOW)
    for newer in ("2.0.0", "2.0.1"):
        assert releases.begin(state, asked("job-2", newer, found={}), NOW)[0]["under_way"]["version"] == newer
    reversible = ended("good", "2.0.1", ended("good", "2.0.0", releases.empty("api"), id="job-1"), id="job-2")
    assert releases.begin(reversible, asked("job-3", version, found={}), NOW)[0]["under_way"]["version"] == version


def test_the_one_before_is_found_again_after_going_back() -> None:
    state = releases.empty("api")
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        state = ended("good", version, state, id=f"job-{number}")
    state = ended("rolled_back", "1.1.0", state, id="job-9")
    assert state["previous"]["version"] == "1.0.0"


def test_ending_twice_is_no_change_and_only_who_holds_the_lock_may_end() -> None:
    state = ended("good", "1.0.0", releases.empty("api"), id="job-1")
    assert releases.finish(state, "job-1", "good", NOW + 99) == state
    with pytest.raises(releases.StateError, match="not under way here"):
        releases.finish(state, "job-7", "good", NOW)
    with pytest.raises(releases.StateError, match="has lost its lock"):
        releases.finish(begun(), "job-7", "good", NOW)


@pytest.mark.parametrize("result", ["bad", "undone"])
def test_past_the_point_of_no_return_it_cannot_end_as_if_nothing_was(result: str) -> None:
    with pytest.raises(releases.StateError, match="point of no return"):
        releases.finish(releases.irreversible(begun("contract"), "job-1"), "job-1", result, NOW)


def test_a_change_by_somebody_else_is_told() -> None:
    state = ended("good", "1.0.0", releases.empty("api"), id="job-1")
    found = {"version": "0.9.0", "artefact": "releases/0.9.0"}
    after, notes = releases.begin(state, asked("job-2", found=found), NOW)
    assert "somebody else has changed it" in notes[0]
    assert after["under_way"]["previous"] == "0.9.0"


def test_what_others_have_put_there_can_be_gone_back_to_under_any_name() -> None:
    found = {"version": "20260101T1200", "artefact": "releases/20260101T1200"}
    state, _unused = releases.begin(releases.empty("api"), asked("job-1", found=found), NOW)
    state = releases.finish(state, "job-1", "good", NOW, artefact="releases/1.1.0")
    back = asked("job-2", state["previous"]["version"], method="rollback", found={})
    assert releases.begin(state, back, NOW)[0]["under_way"]["version"] == "20260101T1200"
    with pytest.raises(releases.StateError, match="is no version"):
        releases.begin(state, asked("job-2", "20260101T1200"), NOW)


def test_a_pause_keeps_the_lock_once() -> None:
    state = releases.pause(begun("hold"), "job-1", 7200, NOW)
    assert state["under_way"]["expires"] == "2027-01-15T10:00:00Z"
    assert releases.pause(state, "job-1", 7200, NOW + 60) == state
    assert not releases.step(state, "job-1", "retire", NOW)[0]["under_way"]["paused"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is damaged"),
        ('{"schema": 1', "is damaged"),
        ("[]", "is not the state of a release"),
        ('{"schema": 1, "application": "api"}', "fields are missing or wrong"),
        (json.dumps({**releases.empty("api"), "schema": 9}), "later version of this collection"),
        (json.dumps({**releases.empty("api"), "bad": None}), "fields are missing or wrong"),
        (json.dumps(releases.empty("shop")), "is the state of 'shop', not of 'api'"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "api.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(releases.StateError, match="left alone") as error:
        releases.Store(str(tmp_path), "api").read()
    assert sentence in str(error.value)
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("name", ["", "../api", "a/b", ".hidden", "a b"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(releases.StateError, match="cannot be the name"):
        releases.Store(str(tmp_path), name)


def test_a_division_is_noted_once_and_only_by_who_has_the_lock(tmp_path: Path) -> None:
    store = releases.Store(str(tmp_path), "api")
    with pytest.raises(releases.StateError, match="begin it first") as error:
        store.note("job-1", "drain app1", NOW, {"app1": {"settings": 1}})
    assert error.value.holder == {}
    store.write(releases.begin(store.read(), asked("job-1"), NOW)[0])
    store.note("job-1", "drain app1", NOW, {"app1": {"settings": 1}})
    after = store.note("job-1", "drain app1", NOW, {"app1": {"settings": 2}})
    assert after == store.read() and after["under_way"]["weights_before"] == {"app1": {"settings": 1}}
    with pytest.raises(releases.StateError, match="has lost its lock") as error:
        store.note("job-2", "drain app1", NOW, {})
    assert error.value.holder is not None and store.read() == after


def test_of_many_that_begin_at_once_one_does(tmp_path: Path) -> None:
    won: list[str] = []

    def run(id: str) -> None:
        store = releases.Store(str(tmp_path / "new"), "api")
        try:
            with store.alone():
                after, _unused = releases.begin(store.read(), asked(id), NOW)
                store.write(after)
                won.append(id)
        except releases.StateError:
            pass

    threads = [threading.Thread(target=run, args=(f"job-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "new" / "api.json").stat().st_mode & 0o777 == 0o640
