# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The follow-up report of releases and rollbacks: a view of the records that they left, as a page and as plain text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Records that are of releases.
RELEASES = ("upgrade_in_place", "canary", "blue_green", "rollback")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { width: 14rem; font-weight: 600 }
.good { color: #1a7f37 } .bad { color: #b3261e; font-weight: 600 }
"""

_RESULT = {
    "ok": "ended well / 成功",
    "failed": "FAILED / 失败",
    "refused": "refused, nothing was touched / 已拒绝,未做改动",
}


@dataclass
class Run:
    """One release or rollback, put together from the records of its hosts."""

    what: str
    application: str
    run_id: str
    by: str
    started: str
    ended: str
    result: str
    hosts: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    findings: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was done, in one line."""
        old, new = self.details.get("previous") or "?", self.details.get("version") or "?"
        return f"{self.application}: {self.what} {old} -> {new}"

    @property
    def went_back(self) -> bool:
        """Whether something was restored."""
        return self.what == "rollback" or bool(self.details.get("restored"))


def runs(records: Iterable[Mapping[str, Any]], application: str = "") -> list[Run]:
    """Return the releases and rollbacks that the records of all hosts tell of, oldest first.

    The records of one run on several hosts are one: it began with the first and ended with the last, and it failed when
    it failed anywhere.
    """
    found: dict[tuple[str, str, str], Run] = {}
    for record in sorted(records, key=lambda one: (str(one.get("ended")), str(one.get("host")))):
        what, subject = str(record.get("what")), str(record.get("subject") or "")
        if what not in RELEASES or (application and subject != application):
            continue
        started, ended = str(record.get("started") or ""), str(record.get("ended") or "")
        key = (str(record.get("run_id")), what, subject)
        run = found.setdefault(
            key, Run(what, subject, key[0], str(record.get("by") or ""), started, ended, str(record.get("result")))
        )
        run.started, run.ended = min(run.started, started), max(run.ended, ended)
        if "failed" in (run.result, record.get("result")):
            run.result = "failed"
        elif "ok" in (run.result, record.get("result")):
            run.result = "ok"
        run.hosts.append(str(record.get("host")))
        details = record.get("details")
        for name, value in details.items() if isinstance(details, Mapping) else ():
            earlier = run.details.get(name)
            if isinstance(value, Mapping) and isinstance(earlier, Mapping):
                run.details[name] = {**value, **earlier}  # a load balancer has restored its traffic, a host its code
            elif value not in (None, "", [], {}):
                run.details.setdefault(name, value)
        seconds = record.get("recovery_seconds")
        if isinstance(seconds, (int, float)):
            run.seconds = max(run.seconds or 0.0, float(seconds))
        run.findings += [
            finding
            for finding in record.get("findings") or ()
            if finding.get("severity") in ("warning", "critical") and finding not in run.findings
        ]
    return sorted(found.values(), key=lambda run: run.ended)


def rows(run: Run) -> list[tuple[str, str]]:
    """Return what there is to tell of a run, each with its label in both languages."""
    details = run.details
    requests = details.get("requests") or {}
    told = [
        ("What / 内容", f"{run.what}, {details.get('previous') or '?'} -> {details.get('version') or '?'}"),
        ("Result / 结果", _RESULT.get(run.result, run.result)),
        ("When / 时间", f"{run.started} - {run.ended} (UTC)"),
        ("Who / 执行人", run.by),
        ("Where / 主机", ", ".join(sorted(set(run.hosts)))),
        ("Why it was done / 发布原因", str(details.get("reason") or "")),
        ("What went wrong / 失败原因", str(details.get("message") or "")),
        ("What was restored / 恢复内容", _restored(details.get("restored"))),
        ("Time to restore / 恢复用时", "" if run.seconds is None else f"{run.seconds:.1f} s"),
        (
            "Failed requests of the new version / 新版本失败请求",
            f"{requests['failed']} / {requests['seen']}" if {"failed", "seen"} <= set(requests) else "",
        ),
        ("Run / 运行编号", run.run_id),
    ]
    told += [(f"{finding['severity']}", str(finding.get("message"))) for finding in run.findings]
    return [(label, value) for label, value in told if value]


def text(found: Sequence[Run], title: str) -> str:
    """Return the report as plain text."""
    lines = [title, "=" * len(title), "", summary(found), ""]
    for run in found:
        lines += [run.title, "-" * len(run.title)]
        lines += [f"  {label}: {value}" for label, value in rows(run)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def page(found: Sequence[Run], title: str) -> str:
    """Return the report as HTML; every value is escaped, and nothing is loaded from elsewhere."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_safe(title)}</h1>",
        f"<p>{_safe(summary(found))}</p>",
    ]
    for run in found:
        tone = "bad" if run.result == "failed" or run.went_back else "good"
        parts.append(f'<h2 class="{tone}">{_safe(run.title)}</h2><table>')
        parts += [f"<tr><th>{_safe(label)}</th><td>{_safe(value)}</td></tr>" for label, value in rows(run)]
        parts.append("</table>")
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def summary(found: Sequence[Run]) -> str:
    """Return one sentence in both languages."""
    back = [run for run in found if run.went_back]
    times = sorted(run.seconds for run in back if run.seconds is not None)
    longest = f", longest time to restore {times[-1]:.1f} s" if times else ""
    longest_zh = f",最长恢复用时 {times[-1]:.1f} 秒" if times else ""
    failed = sum(run.result == "failed" for run in found)
    return (
        f"{len(found)} releases and rollbacks, {failed} failed, {len(back)} went back{longest}. / "
        f"共 {len(found)} 次发布和回滚,失败 {failed} 次,回退 {len(back)} 次{longest_zh}。"
    )


def _restored(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_share(item)}" for name, item in value.items() if item)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _share(item: Any) -> str:
    """Return one thing that was restored; of the traffic, the share of each side."""
    if isinstance(item, Mapping):
        return " and ".join(
            f"{name} {part:g} %" if isinstance(part, (int, float)) else f"{name} {part}" for name, part in item.items()
        )
    return str(item)


def _safe(value: object) -> str:
    return html.escape(str(value))
