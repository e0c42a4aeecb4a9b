# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What apt, dpkg, dnf, needrestart and systemd print, and what is made of it; transcripts are shortened."""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import (
    cves,
    debian,
    manifest,
    needs,
    rpm,
    state,
    transaction,
    window,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.apt import cache_name, release
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import (
    Change,
    Installed,
    PackageError,
    Wish,
    choose,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.version import older

DPKG = """\
acl\tamd64\t2.3.1-3\tacl\t2.3.1-3\tii|
age\tamd64\t1.1.1-1+b3\tage\t1.1.1-1\thi|
libc6\tamd64\t2.36-9\tglibc\t2.36-9\tii|
libc6\ti386\t2.36-9\tglibc\t2.36-9\tii|
nginx\tamd64\t1.22.1-9\tnginx\t1.22.1-9\tiF|
old\tall\t1\told\t1\trc|
broken\tall\t1\tbroken\t1\tiHR
""".replace("|", " ")  # no blanks at the end of lines here
STATES = """\
Package: acl
Architecture: amd64
Auto-Installed: 1

Package: age
Architecture: amd64
Auto-Installed: 0
"""
SIMULATION = """\
The following packages have been kept back:
  linux-image-amd64 docker.io
  python3
The following packages will be upgraded:
  apt libssl3
Inst libssl3 [3.0.19-1~deb12u2] (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Inst systemd [252.38-1~deb12u1] (252.39-1~deb12u2 Debian:12.15/oldstable [amd64]) []
Inst libc6:i386 [2.36-9] (2.36-10 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [i386])
Inst wl-demo-data (1.0 Worklog:1/stable-security [all])
Remv libgd3 [2.3.3-9]
Conf libssl3 (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [amd64])
"""


def test_what_dpkg_prints() -> None:
    found = debian.parse_installed(DPKG, debian.parse_automatic(STATES, "amd64"))
    assert list(found) == ["acl:amd64", "age:amd64", "libc6:amd64", "libc6:i386", "nginx:amd64", "broken:all"]
    assert found["acl:amd64"].automatic and not found["age:amd64"].automatic and found["age:amd64"].held
    assert found["age:amd64"].source_version == "1.1.1-1"
    assert debian.broken(found.values()) == [
        "nginx:amd64 1.22.1-9: half configured",
        "broken:all 1: has to be installed again",
    ]


def test_what_a_simulation_prints() -> None:
    changes, removed = debian.parse_simulation(SIMULATION)
    assert [(one.key, one.before, one.after, one.security) for one in changes] == [
        ("libssl3:amd64", "3.0.19-1~deb12u2", "3.0.22-1~deb12u2", True),
        ("systemd:amd64", "252.38-1~deb12u1", "252.39-1~deb12u2", False),
        ("libc6:i386", "2.36-9", "2.36-10", True),
        ("wl-demo-data:all", "", "1.0", True),
    ]
    assert removed == ["libgd3"]
    assert debian.parse_kept_back(SIMULATION) == ["linux-image-amd64", "docker.io", "python3"]
    assert debian.parse_kept_back("Not upgrading yet due to phasing:\n  one\n") == ["one"]


@pytest.mark.parametrize(
    ("text", "subjects", "words"),
    [
        ("Reading package lists...\n", [], ""),
        (  # it ended with 0
            "W: Failed to fetch http://127.0.0.1:9/debian/dists/bookworm/InRelease  Could not connect to 127.0.0.1:9\n"
            "W: Some index files failed to download. They have been ignored, or old ones used instead.\n",
            ["http://127.0.0.1:9/debian/dists/bookworm/InRelease"],
            "make it reachable",
        ),
        (
            "W: GPG error: file:/srv/repository ./ InRelease: The following signatures were invalid: BADSIG E57B wl\n"
            "E: The repository 'file:/srv/repository ./ InRelease' is not signed.\n",
            ["file:/srv/repository ./", "file:/srv/repository ./"],
            "do not install from it",
        ),
        ("E: The repository 'file:/x ./ Release' does not have a Release file.\n", ["file:/x ./"], "make it reachable"),
        ("E: Release file for http://x/InRelease is expired (invalid since 2d).\n", ["http://x/InRelease is"], "clock"),
    ],
)
def test_what_an_update_complains_about(text: str, subjects: list[str], words: str) -> None:
    found = debian.parse_update(text)
    assert [one.subject for one in found] == subjects
    assert all(one.severity == "critical" and words in str(one.advice) for one in found)


@pytest.mark.parametrize(
    ("words", "severity"),
    [
        (
            "http://x/InRelease: Key is stored in legacy trusted.gpg keyring (/etc/apt/trusted.gpg), see the "
            "DEPRECATION section in apt-key(8) for details.",
            "warning",
        ),
        ("http://x/InRelease: Policy will reject signature within a year, see --audit for details", "warning"),
        ("http://x/InRelease: Signature by key 0123 uses weak digest algorithm (SHA1)", "warning"),
        (
            "An error occurred during the signature verification. The repository is not updated and the previous index "
            "files will be used. OpenPGP signature verification failed: http://x InRelease: Sub-process sqv returned",
            "critical",
        ),
        ("The repository 'http://x Release' is no longer signed.", "critical"),
        ("The repository 'http://x Release' provides only weak security information.", "critical"),
        ("Release file for http://x/InRelease is not valid yet (invalid for another 3h).", "critical"),
        ("Skipping acquire of configured file 'mian/x' as repository 'http://x' doesn't have it", "critical"),
    ],
)
def test_only_a_warning_about_data_that_are_not_there_or_not_verified_is_critical(words: str, severity: str) -> None:
    assert [one.severity for one in debian.parse_update(f"W: {words}\n")] == [severity]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.0~rc1", "1.0"), ("1.0", "1.0a"), ("1.0", "1.0+b1"), ("9", "10"), ("1.2.9", "1.2.10"), ("1", "1:0"),
        ("2.36-9+deb12u4", "2.36-9+deb12u10"), ("1.0-1~deb12u1", "1.0-1"), ("1.0a", "1.0+"), ("1.0-1", "1.0-1.1"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_dpkg_does(one: str, other: str) -> None:
    assert older(one, other) and not older(other, one)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0-0"), ("0:1", "1"), ("1.", "1.0"), ("1.00", "1.0")])
def test_versions_that_are_the_same(one: str, other: str) -> None:
    assert not older(one, other) and not older(other, one)


CHANGELOG = """\
openssl (3.0.11-1~deb12u2) bookworm-security; urgency=medium

  * CVE-2023-5363 (Incorrect cipher key and IV length processing).

 -- Sebastian Andrzej Siewior <sebastian@breakpoint.cc>  Mon, 23 Oct 2023 19:52:22 +0200

openssl (3.0.11-1~deb12u1) bookworm; urgency=medium

  * CVE-2023-4807 and CVE-2023-3817.

 -- Sebastian Andrzej Siewior <sebastian@breakpoint.cc>  Sun, 24 Sep 2023 12:00:00 +0200

openssl (3.0.9-1) unstable; urgency=medium

  * CVE-2023-2650
"""


@pytest.mark.parametrize(
    ("since", "fixed"),
    [
        ("3.0.11-1~deb12u2", ()),
        ("3.0.11-1~deb12u1", ("CVE-2023-5363",)),
        ("3.0.10-1", ("CVE-2023-3817", "CVE-2023-4807", "CVE-2023-5363")),
    ],
)
def test_a_changelog_names_what_is_fixed(since: str, fixed: tuple[str, ...]) -> None:
    past = {one: older(one, since) for one in debian.versions_of(CHANGELOG)}
    assert debian.fixed_by_changelog(CHANGELOG, since, past) == fixed
    assert debian.changed_at(CHANGELOG) == datetime(2023, 10, 23, 17, 52, 22, tzinfo=timezone.utc).timestamp()
    assert debian.changed_at("openssl (1)\n") is None


DEBSECAN = b"""VERSION 1
CVE-2023-5363,,Incorrect cipher key and IV length
CVE-2023-9999,,Never fixed in unstable

openssl,0, MRF,3.1.4-1,3.0.11-1~deb12u2 3.0.11-1~deb12u3
openssl,1, L  ,,
libssl3,0,BM  ,3.1.4-1,

openssl,libssl3
"""


@pytest.mark.parametrize("content", [DEBSECAN, zlib.compress(DEBSECAN)])
def test_vulnerability_data_tell_what_an_update_fixes(content: bytes) -> None:
    data = cves.Data(content)
    old, new = ("3.0.11-1~deb12u1",) * 2, ("3.0.11-1~deb12u2",) * 2
    assert data.fixed("openssl", "openssl", old, new) == ("CVE-2023-5363",)
    assert data.fixed("openssl", "openssl", new, ("3.0.11-1~deb12u3",) * 2) == ()
    assert data.fixed("libssl3", "other", ("3.1.3-1", "1"), ("3.1.4-1", "1")) == ("CVE-2023-5363",)
    assert data.fixed("bash", "bash", old, new) == ()


@pytest.mark.parametrize("content", [b"VERSION 2\n", b"<html>", b"", b"VERSION 1\nCVE-1,,x\n\nopenssl,7, ,1,\n"])
def test_other_data_are_refused(content: bytes) -> None:
    with pytest.raises(PackageError, match="vulnerability data cannot be read"):
        cves.Data(content)


def test_the_summary_of_debsecan() -> None:
    text = (
        "CVE-2023-1 openssl (fixed, remotely exploitable, high urgency)\nCVE-2023-2 openssl\nTEMP-1-AA bash (fixed)\n"
    )
    assert cves.parse_debsecan(text) == {"openssl": ("CVE-2023-1", "CVE-2023-2"), "bash": ("TEMP-1-AA",)}


UNLISTED = "not in the list of what may change"


def change(name: str, **values: Any) -> Change:
    return Change(name, "amd64", "1", "2", **values)


@pytest.mark.parametrize(
    ("wish", "left_out"),
    [
        (Wish(), {}),
        (Wish(security_only=True), {"plain": "no security update"}),
        (Wish(allow=["p*"]), {"known": UNLISTED, "secure": UNLISTED}),
        (Wish(deny=["sec*"], allow=["secure"]), {
            "known": UNLISTED, "plain": UNLISTED, "secure": "denied",
        }),
        (Wish(minimum_age=100), {"known": "too young"}),
    ],
)  # fmt: skip
def test_what_is_chosen(wish: Wish, left_out: dict[str, str]) -> None:
    changes = [change("plain"), change("secure", security=True), change("known", cves=("CVE-2023-1",), age=99.0)]
    assert {one.name: one.left_out for one in choose(changes, wish) if one.left_out} == left_out


def test_a_new_package_that_only_a_denied_one_needs_is_left_out() -> None:
    wish = Wish(deny=["app"])
    changes = choose([change("app"), Change("app-data", "all", "", "1"), change("lib")], wish)
    found, against = state._with_needed(changes, [change("lib")], wish)
    assert not against and {one.name: one.left_out for one in found} == {
        "lib": "",
        "app": "denied",
        "app-data": "nothing that is chosen needs it",
    }


# -- rpm and dnf --------------------

RPM = """\
bash\tx86_64\t0:5.1.8-9.el9\tbash-5.1.8-9.el9.src.rpm
bind-libs\tx86_64\t32:9.16.23-14.el9_3\tbind-9.16.23-14.el9_3.src.rpm
gpg-pubkey\t(none)\t0:fd431d51-4ae0493b\t(none)
tzdata\tnoarch\t0:2023c-1.el9\ttzdata-2023c-1.el9.src.rpm
"""
UPDATES = """\

bind-libs.x86_64                     32:9.16.23-18.el9_4.6                    appstream
kernel.x86_64                        5.14.0-427.33.1.el9_4                    baseos
tzdata.noarch                        2024a-1.el9                              baseos
Obsoleting Packages
old.x86_64                           1-1                                      baseos
"""
CVES = """\
CVE-2023-50387 Important/Sec. bind-libs-32:9.16.23-18.el9_4.6.x86_64
CVE-2023-4408  Important/Sec. bind-libs-32:9.16.23-18.el9_4.6.x86_64
CVE-2024-26642 Important/Sec. kernel-5.14.0-427.33.1.el9_4.x86_64
"""
REBOOT = """\
Core libraries or services have been updated since boot-up:
  * kernel
  * systemd

Reboot is required to fully utilize these updates.
More information: https://access.redhat.com/solutions/27943
"""


def test_dnf_in_the_same_shape() -> None:
    installed = rpm.parse_installed(RPM, frozenset({"bash"}), frozenset({"bash-5.1.8-9.el9.x86_64"}))
    assert set(installed) == {"bash:x86_64", "bind-libs:x86_64", "tzdata:noarch"}
    bash, bind = installed["bash:x86_64"], installed["bind-libs:x86_64"]
    assert bash.held and bash.automatic is False and bind.automatic is True and bind.source == "bind"
    changes = rpm.with_cves(rpm.parse_updates(UPDATES, installed), CVES)
    assert [(one.key, one.before, one.after, one.cves) for one in changes] == [
        ("bind-libs:x86_64", "32:9.16.23-14.el9_3", "32:9.16.23-18.el9_4.6", ("CVE-2023-4408", "CVE-2023-50387")),
        ("kernel:x86_64", "", "5.14.0-427.33.1.el9_4", ("CVE-2024-26642",)),
        ("tzdata:noarch", "2023c-1.el9", "2024a-1.el9", ()),
    ]
    assert rpm.parse_reboot(REBOOT) == ["kernel", "systemd"]
    assert rpm.parse_needs_restarting("auditd.service\nNo such\n") == ["auditd.service"]
    assert rpm.parse_locked("bash-0:5.1.8-9.el9.*\n!other-0:1-1.*\n") == {"bash"}


# -- what has to start again --------------------


@pytest.mark.parametrize(
    ("text", "reboot", "services"),
    [
        ("NEEDRESTART-VER: 3.6\nNEEDRESTART-KCUR: 6.18.44\nNEEDRESTART-KSTA: 0\nNEEDRESTART-UCSTA: 1\n", [], []),
        (
            "NEEDRESTART-KCUR: 6.1.0-18-amd64\nNEEDRESTART-KEXP: 6.1.0-21-amd64\nNEEDRESTART-KSTA: 3\n"
            "NEEDRESTART-SVC: nginx.service\nNEEDRESTART-SVC: ssh.service\n",
            ["kernel 6.1.0-18-amd64 runs, 6.1.0-21-amd64 is installed"],
            ["nginx.service", "ssh.service"],
        ),
        ("NEEDRESTART-KCUR: 6.1.0-18\nNEEDRESTART-KSTA: 2\n", ["the running kernel 6.1.0-18 is an older build"], []),
    ],
)  # fmt: skip
def test_what_needrestart_prints(text: str, reboot: list[str], services: list[str]) -> None:
    found = needs.parse_needrestart(text)
    assert (found.reboot, list(found.services)) == (reboot, services)


def test_a_newer_kernel() -> None:
    kernels = ["6.1.0-9-amd64", "6.1.0-21-amd64"]
    assert needs.newer_kernel("6.1.0-9-amd64", kernels) == "6.1.0-21-amd64"
    assert needs.newer_kernel("6.1.0-21-amd64", kernels) == ""
    assert needs.newer_kernel("6.18-of-the-host-of-a-container", kernels) == ""


def test_processes_on_replaced_files_and_their_units(tmp_path: Path) -> None:
    for pid, mapped, cgroup in (
        ("10", "/usr/lib/libssl.so.3 (deleted)", "0::/system.slice/nginx.service"),
        ("11", "/usr/lib/libssl.so.3", "0::/system.slice/ssh.service"),
        ("12", "/tmp/x (deleted)", "0::/system.slice/tmp.service"),
        ("13", "/usr/bin/bash (deleted)", "0::/user.slice/user-0.slice/user@0.service/app.service"),
    ):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "maps").write_text(f"7f00-7f01 r-xp 00000000 fe:00 1 {mapped}\n7f02-7f03 rw-p 0 00:00 0\n")
        (tmp_path / pid / "cgroup").write_text(cgroup + "\n")
    (tmp_path / "self").mkdir()
    assert needs.stale(str(tmp_path)) == {"nginx.service": "runs on /usr/lib/libssl.so.3, which was replaced"}
    assert list(needs.users_of(lambda path: path == "/usr/lib/libssl.so.3", str(tmp_path))) == ["ssh.service"]


def service(state: str = "active", restarts: int = 0, once: bool = False, passing: bool = False) -> dict[str, Any]:
    more = {"once": once, "passing": passing}
    return {"state": state, "sub": "x", "restarts": restarts, "invocation": "a", **more}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"a": service()}, {"a": service()}, []),
        ({"a": service()}, {"a": service("failed")}, ["a was running before and is failed (x)"]),
        ({"a": service()}, {"a": service("activating")}, ["a was running before and is activating (x)"]),
        ({"a": service()}, {}, ["a was running before and is inactive (dead)"]),
        ({"a": service("failed")}, {"a": service("failed")}, []),
        ({}, {"a": service("failed")}, ["a has failed and had not before"]),
        ({"a": service(once=True)}, {}, []),
        ({"a": service(passing=True)}, {}, []),
        ({"a": service(passing=True)}, {"a": service("failed")}, ["a was running before and is failed (x)"]),
    ],
)
def test_services_that_are_worse_than_before(before: Any, after: Any, words: list[str]) -> None:
    assert [one.message for one in needs.worse(before, after)] == words


def test_a_service_that_systemd_starts_again_is_seen() -> None:
    now = {"a": service(restarts=2), "b": service(restarts=9), "c": service(restarts=2, once=True)}
    (one,) = needs.flapping(needs.restarts({"a": service(restarts=1), "c": service(restarts=1)}), now, "since then")
    assert one.message == "a ended by itself and was started again by systemd since then"


def test_what_systemctl_shows() -> None:
    text = (
        "Id=a.service\nActiveState=active\nSubState=running\nNRestarts=2\nInvocationID=f\nType=simple\n\nId=b.service\n"
    )
    text += "ActiveState=inactive\n\nType=oneshot\nId=c.service\nActiveState=active\nSubState=exited\nNRestarts=0\n"
    found = needs.parse_services(text)
    assert found["a.service"]["restarts"] == 2 and found["c.service"]["once"] and "b.service" not in found


@pytest.mark.parametrize(
    ("unit", "more", "passing"),
    [
        ("user@1000.service", "UnitFileState=static", True),
        ("systemd-hostnamed.service", "UnitFileState=static\nBusName=org.freedesktop.hostname1", True),
        ("ssh@0.service", "UnitFileState=static\nTriggeredBy=ssh.socket", True),
        ("NetworkManager.service", "UnitFileState=enabled\nBusName=org.freedesktop.NetworkManager", False),
        ("docker.service", "UnitFileState=enabled\nTriggeredBy=docker.socket", False),
        ("wl.service", "UnitFileState=static\nBusName=\nTriggeredBy=", False),
    ],
)
def test_a_service_that_ends_by_itself_when_nobody_needs_it(unit: str, more: str, passing: bool) -> None:
    found = needs.parse_services(f"Id={unit}\nActiveState=active\n{more}\n")
    assert found[unit]["passing"] is passing


# -- when --------------------

WEEK = ["Sun 02:00-05:00", "Mon-Fri 22:00-04:00"]


@pytest.mark.parametrize(
    ("now", "zone", "blackout", "opened", "words"),
    [
        ("2026-11-29T03:00+00:00", "UTC", [], True, "in a window until Sun 05:00"),
        ("2026-11-29T04:40+00:00", "UTC", [], False, "closes in 20 min, a host is given 30; the next"),
        ("2026-11-29T05:00+00:00", "UTC", [], False, "the next window opens on Mon 2026-11-30 at 22:00"),
        ("2026-11-28T19:00+00:00", "Asia/Shanghai", [], True, "it is Sun 2026-11-29 03:00 in Asia/Shanghai"),
        ("2026-12-05T02:00+00:00", "UTC", [], True, "in a window until Sat 04:00"),  # begun on Friday
        ("2026-11-29T03:00+00:00", "UTC", ["2026-11-29"], False, "a black-out date; the next window opens on Mon"),
        ("2026-12-24T23:00+00:00", "UTC", ["2026-12-24/2027-01-02"], False, "opens on Sun 2027-01-03 at 02:00"),
    ],
)  # fmt: skip
def test_the_window(now: str, zone: str, blackout: list[str], opened: bool, words: str) -> None:
    verdict = window.judge(WEEK, blackout, zone, datetime.fromisoformat(now), 1800)
    assert verdict.open is opened and words in verdict.message, verdict.message


@pytest.mark.parametrize(
    ("windows", "blackout", "zone", "words"),
    [
        (["Sunday"], [], "UTC", "is not a window"), (["Xyz 01:00-02:00"], [], "UTC", "is not a window"),
        (["Sun 25:00-26:00"], [], "UTC", "is not a window"), ([], ["24.12.2026"], "UTC", "is not a date"),
        ([], ["2026-12-24/2026-12-20"], "UTC", "ends before it begins"), ([], [], "Mars/Base", "is not a time zone"),
        ([], [], "", "is not a time zone"),
    ],
)  # fmt: skip
def test_a_window_that_cannot_be_understood(windows: list[str], blackout: list[str], zone: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        window.judge(windows, blackout, zone, datetime.now(timezone.utc))


# -- what was proven --------------------

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=timezone.utc)
DEBIAN = {"id": "debian", "version": "12", "architecture": "amd64"}


def proven(version: str = "1.1", stage: str = "finished", findings: Any = (), hours: float = 30) -> dict[str, Any]:
    return {
        "release": DEBIAN,
        "installed": [{"name": "wl-demo", "architecture": "all", "version": version}],
        "transaction": {"stage": stage, "updated": (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")},
        "findings": list(findings),
    }


def test_a_manifest_is_made_and_read() -> None:
    made = manifest.make({"a": proven(), "b": proven()}, 86400, NOW, signer="ops", key="secret")
    found = manifest.check(json.dumps(made), NOW, max_age=3 * 86400, soak=3600, key="secret")
    assert found.versions_for(DEBIAN) == {"wl-demo:all": "1.1"}
    installed = {"wl-demo:all": Installed("wl-demo", "all", "1.0", "wl-demo", "1.0")}
    assert [one.after for one in manifest.changes(found.versions_for(DEBIAN), installed)] == ["1.1"]
    newer = {"wl-demo:all": Installed("wl-demo", "all", "1.2", "wl-demo", "1.2")}
    assert manifest.changes(found.versions_for(DEBIAN), newer) == []
    held = {"wl-demo:all": Installed("wl-demo", "all", "1.0", "wl-demo", "1.0", held=True)}
    assert manifest.changes(found.versions_for(DEBIAN), held) == []
    assert manifest.differences(found.versions_for(DEBIAN), newer)[0]["kind"] == "newer"


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ({}, "there is no host"),
        ({"a": proven(stage="applied")}, "a: its last run is applied, not finished"),
        ({"a": proven(hours=2)}, "less than 24 h ago"),
        ({"a": proven(findings=[{"severity": "critical", "message": "x has failed"}])}, "a: x has failed"),
        ({"a": proven(), "b": proven("1.2")}, "b: wl-demo:all is 1.2, on another host 1.1"),
        ({"a": {**proven(), "transaction": None}}, "not there, not finished"),
        (
            {"a": {**proven(), "since": ["x is 2, it was 1"]}},
            "1 packages were changed after its run: x is 2, it was 1; put",
        ),
    ],
)
def test_what_was_not_proven_makes_no_manifest(hosts: dict[str, Any], words: str) -> None:
    with pytest.raises(PackageError, match=words):
        manifest.make(hosts, 86400, NOW)


@pytest.mark.parametrize(
    ("alter", "options", "words"),
    [
        (lambda one: one["releases"]["debian 12 amd64"].update({"wl-demo:all": "6.6"}), {}, "altered"),
        (lambda one: one.update(sha256="0"), {}, "altered"),
        (lambda one: one.update(hmac="0"), {"key": "secret"}, "not sealed with the key"),
        (lambda one: None, {"key": "other"}, "not sealed with the key"),
        (lambda one: one.update(schema=9), {}, "none of schema 1"),
        (lambda one: None, {"max_age": 3600.0}, "days ago"),
        (lambda one: None, {"soak": 1e6}, "are asked for"),
    ],
)
def test_a_manifest_that_may_not_be_used(alter: Any, options: dict[str, Any], words: str) -> None:
    made = manifest.make({"a": proven()}, 86400, NOW, key="secret")
    alter(made)
    with pytest.raises(PackageError, match=words):
        manifest.check(made, NOW, **options)


def test_another_release_and_no_json() -> None:
    found = manifest.check(manifest.make({"a": proven()}, 86400, NOW), NOW)
    with pytest.raises(PackageError, match="proven on debian 12 amd64, and this host is debian 13 amd64"):
        found.versions_for({**DEBIAN, "version": "13"})
    with pytest.raises(PackageError, match="it is no JSON"):
        manifest.check("{", NOW)


# -- what is written down --------------------


def test_a_transaction_is_written_read_locked_and_pruned(tmp_path: Path) -> None:
    root = str(tmp_path / "packages")
    first = transaction.new("run-1", 1000.0, root)
    first.save("prepared", 1000.0, 900)
    found = transaction.last(root)
    assert found is not None and found.open and found.owner == "run-1" and found.stage == "prepared"
    with pytest.raises(transaction.Locked, match="run-1 works on the packages") as caught:
        transaction.take(found, "run-2", "", 1100.0)
    assert caught.value.owner == "run-1"
    for owner, dead, now in (("run-1", "", 1100.0), ("run-2", "run-1", 1100.0), ("run-3", "", 2000.0)):
        transaction.take(found, owner, dead, now)
        found.owner, found.until = "run-1", 1900.0
    found.save("rolled_back", 1200.0, 900)
    assert found.open
    found.settled = True
    found.save("rolled_back", 1300.0, 900)
    assert not found.open
    for second in range(5):
        transaction.new("run-4", 2000.0 + second, root).save("finished", 2000.0, 0)
    (tmp_path / "packages" / "20200101T000000Z.000").mkdir()
    transaction.prune(2, root)
    assert len(transaction.read(root)) == 2 and len(list((tmp_path / "packages").iterdir())) == 2


def test_the_change_to_take_back_is_the_newest_that_has_changed_something(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert transaction.last_change(root) is None
    changes = [{"name": "a", "architecture": "all", "from": "1", "to": "2"}]
    for second, (stage, changed) in enumerate([("finished", True), ("dropped", True), ("finished", False)]):
        one = transaction.new("run", float(second), root)
        one.changes = changes if changed else []
        one.save(stage, float(second), 0)
    found = transaction.last_change(root)
    assert found is not None and found.name == transaction.read(root)[0].name
    transaction.drop_newer(found)
    assert [one.name for one in transaction.read(root)] == [found.name]


def test_what_was_changed_since_a_change(tmp_path: Path) -> None:
    one = transaction.new("run", 0.0, str(tmp_path))
    one.before = {"a:all": ["1", "ok"], "b:all": ["1", "ok"], "c:all": ["1", "ok"]}
    one.changes = [{"name": name, "architecture": "all", "from": None, "to": "2"} for name in ("a", "d")]
    assert transaction.since(one, {"a:all": "2", "b:all": "1", "c:all": "1", "d:all": "2"}) == []
    assert transaction.since(one, {"a:all": "3", "b:all": "1", "d:all": "2", "e:all": "5"}) == [
        "a:all is 3, it was 2",
        "c:all is not there, it was 1",
        "e:all is 5, it was not there",
    ]
    assert transaction.since(None, {"a:all": "1"}) == []


def test_a_transaction_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000Z.000").mkdir()
    (tmp_path / "20260101T000000Z.000" / "state.json").write_text('{"schema": 1, "stage"')
    with pytest.raises(PackageError, match="look into it, and move its directory away"):
        transaction.last(str(tmp_path))


def test_differences_of_packages() -> None:
    before = {"a": ["1", "ok"], "b": ["1", "ok"], "c": ["1", "ok", True]}
    now = {"a": ["2", "half configured"], "c": ["1", "ok"], "d": ["1", "ok"]}
    assert transaction.differences(before, now) == [
        "a is 2 half configured, it was 1",
        "b is not there, it was 1",
        "d is 1, it was not there",
    ]


def test_small_things(tmp_path: Path) -> None:
    assert cache_name("foo", "1:2.0+b1~x", "amd64") == "foo_1%3a2.0+b1~x_amd64.deb"
    (tmp_path / "os").write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    assert release(str(tmp_path / "os")) == {"id": "debian", "version": "12", "codename": "bookworm"}
    assert release(str(tmp_path / "none"))["id"] == ""
    assert debian.parse_uris("'file:/srv/a_1_all.deb' a_1_all.deb 10 SHA256:x\n") == {
        "a_1_all.deb": "file:/srv/a_1_all.deb"
    }
    assert debian.parse_conffiles(" /etc/a b.conf 0123\n /etc/c 45 obsolete\n") == {"/etc/a b.conf": "0123"}
