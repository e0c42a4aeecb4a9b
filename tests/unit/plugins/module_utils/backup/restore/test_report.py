# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a drill: whatever is in it, it is text, and the page loads nothing."""

from __future__ import annotations

import html.parser
import re

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Base, Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import report
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Examined
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.drill import Report, Round
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.job import Restored
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

HOSTILE = '<script>alert("1")</script>&\'"><img src=x onerror=y>'


def drilled(trouble: str = "") -> Report:
    kept = Kept("/b/x", Manifest("/b/x/manifest.json", id="x", kind="full", ended=0.0), "verified")
    restored = Restored(Plan(Base((kept,))), HOSTILE, HOSTILE, Examined([], {}, [HOSTILE], [HOSTILE]), {HOSTILE: 1.5})
    rounds = [Round(HOSTILE, "newest", restored), Round("db", "older", None, trouble or HOSTILE)]
    return Report(
        7, 0.0, 9.0, HOSTILE, [HOSTILE], rounds, [(HOSTILE, False, 0.1, HOSTILE)], {HOSTILE: 2.0}, 60.0,
        [Finding("drill", HOSTILE, "critical", HOSTILE)],
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _value in attrs}


def test_nothing_that_is_reported_becomes_markup() -> None:
    page = report.page(drilled())
    tags = Tags()
    tags.feed(page)
    assert tags.seen <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "table", "tr", "th", "td",
        "span", "br", "small",
    }  # fmt: skip
    assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "class", "style"}
    assert HOSTILE not in page
    assert not re.search(r"(src|href|url)\s*[=(]", page.replace("&lt;img src=x", ""))


def test_the_text_says_whether_it_passed_and_why_not() -> None:
    bad = drilled("the disk is full")
    assert "FAILED: 1 thing must be looked at" in report.text(bad)
    assert "db, random older backup: FAILED: the disk is full" in report.text(bad)
    bad.findings = []
    assert "Passed: everything that was chosen could be restored" in report.text(bad)
    assert "From nothing to the first answer: 3.5 s; the budget is 60 s. Random choices: seed 7." in report.text(bad)
