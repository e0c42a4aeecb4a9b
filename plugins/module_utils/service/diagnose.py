# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a service did not come up: from its last words and the way it ended, one probable cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit

#: Everything a cause can be; ``unknown`` when neither the log nor the exit says anything.
CAUSES = ("configuration", "dependency", "port", "resource", "permission", "crash", "unknown")

ADVICE = {
    "configuration": "correct the configuration it names and test it before the next restart",
    "dependency": "bring up or correct the address and credentials of what it depends on, then restart it",
    "port": "find who holds the port (ss -ltnp) and stop it, or let the service listen elsewhere",
    "resource": "give it what it lacks: memory, disk space, open files or processes",
    "permission": "compare the owner and mode of what it names with the account the service runs as",
    "crash": "give the lines of the log to its developers; go back to the previous release meanwhile",
    "unknown": "read its log; raise the timeout if it only needs longer",
}

# The order is the order of precedence: the specific before the general, since a stack trace or an [emerg]
# surrounds the sentence that says why.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "resource",
        r"no space left on device|\bENOSPC\b|disk quota exceeded|file system is full|disk full"
        r"|out of memory|OutOfMemoryError|cannot allocate memory|\bENOMEM\b|MemoryError|bad_alloc"
        r"|cannot reserve enough space|insufficient memory|cannot map innodb_buffer_pool|can't allocate|Cannot allocate"
        r"|too many open files|\bEMFILE\b|\bENFILE\b|unable to create (?:new )?native thread"
        r"|fork: retry: Resource temporarily unavailable|Killed process \d+",
    ),
    (
        "port",
        r"address already in use|\bEADDRINUSE\b|address in use|cannot bind socket.*in use|port \d+ was already in use"
        r"|port (?:\d+ )?(?:is )?already in use|Do you already have another .* running on port"
        r"|could not bind TCP.*in use|cannot assign requested address|\bEADDRNOTAVAIL\b|only one usage of each socket",
    ),
    (
        "dependency",
        r"\bECONNREFUSED\b|connection refused|\bECONNRESET\b.*connect|\bENOTFOUND\b|\bEAI_AGAIN\b|\bETIMEDOUT\b"
        r"|getaddrinfo"
        r"|name or service not known|temporary failure in name resolution|could not resolve host|UnknownHostException"
        r"|host not found in upstream|could not resolve address|no route to host|\bEHOSTUNREACH\b"
        r"|network is unreachable"
        r"|can't connect to (?:local )?(?:server|mysql)|can't connect to .*server|unable to connect to"
        r"|failed to connect to|could not connect to|connection timed out|communications link failure"
        r"|access denied for user|authentication failed|NOAUTH|WRONGPASS|unknown database"
        r"|MongoNetworkError|MongoServerSelectionError|ServerSelectionTimeoutError"
        r"|dependency failed for|dependency job for .* failed",
    ),
    (
        "permission",
        r"permission denied|\bEACCES\b|\bEPERM\b|operation not permitted|access is denied|AccessDeniedException"
        r"|not permitted|read-only file system|\bEROFS\b|Errcode: 13|errno: 13",
    ),
    (
        "configuration",
        r"\[emerg\]|configuration file .* test failed|unknown directive|unexpected end of file|unexpected \"[;}]\""
        r"|directive is duplicate|\[ALERT\].*(?:parsing|config|fatal)|error\(s\) found in configuration file"
        r"|unknown keyword|Fatal errors found in configuration|unknown variable|unknown option|FATAL CONFIG FILE ERROR"
        r"|bad directive or wrong number of arguments|invalid (?:value|option|argument|configuration|command)"
        r"|Invalid command '|syntax error|SyntaxError|Bad configuration option|Error in (?:my_)?config"
        r"|YAMLException|yaml\.(?:scanner|parser)|JSONDecodeError|TOMLDecodeError|Unexpected token .* in JSON"
        r"|could not find or load main class|Unable to access jarfile|Cannot find module|ModuleNotFoundError"
        r"|missing (?:required )?(?:environment variable|setting|configuration|option)|KeyError: '[A-Z_]+'"
        r"|Failed to bind properties|BeanCreationException|Could not resolve placeholder"
        r"|Failed to (?:locate executable|determine user credentials)|at step (?:EXEC|CHDIR|USER|GROUP|NAMESPACE)"
        r"|bad unit file setting|no such file or directory|\bENOENT\b|can't open file|cannot open (?:the )?file",
    ),
    (
        "crash",
        r"segmentation fault|SIGSEGV|core.?dumped|stack smashing|double free|Traceback \(most recent call last\)"
        r"|uncaught|unhandled|Exception in thread|panic:|goroutine \d+ \[|assertion .*failed|Assertion `"
        r"|mysqld got (?:signal|exception)|\bfatal error\b|A fatal error has been detected|TypeError|ReferenceError",
    ),
)

_SENTENCE = r"error|exception|fail|can't|cannot|could not|fatal|emerg|alert"

#: Exit statuses that systemd itself gives when it cannot run the program (systemd.exec(5), "Process Exit Codes").
_SYSTEMD_STATUS = {
    200: ("configuration", "its working directory does not exist"),
    203: ("configuration", "its program does not exist or cannot be executed"),
    216: ("configuration", "its group does not exist"),
    217: ("configuration", "its user does not exist"),
    226: ("configuration", "its mount namespace could not be set up"),
    238: ("permission", "its state directory could not be created"),
    240: ("permission", "its log directory could not be created"),
}


@dataclass(frozen=True)
class Diagnosis:
    """The probable cause of a failure.

    :param cause: one of :data:`CAUSES`.
    :param evidence: the log line or the fact it rests on; empty when there is none.
    """

    cause: str
    evidence: str

    @property
    def advice(self) -> str:
        """What to do next."""
        return ADVICE[self.cause]


def diagnose(lines: Sequence[str], end: Exit) -> Diagnosis:
    """Return the most probable cause.

    :param lines: what the service and its manager logged since the action, oldest first.
    :param end: how its process ended; empty when it still runs.
    """
    if end.oom:
        return Diagnosis("resource", end.describe())
    for cause, pattern in _PATTERNS:
        matches = [line.strip()[:500] for line in lines if re.search(pattern, line, re.IGNORECASE)]
        # the sentence says more than a field of it, such as "code: 'ECONNREFUSED',"
        sentences = [line for line in matches if re.search(_SENTENCE, line, re.IGNORECASE)]
        if matches:
            return Diagnosis(cause, (sentences or matches)[-1])
    if end.code in _SYSTEMD_STATUS and end.result:
        cause, words = _SYSTEMD_STATUS[end.code]
        return Diagnosis(cause, f"{words} (systemd's exit status {end.code})")
    if end.code in (126, 127):
        return Diagnosis("configuration", f"its program could not be run (exit status {end.code})")
    if end.signal not in (None, "SIGTERM", "SIGINT", "SIGHUP") or end.code is not None:
        return Diagnosis("crash", end.describe())
    return Diagnosis("unknown", "")
