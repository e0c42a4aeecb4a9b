# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemctl and journalctl print (systemd 252 and 257), and what follows from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result
from ansible_collections.worklog.maintenance.plugins.module_utils.service import systemd
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit, ServiceError


def show(**more: str) -> dict[str, str]:
    return {
        "Id": "x.service",
        "LoadState": "loaded",
        "LoadError": "",
        "Type": "simple",
        "ActiveState": "active",
        "SubState": "running",
        "Result": "success",
        "MainPID": "871",
        "NRestarts": "0",
        "ExecMainCode": "0",
        "ExecMainStatus": "0",
        "InvocationID": "a1",
        "CanReload": "yes",
        "NeedDaemonReload": "no",
        **more,
    }


@pytest.mark.parametrize(
    ("active", "sub", "phase", "up", "returns"),
    [
        ("active", "running", "running", True, False),
        ("active", "exited", "running", True, False),
        ("active", "listening", "running", True, False),
        ("reloading", "reload", "starting", False, False),
        ("activating", "start", "starting", False, False),
        ("activating", "start-pre", "starting", False, False),
        ("activating", "auto-restart", "failed", False, True),
        ("activating", "auto-restart-queued", "failed", False, True),
        ("deactivating", "stop-sigterm", "stopping", False, False),
        ("inactive", "dead", "stopped", False, False),
        ("failed", "failed", "failed", False, False),
    ],
)
def test_only_active_is_up(active: str, sub: str, phase: str, up: bool, returns: bool) -> None:
    status = systemd.status_of(show(ActiveState=active, SubState=sub))
    assert (status.phase, status.up, status.returns) == (phase, up, returns)
    assert status.words == f"{active} ({sub})"


def test_a_unit_that_is_not_there_is_absent() -> None:
    status = systemd.status_of(show(LoadState="not-found", ActiveState="inactive", SubState="dead", MainPID="0"))
    assert status.phase == "absent" and status.pids == ()


def test_the_values_of_a_property_may_contain_equals_signs() -> None:
    assert systemd.parse_show("StatusText=a=b\nMainPID=7\n\n") == {"StatusText": "a=b", "MainPID": "7"}


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({"ExecMainCode": "1", "ExecMainStatus": "3", "Result": "exit-code"}, Exit(code=3, result="exit-code")),
        ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "signal"}, Exit(signal="SIGKILL", result="signal")),
        (
            {"ExecMainCode": "3", "ExecMainStatus": "11", "Result": "core-dump"},
            Exit(signal="SIGSEGV", result="core-dump"),
        ),
        (
            {"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"},
            Exit(signal="SIGKILL", result="oom-kill", oom=True),
        ),
        ({"ExecMainCode": "0", "ExecMainStatus": "0", "Result": "timeout"}, Exit(result="timeout")),
        ({}, Exit()),
    ],
)
def test_the_way_it_ended_is_read_from_the_properties(properties: dict[str, str], wanted: Exit) -> None:
    assert systemd.status_of(show(**properties)).exit == wanted


JOURNAL = [
    {"MESSAGE": "Segmentation", "_SYSTEMD_UNIT": "crash.service"},
    {
        "MESSAGE": "crash.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED",
        "EXIT_CODE": "exited",
        "EXIT_STATUS": "3",
        "COMMAND": "ExecStart",
        "MESSAGE_ID": "98e322203f7a4ed290d09fe03c09fe15",
    },
    {"MESSAGE": "crash.service: Failed with result 'exit-code'.", "UNIT_RESULT": "exit-code"},
    {"MESSAGE": [104, 105, 255]},
    {"MESSAGE": None},
]


def test_the_journal_tells_how_it_ended() -> None:
    entries = systemd.parse_journal("\n".join(map(json.dumps, JOURNAL)) + "\nnot json\n")
    assert systemd.exit_of(entries) == Exit(code=3, result="exit-code")
    assert systemd.exit_of([{"EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}]) == Exit(signal="SIGKILL")
    assert systemd.exit_of([]) == Exit()
    assert [systemd.message_of(entry) for entry in entries[-2:]] == ["hi\ufffd", ""]


class Commands:
    """Answers argument lists; what is not expected fails the test."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.seen: list[str] = []

    def __call__(self, argv: list[str], **options: Any) -> Result:
        line = " ".join(argv)
        self.seen.append(line)
        for part, answer in self.answers.items():
            if part in line:
                if isinstance(answer, Exception):
                    raise answer
                rc, out, err = answer if isinstance(answer, tuple) else (0, answer, "")
                return Result(tuple(argv), rc, out, err, 0.0)
        raise AssertionError(f"unexpected: {line}")


def properties(**more: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in show(**more).items())


@pytest.mark.parametrize(
    ("more", "check", "words"),
    [
        ({"LoadState": "masked"}, "service.masked", "is masked"),
        ({"LoadState": "not-found"}, "service.exists", "does not exist"),
        (
            {"LoadState": "bad-setting", "LoadError": 'org.x.BadUnit "Unit x.service has a bad setting."'},
            "service.exists",
            "Unit x.service has a bad setting.",
        ),
        ({"Type": "oneshot", "RemainAfterExit": "no"}, "service.type", "oneshot"),
    ],
)
def test_what_keeps_systemd_from_acting(more: dict[str, str], check: str, words: str) -> None:
    run = Commands({" show ": properties(**more), "list-unit": "y.service enabled\n"})
    ((found, message, advice),) = systemd.Systemd("x", run).problems()
    assert found == check and words in message and advice
    assert systemd.Systemd("x", Commands({" show ": properties()})).problems() == []


def test_the_nearest_names_are_offered() -> None:
    run = Commands(
        {" show ": properties(LoadState="not-found"), "list-unit": "nginx.service enabled\nrc.service masked\n"}
    )
    assert "did you mean nginx.service? " in systemd.Systemd("ngnix", run).problems()[0][2]


def test_a_job_that_fails_names_the_result() -> None:
    run = Commands(
        {"restart x": (1, "", "Job for x.service failed.\nSee status"), " show ": properties(Result="timeout")}
    )
    with pytest.raises(ServiceError, match=r"failed with result 'timeout': Job for x.service failed\.$"):
        systemd.Systemd("x", run).act("restart", 5)


def test_a_job_that_does_not_end_in_time_names_the_state() -> None:
    run = Commands(
        {"restart x": CommandError("too late", []), " show ": properties(ActiveState="activating", SubState="start")}
    )
    with pytest.raises(ServiceError, match=r"not done within 5 s: it is activating \(start\)"):
        systemd.Systemd("x", run).act("restart", 5)


def test_failures_are_only_forgotten_when_there_are_any() -> None:
    run = Commands({" show ": properties()})
    assert systemd.Systemd("x", run).clear_failures() is False
    run = Commands({" show ": properties(ActiveState="failed", Result="start-limit-hit"), "reset-failed x.service": ""})
    assert systemd.Systemd("x", run).clear_failures() is True


AT_MARK = [{"MESSAGE": "before", "__CURSOR": "s=1;i=2"}, {**JOURNAL[0], "__CURSOR": "s=1;i=3"}]


def test_the_log_begins_after_the_mark() -> None:
    entries = "\n".join(map(json.dumps, AT_MARK))
    run = Commands({"--show-cursor": "-- No entries --\n-- cursor: s=1;i=2\n", "--cursor=s=1;i=2": entries})
    unit = systemd.Systemd("x", run)
    assert unit.mark() == "s=1;i=2"
    assert unit.logs("s=1;i=2", 5) == ["Segmentation"] and "--unit=x.service" in run.seen[-1]
    assert unit.logs(None, 5) == []


def test_a_users_unit_is_asked_as_the_user() -> None:
    seen: dict[str, Any] = {}

    def run(argv: list[str], **options: Any) -> Result:
        seen.update(options, argv=argv)
        return Result(tuple(argv), 0, properties(), "", 0.0)

    assert systemd.Systemd("x", run, "root").status().up
    assert seen["argv"][:2] == ["systemctl", "--user"] and seen["user"] == "root"
    assert seen["env"]["XDG_RUNTIME_DIR"] == "/run/user/0"
    with pytest.raises(ServiceError, match="no account 'no-such-one'"):
        systemd.Systemd("x", run, "no-such-one")
