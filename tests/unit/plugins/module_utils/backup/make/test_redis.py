# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.redis import (
    Server,
    _cut,
    _no_rewrite,
    _put_back,
    keys,
    parse_info,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result

PERSISTENCE = """\
# Persistence\r
loading:0\r
rdb_bgsave_in_progress:0\r
rdb_last_save_time:1795602705\r
rdb_last_bgsave_status:ok\r
aof_enabled:1\r
aof_rewrite_in_progress:0\r
"""


class Cli:
    """Answers as redis-cli does, by the words after the connection."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = {"INFO persistence": PERSISTENCE, **answers}
        self.asked: list[str] = []
        self.environments: list[Mapping[str, str]] = []

    def __call__(self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str]) -> Result:
        words = " ".join(argv[5:])
        self.asked.append(words)
        self.environments.append(env)
        answer = self.answers[words]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return (
            Result(tuple(argv), *answer, 0.0) if isinstance(answer, tuple) else Result(tuple(argv), 0, answer, "", 0.0)
        )


OPTIONS = {"host": "h", "port": 1, "socket": None, "username": None, "password_file": None}


def server(tmp_path: Path, answers: Mapping[str, Any], **options: Any) -> tuple[Server, Cli, Work]:
    cli = Cli(answers)
    work = Work("full", str(tmp_path), [], None, str(tmp_path), 5, cli, lambda *a: None, print)  # type: ignore[arg-type]
    return Server({**OPTIONS, **options}, work), cli, work


def test_info_is_read() -> None:
    info = parse_info("# Keyspace\r\ndb0:keys=12,expires=1,avg_ttl=0\r\ndb7:keys=3,expires=0,avg_ttl=0\r\nx:keys=4\r\n")
    assert keys(info) == {"db0": 12, "db7": 3}
    assert parse_info(PERSISTENCE)["rdb_last_save_time"] == "1795602705"


@pytest.mark.parametrize(
    "answer",
    [
        (1, "", "Could not connect to Redis at 127.0.0.1:6380: Connection refused\n"),
        (0, "NOAUTH Authentication required.\n", "AUTH failed: WRONGPASS invalid username-password pair\n"),
        (0, "NOPERM this user has no permissions to run the 'info' command\n", ""),
        (0, "", ""),
    ],
)
def test_an_answer_that_is_an_error_is_told_although_redis_cli_ends_with_0(tmp_path: Path, answer: Any) -> None:
    redis, _cli, _work = server(tmp_path, {"INFO persistence": answer})
    with pytest.raises(MakeError, match="Redis answers to INFO persistence: ") as caught:
        redis.persistence()
    assert (answer[1].strip() or answer[2].strip() or "nothing") in str(caught.value)


def test_the_password_goes_by_the_environment_alone(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    redis, cli, _work = server(tmp_path, {}, password_file=str(secret), username="backup")
    assert redis.argv == ["redis-cli", "-h", "h", "-p", "1", "--user", "backup"]
    redis.env["x"] = "y"
    assert redis.env["REDISCLI_AUTH"] == "hunter2"
    secret.chmod(0o640)
    with pytest.raises(MakeError, match="has mode 0640: take it from others with chmod 600"):
        server(tmp_path, {}, password_file=str(secret))
    with pytest.raises(MakeError, match="No such file or directory; it must hold the credentials"):
        server(tmp_path, {}, password_file=str(tmp_path / "none"))
    assert cli.asked == []


def test_a_setting_that_this_version_does_not_know_is_empty(tmp_path: Path) -> None:
    answers = {"CONFIG GET dir": "dir\n/var/lib/redis\n", "CONFIG GET new": "\n", "CONFIG GET no": "NOPERM no\n"}
    redis, _cli, _work = server(tmp_path, answers)
    assert (redis.setting("dir"), redis.setting("new")) == ("/var/lib/redis", "")
    with pytest.raises(MakeError, match="NOPERM no"):
        redis.setting("no")


REWRITE = "auto-aof-rewrite-percentage"
GET, OFF, ON = f"CONFIG GET {REWRITE}", f"CONFIG SET {REWRITE} 0", f"CONFIG SET {REWRITE} 100"


def test_rewriting_is_turned_off_and_on_again_also_on_failure(tmp_path: Path) -> None:
    answers = {GET: [f"{REWRITE}\n100\n", f"{REWRITE}\n0\n"], OFF: "OK\n", ON: "OK\n"}
    redis, cli, work = server(tmp_path, answers)
    with pytest.raises(RuntimeError), _no_rewrite(redis, work):
        assert json.loads((tmp_path / "redis-rewrite.json").read_text()) == {REWRITE: "100"}
        raise RuntimeError
    assert cli.asked == [GET, OFF, GET, ON]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_has_turned_off_is_turned_on_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "redis-rewrite.json").write_text(json.dumps({REWRITE: "100"}))
    redis, cli, work = server(tmp_path, {GET: f"{REWRITE}\n0\n", ON: ["ERR busy\n", "OK\n"]})
    with pytest.raises(MakeError, match="ERR busy"):
        _put_back(redis, work)
    assert (tmp_path / "redis-rewrite.json").exists()
    _put_back(redis, work)
    assert cli.asked[-1] == ON
    assert list(tmp_path.iterdir()) == []
    _put_back(redis, work)
    assert len(cli.asked) == 4


def test_a_setting_that_someone_else_has_changed_meanwhile_is_left(tmp_path: Path) -> None:
    (tmp_path / "redis-rewrite.json").write_text(json.dumps({REWRITE: "100"}))
    redis, cli, work = server(tmp_path, {GET: f"{REWRITE}\n50\n"})
    _put_back(redis, work)
    assert cli.asked == [GET]


def test_rewriting_that_is_off_is_left_off(tmp_path: Path) -> None:
    redis, cli, work = server(tmp_path, {GET: f"{REWRITE}\n0\n"})
    with _no_rewrite(redis, work):
        pass
    assert cli.asked == [GET]


def test_waiting_ends_with_a_sentence(tmp_path: Path) -> None:
    redis, _cli, work = server(tmp_path, {"INFO persistence": PERSISTENCE.replace("loading:0", "loading:1")})
    object.__setattr__(work, "timeout", 0.6)
    with pytest.raises(MakeError, match=r"Redis did not finish loading its data within 0\.6 s"):
        redis.wait(lambda state: state["loading"] == "0", "finish loading its data")


SET = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"", b""),
        (SET + SET, SET + SET),
        *[(SET + SET[:end], SET) for end in range(1, len(SET))],
        (SET + MULTI + SET, SET),
        (SET + MULTI + SET + EXEC, SET + MULTI + SET + EXEC),
        (SET + MULTI + SET[:9], SET),
        (SET[:5], b""),
    ],
)
def test_what_the_server_was_writing_is_cut_off(tmp_path: Path, data: bytes, kept: bytes) -> None:
    path = tmp_path / "incr.aof"
    path.write_bytes(data)
    _cut(str(path))
    assert path.read_bytes() == kept
    assert os.path.getsize(path) == len(kept)
