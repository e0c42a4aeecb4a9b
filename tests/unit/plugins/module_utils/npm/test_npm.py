# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What npm is asked, what its files say, and what becomes of the releases."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result
from ansible_collections.worklog.maintenance.plugins.module_utils.npm import manifest, releases, update
from ansible_collections.worklog.maintenance.plugins.module_utils.npm.program import Npm, NpmError


class Recorder:
    """Keeps what would be run."""

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.options: dict[str, Any] = {}

    def __call__(self, argv: list[str], **options: Any) -> Result:
        self.argv, self.options = argv, options
        return Result(tuple(argv), 0, "", "", 0.1)


def test_npm_gets_a_small_environment_and_the_token_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", "x")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    run = Recorder()
    npm = Npm("nobody", registry="https://packages.example/npm/", token="s3cret", offline=True, run=run)
    npm.call("ci", cwd="/")
    env = run.options["env"]
    assert not run.options["inherit"] and run.options["user"] == "nobody" and "AWS_SECRET" not in env
    assert env["https_proxy"] and env["npm_config_ignore_scripts"] == "true" and env["npm_config_offline"] == "true"
    assert env["npm_config_//packages.example/npm/:_authToken"] == "s3cret"
    assert "s3cret" not in " ".join(run.argv) and "s3cret" not in repr(npm)
    npm.call("audit", "--json", cwd="/")
    assert run.options["env"]["npm_config_offline"] == "false", "offline, npm audit finds nothing and ends well"
    npm.other(["npm", "test"], cwd="/")
    assert not [name for name, value in run.options["env"].items() if "s3cret" in value or "registry" in name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user": "root"}, "never run as root"),
        ({"user": "no-such-account"}, "there is no account"),
        ({"user": "nobody", "registry": "packages.example"}, "is no address"),
        ({"user": "nobody", "token": "x"}, "name the registry that the token is for"),
    ],
)
def test_what_npm_cannot_be_run_with_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NpmError, match=words):
        Npm(**options)


def test_differences_of_lock_files_and_what_is_outdated() -> None:
    entries = {"": {"version": "1"}, "node_modules/a": {"version": "1.0.0"}, "node_modules/b": {"link": True}}
    lock = {"packages": entries}
    assert manifest.packages(lock, "x") == {"node_modules/a": "1.0.0"}
    assert manifest.differences({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == [
        {"package": "a", "before": "1", "after": "2"},
        {"package": "b", "before": "1", "after": ""},
        {"package": "c", "before": "", "after": "1"},
    ]
    text = """{"a": {"wanted": "1.1.0", "latest": "2.0.0", "dependent": "p"},
               "c": {"wanted": "1.0.0", "latest": "1.0.0"}}"""
    assert manifest.outdated(text, {"node_modules/a": "1.0.0", "node_modules/c": "1.0.0"}) == [
        {"package": "a", "current": "1.0.0", "wanted": "1.1.0", "latest": "2.0.0"}
    ]
    assert manifest.outdated("", {}) == []
    with pytest.raises(NpmError, match="got no answer: it is down"):
        manifest.outdated('{"error": {"code": "ECONNREFUSED", "summary": "it is down"}}', {})
    with pytest.raises(NpmError, match="npm 6 or older"):
        manifest.packages({"lockfileVersion": 1, "dependencies": {}}, "package-lock.json")


@pytest.mark.parametrize("scripts", [None, {}, {"test": 'echo "Error: no test specified" && exit 1'}])
def test_an_application_without_a_test_is_refused(scripts: Any) -> None:
    with pytest.raises(NpmError, match="the application has no test"):
        manifest.test_of({"scripts": scripts})
    assert manifest.test_of({"scripts": {"test": "jest"}}) == ["npm", "test"]


def test_packages_that_were_not_installed_are_found(tmp_path: Path) -> None:
    lock = {
        "packages": {
            "": {}, "node_modules/a": {"version": "1.0.0"}, "node_modules/b": {"version": "2.0.0"},
            "node_modules/d": {"version": "1.0.0", "dev": True}, "node_modules/o": {"version": "1", "optional": True},
        }
    }  # fmt: skip
    for name, version in (("a", "1.0.0"), ("b", "1.9.0")):
        (tmp_path / "node_modules" / name).mkdir(parents=True)
        (tmp_path / "node_modules" / name / "package.json").write_text(json.dumps({"version": version}))
    assert manifest.not_installed(lock, str(tmp_path), dev=False) == ["node_modules/b 2.0.0"]
    assert manifest.not_installed(lock, str(tmp_path), dev=True) == ["node_modules/b 2.0.0", "node_modules/d 1.0.0"]


@pytest.fixture
def application(tmp_path: Path) -> Path:
    for name in ("1.0.0", "1.0.0-npm-20260101T000000Z", "1.0.0-npm-20260201T000000Z", "1.0.0-npm-20260301T000000Z"):
        (tmp_path / "releases" / name / "node_modules").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1.0.0")
    return tmp_path


def test_the_place_of_an_application(application: Path) -> None:
    place = releases.find(str(application / "current"))
    assert place.target == "releases/1.0.0" and place.releases == str(application / "releases")
    assert place.target_of("x") == "releases/x"
    assert releases.name_of("/srv/r/2.3.0", "20260101T000000Z") == "2.3.0-npm-20260101T000000Z"
    assert releases.name_of("/srv/r/2.3.0-npm-20250101T000000Z", "20260101T000000Z") == "2.3.0-npm-20260101T000000Z"
    for path, words in (("releases", "is a directory, not a link"), ("none", "does not exist")):
        with pytest.raises(NpmError, match=words):
            releases.find(str(application / path))
    (application / "current").unlink()
    (application / "current").symlink_to("releases/gone")
    with pytest.raises(NpmError, match="points to releases/gone, which is no directory"):
        releases.find(str(application / "current"))


def test_switching_there_back_and_finishing(application: Path) -> None:
    link, journal = str(application / "current"), update.journal_of("/srv/x-y/current", str(application / "state"))
    assert os.path.basename(journal) == "srv-x--y-current.json"
    old, new = "releases/1.0.0", "releases/1.0.0-npm-20260301T000000Z"
    assert update.unconfirmed(journal, releases.find(link)) == {}
    update.switch(journal, releases.find(link), new, old)
    assert os.readlink(link) == new
    assert update.unconfirmed(journal, releases.find(link)) == {"previous": old, "candidate": new}
    assert update.back(releases.find(link), old) and not update.back(releases.find(link), old)
    assert update.unconfirmed(journal, releases.find(link)) == {"previous": old, "candidate": new}, "not restarted yet"
    assert update.finish(journal, releases.find(link), 9) == [str(application / new)]
    assert update.unconfirmed(journal, releases.find(link)) == {} and not os.path.exists(journal)

    new = "releases/1.0.0-npm-20260201T000000Z"
    update.switch(journal, releases.find(link), new, old)
    assert update.finish(journal, releases.find(link), 0) == [str(application / "releases/1.0.0-npm-20260101T000000Z")]
    assert sorted(os.listdir(application / "releases")) == ["1.0.0", "1.0.0-npm-20260201T000000Z"]
    with pytest.raises(NpmError, match="is no release with packages"):
        update.switch(journal, releases.find(link), "releases/none", new)


def test_a_journal_of_the_past_is_not_gone_on_with(application: Path) -> None:
    link, journal = str(application / "current"), str(application / "journal.json")
    Path(journal).write_text('{"previous": "releases/a", "candidate": "releases/1.0.0"}')
    assert update.unconfirmed(journal, releases.find(link)) == {}, "the release before is gone"
    Path(journal).write_text('{"previous": "rel')
    assert update.unconfirmed(journal, releases.find(link)) == {}


def test_only_one_run_at_a_time(application: Path) -> None:
    link = str(application / "current")
    with update.locked(link), pytest.raises(NpmError, match="another run updates"), update.locked(link):
        pass
    with update.locked(str(application / "current")):
        pass


def test_a_build_that_fails_leaves_nothing(application: Path) -> None:
    account = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
    place = releases.find(str(application / "current"))
    package = json.dumps({"scripts": {"test": "x"}}).encode()
    (application / "releases/1.0.0/package.json").write_bytes(package)
    left = application / "releases/.1.0.0-npm-20250101T000000Z.partial"
    left.mkdir()
    found = update.Plan(contents={update.PACKAGE: package, update.LOCK: b"{}"})

    def run(argv: list[str], **_options: Any) -> Result:
        return Result(tuple(argv), 1, "", "npm ERR! nospc ENOSPC: no space left on device", 0.1)

    before = sorted(os.listdir(application / "releases"))
    with pytest.raises(NpmError, match="cannot be installed: 'npm ci' ended with 1: npm ERR! nospc"):
        update.build(Npm(account, run=run), place, found, update.Wish(), "1.0.0-npm-20260401T000000Z")
    assert sorted(os.listdir(application / "releases")) == [name for name in before if name != left.name]
