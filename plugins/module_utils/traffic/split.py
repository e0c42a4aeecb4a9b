# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sides and shares: what is asked for, the weights that give it, and whether what was counted fits it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Names of backends, servers, sides and upstreams; also what HAProxy allows. Nothing that could end a command.
NAME = re.compile(r"[A-Za-z0-9_.:-]+")
#: How unlikely a count may be before it counts as wrong.
IMPLAUSIBLE = 1e-5


class TrafficError(Exception):
    """What was asked was not done, and the old division is in force, or the message says what is not.

    :param refused: whether nothing was touched.
    :param details: what the module returns beside the message.
    """

    def __init__(self, message: str, *, refused: bool = False, **details: Any) -> None:
        super().__init__(message)
        self.refused = refused
        self.details = details


@dataclass(frozen=True)
class Side:
    """One side of the division, such as blue and green, or stable and canary.

    :param servers: names of its servers in HAProxy, or its addresses in nginx.
    :param percent: its share of the requests; None when nothing is asked of it.
    :param weight: the weight of each of its servers, instead of ``percent``.
    :param state: ``ready``, ``drain`` or ``maint``; None leaves the state as it is.
    :param capacity: how much a server takes compared with the others of its side; 1 where none is named.
    :param marks: what its answers are marked with.
    """

    name: str
    servers: tuple[str, ...] = ()
    percent: float | None = None
    weight: int | None = None
    state: str | None = None
    capacity: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[str, ...] = ()


@dataclass
class State:
    """How a load balancer divides its traffic.

    :param division: side → percent.
    :param settings: what can be set, and given back exactly.
    :param text: the same for people, for a diff.
    """

    division: dict[str, float]
    settings: dict[str, Any]
    text: str


def check_sides(sides: Sequence[Side]) -> str:
    """Return what is asked of the sides: ``percent``, ``weight``, ``state`` or nothing.

    :raises TrafficError: when they do not fit together.
    """
    names = [side.name for side in sides]
    servers = [server for side in sides for server in side.servers]
    for what, values in (("side", names), ("server", servers)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise TrafficError(f"the {what} {twice[0]!r} is named twice; name each once", refused=True)
    for name in names:
        if not NAME.fullmatch(name):
            raise TrafficError(f"the name of the side {name!r} may have letters, digits and _.:- only", refused=True)
    for side in sides:
        if side.weight is not None and not 0 <= side.weight <= 256:
            raise TrafficError(f"the weight of {side.name} is {side.weight}; it must be 0 to 256", refused=True)
        for server, capacity in side.capacity.items():
            if server not in side.servers or not capacity > 0:
                raise TrafficError(
                    f"the capacity of {server!r} in {side.name} must be above 0, and of a server of that side",
                    refused=True,
                )
    asked = {kind: [side for side in sides if getattr(side, kind) is not None] for kind in ("percent", "weight")}
    if asked["percent"] and asked["weight"]:
        raise TrafficError("sides have either 'percent' or 'weight'; not both in one call", refused=True)
    for kind, having in asked.items():
        missing = [side.name for side in sides if side not in having]
        if having and missing:
            raise TrafficError(
                f"{', '.join(missing)} has no '{kind}', but others have: give it to every side", refused=True
            )
    if asked["percent"]:
        outside = [side for side in sides if not 0 <= (side.percent or 0) <= 100]
        if outside:
            raise TrafficError(
                f"the percentage of {outside[0].name} is {outside[0].percent:g}; it must be 0 to 100", refused=True
            )
        total = sum(side.percent or 0 for side in sides)
        if abs(total - 100) > 0.001:
            said = " + ".join(f"{side.name} {side.percent:g}" for side in sides)
            raise TrafficError(f"the percentages add up to {total:g}, not 100: {said}", refused=True)
        return "percent"
    if asked["weight"]:
        return "weight"
    return "state" if any(side.state is not None for side in sides) else ""


def server_shares(sides: Iterable[Side], out: Iterable[str] = ()) -> dict[str, float]:
    """Return the share of each server, 0 to 1, when the sides have their percentages.

    :param out: servers that take no traffic for other reasons. They get the share of a server of their side that does,
        and the others of their side share what the side is to have.
    """
    shares: dict[str, float] = {}
    gone = set(out)
    for side in sides:
        capacity = {server: float(side.capacity.get(server, 1)) for server in side.servers}
        whole = sum(value for server, value in capacity.items() if server not in gone) or sum(capacity.values())
        for server, value in capacity.items():
            shares[server] = (side.percent or 0) / 100 * value / whole
    return shares


def weights(shares: Mapping[str, float], limit: int = 256) -> dict[str, int]:
    """Return whole weights, at most ``limit``, whose proportions come nearest to the shares.

    Percentages are taken as they are where they fit; otherwise the smallest weights that come nearest.
    """
    largest = max(shares.values(), default=0)
    if largest <= 0:
        return dict.fromkeys(shares, 0)
    most = min(int(limit / largest), 4000)
    best: tuple[float, dict[str, int]] | None = None
    for scale in [100, *range(1, most + 1)]:
        if scale > most:
            continue
        found = {name: max(1, round(scale * share)) if share > 0 else 0 for name, share in shares.items()}
        total, whole = sum(found.values()), sum(shares.values())
        wrong = max(abs(found[name] / total - share / whole) for name, share in shares.items())
        if best is None or wrong < best[0] - 1e-9:
            best = wrong, found
        if wrong < 1e-9:
            break
    return best[1] if best is not None else {}


def division(sides: Iterable[Side], given: Mapping[str, float]) -> dict[str, float]:
    """Return the percentage of each side, from the weights its servers have in force."""
    sums = {side.name: sum(given.get(server, 0) for server in side.servers) for side in sides}
    total = sum(sums.values())
    return {name: round(100 * value / total, 2) if total else 0.0 for name, value in sums.items()}


def plausible(seen: int, count: int, share: float) -> bool:
    """Whether ``seen`` of ``count`` answers fit a share: 0 and 1 exactly, between them by the binomial distribution."""
    if share <= 0:
        return seen == 0
    if share >= 1:
        return seen == count

    def chance(number: int) -> float:
        ways = math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
        return math.exp(ways + number * math.log(share) + (count - number) * math.log1p(-share))

    below = math.fsum(chance(number) for number in range(seen + 1))
    above = math.fsum(chance(number) for number in range(seen, count + 1))
    return min(below, above) >= IMPLAUSIBLE


def describe(shares: Mapping[str, float]) -> str:
    """Return a division as people say it."""
    return ", ".join(f"{name} {value:g} %" for name, value in shares.items()) or "nothing"


@dataclass(frozen=True)
class Drained:
    """A side that was waited for.

    :param first: requests in flight when the waiting began.
    :param left: requests in flight when it ended.
    :param seconds: how long it took.
    """

    side: str
    first: int
    left: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as the module does."""
        return {"side": self.side, "in_flight": self.first, "left": self.left, "seconds": round(self.seconds, 3)}


def wait_drained(
    side: str,
    in_flight: Callable[[], int],
    timeout: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> Drained:
    """Look every 20 ms, or as often as looking takes no more than half the time, until nothing is in flight.

    Nothing has to be seen twice in a row: a request may have been on its way to the side when the first look was taken.
    """
    start = monotonic()
    first = before = None
    while True:
        looked = monotonic()
        now = in_flight()
        first = now if first is None else first
        ended = monotonic()
        if (now == 0 and before == 0) or ended - start >= timeout:
            return Drained(side, first, now, ended - start)
        before = now
        sleep(max(0.02, ended - looked))
