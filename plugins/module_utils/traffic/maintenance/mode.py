# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be asked of a maintenance mode, and what is remembered of it: pure functions of text and time."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span

#: The modes that restrict something, and what each answers.
MODES = ("page", "read_only", "limit")
#: Methods that a read-only site still takes.
READING = ("GET", "HEAD", "OPTIONS")
#: Response header that tells the mode, in answers of the load balancer itself.
MARK = "X-Maintenance-Mode"
#: Request header that lets through whoever knows the token.
TOKEN_HEADER = "X-Maintenance-Token"
#: What the load balancer answers itself in each mode, whoever asks; without a mode the application sees it.
PROBE_PATH = "/.worklog-maintenance/probe"
#: Seconds after which a client that was limited may come again.
LIMIT_RETRY = 5
#: Seconds a mode lasts when nothing else is asked, and at most.
DEFAULT_SECONDS, MAX_SECONDS = 2 * 3600, 24 * 3600

#: Host names, also with a wildcard; "_" is nginx's name for a server without one, "*" every host of a frontend.
_SITE = re.compile(r"\*|(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9])?")
_PATH = re.compile(r"/[A-Za-z0-9._~/%-]*\*?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_SEAL = re.compile(r"# Made by worklog\.maintenance\.maintenance_mode, sha256 ([0-9a-f]{64})\n")
#: Characters of a text; nginx takes no directive of more than 4 KiB.
_LONGEST = 600


@dataclass(frozen=True)
class Site:
    """What a site does in its modes; a change of it needs a reload.

    :param name: its host name, as the load balancer has it.
    :param allow: addresses and networks of clients that always pass.
    :param token: what lets through who sends it in :data:`TOKEN_HEADER`.
    :param exempt: paths that always pass; with ``*`` at the end, all that begin so.
    :param text: language → what the page says.
    :param retry_after: seconds after which clients are asked to come again.
    :param rate: requests a second that each client address has in mode ``limit``.
    :param burst: requests that it may send at once.
    """

    name: str
    allow: tuple[str, ...] = ()
    token: str | None = None
    exempt: tuple[str, ...] = ()
    text: Mapping[str, str] = field(default_factory=dict)
    retry_after: int = 120
    rate: int = 10
    burst: int = 20

    @property
    def key(self) -> str:
        """What is its own in names of variables, sections and zones."""
        return f"wlm_{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def file(self) -> str:
        """What is its own in names of files."""
        return self.name.replace("*", "any")


@dataclass(frozen=True)
class Access:
    """How the load balancer of a site is reached.

    :param balancer: ``nginx`` or ``haproxy``.
    :param url: where it answers, for the probe.
    :param frontends: of HAProxy.
    :param sockets: of HAProxy.
    """

    balancer: str
    url: str = "http://127.0.0.1/"
    validate_certs: bool = True
    frontends: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ("/run/haproxy/admin.sock",)
    config: str | None = None
    executable: str | None = None
    reload: str = "auto"
    timeout: float = 30.0


@dataclass(frozen=True)
class State:
    """A mode, and who set it why, from when to when, in seconds since 1970."""

    mode: str = "off"
    by: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None
    run_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the module does, times in ISO 8601."""
        return {**asdict(self), "since": iso(self.since), "until": iso(self.until)}

    def describe(self) -> str:
        """Return it as people say it."""
        if self.mode == "off":
            return "mode off"
        return f"mode {self.mode} until {iso(self.until) or 'nobody knows when'}, by {self.by or 'nobody knows whom'}"


def state_of(value: Mapping[str, Any]) -> State:
    """Return the state that :meth:`State.as_dict` gave.

    :raises TrafficError: when it is none.
    """
    try:
        times = {name: _seconds(value[name]) if value[name] else None for name in ("since", "until")}
        found = State(**{**{name: value[name] for name in ("mode", "by", "reason", "run_id")}, **times})
    except (KeyError, TypeError, ValueError) as error:
        raise TrafficError(
            "'restore' is what 'before' was in the result of an earlier call; this has no mode with its times",
            refused=True,
        ) from error
    if found.mode not in (*MODES, "off"):
        raise TrafficError(f"'restore' names the mode {found.mode!r}, which there is not", refused=True)
    return found


def iso(seconds: float | None) -> str | None:
    """Return a time in ISO 8601."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def ends(expires: str | None, now: float, before: State, mode: str) -> int:
    """Return when a mode is to end.

    :param expires: minutes, or a time in ISO 8601; None keeps the end of the same mode, else it is the default.
    :raises TrafficError: when it is neither, not ahead, or too far.
    """
    if expires is None:
        same = before.mode == mode and before.until is not None and before.until > now
        return before.until if same and before.until is not None else int(now) + DEFAULT_SECONDS
    text = expires.strip()
    if re.fullmatch(r"[0-9]+", text):
        until = int(now) + 60 * int(text)
    else:
        try:
            when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise TrafficError(
                f"'expires' is {text!r}, which is neither minutes, such as 90, nor a time such as 2026-01-31T04:00:00Z",
                refused=True,
            ) from None
        if when.tzinfo is None:
            raise TrafficError(
                f"the time {text!r} in 'expires' has no time zone: add Z for UTC, or +08:00", refused=True
            )
        until = int(when.timestamp())
    if until <= now:
        raise TrafficError(
            f"'expires' is {text!r}, which is over: it is {iso(now)} on this host; name a time ahead", refused=True
        )
    if until > now + MAX_SECONDS:
        raise TrafficError(
            f"'expires' is {text!r}, which is more than {span(MAX_SECONDS)} ahead: name an earlier time, and extend it "
            "when it comes",
            refused=True,
        )
    return until


def check_site(site: Site) -> Site:
    """Return a site as it is to be, its networks written as load balancers want them.

    :raises TrafficError: when something of it cannot be; no message has the token in it.
    """
    name = site.name.lower()
    if not _SITE.fullmatch(name):
        raise TrafficError(
            f"{site.name!r} is no name of a site: write its host name, without scheme, port or path", refused=True
        )
    for path in site.exempt:
        if not _PATH.fullmatch(path):
            raise TrafficError(
                f"{path!r} in 'exempt' is no path: it begins with /, has letters, digits and ._~%-/, and may end in *",
                refused=True,
            )
    if site.token is not None and not _TOKEN.fullmatch(site.token):
        raise TrafficError(
            "'token' must have 16 to 128 letters, digits, _ or -; make one with 'openssl rand -hex 16'", refused=True
        )
    for language, said in site.text.items():
        if language not in ("en", "zh"):
            raise TrafficError(f"'text' is in {language!r}; there are en and zh", refused=True)
        if len(said) > _LONGEST or re.search(r"[\x00-\x1f]", said):
            raise TrafficError(f"'text' in {language} must be one line of at most {_LONGEST} characters", refused=True)
    for what, value, most in (
        ("retry_after", site.retry_after, 86400),
        ("rate", site.rate, 10000),
        ("burst", site.burst, 10000),
    ):
        if not 1 <= value <= most:
            raise TrafficError(f"'{what}' is {value}; it must be 1 to {most}", refused=True)
    return Site(
        name, tuple(networks(site.allow)), site.token, tuple(site.exempt), dict(site.text),
        site.retry_after, site.rate, site.burst,
    )  # fmt: skip


def networks(allow: Iterable[str]) -> list[str]:
    """Return networks as they are written, each once.

    :raises TrafficError: when one is none.
    """
    found: list[str] = []
    for text in allow:
        try:
            network = ipaddress.ip_network(text.strip(), strict=True)
        except ValueError as error:
            cure = "write an address such as 192.0.2.7, or a network such as 192.0.2.0/24"
            if "host bits" in str(error):
                cure = f"did you mean {ipaddress.ip_network(text.strip(), strict=False)}?"
            raise TrafficError(f"{text!r} in 'allow' is no address or network: {cure}", refused=True) from None
        if network.prefixlen == 0:
            raise TrafficError(
                f"{text!r} in 'allow' would let everybody through; name the networks that are meant", refused=True
            )
        found += [str(network)] if str(network) not in found else []
    return found


# -- generated files ------------------------------------------------------------------------------------------------


def sealed(text: str) -> str:
    """Return a text with a first line by which a change of it is noticed."""
    return f"# Made by worklog.maintenance.maintenance_mode, sha256 {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def intact(text: str) -> bool:
    """Whether a text is as :func:`sealed` gave it."""
    found = _SEAL.match(text)
    return (
        found is not None
        and found.group(1) == hashlib.sha256(text[found.end() :].encode("utf-8", "surrogateescape")).hexdigest()
    )


# -- what is remembered ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What lies on the disk of the load balancer about a site in a mode: enough to end it without a controller.

    :param failed: whether a try to end it has failed, of which there is a record.
    """

    site: str
    state: State
    access: Access
    failed: bool = False

    def text(self) -> str:
        """Return it for a file."""
        value = {"schema": 1, "site": self.site, "state": self.state.as_dict(), "access": asdict(self.access)}
        return json.dumps({**value, "failed": self.failed}, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def remembered(text: str, path: str) -> Memory:
    """Return what a file remembers.

    :raises TrafficError: when it is damaged.
    """
    try:
        value = json.loads(text)
        access: dict[str, Any] = value["access"]
        access = {name: tuple(one) if isinstance(one, list) else one for name, one in access.items()}
        return Memory(value["site"], state_of(value["state"]), Access(**access), bool(value["failed"]))
    except (ValueError, KeyError, TypeError, TrafficError) as error:
        raise TrafficError(
            f"{path} is damaged ({error}): switch the site off by 'mode: off', which does not need it, and remove it",
            refused=True,
        ) from error


def timer(moments: Sequence[int]) -> str:
    """Return the timer that ends modes at these times."""
    calendar = "\n".join(
        f"OnCalendar={datetime.fromtimestamp(one, timezone.utc):%Y-%m-%d %H:%M:%S} UTC" for one in sorted(set(moments))
    )
    return f"""\
# Made by worklog.maintenance.maintenance_mode from the modes that are on; it is written anew with each of them.
[Unit]
Description=End maintenance modes when their time is over

[Timer]
{calendar}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def service(program: str) -> str:
    """Return the service that ends the modes whose time is over: at that time, after a failure, and at each boot."""
    return f"""\
# Made by worklog.maintenance.maintenance_mode; changes are lost, use a drop-in instead.
[Unit]
Description=End maintenance modes whose time is over
After=nginx.service haproxy.service

[Service]
Type=oneshot
ExecStart={program} expire
Restart=on-failure
RestartSec=60
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"""
