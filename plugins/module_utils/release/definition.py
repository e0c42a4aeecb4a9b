# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the definition of an application means for one load balancer, and for the gate that watches a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What divides requests in any share; the other strategies give a host or a side everything or nothing.
SHARING = ("haproxy", "nginx_include", "nginx_split_clients")


class DefinitionError(ValueError):
    """The definition does not fit what is asked; the message is one sentence."""


def fill(value: Any, words: Mapping[str, str]) -> Any:
    """Return a value with ``<word>`` replaced in all of its texts."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"<{word}>", text)
        return value
    if isinstance(value, Mapping):
        return {fill(key, words): fill(item, words) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(item, words) for item in value]
    return value


def servers(balancer: Mapping[str, Any], side: str, hosts: Sequence[str]) -> list[str]:
    """Return what a load balancer calls the servers of a side: those of the side, or those of its hosts."""
    named: Mapping[str, Sequence[str]] = balancer.get("servers") or {}
    if side in named:
        return list(named[side])
    return [server for host in hosts for server in named.get(host, [host])]


def per_host(balancer: Mapping[str, Any]) -> bool:
    """Whether each host has a flag of its own, with which it gets no requests."""
    return balancer["strategy"] == "nginx_flag" and "<host>" in str(balancer.get("path"))


def split(
    balancer: Mapping[str, Any], members: Mapping[str, Sequence[str]], shares: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the options of traffic_split that give each side its share.

    What can give everything or nothing only gives everything to the side with the largest share; of two equal ones to
    the first. With a flag for each host each is a side of its own, and those of a side also get requests when its share
    is at least what its hosts get by themselves, as half of them for one of two hosts.

    :param members: side → its hosts, in the order of the definition.
    :param shares: side → percentage; without it the division is only read.
    :raises DefinitionError: when the shares are not those of the sides.
    """
    if shares is not None and set(shares) != set(members):
        raise DefinitionError(f"there are shares of {', '.join(shares)}, but the sides are {', '.join(members)}")
    options = {name: value for name, value in balancer.items() if name != "servers"}
    taking = set(members) if shares is None else {_first(shares)}
    if not per_host(balancer):
        sides: list[dict[str, Any]] = []
        for side, hosts in members.items():
            sides.append({"name": side, "servers": servers(balancer, side, hosts)})
            if shares is not None and balancer["strategy"] in SHARING:
                sides[-1]["percent"] = float(shares[side])
            elif shares is not None:
                sides[-1]["percent"] = 100.0 if side in taking else 0.0
        return {**options, "sides": sides}
    every = [host for hosts in members.values() for host in hosts]
    if shares is not None:
        taking |= {side for side, hosts in members.items() if 0 < 100 * len(hosts) / len(every) <= shares[side]}
    inside = [host for side in taking for host in members[side]]
    flags: list[dict[str, Any]] = [{"name": host, "servers": servers(balancer, host, [host])} for host in every]
    for flag in flags if shares is not None else ():
        flag["percent"] = 100 / len(inside) if flag["name"] in inside else 0.0
    return {**fill(options, {"host": "<side>"}), "strategy": "nginx_flags", "sides": flags}


def division(read: Mapping[str, float], members: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the percentage of each side from the division that traffic_split has read."""
    return {
        side: round(sum(read.get(name, 0.0) for name in ([side] if side in read else hosts)), 2)
        for side, hosts in members.items()
    }


def idle(divisions: Mapping[str, Mapping[str, float]]) -> str:
    """Return which of two sides gets nothing on any load balancer; empty when none does.

    :param divisions: load balancer → side → percentage.
    """
    sides = list(dict.fromkeys(side for one in divisions.values() for side in one))
    free = [side for side in sides if all(one.get(side, 0.0) == 0 for one in divisions.values())]
    return free[0] if len(free) == 1 and len(sides) == 2 else ""


def gate(
    given: Mapping[str, Any],
    balancer: Mapping[str, Any],
    candidate: Sequence[str],
    baseline: Sequence[str],
    words: Mapping[str, str],
) -> dict[str, Any]:
    """Return the options of release_gate that watch one part of the servers against the others.

    A source of HAProxy watches the servers of the load balancer that it runs on. Any other one names in ``servers``
    what belongs to each host.

    :param balancer: the options of the load balancer that the gate runs on; empty where it runs on another host.
    :param candidate: the hosts with the new version.
    :param baseline: the hosts with the old one.
    :raises DefinitionError: when a source does not say whose figures it has.
    """
    options = {name: value for name, value in fill(given, words).items() if name != "host"}
    sources = []
    for source in options.get("sources", []):
        made = {name: value for name, value in source.items() if name != "servers"}
        for part, hosts in (("candidate", candidate), ("baseline", baseline)):
            if "servers" in source:
                made[part] = [name for host in hosts for name in source["servers"].get(host, [])]
            elif source["type"] == "haproxy" and "backend" in balancer:
                made[part] = [
                    f"{balancer['backend']}/{name}" for host in hosts for name in servers(balancer, host, [host])
                ]
            elif source["type"] != "prometheus" and part not in made:
                raise DefinitionError(
                    f"gate: the source {source.get('name') or source['type']} does not say what belongs to "
                    f"{', '.join(hosts)}; name it in servers, by host"
                )
        sources.append(made)
    return {**options, **({"sources": sources} if sources else {})}


def steps(given: Any, to_all: bool = True) -> list[float]:
    """Return the percentages that a new version gets one after the other, from a list or a text such as ``5, 25, 100``.

    :param to_all: whether they must end with 100, or must stay below.
    :returns: an empty list when they do not grow, or end elsewhere.
    """
    words = given.replace(" ", "").rstrip(",").split(",") if isinstance(given, str) else given
    try:
        found = [float(str(word).rstrip("%")) for word in words]
    except (TypeError, ValueError):
        return []
    grow = found == sorted(set(found)) and all(0 < percent <= 100 for percent in found)
    return found if found and grow and (found[-1] == 100) == to_all else []


def _first(shares: Mapping[str, float]) -> str:
    return max(shares, key=lambda side: shares[side])  # the first of equal ones
