# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The flow, on a manager and a clock of our own."""

from __future__ import annotations

import os
from typing import Any, Callable

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result
from ansible_collections.worklog.maintenance.plugins.module_utils.service import fallback, process
from ansible_collections.worklog.maintenance.plugins.module_utils.service import restart as flow
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit, ServiceError, Status

UP = Status("running", "active (running)", pids=(1,), generation="old", can_reload=True)


class Fake:
    """A manager whose state follows a script: at each time (seconds since the action) a status."""

    kind, title, interval = "systemd", "unit x.service", 0.25

    def __init__(self, before: Status = UP, script: tuple[tuple[float, Status], ...] = ()) -> None:
        self.now = 0.0
        self.before = before
        self.script = script or ((0.0, Status("running", "active (running)", pids=(2,), generation="new")),)
        self.acted_at: float | None = None
        self.actions: list[str] = []
        self.fails: list[str] = []
        self.lines: list[str] = []
        self.end = Exit()
        self.reasons: list[tuple[str, str, str]] = []
        self.forgotten = False

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)

    def status(self) -> Status:
        self.now += 0.01
        if self.acted_at is None:
            return self.before
        return [status for since, status in self.script if self.now - self.acted_at >= since][-1]

    def problems(self) -> list[tuple[str, str, str]]:
        return self.reasons

    def act(self, action: str, timeout: float) -> None:
        self.actions.append(action)
        self.acted_at = self.now
        if self.fails:
            raise ServiceError(self.fails.pop(0))

    def clear_failures(self) -> bool:
        return self.forgotten

    def mark(self) -> Any:
        return None

    def logs(self, mark: Any, lines: int) -> list[str]:
        return self.lines[-lines:]

    def exited(self, mark: Any) -> Exit:
        return self.end

    def owns(self, pid: int) -> bool:
        return False


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "alive", lambda pid, proc="/proc": False)
    monkeypatch.setattr(process, "short_name", lambda pid, proc="/proc": "x")
    monkeypatch.setattr(process, "oom_kills", lambda proc="/proc": 0)


def work(manager: Fake, *, check: bool = False, **request: Any) -> flow.Outcome:
    request = {"state": "restarted", "timeout": 10.0, "watch": 5.0, **request}

    def run(argv: list[str], **_unused: Any) -> Result:
        raise AssertionError(argv)

    restarter = flow.Restarter(manager, flow.Request(**request), run, clock=manager.clock, sleep=manager.sleep)
    return restarter.work(check=check)


def new(phase: str = "running", words: str = "active (running)", **more: Any) -> Status:
    return Status(phase, words, **{"pids": (2,), "generation": "new", **more})


def test_a_restart_that_works() -> None:
    manager = Fake()
    out = work(manager)
    assert not out.failed and out.changed and manager.actions == ["restart"] and out.serving
    assert out.after == new() and manager.now >= 5.0


@pytest.mark.parametrize(
    ("script", "words", "restarts"),
    [
        # up for two seconds
        (((0, new()), (2, new("failed", "failed (failed)", pids=()))), "it ended 2", 0),
        # started again by its manager
        (((0, new()), (2, new(restarts=1, pids=(3,), generation="newer"))), "it crashed 2", 1),
        # the same, seen only by one of three signs
        (((0, new()), (2, new(pids=(3,)))), "it crashed 2", 0),
        (((0, new()), (2, new(generation="newer"))), "it crashed 2", 0),
        (((0, new()), (2, new(restarts=1))), "it crashed 2", 1),
        # waits to be started again
        (((0, new("failed", "activating (auto-restart)", returns=True)),), "it ended while it started", 0),
        (((0, new("starting", "activating (start)")), (1, new(restarts=2))), "it crashed while it started", 2),
        # never gets up
        (((0, new("starting", "activating (start)")),), "not ready within 10 s: it is activating (start)", 0),
        (
            ((0, new(ready=False, said="unhealthy: 7")),),
            "does not call it ready, it is active (running) unhealthy: 7",
            0,
        ),
        # gets unready again
        (((0, new()), (2, new("starting", "reloading"))), "it stopped answering", 0),
        # was not restarted at all
        (((0, UP),), "the same process as before", 0),
    ],
)
def test_what_does_not_stay_up_has_failed(script: Any, words: str, restarts: int) -> None:
    out = work(Fake(script=script))
    assert out.failed and words in out.message and out.restarts == restarts, out.message
    assert out.serving is not True or "stopped" in words or restarts == 0
    assert [finding.severity for finding in out.findings if finding.check == "service.cause"] == ["critical"]


def test_one_bad_answer_during_the_watch_is_forgiven_and_the_last_must_be_good() -> None:
    blip = new("starting", "reloading (reload)")
    assert not work(Fake(script=((0, new()), (2, blip), (2.3, new())))).failed
    assert work(Fake(script=((0, new()), (4.9, blip)))).failed
    assert work(Fake(script=((0, new()), (1, blip), (4, new())))).failed  # too long, though it is well in the end


def test_a_slow_start_is_waited_for() -> None:
    out = work(Fake(script=((0, new("starting", "activating (start)")), (8, new()))))
    assert not out.failed and out.start is not None and 8 <= out.start < 9


def test_old_restarts_are_not_counted() -> None:
    before = Status("running", "active (running)", pids=(1,), generation="old", restarts=7)
    assert not work(Fake(before, ((0, new(restarts=0)),))).failed  # systemd begins anew
    assert not work(Fake(before, ((0, new(restarts=7)),))).failed  # or goes on counting
    assert work(Fake(before, ((0, new(restarts=0)), (1, new(restarts=1))))).restarts == 1


def test_problems_stop_everything() -> None:
    manager = Fake()
    manager.reasons = [("service.masked", "it is masked", "unmask it")]
    out = work(manager)
    assert out.failed and out.refused and not out.changed and manager.actions == []
    assert out.message == "nothing was touched: it is masked; unmask it"


def test_what_is_masked_can_still_be_stopped() -> None:
    manager = Fake(script=((0, Status("stopped", "inactive (dead)")),))
    manager.reasons = [("service.masked", "it is masked", "unmask it")]
    assert not work(manager, state="stopped").failed and manager.actions == ["stop"]
    manager.reasons = [("service.exists", "it does not exist", "")]
    assert work(manager, state="stopped").refused


def test_a_container_is_not_sent_a_signal_it_may_not_know() -> None:
    manager = Fake()
    manager.kind = "docker"
    assert work(manager, state="reload_or_restarted").action == "restart"


@pytest.mark.parametrize(
    ("state", "before", "action"),
    [
        ("restarted", UP, "restart"),
        ("restarted", Status("stopped", "inactive (dead)"), "start"),
        ("restarted", Status("failed", "failed (failed)"), "restart"),
        ("started", UP, ""),
        ("started", Status("failed", "failed (failed)"), "start"),
        ("stopped", Status("stopped", "inactive (dead)"), ""),
        ("stopped", Status("failed", "failed (failed)"), ""),
        ("stopped", Status("failed", "activating (auto-restart)", returns=True), "stop"),
        ("stopped", UP, "stop"),
        ("reloaded", UP, "reload"),
        ("reload_or_restarted", UP, "reload"),
        ("reload_or_restarted", Status("running", "up", pids=(1,), generation="old"), "restart"),
        ("reload_or_restarted", Status("stopped", "inactive (dead)"), "start"),
    ],
)
def test_what_is_done_depends_on_the_state_before(state: str, before: Status, action: str) -> None:
    manager = Fake(before)
    out = work(manager, check=True, state=state)
    assert out.action == action and out.changed == bool(action) and manager.actions == [] and not out.failed


@pytest.mark.parametrize("before", [Status("stopped", "inactive (dead)"), Status("running", "up", pids=(1,))])
def test_a_reload_that_cannot_work_is_refused(before: Status) -> None:
    out = work(Fake(before), state="reloaded")
    assert out.refused


def test_a_reload_must_keep_the_main_process() -> None:
    assert not work(Fake(script=((0, UP),)), state="reloaded").failed
    out = work(Fake(script=((0, new()),)), state="reloaded")
    assert out.failed and "main process was replaced" in out.message


def test_a_reload_without_new_workers_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "short_name", lambda pid, proc="/proc": "nginx")
    workers = {(7, 70)}
    monkeypatch.setattr(process, "children", lambda pid, proc="/proc": set(workers))
    out = work(Fake(script=((0, UP),)), state="reloaded")
    assert out.failed and "had no effect" in out.message and out.serving
    manager = Fake(script=((0, UP),))
    original = manager.act

    def act(action: str, timeout: float) -> None:
        original(action, timeout)
        workers.add((8, 80))

    manager.act = act  # type: ignore[method-assign]
    assert not work(manager, state="reloaded").failed


def test_a_manager_that_refuses_has_its_words_in_the_message() -> None:
    manager = Fake()
    manager.fails = ["systemctl restart failed: A dependency job for x.service failed."]
    out = work(manager)
    assert out.failed and out.message.startswith("systemctl restart failed") and out.cause == "dependency"


def test_a_kill_while_the_kernel_killed_something_is_an_oom_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 1, 1, 1])
    monkeypatch.setattr(process, "oom_kills", lambda proc="/proc": next(counts))
    manager = Fake(script=((0, new()), (1, new("failed", "failed (failed)", pids=()))))
    manager.end = Exit(signal="SIGKILL", result="signal")
    out = work(manager)
    assert out.exit.oom and out.cause == "resource"


def test_the_log_is_cut_and_can_be_left_out() -> None:
    manager = Fake(script=((0, new("failed", "failed (failed)", pids=())),))
    manager.lines = [f"line {number}" for number in range(50)] + ["secret: connection refused"]
    assert work(manager).log[-1] == "secret: connection refused"
    out = work(Fake(script=manager.script), log_lines=0)
    manager.acted_at = None
    out = work(manager, log_lines=0)
    assert out.log == [] and "secret" not in str(out.as_dict()) and out.cause == "dependency"


class Healing(Fake):
    """Comes up at the second attempt when the previous state has been put back."""

    def act(self, action: str, timeout: float) -> None:
        super().act(action, timeout)
        if len(self.actions) == 2:
            self.script = ((0.0, new(generation="second")),)


def fail_then_heal(monkeypatch: pytest.MonkeyPatch, restore: Callable[[Any], None]) -> tuple[Fake, flow.Outcome]:
    monkeypatch.setattr(fallback, "restore", restore)
    manager = Healing(script=((0, new("failed", "failed (failed)", pids=())),))
    manager.forgotten = True
    return manager, work(manager, fallback=fallback.Fallback({"/etc/x": b"old"}))


def test_the_previous_state_is_put_back_and_the_failure_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[Any] = []
    manager, out = fail_then_heal(monkeypatch, put_back.append)
    assert len(put_back) == 1 and manager.actions == ["restart", "restart"]
    assert out.failed and out.restored and out.serving and out.changed
    assert "was put back (/etc/x) and it runs on that" in out.message
    checks = [finding.check for finding in out.findings]
    assert checks[-1] == "service.fallback" and "service.failures" in checks


def test_a_fallback_that_fails_is_told_beside_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(previous: Any) -> None:
        raise ServiceError("the disk is full")

    out = fail_then_heal(monkeypatch, refuse)[1]
    assert out.failed and not out.restored and out.serving is False
    assert "it ended while it started" in out.message and "the disk is full" in out.message


def test_a_stop_waits_for_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Fake(script=((0, Status("stopping", "deactivating")), (1, Status("stopped", "inactive (dead)"))))
    monkeypatch.setattr(process, "alive", lambda pid, proc="/proc": manager.now < 3)
    out = work(manager, state="stopped")
    assert not out.failed and out.changed and manager.now >= 3 and out.serving is None
    out = work(Fake(script=((0, Status("stopping", "deactivating")),)), state="stopped")
    assert out.failed and "has not ended within 10 s" in out.message


def test_the_result_holds_plain_values() -> None:
    result = work(Fake()).as_dict()
    assert result["operation"] == "restart" and result["pids_before"] == [1] and result["pids_after"] == [2]
    assert result["state_after"] == "active (running)" and result["restored"] is False


def test_calls_for_one_service_keep_each_other_out(tmp_path, monkeypatch):
    monkeypatch.setattr(flow.os, "geteuid", lambda: 0)
    root = str(tmp_path / "locks")
    with flow.alone("unit a@../b.service", 0, root), flow.alone("unit c.service", 0, root):
        assert sorted(os.listdir(root)) == ["unit_a@.._b.service.lock", "unit_c.service.lock"]
        words = r"another call has been at work on unit c\.service for 0\.2 s"
        with pytest.raises(ServiceError, match=words), flow.alone("unit c.service", 0.2, root):
            pass
    with flow.alone("unit c.service", 0, root):
        pass
    monkeypatch.setattr(flow.os, "geteuid", lambda: 1000)
    with flow.alone("unit d.service", 0, root), flow.alone("unit d.service", 0, root):
        assert "unit_d.service.lock" not in os.listdir(root)
