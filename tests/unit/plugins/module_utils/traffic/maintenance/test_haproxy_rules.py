# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where rules go in a configuration of HAProxy, and the map of the modes."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy_config import Configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance import haproxy
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import Site, sealed

SITE = Site("shop.example.com", allow=("192.0.2.0/24",), token="t" * 16, exempt=("/health", "/public*"))


@pytest.mark.parametrize(
    ("lines", "behind"),
    [
        (["bind :80"], "bind :80"),
        (["bind :80", "use_backend a if x"], "bind :80"),
        (["bind :80", "# a comment", "default_backend a"], "# a comment"),
        (["bind :80", "tcp-request content accept", "http-request deny if x"], "tcp-request content accept"),
        (["bind :80", "http-request set-src hdr(x-ip)", "redirect scheme https"], "http-request set-src hdr(x-ip)"),
        (["default_backend a", "bind :80"], "frontend web"),
    ],
)  # fmt: skip
def test_where_the_rules_go(lines: list[str], behind: str) -> None:
    text = "frontend web\n" + "".join(f"\t{line}\n" for line in lines) + "backend a\n\tserver s 127.0.0.1:1\n"
    section = Configuration({"x": text}).sections[0]
    assert text.splitlines()[haproxy.place(section) - 1].strip() == behind


def test_a_block_can_be_taken_out_again_byte_for_byte() -> None:
    text = "frontend web\n\tbind :80\n"
    other = Site("other.example.com")

    def block(site: Site) -> str:
        return haproxy.begin(site) + "\t" + sealed(f"\tacl x path /{site.key}\n") + haproxy.end(site)

    both = text + block(SITE) + block(other) + "\tdefault_backend a\n"
    left, found = haproxy.without(both, SITE)
    assert left == text + block(other) + "\tdefault_backend a\n" and len(found) == 1
    assert haproxy.without(left, other)[0] == text + "\tdefault_backend a\n"
    assert haproxy.without(text, SITE) == (text, [])


def test_no_secret_in_the_rules() -> None:
    rules = haproxy.rules(SITE, "/etc/haproxy/worklog-maintenance", limit=True)
    assert "t" * 16 not in rules and "shop.example.com.token" in rules
    assert "track-sc2" in rules and "track-sc2" not in haproxy.rules(SITE, "/etc/haproxy/x", limit=False)


@pytest.mark.parametrize(
    ("text", "mode", "found", "after"),
    [
        ("", "page", None, "shop.example.com page\n"),
        ("# x\nshop.example.com off\na.org page\n", "limit", "off", "# x\na.org page\nshop.example.com limit\n"),
        ("shop.example.com page\n", None, "page", ""),
        ("shop.example.community page\n", "off", None, "shop.example.community page\nshop.example.com off\n"),
    ],
)  # fmt: skip
def test_the_map(text: str, mode: str | None, found: str | None, after: str) -> None:
    assert haproxy.mode_of(text, "shop.example.com") == found
    assert haproxy.map_with(text, "shop.example.com", mode) == after


@pytest.mark.parametrize(("rate", "burst", "window"), [(10, 20, 2), (10, 5, 1), (1, 60, 60)])
def test_the_time_in_which_requests_are_counted(rate: int, burst: int, window: int) -> None:
    assert f"http_req_rate({window}s)" in haproxy.table(Site("shop.example.com", rate=rate, burst=burst))
