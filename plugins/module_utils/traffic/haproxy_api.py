# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HAProxy's runtime API: one command a connection, and its tables as rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from ansible_collections.worklog.maintenance.plugins.module_utils.haproxy_socket import SocketError, exchange
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import NAME, TrafficError

#: Given an address and a command, returns what HAProxy answers; tests hand in transcripts.
Speaker = Callable[[str, str], str]
#: Seconds for one command.
TIMEOUT = 10.0
#: Bits of ``srv_admin_state`` of ``show servers state``: set at runtime, inherited, or for want of an address.
FORCED_MAINT, INHERITED_MAINT, FORCED_DRAIN, INHERITED_DRAIN, UNRESOLVED = 0x01, 0x02, 0x08, 0x10, 0x20
#: Value of ``srv_op_state`` of a server that checks have found down.
STOPPED = 0


def speak(address: str, command: str) -> str:
    """Send one command and return the answer.

    :param address: path of the socket, or host and port.
    :raises TrafficError: when HAProxy cannot be reached, or does not answer in time.
    """
    if "\n" in command or ";" in command:
        raise TrafficError(f"{command!r} would be more than one command", refused=True)
    try:
        answer = exchange(address, command, TIMEOUT)
    except SocketError as error:
        raise TrafficError(str(error), refused=error.usage) from error
    if answer.startswith("Permission denied"):
        raise TrafficError(
            f"the socket {address} may not '{' '.join(command.split()[:2])}': give its 'stats socket' line "
            "'level admin' and reload HAProxy"
        )
    if answer.startswith("Unknown command"):
        raise TrafficError(f"HAProxy at {address} does not know '{command}': {answer.strip().splitlines()[0]}")
    return answer


def servers_state(text: str, backend: str) -> dict[str, dict[str, str]]:
    """Return the rows of ``show servers state`` of a backend by server name.

    :raises TrafficError: when this is no such table.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != "1" or not lines[1].startswith("# be_id be_name "):
        raise TrafficError(
            f"'show servers state {backend}' answers {text.strip()[:200]!r}, which is no table of servers"
        )
    names = lines[1][2:].split()
    rows = (dict(zip(names, line.split())) for line in lines[2:])
    return {row["srv_name"]: row for row in rows if row.get("be_name") == backend}


def statistics(text: str, backend: str) -> dict[str, dict[str, str]]:
    """Return the rows of ``show stat`` of a backend by server name, its own under ``BACKEND``."""
    lines = [line for line in text.lstrip("# ").splitlines() if line.strip()]
    return {row["svname"]: row for row in csv.DictReader(lines) if row.get("pxname") == backend}


def info(text: str) -> dict[str, str]:
    """Return what ``show info`` says."""
    found = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in found if colon}


def admin_state(row: dict[str, str]) -> str:
    """Return the state that somebody has set a server to: ``ready``, ``drain`` or ``maint``."""
    bits = int(row["srv_admin_state"])
    return "maint" if bits & FORCED_MAINT else "drain" if bits & FORCED_DRAIN else "ready"


def check_name(kind: str, name: str) -> None:
    """See that a name is one that HAProxy could have, before it goes into a command.

    :raises TrafficError: when it is not.
    """
    if not NAME.fullmatch(name):
        raise TrafficError(
            f"the {kind} {name!r} cannot exist: HAProxy allows letters, digits and _.:- in names", refused=True
        )


def backends(text: str) -> list[str]:
    """Return the names that ``show backend`` lists."""
    return [line for line in text.splitlines() if NAME.fullmatch(line) and not re.match(r"MASTER$", line)]
