# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be asked of a maintenance mode, when it ends, what visitors see, and what is remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance import mode, pages
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import (
    Access,
    Memory,
    Site,
    State,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

NOW = 1_769_824_800.0  # 2026-01-31T02:00:00Z
ON = State("page", "me", "why", int(NOW) - 600, int(NOW) + 600, "run")


@pytest.mark.parametrize(
    ("expires", "before", "asked", "seconds"),
    [
        (None, State(), "page", 7200),
        (None, ON, "page", 600),
        (None, ON, "limit", 7200),
        (None, replace(ON, until=int(NOW) - 1), "page", 7200),
        ("90", ON, "page", 5400),
        (" 1 ", State(), "page", 60),
        ("1440", State(), "page", 86400),
        ("2026-01-31T02:00:05Z", State(), "page", 5),
        ("2026-01-31T12:00:00+08:00", ON, "page", 7200),
    ],
)
def test_when_a_mode_ends(expires: str | None, before: State, asked: str, seconds: int) -> None:
    assert mode.ends(expires, NOW, before, asked) == NOW + seconds


@pytest.mark.parametrize(
    ("expires", "word"),
    [
        ("0", "is over"),
        ("2026-01-31T02:00:00Z", "is over"),
        ("2025-01-31T03:00:00Z", "it is 2026-01-31T02:00:00Z on this host"),
        ("1441", "more than 24 h"),
        ("2026-02-01T02:00:01Z", "more than 24 h"),
        ("2026-01-31T03:00:00", "has no time zone"),
        ("-5", "neither minutes"),
        ("2h", "neither minutes"),
        ("tomorrow", "neither minutes"),
    ],
)
def test_times_that_cannot_be(expires: str, word: str) -> None:
    with pytest.raises(TrafficError, match=word) as caught:
        mode.ends(expires, NOW, State(), "page")
    assert caught.value.refused


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"name": "http://shop.example.com"}, "is no name of a site"),
        ({"name": "shop.example.com;"}, "is no name"),
        ({"name": "shop\nx"}, "is no name"),
        ({"name": "../etc"}, "is no name"),
        ({"name": ""}, "is no name"),
        ({"allow": ("10.0.0.1/8",)}, "did you mean 10.0.0.0/8"),
        ({"allow": ("10.0.0",)}, "no address or network"),
        ({"allow": ("10.0.0.0/33",)}, "no address or network"),
        ({"allow": ("example.com",)}, "no address or network"),
        ({"allow": ("0.0.0.0/0",)}, "would let everybody through"),
        ({"allow": ("::/0",)}, "would let everybody through"),
        ({"token": "short"}, "16 to 128"),
        ({"token": 'secret-secret-secret"'}, "16 to 128"),
        ({"exempt": ("health",)}, "is no path"),
        ({"exempt": ("/a b",)}, "is no path"),
        ({"exempt": ("/a;}",)}, "is no path"),
        ({"text": {"fr": "bonjour"}}, "there are en and zh"),
        ({"text": {"en": "two\nlines"}}, "one line"),
        ({"text": {"en": "x" * 601}}, "at most 600"),
        ({"retry_after": 0}, "1 to 86400"),
        ({"rate": 0}, "1 to 10000"),
        ({"burst": 10001}, "1 to 10000"),
    ],
)
def test_sites_that_cannot_be(more: dict[str, Any], word: str) -> None:
    with pytest.raises(TrafficError, match=word) as caught:
        mode.check_site(Site(**{"name": "shop.example.com", **more}))
    assert caught.value.refused and "secret" not in str(caught.value)


def test_a_site_as_load_balancers_want_it() -> None:
    site = mode.check_site(Site("Shop.Example.com", allow=("192.0.2.7", " 2001:DB8::/32", "192.0.2.7/32")))
    assert site.name == "shop.example.com" and site.allow == ("192.0.2.7/32", "2001:db8::/32")
    assert mode.check_site(Site("*.example.com")).file == "any.example.com"
    assert mode.check_site(Site("_")).key != mode.check_site(Site("*")).key


class Parts(HTMLParser):
    """Text and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [tag for name, _value in attrs if name in ("src", "href")]


@pytest.mark.parametrize(
    "text", ["plain", "<script>alert('$1')</script> & \"100 %\" \\ {{ x }} %[src]", "维护到 18:00"]
)
@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_visitors_see(status: int, language: str, text: str) -> None:
    site = Site("shop.example.com", text={language: text})
    page = pages.body(site, status, "html", language)
    parts = Parts()
    parts.feed(page)
    assert parts.loads == [] and "<script" not in page
    assert (text in parts.text) == (status == 503)
    value = json.loads(pages.body(site, status, "json", language))
    assert (value["message"] == text) == (status == 503)
    assert (value["status"], value["retry_after"]) == (status, 120 if status == 503 else 5)
    assert not set("$'%") & set(page + pages.body(site, status, "json", language))


def test_a_seal_tells_a_change() -> None:
    text = mode.sealed("line\nother\n")
    assert mode.intact(text)
    for other in (text + " ", text.replace("other", "another"), "line\n", "", text.replace("sha256 ", "sha256 0")):
        assert not mode.intact(other)


def test_what_is_remembered_comes_back() -> None:
    memory = Memory("shop.example.com", ON, Access("haproxy", frontends=("web",)), failed=True)
    assert mode.remembered(memory.text(), "x") == memory
    assert mode.state_of(ON.as_dict()) == ON and mode.state_of(State().as_dict()) == State()
    for damaged in ("", "{", "[]", memory.text().replace("page", "paeg"), memory.text().replace("balancer", "x")):
        with pytest.raises(TrafficError, match="is damaged"):
            mode.remembered(damaged, "x")


def test_the_timer_has_the_end_of_each_mode() -> None:
    calendar = [line for line in mode.timer([1769832000, 1769828400, 1769832000]).splitlines() if "OnCal" in line]
    assert calendar == ["OnCalendar=2026-01-31 03:00:00 UTC", "OnCalendar=2026-01-31 04:00:00 UTC"]
