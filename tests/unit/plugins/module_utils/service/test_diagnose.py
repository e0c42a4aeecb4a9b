# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probable cause, from what real programs said (nginx 1.22, HAProxy 2.6, MariaDB 10.11, Redis 7, Node.js 18)."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.service.diagnose import ADVICE, CAUSES, diagnose
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit

TRANSCRIPTS = [
    (
        "port",
        """
2026/11/21 23:35:20 [emerg] 10772#10772: bind() to 0.0.0.0:8123 failed (98: Address already in use)
2026/11/21 23:35:20 [emerg] 10772#10772: still could not bind()""",
    ),
    (
        "configuration",
        """
2026/11/21 23:35:23 [emerg] 10779#10779: unknown directive "sevrer" in /tmp/n2:2
nginx: configuration file /tmp/n2 test failed""",
    ),
    (
        "dependency",
        """
2026/11/21 23:35:23 [emerg] 10782#10782: host not found in upstream "no.such.host.test" in /tmp/n3:2
nginx: configuration file /tmp/n3 test failed""",
    ),
    (
        "configuration",
        """
[emerg] 10785#10785: cannot load certificate "/etc/none.pem": BIO_new_file() failed (SSL: error:80000002:system """
        """library::No such file or directory:calling fopen(/etc/none.pem, r) """
        """error:10000080:BIO routines::no such file)""",
    ),
    (
        "permission",
        """
2026/11/21 23:35:23 [emerg] 12#12: open() "/var/log/nginx/x.log" failed (13: Permission denied)""",
    ),
    (
        "port",
        """
[ALERT]    (10788) : Binding [h1:8] for frontend f: cannot bind socket (Address already in use) for [0.0.0.0:8123]
[ALERT]    (10788) : [haproxy.main()] Some protocols failed to start their listeners! Exiting.""",
    ),
    (
        "configuration",
        """
[ALERT]    (10792) : config : parsing [h2:4] : unknown keyword 'bnid' in 'frontend' section; did you mean 'bind'
[ALERT]    (10792) : config : Error(s) found in configuration file : h2
[ALERT]    (10792) : config : Fatal errors found in configuration.""",
    ),
    (
        "dependency",
        """
[ALERT]    (10796) : config : [h3:7] : 'server b/s' : could not resolve address 'no.such.host.test'.
[ALERT]    (10796) : config : Failed to initialize server(s) addr.""",
    ),
    (
        "port",
        """
10804:M 21 Nov 2026 # Warning: Could not create server TCP listening socket *:8123: bind: Address already in use
10804:M 21 Nov 2026 23:35:24.013 # Failed listening on port 8123 (TCP), aborting.""",
    ),
    (
        "configuration",
        """
*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
Reading the configuration file, at line 2
>>> 'maxmemroy "1"'
Bad directive or wrong number of arguments""",
    ),
    (
        "permission",
        """
*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
Can't open the log file: Permission denied""",
    ),
    (
        "port",
        """
[Note] Server socket created on IP: '127.0.0.1', port: '8123'.
[ERROR] Can't start server: Bind on TCP/IP port. Got error: 98: Address already in use
[ERROR] Do you already have another server running on port: 8123 ?
[ERROR] Aborting""",
    ),
    (
        "configuration",
        """
[Note] InnoDB: log sequence number 44404; transaction id 14
[ERROR] mariadbd: unknown variable 'no-such-thing=1'
[ERROR] Aborting""",
    ),
    (
        "permission",
        """
[ERROR] mariadbd: Can't create/write to file './ddl_recovery.log' (Errcode: 13 "Permission denied")
[ERROR] DDL_LOG: Failed to create ddl log file: ./ddl_recovery.log
[ERROR] Aborting""",
    ),
    (
        "resource",
        """
[ERROR] InnoDB: Cannot map innodb_buffer_pool_size_max=921600000m
[ERROR] InnoDB: Plugin initialization aborted with error Generic error
[ERROR] Unknown/unsupported storage engine: InnoDB""",
    ),
    (
        "port",
        """
node:events:495
      throw er; // Unhandled 'error' event
Error: listen EADDRINUSE: address already in use :::8123
    at Server.setupListenHandle [as _listen2] (node:net:1817:16)
  code: 'EADDRINUSE',
Node.js v18.20.4""",
    ),
    (
        "configuration",
        """
node:internal/modules/cjs/loader:1143
  throw err;
Error: Cannot find module 'expresss'
Require stack:
- /tmp/[eval]""",
    ),
    (
        "dependency",
        """
      throw er; // Unhandled 'error' event
Error: connect ECONNREFUSED 127.0.0.1:9
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16)
  code: 'ECONNREFUSED',""",
    ),
    ("dependency", "Error: getaddrinfo ENOTFOUND no.such.host.test"),
    (
        "permission",
        """
Error: EACCES: permission denied, open '/root/.bashrc'
    at Object.openSync (node:fs:601:3)""",
    ),
    (
        "resource",
        """
<--- JS stacktrace --->
FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory""",
    ),
    (
        "crash",
        """
[eval]:1
undefined.x
TypeError: Cannot read properties of undefined (reading 'x')""",
    ),
    ("configuration", "SyntaxError: Unexpected token x in JSON at position 1"),
    ("dependency", "MongoServerSelectionError: connect ECONNREFUSED ::1:27017"),
    (
        "port",
        """
Traceback (most recent call last):
  File "/usr/lib/python3.11/socketserver.py", line 472, in server_bind
OSError: [Errno 98] Address already in use""",
    ),
    (
        "dependency",
        """
Traceback (most recent call last):
  File "/usr/lib/python3.11/socket.py", line 836, in create_connection
ConnectionRefusedError: [Errno 111] Connection refused""",
    ),
    (
        "dependency",
        """
  File "/usr/lib/python3.11/socket.py", line 962, in getaddrinfo
socket.gaierror: [Errno -2] Name or service not known""",
    ),
    (
        "configuration",
        """
Traceback (most recent call last):
ModuleNotFoundError: No module named 'flaskk'""",
    ),
    (
        "configuration",
        """
Traceback (most recent call last):
  File "<frozen os>", line 679, in __getitem__
KeyError: 'DATABASE_URL'""",
    ),
    (
        "permission",
        """
Traceback (most recent call last):
PermissionError: [Errno 13] Permission denied: '/root/.bashrc'""",
    ),
    ("resource", "Traceback (most recent call last):\nMemoryError"),
    ("resource", "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device"),
    ("resource", "Traceback (most recent call last):\nOSError: [Errno 24] Too many open files: '/dev/null'"),
    ("crash", "Traceback (most recent call last):\nZeroDivisionError: division by zero"),
    (
        "dependency",
        """pymysql.err.OperationalError: (1045, "Access denied for user 'w'@'localhost' (using password: YES)")""",
    ),
    ("port", 'Exception in thread "main" java.net.BindException: Address already in use'),
    ("port", "Web server failed to start. Port 8080 was already in use."),
    ("dependency", 'Exception in thread "main" java.net.ConnectException: Connection refused'),
    ("dependency", 'Exception in thread "main" java.net.UnknownHostException: no.such.host.test'),
    ("resource", 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space'),
    ("resource", "# There is insufficient memory for the Java Runtime Environment to continue."),
    ("crash", 'Exception in thread "main" java.lang.NullPointerException: Cannot invoke "Object.toString()"'),
    ("configuration", "Error: Unable to access jarfile none.jar"),
    (
        "configuration",
        "Error: Could not find or load main class NoMain\nCaused by: java.lang.ClassNotFoundException: NoMain",
    ),
    ("configuration", "x.service: Failed at step EXEC spawning /usr/bin/none: No such file or directory"),
    ("permission", "x.service: Failed at step EXEC spawning /opt/x: Permission denied"),
    ("dependency", "A dependency job for x.service failed. See 'journalctl -xe' for details."),
    ("crash", "x.service: Main process exited, code=dumped, status=11/SEGV (core dumped)"),
]


@pytest.mark.parametrize(("cause", "text"), TRANSCRIPTS)
def test_a_cause_is_read_from_the_log(cause: str, text: str) -> None:
    found = diagnose(text.strip().splitlines(), Exit(code=1, result="exit-code"))
    assert found.cause == cause, found
    assert found.evidence and found.evidence in text


def test_the_evidence_is_the_sentence_and_not_a_field_of_it() -> None:
    lines = ["Error: connect ECONNREFUSED 127.0.0.1:9", "  code: 'ECONNREFUSED',"]
    assert diagnose(lines, Exit()).evidence == "Error: connect ECONNREFUSED 127.0.0.1:9"


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        (Exit(signal="SIGKILL", oom=True), "resource", "OOM kill"),
        (Exit(signal="SIGSEGV", result="core-dump"), "crash", "SIGSEGV"),
        (Exit(code=3, result="exit-code"), "crash", "exit status 3"),
        (Exit(code=203, result="exit-code"), "configuration", "program does not exist"),
        (Exit(code=217, result="exit-code"), "configuration", "user does not exist"),
        (Exit(code=203), "crash", "203"),  # of PM2 or Docker it means nothing special
        (Exit(code=127), "configuration", "127"),
        (Exit(signal="SIGTERM"), "unknown", ""),
        (Exit(), "unknown", ""),
    ],
)
def test_the_way_it_ended_speaks_when_the_log_is_silent(end: Exit, cause: str, words: str) -> None:
    found = diagnose(["Started x.service.", "listening on 8080"], end)
    assert found.cause == cause and words in found.evidence


def test_an_oom_kill_outweighs_every_line() -> None:
    assert diagnose(["bind: Address already in use"], Exit(signal="SIGKILL", oom=True)).cause == "resource"


def test_every_cause_has_advice() -> None:
    assert set(ADVICE) == set(CAUSES)
