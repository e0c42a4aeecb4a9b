# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a release: the method that fits the step between versions, who does what, and what stands against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import SEVERITIES, Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.release import versions
from ansible_collections.worklog.maintenance.plugins.module_utils.release.definition import SHARING

#: From the quickest to the most careful.
METHODS = ("in_place", "rolling", "canary", "blue_green", "maintenance_window")


class Words(NamedTuple):
    """A sentence in both languages of the report."""

    en: str
    zh: str


_METHOD = {
    "in_place": Words("in place, with a short downtime", "就地升级(短暂停机)"),
    "rolling": Words("in place, one host after the other", "逐台滚动升级"),
    "canary": Words("canary", "金丝雀发布"),
    "blue_green": Words("blue-green", "蓝绿部署"),
    "maintenance_window": Words("in place in a maintenance window", "维护窗口内停机升级"),
}
_PLAYBOOK = {
    "in_place": "upgrade_in_place",
    "rolling": "upgrade_in_place",
    "canary": "canary",
    "blue_green": "blue_green",
    "maintenance_window": "upgrade_in_place",
}
_STEP = {
    "none": Words("no change", "无变化"),
    "older": Words("an older version", "更旧的版本"),
    "patch": Words("patch version", "修订版本"),
    "minor": Words("minor version", "次版本"),
    "major": Words("major version", "主版本"),
    "unknown": Words(
        "the running version is not known, so it is taken for a major version", "当前版本未知,按主版本处理"
    ),
}
_WHO = {
    "approver": Words("approver", "审批人"),
    "operator": Words("operator", "操作员"),
    "automation": Words("automation", "自动化"),
}


@dataclass(frozen=True)
class Declared:
    """What people say of the new version, since no program can know it.

    :param schema_change: it needs another database schema, which the old version can use too (expand, then contract).
    :param incompatible: the old and the new version cannot run at the same time: interfaces, messages or the schema.
    :param irreversible: after it the old version cannot be brought back.
    :param method: the method that is asked for; empty: the one that fits.
    """

    schema_change: bool = False
    incompatible: bool = False
    irreversible: bool = False
    method: str = ""


@dataclass(frozen=True)
class Topology:
    """What the application runs on.

    :param hosts: the hosts that run it.
    :param sides: side → its hosts.
    :param balancers: load balancer → strategy of traffic_split.
    :param database: host on which the migrations run; empty where there are none.
    :param backup: host that has the backups; empty when none are declared.
    :param gate: whether a gate is declared, which watches a new version.
    """

    hosts: tuple[str, ...]
    sides: Mapping[str, tuple[str, ...]]
    balancers: Mapping[str, str]
    database: str = ""
    contract: bool = False
    data_sync: bool = False
    backup: str = ""
    gate: bool = True

    @property
    def shares(self) -> bool:
        """Whether any load balancer gives a share of the requests."""
        return any(strategy in SHARING for strategy in self.balancers.values())


@dataclass(frozen=True)
class Step:
    """One step: who does it, where, what."""

    who: str
    where: str
    what: Words


def obstacle(method: str, there: Topology, declared: Declared) -> Words | None:
    """Return why a method cannot be used, or None when it can."""
    together = method in ("rolling", "canary", "blue_green")
    if together and not there.balancers:
        return Words("no load balancer is declared", "未声明负载均衡")
    if together and declared.incompatible:
        return Words("the old and the new version cannot run at the same time", "新旧版本不能同时运行")
    if method in ("rolling", "canary") and len(there.hosts) < 2:
        return Words("the application has one host only", "应用只有一台主机")
    if method == "canary" and not there.shares:
        return Words("no load balancer can give a share of the requests", "没有负载均衡可以按比例分配流量")
    if method == "blue_green" and len(there.sides) != 2:
        return Words("two sides are needed, such as blue and green", "需要两个环境(如蓝、绿)")
    if method in ("canary", "blue_green") and not there.gate:
        return Words("no gate is declared, so nothing would watch the new version", "未声明门禁,新版本无人观察")
    return None


def preferred(size: str, declared: Declared) -> tuple[list[str], Words]:
    """Return the methods for a step, the best first, and why; what is impossible is not left out yet."""
    last = ["in_place", "maintenance_window"]
    if declared.incompatible:
        return ["maintenance_window"], Words(
            "the versions cannot run side by side, so the service stops for the change", "新旧版本不兼容,必须停机切换"
        )
    if declared.schema_change:
        return ["blue_green", "maintenance_window"], Words(
            "the schema changes: expand it, switch between two sides, contract it at the end",
            "数据库结构有变更:先扩展,再切换,最后收缩",
        )
    if size in ("major", "unknown"):
        return ["blue_green", "canary", "maintenance_window"], Words(
            "a major version changes much: the old one stays ready until the new one has proven itself",
            "主版本变动大:旧环境保留到新版本稳定为止",
        )
    if size == "minor":
        return ["canary", "blue_green", "rolling", *last], Words(
            "a minor version adds functions: a small share of the users meets them first",
            "次版本新增功能:先由小部分流量验证",
        )
    return ["rolling", *last], Words(
        "a patch version corrects errors: host after host, in place", "修订版本只修复问题:逐台就地升级"
    )


def steps(method: str, there: Topology, declared: Declared, application: str, version: str) -> list[Step]:
    """Return what is done, in order."""
    hosts, balancers = ", ".join(there.hosts), ", ".join(there.balancers)
    back = there.backup
    found = [
        Step("operator", "", Words("announce the work to the users", "通知用户升级计划")),
        Step("automation", back, Words("verify that the backups are good and fresh", "校验备份完整且为最新"))
        if back
        else Step("operator", "", Words("see that data and configuration are backed up", "确认数据和配置已备份")),
        Step("approver", "", Words("approve this plan", "审批本计划")),
        Step(
            "automation",
            ", ".join([*there.hosts, *there.balancers]),
            Words("take the lock, write down the state before", "加锁并记录升级前状态"),
        ),
    ]
    if there.database:
        expand = Words("expand the schema; the old version goes on with it", "扩展数据库结构,旧版本仍可使用")
        found.append(Step("automation", there.database, expand))
    found += _middle(method, there, version, hosts, balancers)
    found.append(Step("operator", "", Words("confirm that the main functions work", "确认核心功能正常")))
    if there.database and there.contract:
        contract = Words("contract the schema: after this there is no way back", "收缩数据库结构:此后不可回滚")
        found.append(Step("automation", there.database, contract))
    elif declared.irreversible:
        found.append(Step("approver", "", Words("know that there is no way back from here", "知悉:此后不可回滚")))
    found += [
        Step("automation", hosts, Words("leave records, release the lock", "写入记录并解锁")),
        Step("operator", "", Words("announce the end, watch the system", "通知用户升级完成并持续观察")),
    ]
    return found


def _middle(method: str, there: Topology, version: str, hosts: str, balancers: str) -> list[Step]:
    deploy = Words(f"put {version} there, start it, test its functions", f"部署 {version},启动并做功能验证")
    if method == "rolling":
        return [
            Step(
                "automation",
                balancers,
                Words("for each host: take its traffic and drain it", "逐台:摘除流量并等待请求结束"),
            ),
            Step("automation", hosts, deploy),
            Step("automation", balancers, Words("give it its traffic back", "恢复该主机流量")),
        ]
    if method == "canary":
        canary, rest = there.hosts[-1], ", ".join(there.hosts[:-1])
        return [
            Step("automation", balancers, Words(f"take the traffic from {canary} and drain it", f"摘除 {canary} 流量")),
            Step("automation", canary, deploy),
            Step(
                "automation",
                balancers,
                Words("give it a small share, watch, give it more", "小比例放量,观察后逐步增加"),
            ),
            Step(
                "automation",
                balancers,
                Words("when the gate says abort: its share goes back at once", "未通过:立即撤回流量"),
            ),
            Step(
                "automation",
                rest,
                Words(f"the same for the other hosts, one after the other: {version}", f"其余主机逐台升级到 {version}"),
            ),
        ]
    if method == "blue_green":
        found = [Step("automation", " / ".join(there.sides), Words(f"idle side: {deploy.en}", f"空闲环境:{deploy.zh}"))]
        if there.data_sync:
            found.append(
                Step("automation", " / ".join(there.sides), Words("keep the data of both the same", "配置数据同步"))
            )
        return [
            *found,
            Step(
                "automation",
                balancers,
                Words("5, 10, 25, 50, 100 % to it, a gate after each", "按 5、10、25、50、100% 切换,每步观察"),
            ),
            Step(
                "automation",
                balancers,
                Words("when a gate says abort: all traffic goes back at once", "未通过:立即切回全部流量"),
            ),
            Step(
                "automation",
                " / ".join(there.sides),
                Words("hold the old side ready, then drain and stop it", "保留旧环境一段时间后停用"),
            ),
        ]
    if method == "in_place":
        return [Step("automation", hosts, Words(f"stop it; {deploy.en}", f"停止服务;{deploy.zh}"))]
    where = balancers or hosts
    page = Words("show the maintenance page (playbook maintenance_mode)", "开启维护页面(playbook maintenance_mode)")
    at_once = Words(
        f"on all hosts at once (release_serial=100%): {deploy.en}", f"所有主机同时(release_serial=100%):{deploy.zh}"
    )
    away = Words(
        "take the maintenance page away (playbook maintenance_mode)", "关闭维护页面(playbook maintenance_mode)"
    )
    return [Step("operator", where, page), Step("automation", hosts, at_once), Step("operator", where, away)]


def judge_versions(
    running: Mapping[str, str], asked: str, bad: Iterable[str], subject: str
) -> tuple[str, str, list[Finding]]:
    """Return the oldest version that runs, the size of the step from it, and what there is to say of it.

    :param running: host → version; empty where it is not known.
    :param asked: the version that is to be, already parsed once.
    :param bad: versions that a host knows as bad.
    """
    new = versions.parse(asked)
    found: list[Finding] = []
    if str(new) in set(bad):
        message = f"{new} is known as bad: a release of it was undone before"
        advice = "build a new version, or correct the state on the hosts when the reason lay elsewhere"
        found.append(Finding("release.known_bad", subject, "critical", message, advice=advice))
    known: dict[str, versions.Version] = {}
    for host, text in running.items():
        try:
            known[host] = versions.parse(text)
        except ValueError:
            message = f"which version runs on {host} is not known" + (f" ('{text}')" if text else "")
            found.append(Finding("release.version", host, "warning", message, text or None, advice="look there first"))
    if not known:
        return "", "unknown", found
    oldest = min(known.values(), key=lambda version: version.key)
    if len({version.key for version in known.values()}) > 1:
        there = ", ".join(f"{version} on {host}" for host, version in sorted(known.items()))
        message = f"the hosts run different versions: {there}"
        found.append(
            Finding("release.version", subject, "warning", message, advice="see that no release was left half-way")
        )
    size = versions.step(oldest, new)
    if size == "none" and len(known) == len(running):
        newest = max(known.values(), key=lambda version: version.key)
        if newest.key == new.key:
            message = f"{new} runs everywhere already; there is nothing to do"
            found.append(Finding("release.version", subject, "critical", message, str(oldest), str(new)))
    elif size == "older":
        message = f"{new} is older than {oldest}, which runs"
        advice = "to go back to the release before use the playbook rollback"
        found.append(Finding("release.version", subject, "critical", message, str(oldest), str(new), advice=advice))
    if new.pre:
        message = f"{new} is a pre-release"
        found.append(
            Finding("release.version", subject, "warning", message, advice="it belongs into a test environment")
        )
    return str(oldest), size, found


def choose(size: str, there: Topology, declared: Declared) -> tuple[str, Words, dict[str, Words], list[Finding]]:
    """Return the method, why, what stands against each of the others, and findings."""
    order, why = preferred(size, declared)
    against = {one: words for one in METHODS if (words := obstacle(one, there, declared))}
    fits = next((one for one in order if one not in against), "maintenance_window")
    if not declared.method:
        return fits, why, against, []
    asked = declared.method
    if asked in against:
        message = f"{_METHOD[asked].en} cannot be used: {against[asked].en}"
        return asked, why, against, [Finding("release.method", asked, "critical", message, advice=f"use {fits}")]
    if METHODS.index(asked) < METHODS.index(fits):
        message = f"{_METHOD[asked].en} is less careful than {_METHOD[fits].en}, which fits: {why.en}"
        return asked, why, against, [Finding("release.method", asked, "warning", message, advice=f"use {fits}")]
    return asked, why, against, []


def judge_schema(there: Topology, declared: Declared, method: str, subject: str) -> list[Finding]:
    """Return what the declared facts ask for and is not there."""
    found = []
    if declared.schema_change and not there.database:
        message = "the schema changes, but the application declares no database.expand"
        advice = "name the file of tasks in release_applications, or have the schema changed by hand before"
        found.append(Finding("release.schema", subject, "critical", message, advice=advice))
    if declared.schema_change and not there.backup:
        message = "the schema changes, but no backup is declared that could be verified before"
        found.append(
            Finding("release.backup", subject, "critical", message, advice="declare backup in release_applications")
        )
    elif not there.backup:
        message = "no backup is declared, so none is verified"
        found.append(
            Finding("release.backup", subject, "warning", message, advice="declare backup in release_applications")
        )
    if declared.irreversible or (declared.incompatible and declared.schema_change):
        message = "there is no way back to the old version except by restoring data"
        found.append(Finding("release.irreversible", subject, "warning", message, advice="approve it knowing that"))
    if method == "canary" and any(strategy not in SHARING for strategy in there.balancers.values()):
        coarse = ", ".join(name for name, strategy in there.balancers.items() if strategy not in SHARING)
        message = f"{coarse} gives a host all of its requests or none, so its share cannot be small there"
        found.append(Finding("release.balancer", coarse, "info", message))
    return found


def make(
    application: str,
    asked: str,
    there: Topology,
    declared: Declared,
    hosts: Mapping[str, Mapping[str, Any]],
    others: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Return the whole plan.

    :param hosts: host → what ``release_info`` found there.
    :param others: what load balancers and backups had to say.
    """
    version = str(versions.parse(asked))
    running = {host: str(hosts.get(host, {}).get("version") or "") for host in there.hosts}
    bad = {str(one) for found in hosts.values() for one in found.get("bad", ())}
    old, size, findings = judge_versions(running, version, bad, application)
    method, why, against, more = choose(size, there, declared)
    findings += more + judge_schema(there, declared, method, application) + list(others)
    findings.sort(key=lambda finding: -SEVERITIES.index(finding.severity))
    return {
        "application": application,
        "version": version,
        "running": running,
        "step": size,
        "method": method,
        "playbook": f"worklog.maintenance.{_PLAYBOOK[method]}",
        "why": why._asdict(),
        "impossible": {name: words._asdict() for name, words in against.items()},
        "declared": asdict(declared),
        "steps": [
            {"who": step.who, "where": step.where, "what": step.what._asdict()}
            for step in steps(method, there, declared, application, version)
        ],
        "findings": [finding.as_dict() for finding in findings],
        "problems": [_line(finding.as_dict()) for finding in findings if finding.severity == "critical"],
        "ready": not any(finding.severity == "critical" for finding in findings),
        "from": old,
    }


def text(plan: Mapping[str, Any], language: str = "en") -> list[str]:
    """Return a plan as lines that a person can approve.

    :param language: ``en`` or ``zh``.
    """
    chinese = language == "zh"
    pick = 1 if chinese else 0

    def say(english: str, other: str) -> str:
        return other if chinese else english

    old = plan["from"] or say("unknown", "未知")
    lines = [
        say(
            f"Plan for {plan['application']}: {old} -> {plan['version']}",
            f"{plan['application']} 升级计划:{old} -> {plan['version']}",
        )
        + f" ({_STEP[plan['step']][pick]})",
        say("Method: ", "方式:") + f"{_METHOD[plan['method']][pick]} ({plan['playbook']})",
        say("Why: ", "原因:") + plan["why"][language],
    ]
    lines += [
        say("Not possible: ", "不可用:") + f"{_METHOD[name][pick]}: {words[language]}"
        for name, words in plan["impossible"].items()
    ]
    lines.append(say("Steps:", "步骤:"))
    for number, step in enumerate(plan["steps"], 1):
        where = f" @ {step['where']}" if step["where"] else ""
        lines.append(f"{number:3}. {_WHO[step['who']][pick]}{where}{say(': ', ':')}{step['what'][language]}")
    lines.append(say("Preconditions:", "前提条件:"))
    lines += [
        f"  [{finding['severity']}] {_line(finding)}" + (f" ({finding['advice']})" if finding["advice"] else "")
        for finding in plan["findings"]
    ] or ["  " + say("[ok] nothing stands against it", "[ok] 无障碍")]
    lines.append(
        say("Ready for approval.", "可以提交审批。")
        if plan["ready"]
        else say("NOT READY: what is critical must be cleared first.", "未就绪:请先处理 critical 项。")
    )
    return lines


def _line(finding: Mapping[str, Any]) -> str:
    """Return a message with what it is about, where it does not say so itself."""
    subject, message = str(finding["subject"]), str(finding["message"])
    return message if subject in message else f"{subject}: {message}"
