# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of common server programs: their own configuration test, their logs, what a reload does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner, which

#: Seconds a configuration test may take.
TEST = 60.0

#: Appended to the configuration of Redis, which has no test: it reads up to the first directive it does not know.
SENTINEL = "worklog-configuration-test"


@dataclass(frozen=True)
class Program:
    """A server program.

    :param tests: argument lists of its configuration test, the first whose program is installed is used.
    :param logs: files it writes its own errors to, besides the log of its service manager.
    :param accepts: whether a result of the test is a pass; by default exit code 0.
    :param names: its process names (``comm``), for a program that replaces its workers on reload.
    """

    tests: tuple[tuple[str, ...], ...]
    logs: tuple[str, ...] = ()
    accepts: Callable[[Result], bool] = lambda result: result.ok
    names: tuple[str, ...] = ()


def _redis_accepts(result: Result) -> bool:
    return SENTINEL in result.stdout + result.stderr


def _mariadb_accepts(result: Result) -> bool:
    # it returns 0 for an unknown option and says so as an error
    return result.ok and not re.search(r"\[ERROR\]", result.stderr)


PROGRAMS = {
    "nginx": Program((("nginx", "-t"),), ("/var/log/nginx/error.log",), names=("nginx",)),
    "haproxy": Program(
        (("haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"),), ("/var/log/haproxy.log",), names=("haproxy",)
    ),
    "sshd": Program((("sshd", "-t"),)),
    "mariadb": Program(
        (
            ("mariadbd", "--user=mysql", "--help", "--verbose"),
            ("mysqld", "--user=mysql", "--help", "--verbose"),
        ),
        ("/var/log/mysql/error.log", "/var/log/mariadb/mariadb.log"),
        _mariadb_accepts,
    ),
    "redis": Program(
        (("redis-server", "/etc/redis/redis.conf", f"--{SENTINEL}", "yes"),),
        ("/var/log/redis/redis-server.log", "/var/log/redis/redis.log"),
        _redis_accepts,
    ),
    "apache": Program(
        (("apache2ctl", "-t"), ("httpd", "-t")),
        ("/var/log/apache2/error.log", "/var/log/httpd/error_log"),
        names=("apache2", "httpd"),
    ),
}


def of_process(name: str) -> Program | None:
    """Return the program whose process has this name, when it replaces its workers on reload."""
    return next((program for program in PROGRAMS.values() if name in program.names), None)


def test_configuration(test: Sequence[str], run: Runner, user: str | None = None) -> str | None:
    """Test the configuration and return what is wrong with it, ``None`` when nothing is.

    :param test: one name of :data:`PROGRAMS`, or the argument list of a test that exits with 0 when all is well.
    :param user: account to run an argument list as.
    """
    program = PROGRAMS.get(test[0]) if len(test) == 1 else None
    argv: Sequence[str] = test
    accepts = program.accepts if program else (lambda result: result.ok)
    if program:
        argv = next((argv for argv in program.tests if which(argv[0])), program.tests[0])
        user = None
    try:
        result = run(list(argv), timeout=TEST, user=user)
    except CommandError as error:
        return str(error)
    return None if accepts(result) else (told(result) or result.describe())


def told(result: Result) -> str:
    """Return the lines of a test's output that name an error, else its last ones, without time stamps."""
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines() if line.strip()]
    telling = r"emerg|alert|error|fatal|syntax|bad |unknown|>>>|line \d+"
    errors = [line for line in lines if re.search(telling, line, re.IGNORECASE)]
    chosen = (errors or lines)[:4]
    return "; ".join(re.sub(r"^\[?\d{4}[-/]\d\d[-/]\d\d[ T][\d:.]+\]?\s*(\d+ )?", "", line) for line in chosen)[:1000]
