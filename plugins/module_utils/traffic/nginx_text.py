# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small files that divide the traffic of nginx: an upstream with weights, and split_clients. Written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.lexer import SyntaxProblem, Word, statements
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError, describe

#: The first words of every file written here; a file without them is somebody's own and is left alone.
MARK = "# Managed by worklog.maintenance.traffic_split: "
#: A server with its parameters, or an option of an upstream: nothing that ends the statement or opens a block.
_PLAIN = re.compile(r"[^;{}#\"'\\\r\n]+")
#: nginx reads hundredths of a percent.
_STEP = Fraction(1, 100)


def check_plain(what: str, text: str) -> None:
    """See that a text can stand in a statement of nginx.

    :raises TrafficError: when it would end the statement or open a block.
    """
    if not _PLAIN.fullmatch(text):
        raise TrafficError(
            f"the {what} {text!r} has a character that nginx would take for something else", refused=True
        )


def upstream(
    name: str, options: Sequence[str], sides: Sequence[Side], given: Mapping[str, int], division: Mapping[str, float]
) -> str:
    """Return the file with an upstream; a server without a weight is ``down``."""
    lines = [f"{MARK}{describe(division)}", f"upstream {name} {{"]
    lines += [f"    {option};" for option in options]
    for side in sides:
        lines.append(f"    # {side.name}")
        for server in side.servers:
            weight = f"weight={given[server]}" if given[server] else "down"
            lines.append(f"    server {server} {weight};")
    return "\n".join([*lines, "}"]) + "\n"


def read_upstream(text: str, path: str, name: str) -> dict[str, int]:
    """Return server with its parameters → weight from a file with an upstream.

    :raises TrafficError: when the file has no such upstream, or is not whole.
    """
    found: dict[str, int] = {}
    inside = seen = False
    for words, mark in _statements(text, path):
        values = [word.value for word in words]
        if mark == "{":
            inside = values == ["upstream", name]
            seen = seen or inside
        elif mark == "}":
            inside = False
        elif inside and values[0] == "server" and len(values) > 1:
            weight, rest = 1, []
            for value in values[1:]:
                if value.startswith("weight=") and value[7:].isdigit():
                    weight = int(value[7:]) if weight else 0
                elif value == "down":
                    weight = 0
                else:
                    rest.append(value)
            found[" ".join(rest)] = weight
    if not seen:
        raise TrafficError(f"{path} has no upstream {name}; name the one it has in 'upstream'", refused=True)
    return found


def split_clients(key: str, variable: str, sides: Sequence[Side]) -> str:
    """Return the file with a split_clients block.

    The first side takes the rest. The others come first, so that one that grows keeps the clients it has.
    """
    shares = {side.name: Fraction(str(side.percent or 0)) for side in sides}
    wrong = [name for name, share in shares.items() if share % _STEP]
    if wrong:
        raise TrafficError(
            f"the percentage of {wrong[0]} is {float(shares[wrong[0]])}; split_clients takes two decimals", refused=True
        )
    lines = [f"{MARK}{describe({name: float(share) for name, share in shares.items()})}"]
    lines.append(f'split_clients "{key}" ${variable} {{')
    taking = [side.name for side in [*sides[1:], sides[0]] if shares[side.name]]
    for name in taking[:-1]:
        lines.append(f"    {float(shares[name]):.2f}% {name};")
    return "\n".join([*lines, f"    * {taking[-1]};", "}"]) + "\n"


def read_split_clients(text: str, path: str, variable: str) -> dict[str, float]:
    """Return side → percent from a file with a split_clients block.

    :raises TrafficError: when the file has no such block, or is not whole.
    """
    found: dict[str, Fraction] = {}
    inside = seen = False
    for words, mark in _statements(text, path):
        values = [word.value for word in words]
        if mark == "{":
            inside = values[0] == "split_clients" and values[-1] == f"${variable}"
            seen = seen or inside
        elif mark == "}":
            inside = False
        elif inside and len(values) == 2:
            rest = 100 - sum(found.values())
            share = rest if values[0] == "*" else Fraction(values[0].rstrip("%"))
            found[values[1]] = found.get(values[1], Fraction(0)) + share
    if not seen:
        raise TrafficError(
            f"{path} has no split_clients for ${variable}; name its variable in 'variable'", refused=True
        )
    return {name: float(share) for name, share in found.items()}


def _statements(text: str, path: str) -> list[tuple[list[Word], str]]:
    """Return the statements of a file; its blocks have to be whole."""
    depth, found = 0, []
    try:
        for statement in statements(text.encode("utf-8", "surrogateescape")):
            depth += {"{": 1, "}": -1}.get(statement.mark, 0)
            found.append((statement.words, statement.mark))
        if depth:
            raise SyntaxProblem("a block is not closed", len(text))
    except SyntaxProblem as problem:
        raise TrafficError(
            f"{path} is not whole ({problem.message}), so nginx would refuse it at the next reload: remove it or put "
            "back a good copy",
            refused=True,
        ) from problem
    return found
