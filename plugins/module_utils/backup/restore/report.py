# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a drill as a page that stands by itself, and as plain text."""

from __future__ import annotations

import html

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import utc
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.drill import Report, Round

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.good { color: #1a7f37 } .bad { color: #b3261e; font-weight: 600 }
.bar { background: #4c78a8; height: .7rem; display: inline-block }
"""

_WHAT = {"newest": "newest state", "older": "random older backup", "moment": "random moment"}


def text(report: Report) -> str:
    """Return the report as plain text."""
    lines = [_title(report), "=" * len(_title(report)), "", _verdict(report), "", *report.statements, ""]
    for entry in report.rounds:
        lines.append(f"{entry.source}, {_WHAT[entry.what]}: {_outcome(entry)}")
        if entry.restored:
            lines.append(f"  from: {entry.restored.plan.sentence()}")
            lines.append(f"  compared: {'; '.join(entry.restored.examined.compared) or 'nothing'}")
            lines += [f"  not compared: {gap}" for gap in entry.restored.examined.unchecked]
            lines.append("  time: " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in entry.seconds.items()))
        lines.append("")
    for name, right, seconds, trouble in report.answers:
        lines.append(f"{'right' if right else 'WRONG'}  {name} ({seconds:.2f} s){': ' + trouble if trouble else ''}")
    lines += ["", _time(report), *(f"  {part} {seconds:.1f} s" for part, seconds in report.seconds.items()), ""]
    for finding in report.findings:
        if finding.severity != "ok":
            lines.append(f"{finding.severity}: {finding.message}")
    return "\n".join(lines).rstrip() + "\n"


def page(report: Report) -> str:
    """Return the report as HTML; every value is escaped, and nothing is loaded from elsewhere."""
    tone = "good" if report.good else "bad"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_safe(_title(report))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_safe(_title(report))}</h1>",
        f'<p class="{tone}">{_safe(_verdict(report))}</p>',
        "<h2>What can be recovered</h2><ul>",
        *(f"<li>{_safe(sentence)}</li>" for sentence in report.statements),
        "</ul><h2>What was restored</h2><table>",
        "<tr><th>source</th><th>what</th><th>outcome</th><th>compared</th><th>seconds</th></tr>",
        *(_row(entry) for entry in report.rounds),
        "</table>",
    ]
    if report.answers:
        parts.append(
            "<h2>What the application answered</h2><table><tr><th>question</th><th>answer</th><th>seconds</th></tr>"
        )
        for name, right, seconds, trouble in report.answers:
            answer = '<span class="good">right</span>' if right else f'<span class="bad">{_safe(trouble)}</span>'
            parts.append(f'<tr><td>{_safe(name)}</td><td>{answer}</td><td class="number">{seconds:.2f}</td></tr>')
        parts.append("</table>")
    parts += [f"<h2>Recovery time</h2><p>{_safe(_time(report))}</p><table>", *_bars(report), "</table>"]
    serious = [finding for finding in report.findings if finding.severity != "ok"]
    if serious:
        parts.append("<h2>What must be looked at</h2><ul>")
        parts += [f"<li>{_safe(finding.severity)}: {_safe(finding.message)}</li>" for finding in serious]
        parts.append("</ul>")
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _title(report: Report) -> str:
    return f"Restore drill on {report.host}, {utc(report.began)}"


def _verdict(report: Report) -> str:
    if report.good:
        return "Passed: everything that was chosen could be restored, and is as it was recorded."
    bad = sum(finding.severity == "critical" for finding in report.findings)
    return f"FAILED: {bad} thing{'s' * (bad != 1)} must be looked at before these backups are relied upon."


def _time(report: Report) -> str:
    within = "" if report.budget is None else f"; the budget is {report.budget:g} s"
    return f"From nothing to the first answer: {report.recovery:.1f} s{within}. Random choices: seed {report.seed}."


def _outcome(entry: Round) -> str:
    if entry.failure:
        return f"FAILED: {entry.failure}"
    if entry.restored is None:
        return "not done"
    return "restored" if entry.restored.good else "RESTORED, BUT NOT AS RECORDED"


def _row(entry: Round) -> str:
    good = not entry.failure and entry.restored is not None and entry.restored.good
    compared, plan = "", ""
    if entry.restored:
        examined = entry.restored.examined
        compared = "<br>".join(map(_safe, examined.compared))
        compared += "".join(f"<br><small>not: {_safe(gap)}</small>" for gap in examined.unchecked)
        plan = f"<br><small>{_safe(entry.restored.plan.sentence())}<br>{_safe(entry.restored.reached)}</small>"
    return (
        f"<tr><td>{_safe(entry.source)}</td><td>{_safe(_WHAT[entry.what])}{plan}</td>"
        f'<td class="{"good" if good else "bad"}">{_safe(_outcome(entry))}</td><td>{compared}</td>'
        f'<td class="number">{entry.total:.1f}</td></tr>'
    )


def _bars(report: Report) -> list[str]:
    """Return one row a part of the recovery of the newest states."""
    parts = dict(report.seconds)
    for entry in report.rounds:
        if entry.what == "newest":
            parts.update({f"{entry.source}: {part}": seconds for part, seconds in entry.seconds.items()})
    longest = max(parts.values(), default=0.0) or 1.0
    return [
        f'<tr><td>{_safe(part)}</td><td class="number">{seconds:.2f} s</td>'
        f'<td><span class="bar" style="width: {20 * seconds / longest:.1f}rem"></span></td></tr>'
        for part, seconds in sorted(parts.items(), key=lambda item: -item[1])
    ]


def _safe(value: object) -> str:
    return html.escape(str(value))
