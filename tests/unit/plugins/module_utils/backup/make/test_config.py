# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration: a typing error is one sentence that names it and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import REQUIRED, Engine
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.prune import Policy


class Sample(Engine):
    name = "sample"
    kinds: ClassVar = {"full": "everything"}
    OPTIONS: ClassVar = {"database": (str, REQUIRED), "every": (units.duration, "1d"), "where": (config.path, None)}


class Snapshots(Engine):
    name = "files"
    kinds: ClassVar = {"snapshot": "everything"}


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ENGINES", {"sample": Sample, "files": Snapshots})


def source(**options: Any) -> dict[str, Any]:
    return {"sources": {"one": {"engine": "sample", "database": "worklog", **options}}}


TIER = {"repository": "/mnt/backups", "password_file": "/etc/restic.password"}


def test_what_is_kept_where() -> None:
    given = {"remote": {**TIER, "read_share": "10%"}, "offsite": {**TIER, "before_prune": False}}
    one = config.parse(source(keep={"age": "3d", "weekly": 4}, tiers=given), "backup.json").sources["one"]
    assert one.keep == Policy(age=3 * 86400.0, weekly=4)
    remote, offsite = one.tiers["remote"], one.tiers["offsite"]
    assert remote.keep == Policy(age=90 * 86400.0)
    assert (remote.read_share, remote.before_prune, remote.location.repository) == (0.1, True, "/mnt/backups")
    assert (offsite.keep, offsite.before_prune) == (None, False)
    plain = config.parse(source(), "backup.json").sources["one"]
    assert (plain.keep, plain.tiers) == (Policy(), {})


def test_defaults_and_values() -> None:
    found = config.parse({**source(every="2h", timeout="30m", where="/srv//x/"), "min_free": "10%"}, "backup.json")
    one = found.sources["one"]
    assert (found.root, found.min_free) == ("/var/backups/worklog", 0.1)
    assert one.engine.options == {"database": "worklog", "every": 7200.0, "where": "/srv/x"}
    assert (one.timeout, one.verify, one.expect) == (1800.0, True, {})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "backup.json must be a mapping"),
        ({}, "backup.json: sources is missing"),
        ({**source(), "rot": "/x"}, "there is no option 'rot'; did you mean 'root'?"),
        ({**source(), "root": "backups"}, "root is 'backups', but must be an absolute path"),
        ({"sources": {"One": {}}}, "source 'One': a name is made of"),
        ({"sources": {"one": []}}, "source 'one' must be a mapping"),
        ({"sources": {"one": {"engine": "mysql"}}}, "engine is 'mysql', but must be one of sample, files"),
        ({"sources": {"one": {"engine": "sample"}}}, "source 'one': database is missing"),
        (source(evry="1d"), "there is no option 'evry'; did you mean 'every'?"),
        (source(timout="1d"), "there is no option 'timout'; did you mean 'timeout'?"),
        (source(every="soon"), "every is 'soon', but must be a number of seconds"),
        (source(verify="yes"), "verify is 'yes', but must be true or false"),
        (source(keep={"ago": "7d"}), "source 'one': keep: there is no option 'ago'; did you mean 'age'?"),
        (source(keep={"last": -1}), "source 'one': keep: last is -1, but must be a number that is not negative"),
        (source(keep=7), "source 'one': keep is 7, but must be a mapping"),
        (source(tiers={"cloud": {}}), "tier 'cloud' is not known; the tiers are remote, offsite"),
        (source(tiers={"remote": {}}), "tier 'remote': repository is missing"),
        (source(tiers={"remote": {**TIER, "keep": {"age": "x"}}}), "tier 'remote': keep: age is 'x', but must be"),
        (source(tiers={"remote": {**TIER, "kep": {}}}), "there is no option 'kep'; did you mean 'keep'?"),
        (source(tiers={"remote": {**TIER, "options": "x"}}), "options is 'x', but must be a list of texts"),
        (
            source(tiers={"remote": {**TIER, "options": ["sftp.command=ssh -o StrictHostKeyChecking=no"]}}),
            "tier 'remote' must have options that check the key of the other host",
        ),
        (source(tiers={"offsite": {**TIER, "keep": {}}}), "tier 'offsite' is kept for ever: it has no keep"),
        (source(tiers={"offsite": {**TIER, "keep": None}}), "tier 'offsite' is kept for ever: it has no keep"),
        (source(user="Root Toor"), "user is 'Root Toor', but must be the name of an account"),
        (source(schedule={"ful": "daily"}), "schedule has 'ful', but there are full, prune"),
        (source(schedule={"full": 3}), "schedule of full is 3, but must be a text"),
        (source(schedule={"full": "daily\nUser=root"}), "but must be a text"),
        (source(watch=["/etc"]), "watch is for engines that make snapshots, and sample does not"),
        (source(watch=["/etc/*.conf"]), "must be a list of absolute paths without patterns"),
        (source(watch="/etc"), "watch is '/etc', but must be a list of absolute paths"),
        ({**source(), "notify": "mail root"}, "notify is 'mail root', but must be a list of texts"),
    ],
)
def test_mistakes(value: Any, words: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(value, "backup.json")
    assert words in str(error.value)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"cannot read .*No such file.*; the playbook .*backup_setup makes it"):
        config.load(str(tmp_path / "none"))
    (tmp_path / "bad").write_text("{", encoding="utf-8")
    with pytest.raises(config.ConfigError, match="is not valid JSON"):
        config.load(str(tmp_path / "bad"))


@pytest.mark.parametrize(
    ("schedule", "calendars"),
    [
        ({}, {"snapshot": "*-*-* 02:30", "prune": "*-*-* 05:00"}),
        ({"snapshot": "hourly", "prune": "daily"}, {"snapshot": "hourly", "prune": "daily"}),
        ({"snapshot": "", "prune": ""}, {}),
    ],
)
def test_an_engine_knows_when_its_kinds_are_made(schedule: dict[str, str], calendars: dict[str, str]) -> None:
    found = config.parse({"sources": {"one": {"engine": "files", "schedule": schedule}}}, "backup.json")
    assert found.sources["one"].calendars == calendars
    copied = config.parse(source(tiers={"remote": TIER}), "backup.json").sources["one"]
    assert list(copied.calendars) == ["copy", "prune"]
