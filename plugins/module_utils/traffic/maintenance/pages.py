# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What visitors of a site see while it is in a mode: a page, or JSON for programs, in two languages."""

from __future__ import annotations

import html
import json

from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import LIMIT_RETRY, Site

LANGUAGES = ("en", "zh")
#: Status → language → title, message.
_TEXTS = {
    503: {
        "en": ("Down for maintenance", "We are working on this site. Please try again in a few minutes."),
        "zh": ("系统维护中", "系统正在维护，请过几分钟再试。"),
    },
    429: {
        "en": (
            "Too many requests",
            "This site takes fewer requests than usual at the moment. Please try again shortly.",
        ),
        "zh": ("请求过多", "当前系统限制访问频率，请稍后再试。"),
    },
}
_TAGS = {"en": "en", "zh": "zh-CN"}
_PAGE = """\
<!DOCTYPE html>
<html lang="{tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
body {{ margin: 0; min-height: 100vh; display: flex; align-items: center; justify-content: center;
font: 1.1em/1.6 system-ui, sans-serif; color: #24292f; background: #f6f8fa; }}
main {{ max-width: 34em; padding: 2em; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{message}</p>
</main>
</body>
</html>
"""


def retry_after(site: Site, status: int) -> int:
    """Return the seconds after which a client is asked to come again."""
    return site.retry_after if status == 503 else LIMIT_RETRY


def body(site: Site, status: int, kind: str, language: str) -> str:
    """Return an answer without any ``$``, ``%`` and apostrophe, which are special to one load balancer or the other.

    :param kind: ``html`` or ``json``.
    """
    title, message = _TEXTS[status][language]
    if status == 503:
        message = site.text.get(language, message)
    if kind == "html":
        page = _PAGE.format(tag=_TAGS[language], title=html.escape(title), message=html.escape(message))
        return page.replace("$", "&#36;").replace("'", "&#39;").replace("%", "&#37;")
    value = {"error": "maintenance" if status == 503 else "rate_limited", "status": status, "message": message}
    text = json.dumps({**value, "retry_after": retry_after(site, status)}, ensure_ascii=False) + "\n"
    for char in "$'%":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
