# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of configurations: each file says in ``#@`` lines what nginx does with it.

``#@ HOST[:PORT] PATH [default] LIMIT [BODY]``: the limit for that request, and what nginx answers with below it;
``default``: taken from the default server; LIMIT ``unknown``: no server has the name.
``#@ lua …``: the same, where nginx itself has no Lua to run it. ``#@ error: WORDS``: refused, by us and by nginx;
``#@ nginx-error: WORDS``: refused by nginx, for what is not a matter of syntax.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

CONFIGS = Path(__file__).parent / "configs"


class Expectation(NamedTuple):
    """One ``#@`` line."""

    host: str
    port: int | None
    path: str
    default: bool
    limit: str
    body: str
    lua: bool


class Case(NamedTuple):
    """One configuration."""

    name: str
    path: Path
    expectations: list[Expectation]
    error: str | None
    nginx_error: str | None


def _case(path: Path) -> Case:
    expectations, error, nginx_error = [], None, None
    for line in path.read_bytes().decode("utf-8", "surrogateescape").splitlines():
        if not line.startswith("#@ "):
            continue
        text = line[3:].rstrip("\r")
        if text.startswith("error:"):
            error = text[6:].strip()
        elif text.startswith("nginx-error:"):
            nginx_error = text[12:].strip()
        else:
            lua = text.startswith("lua ")
            host, uri, *rest = text[4 if lua else 0 :].split(" ")
            default = rest[0] == "default"
            limit, *body = rest[1:] if default else rest
            host, _ignored, port = host.partition(":")
            expectations.append(
                Expectation(host, int(port) if port else None, uri, default, limit, " ".join(body), lua)
            )
    name = path.parent.name if path.name == "nginx.conf" else path.stem
    return Case(name, path, expectations, error, nginx_error)


CASES = [_case(path) for path in sorted([*CONFIGS.glob("*.conf"), *CONFIGS.glob("*/nginx.conf")])]
GOOD = [case for case in CASES if case.error is None and case.nginx_error is None]
