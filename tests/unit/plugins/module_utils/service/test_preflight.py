# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configuration tests by their real output, preflight checks, and what is put back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result
from ansible_collections.worklog.maintenance.plugins.module_utils.service import fallback, preflight, programs
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import ServiceError, Status
from ansible_collections.worklog.maintenance.plugins.module_utils.service.process import Holder

REDIS = """
*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
Reading the configuration file, at line {}
>>> '{}'
Bad directive or wrong number of arguments
"""


def says(rc: int = 0, out: str = "", err: str = "") -> Callable[..., Result]:
    return lambda argv, **_unused: Result(tuple(argv), rc, out, err, 0.0)


@pytest.mark.parametrize(
    ("name", "run", "wrong"),
    [
        ("nginx", says(0, "", "nginx: configuration file /etc/nginx/nginx.conf test is successful"), None),
        (
            "nginx",
            says(1, "", '2026/11/21 23:35:23 [emerg] 1#1: unknown directive "sevrer" in /tmp/n2:2\nnginx: failed'),
            '[emerg] 1#1: unknown directive "sevrer" in /tmp/n2:2',
        ),
        ("haproxy", says(0), None),
        (
            "haproxy",
            says(1, "", "[NOTICE] (1) : haproxy version is 2.6.12\n[ALERT] (1) : config : parsing [h2:4] : unknown"),
            "[ALERT] (1) : config : parsing [h2:4] : unknown",
        ),
        ("sshd", says(255, "", "/etc/ssh/sshd_config: line 3: Bad configuration option: PortWrong"), "line 3: Bad"),
        ("apache", says(1, "", "AH00526: Syntax error on line 3 of /etc/apache2/x.conf:"), "Syntax error on line 3"),
        (
            "mariadb",
            says(0, "long help", "2026-11-21 22:57:58 0 [Warning] Could not increase number of max_open_files"),
            None,
        ),
        # it returns 0 and says so as an error
        (
            "mariadb",
            says(0, "", "2026-11-21 22:57:59 0 [ERROR] mariadbd: unknown option '--nosuchopt'"),
            "[ERROR] mariadbd: unknown option '--nosuchopt'",
        ),
        ("mariadb", says(7, "", "unknown variable 'x=1'"), "unknown variable 'x=1'"),
        # Redis has no test; it must come as far as the directive that is not one
        ("redis", says(1, "", REDIS.format(2278, f'{programs.SENTINEL} "yes"')), None),
        ("redis", says(1, "", REDIS.format(7, "maxmemroy 1")), "maxmemroy 1"),
        ("redis", says(0, ""), "it printed nothing"),
    ],
)
def test_the_result_of_a_servers_own_test(name: str, run: Callable[..., Result], wrong: str | None) -> None:
    found = programs.test_configuration((name,), run)
    assert found is None if wrong is None else found is not None and wrong in found


def test_an_argument_list_is_run_as_the_account() -> None:
    seen: dict[str, Any] = {}

    def run(argv: list[str], **options: Any) -> Result:
        seen.update(options, argv=argv)
        return Result(tuple(argv), 0, "", "", 0.0)

    assert programs.test_configuration(("node", "server.js", "--check"), run, "lowcode") is None
    assert seen["argv"] == ["node", "server.js", "--check"] and seen["user"] == "lowcode"
    programs.test_configuration(("nginx",), run, "lowcode")
    assert seen["user"] is None


def test_a_test_that_cannot_run_has_failed() -> None:
    def run(argv: list[str], **_unused: Any) -> Result:
        raise CommandError("it is not installed", argv)

    assert programs.test_configuration(("x", "y"), run) == "it is not installed"


class Stub:
    """A manager that owns process 10."""

    kind, title, interval = "systemd", "unit x.service", 1.0

    def __init__(self, phase: str = "running") -> None:
        self.phase = phase

    def status(self) -> Status:
        return Status(self.phase, self.phase)

    def owns(self, pid: int) -> bool:
        return pid == 10


def inspect(needs: preflight.Needs, held: tuple[Holder, ...] = (), phase: str = "running") -> list[Any]:
    manager: Any = Stub(phase)
    return list(preflight.inspect(manager, needs, says(), holders=lambda port, run: held, memory=lambda: 1 << 30))


@pytest.mark.parametrize(
    ("held", "phase", "severity", "words"),
    [
        ((), "running", "ok", "is free"),
        ((Holder(80, "::", 10),), "running", "ok", "itself"),
        (
            (Holder(80, "::", 11, "python3 -m http.server", "web.service"),),
            "running",
            "critical",
            "process 11 (python3 -m http.server) of unit web.service",
        ),
        ((Holder(80, "::", 10), Holder(80, "127.0.0.1", 11, "x")), "running", "critical", "process 11 (x)"),
        ((Holder(80, "::", None),), "running", "info", "taken for its own"),
        ((Holder(80, "::", None),), "stopped", "critical", "may not see"),
    ],
)
def test_a_port_is_free_ours_or_foreign(held: tuple[Holder, ...], phase: str, severity: str, words: str) -> None:
    (found,) = inspect(preflight.Needs(ports=(80,)), held, phase)
    assert found.severity == severity and words in found.message


def test_resources(tmp_path: Path) -> None:
    severities = [
        found.severity
        for found in inspect(preflight.Needs(disk_free={str(tmp_path): 1, "/no": 1}, memory_available=1 << 29))
    ]
    assert severities == ["critical", "ok", "ok"]  # in the order of the paths
    (found,) = inspect(preflight.Needs(memory_available=1 << 40))
    assert found.severity == "critical" and "1.0 GiB of memory are available, 1.0 TiB are needed" in found.message
    assert preflight.size(10) == "10 B" and preflight.size(1536) == "1.5 KiB" and preflight.size(1 << 34) == "16 GiB"


def test_files_and_links_are_put_back(tmp_path: Path) -> None:
    config, copy = tmp_path / "c", tmp_path / "copy"
    config.write_text("new")
    config.chmod(0o640)
    copy.write_text("old")
    (tmp_path / "r1").mkdir()
    link = tmp_path / "current"
    link.symlink_to("r2")
    plan = fallback.prepare({str(config): str(copy)}, {str(link): "r1"})
    copy.unlink()  # what is needed was read before anything was touched
    fallback.restore(plan)
    assert config.read_text() == "old" and config.stat().st_mode & 0o777 == 0o640
    assert os.readlink(link) == "r1" and sorted(os.listdir(tmp_path)) == ["c", "current", "r1"]
    assert bool(plan) and not fallback.Fallback() and "current -> r1" in plan.describe()


@pytest.mark.parametrize(
    ("previous", "links", "words"),
    [
        ({"/etc/hosts": "/no/copy"}, {}, "/no/copy"),
        ({}, {"/etc/hosts": "x"}, "not a symbolic link"),
        ({}, {"link": "r9"}, "r9 does not exist"),
    ],
)
def test_a_fallback_that_cannot_work_is_refused_beforehand(
    tmp_path: Path, previous: dict[str, str], links: dict[str, str], words: str
) -> None:
    (tmp_path / "link").symlink_to("r1")
    with pytest.raises(ServiceError, match=words):
        fallback.prepare(previous, {os.path.join(tmp_path, link): target for link, target in links.items()})
