# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies in real restic repositories: a remote one over sftp on ops1, an off-site one whose account cannot delete.

The program is the one of the hosts; its backups are made by a small engine of this file, and its clock can be set, so
that ninety days pass in seconds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.backup_program import archive
from tests.system.restic_key import quicken

pytestmark = pytest.mark.capability("A7")

ROOT = Path(__file__).resolve().parents[2]
DAY = 86400
PLACE = "/var/tmp/tiers"
PROGRAM = f"{PLACE}/worklog-backup"
CONFIG = f"{PLACE}/backup.json"
VAULT = "/srv/vault"
PASSWORD = "correct-horse-battery-31"
SECRET = "s3-secret-key-of-nobody"

#: Moments at which the program is killed.
KILLS = int(os.environ.get("KILLS", "1"))

#: What the zipapp runs: the real program, an engine that makes something at once, a clock that can be set.
MAIN = """
import os, sys, time
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import cli, config
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Engine, Made

class Sample(Engine):
    name = "sample"
    kinds = {"full": "stands alone", "incremental": "is based on the last one", "log": "follows"}
    OPTIONS = {"size": (int, 100000)}
    def make(self, work):
        with open(os.path.join(work.directory, "data"), "wb") as stream:
            stream.write(os.urandom(self.options["size"]))
        last = work.newest("full", "incremental", "log") if work.kind == "log" else work.newest("full", "incremental")
        return Made("sample", parent=None if work.kind == "full" else last.id)

config.ENGINES["sample"] = Sample
shift, real = float(os.environ.get("SHIFT", "0")), time.time
time.time = lambda: real() + shift
sys.exit(cli.main())
"""


class Host:
    """db1 with the program, and what the tests ask it."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.config: dict[str, Any] = {}

    def put(self, path: str, content: bytes | str, node: str = "db1", mode: str = "0600") -> None:
        data = content.encode() if isinstance(content, str) else content
        command = ["docker", "exec", "--interactive", self.lab.container(node), "tee", path]
        subprocess.run(command, input=data, check=True, capture_output=True, timeout=60)
        self.lab.exec(node, ["chmod", mode, path])

    def write_config(self, name: str, **tiers: Any) -> None:
        options = tiers.pop("options", {})
        self.config["sources"][name] = {"engine": "sample", "tiers": tiers, **options}
        self.put(CONFIG, json.dumps(self.config))

    def run(
        self, *argv: str, day: float = 0, code: int | None = 0, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run the program at a moment, in days from now."""
        command = ["env", f"SHIFT={day * DAY}", "python3", PROGRAM, "--config", CONFIG, *argv]
        done: subprocess.CompletedProcess[str] = self.lab.exec("db1", command, check=False, timeout=timeout)
        assert code is None or done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        for secret in (PASSWORD, SECRET):
            assert secret not in done.stdout + done.stderr
        return done

    def init(self, source: str, tier: str) -> None:
        """Make a new repository, and its key one that does not take half a second at each call."""
        self.run("init", source, tier)
        repository = self.config["sources"][source]["tiers"][tier]["repository"]
        account, _host, path = repository.removeprefix("sftp:").rpartition("@ops1:")
        node, place = ("ops1", f"{VAULT}/{account}{path}") if account else ("db1", path)
        quicken(self.lab, node, place, PASSWORD)

    def make(self, source: str, days: list[float], kind: str = "full") -> None:
        for day in days:
            self.run("run", source, kind, day=day)

    def rows(self, source: str, *more: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("list", source, "--json", *more).stdout)
        return rows

    def state(self, source: str, tier: str = "remote") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lab.read("db1", f"{PLACE}/root/{source}/tier-{tier}.json"))
        return found

    def whole(self, source: str) -> None:
        """Every directory with the name of a backup is one, and verifies."""
        self.run("verify", source, "--all")


def sftp(account: str, repository: str) -> dict[str, Any]:
    """A tier over ssh, which knows the key of the other host and accepts no other."""
    ssh = (
        f"ssh -i {PLACE}/key -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={PLACE}/known_hosts "
        f"-o ConnectTimeout=5 {account}@ops1 -s sftp"
    )
    return {
        "repository": f"sftp:{account}@ops1:/{repository}",
        "password_file": f"{PLACE}/password",
        "environment_file": f"{PLACE}/environment",
        "options": [f"sftp.command={ssh}"],
    }


def local(name: str, **more: Any) -> dict[str, Any]:
    return {"repository": f"{PLACE}/{name}", "password_file": f"{PLACE}/password", **more}


@pytest.fixture(scope="module")
def host(lab: Any) -> Iterator[Host]:
    """db1 with the program and a key, ops1 with two accounts that have sftp and a directory of their own."""
    node = Host(lab)
    lab.exec("db1", ["rm", "-rf", PLACE])
    lab.exec("db1", ["mkdir", "-m", "0700", PLACE])
    node.put(PROGRAM, archive(MAIN))
    node.put(f"{PLACE}/password", PASSWORD + "\n")
    node.put(f"{PLACE}/environment", f"# of the backend\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
    lab.exec("db1", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{PLACE}/key"])
    key = lab.read("db1", f"{PLACE}/key.pub")
    lab.exec("ops1", ["ssh-keygen", "-A"])
    for account in ("vault", "offsite"):
        home = f"{VAULT}/{account}"
        lab.exec("ops1", ["userdel", "--force", account], check=False)
        lab.exec("ops1", ["useradd", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", account])
        lab.exec("ops1", ["rm", "-rf", home])
        lab.exec("ops1", ["mkdir", "-p", "-m", "0755", home])
        lab.exec("ops1", ["install", "-d", "-o", account, "-g", account, "-m", "0700", f"{home}/repository"])
        node.put(f"/etc/ssh/{account}.keys", key, node="ops1", mode="0644")
    rules = (
        f"Match User vault,offsite\n  AuthorizedKeysFile /etc/ssh/%u.keys\n  ChrootDirectory {VAULT}/%u\n"
        f"  ForceCommand internal-sftp\n  AllowTcpForwarding no\n  PermitTTY no\n"
    )
    node.put("/etc/ssh/sshd_config.d/vault.conf", rules, node="ops1", mode="0644")
    lab.exec("ops1", ["systemctl", "restart", "ssh"])
    public = lab.read("ops1", "/etc/ssh/ssh_host_ed25519_key.pub").split()
    node.put(f"{PLACE}/known_hosts", f"ops1 {public[0]} {public[1]}\n")
    node.config = {"root": f"{PLACE}/root", "records": f"{PLACE}/records.jsonl", "sources": {}}
    yield node
    lab.exec("ops1", ["systemctl", "stop", "ssh"])
    lab.exec("ops1", ["rm", "-rf", VAULT, "/etc/ssh/sshd_config.d/vault.conf"])
    for account in ("vault", "offsite"):
        lab.exec("ops1", ["userdel", "--force", account], check=False)
    lab.exec("db1", ["rm", "-rf", PLACE])


def test_a_backup_lives_here_then_there_and_comes_back(host: Host) -> None:
    """A local copy goes after a proven one is elsewhere, a remote one after ninety days, an off-site one never."""
    host.write_config("life", remote=sftp("vault", "repository/life"), offsite=local("offsite-life"))
    host.init("life", "remote")
    host.init("life", "offsite")
    host.make("life", [-12, -11, -10])
    host.make("life", [-9], "incremental")
    host.make("life", [-3, -1])
    before = host.rows("life")

    plan = host.run("prune", "life", "local", "--dry-run").stdout
    assert plan.count("the tier 'remote' cannot be relied upon: it was never checked") == 4, plan
    host.run("prune", "life", "local")
    assert host.rows("life") == before

    done = host.run("copy", "life").stdout
    assert "life remote: 6 copied, 6 proven" in done
    assert "life offsite: 6 copied, 6 proven" in done
    assert "life remote: 0 copied, 0 proven" in host.run("copy", "life", "--tier", "remote").stdout
    assert [row["id"] for row in host.rows("life", "--tier", "remote")] == [row["id"] for row in before]
    assert {row["verdict"] for row in host.rows("life", "--tier", "offsite")} == {"verified"}

    done = host.run("prune", "life", "local", code=1)
    assert "4 of 6 backups would go, more than 50% of them" in done.stdout
    plan = host.run("prune", "life", "local", "--dry-run", "--allow", "share").stdout
    assert plan.count("delete  ") == 4
    assert host.rows("life") == before
    host.run("prune", "life", "local", "--allow", "share")
    assert [row["sequence"] for row in host.rows("life")] == [5, 6]

    wanted = before[3]
    host.run("fetch", "life", wanted["id"], "--tier", "remote")
    host.run("fetch", "life", before[2]["id"], "--tier", "offsite")
    rows = host.rows("life")
    assert [row["path"] for row in rows] == [row["path"] for row in before[2:]]
    assert [row["verdict"] for row in rows] == ["verified"] * 4
    host.whole("life")
    assert "is held for another 7 d" in host.run("prune", "life", "local").stdout
    assert host.run("fetch", "life", "none", "--tier", "remote", code=1).stderr.count(
        "life remote has no backup 'none'"
    )

    done = host.run("prune", "life", "offsite", code=2)
    assert "the tier 'offsite' of life is kept for ever" in done.stderr
    host.make("life", [88, 89])
    host.run("copy", "life", day=89)
    assert (
        "the clock is 89 d ahead of the last run"
        in host.run("prune", "life", "--allow", "share", day=89, code=1).stdout
    )
    done = host.run("prune", "life", "--allow", "share", "--allow", "clock", day=89).stdout
    assert "life: 4 removed" in done, "what was fetched is not held any more"
    assert [row["sequence"] for row in host.rows("life", "--tier", "remote")] == [7, 8]
    assert [row["sequence"] for row in host.rows("life")] == [7, 8]
    assert [row["sequence"] for row in host.rows("life", "--tier", "offsite")] == list(range(1, 9))
    assert "life remote: 0 copied" in host.run("copy", "life", "--tier", "remote", day=89).stdout


class Remote:
    """A source with three backups, and a repository of its own for copies of them."""

    def __init__(
        self, host: Host, name: str, tier: dict[str, Any], days: Sequence[float] = (-20, -19, -1), **more: Any
    ) -> None:
        self.host, self.name, self.tier = host, name, tier
        host.write_config(name, remote=tier, **more)
        host.init(name, "remote")
        host.make(name, list(days))

    def restic(self, *argv: str, check: bool = True) -> str:
        """Run restic itself, as an administrator would."""
        options = [part for option in self.tier.get("options", []) for part in ("-o", option)]
        known = [f"RESTIC_REPOSITORY={self.tier['repository']}", f"RESTIC_PASSWORD_FILE={PLACE}/password"]
        command = ["env", *known, "restic", "--no-cache", *options, *argv]
        return str(self.host.lab.exec("db1", command, check=check, timeout=120).stdout)

    def copy(self, code: int = 0) -> str:
        done = self.host.run("copy", self.name, "--tier", "remote", code=code)
        return done.stdout + done.stderr

    def plan(self) -> str:
        return self.host.run("prune", self.name, "local", "--dry-run", "--allow", "share", code=None).stdout

    def nothing_goes(self, words: str) -> None:
        """Pruning leaves all three, for this reason."""
        before = self.host.rows(self.name)
        done = self.host.run("prune", self.name, "local", "--allow", "share", code=None).stdout
        assert words in done, done
        assert self.host.rows(self.name) == before
        assert len(before) == 3


@pytest.fixture(scope="module")
def remote(host: Host) -> Remote:
    """A source whose copies are proven."""
    found = Remote(host, "trouble", local("trouble", read_share=1), options={"size": 300000})
    found.copy()
    assert found.plan().count("delete  ") == 1
    return found


def packs(host: Host, repository: str) -> list[str]:
    """The files with data, the largest first."""
    place = f"{PLACE}/{repository}/data"
    found = host.lab.exec("db1", ["find", place, "-type", "f", "-printf", "%s %p\n"]).stdout.split("\n")
    return [line.split()[1] for line in sorted(filter(None, found), key=lambda line: -int(line.split()[0]))]


def test_a_damaged_pack_is_found_and_the_local_copies_stay(host: Host, restore: Any) -> None:
    damaged = Remote(host, "damaged", local("damaged", read_share=1), options={"size": 300000})
    damaged.copy()
    pack = packs(host, "damaged")[0]
    restore.path("db1", pack)
    host.lab.exec("db1", ["dd", "if=/dev/urandom", f"of={pack}", "bs=16", "seek=1000", "count=1", "conv=notrunc"])
    assert "no copy in remote counts: the repository" in damaged.copy(code=1)
    damaged.nothing_goes("the tier 'remote' cannot be relied upon: the repository")
    assert "no copy in remote counts" in damaged.copy(code=1), "once found, all is read until it is sound"
    restore.undo()
    damaged.copy()
    assert damaged.plan().count("delete  ") == 1


def test_a_copy_that_cannot_be_read_back_never_counts(host: Host) -> None:
    """The pack is damaged before the copy was read back, and the check of the structure alone would not see it."""
    weak = Remote(host, "weak", local("weak", read_share=0), options={"size": 300000})
    weak.restic("backup", "--quiet", "--force", "--tag", "other", f"{PLACE}/root/weak/full")
    pack = packs(host, "weak")[0]
    host.lab.exec("db1", ["dd", "if=/dev/urandom", f"of={pack}", "bs=16", "seek=1000", "count=1", "conv=notrunc"])
    done = weak.copy(code=1)
    assert "does not count: the repository" in done, done
    weak.nothing_goes("cannot be relied upon")


def test_what_is_not_equal_to_the_local_one_never_counts(host: Host) -> None:
    changed = Remote(host, "changed", local("changed", read_share=0))
    path = host.rows("changed")[0]["path"]
    host.lab.exec("db1", ["dd", "if=/dev/urandom", f"of={path}/data", "bs=16", "seek=10", "count=1", "conv=notrunc"])
    done = changed.copy(code=1)
    assert "data is not what the manifest says; verify the backup on this host too" in done
    assert "2 proven" in done
    changed.nothing_goes("the tier 'remote' has no proven copy of it")
    host.run("verify", "changed", path, code=1)


def test_a_wrong_password_is_told_and_nothing_is_lost(host: Host, remote: Remote, restore: Any) -> None:
    restore.path("db1", f"{PLACE}/password")
    host.put(f"{PLACE}/password", "something else")
    assert f"the password in {PLACE}/password does not open the repository {PLACE}/trouble" in remote.copy(code=1)
    assert "does not open" in host.run("fetch", "trouble", "x", "--tier", "remote", code=1).stderr
    host.lab.exec("db1", ["chmod", "0640", f"{PLACE}/password"])
    assert "must be a file that only its owner can read (mode 0600)" in remote.copy(code=1)
    host.lab.exec("db1", ["rm", f"{PLACE}/password"])
    assert f"cannot read {PLACE}/password: No such file" in remote.copy(code=1)


def test_a_repository_in_use_is_told_and_left_alone(host: Host, remote: Remote) -> None:
    known = [f"RESTIC_REPOSITORY={PLACE}/trouble", f"RESTIC_PASSWORD_FILE={PLACE}/password"]
    command = ["docker", "exec", "--interactive", host.lab.container("db1"), "env", *known]
    command += ["restic", "backup", "--quiet", "--stdin", "--tag", "other"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as other:
        assert other.stdin is not None
        limit = time.monotonic() + 120
        while not host.lab.exec("db1", ["ls", f"{PLACE}/trouble/locks"]).stdout and time.monotonic() < limit:
            time.sleep(0.2)
        host.make("trouble", [0])
        done = remote.copy(code=75)
        assert "is locked by another program" in done
        assert "try again when it has ended" in done
        assert host.lab.exec("db1", ["ls", f"{PLACE}/trouble/locks"]).stdout, "the lock of a living program stays"
        assert host.state("trouble")["pending"], "what was read back is not read again"
        other.stdin.write(b"x")
        other.stdin.close()
        assert other.wait(timeout=120) == 0
    assert "0 copied, 1 proven" in remote.copy()


def test_a_repository_that_is_gone_is_not_made_anew(host: Host, remote: Remote, restore: Any) -> None:
    host.lab.exec("db1", ["mv", f"{PLACE}/trouble", f"{PLACE}/elsewhere"])
    restore.run("db1", ["mv", "--no-target-directory", f"{PLACE}/elsewhere", f"{PLACE}/trouble"])
    restore.run("db1", ["rm", "-rf", f"{PLACE}/trouble"])
    done = remote.copy(code=1)
    assert f"there is no repository at {PLACE}/trouble" in done
    assert host.lab.exec("db1", ["test", "-e", f"{PLACE}/trouble"], check=False).returncode == 1
    host.init("trouble", "remote")
    state = host.state("trouble")
    assert "is not the one whose copies were proven" in host.run("prune", "trouble", "remote", code=1).stderr
    done = remote.copy()
    assert "another repository than before is at remote; all of its copies are proven anew" in done
    assert set(host.state("trouble")["copies"]) == set(state["copies"])


def test_a_copy_that_somebody_removed_is_missed(host: Host, remote: Remote) -> None:
    remote.copy()
    snapshots = json.loads(remote.restic("snapshots", "--json", "--tag", "source:trouble"))
    remote.restic("forget", snapshots[0]["id"])
    done = remote.copy()
    assert "is gone from remote, and it was not pruned by this program" in done
    assert "1 copied, 1 proven" in done


def test_snapshots_of_others_are_never_touched(host: Host) -> None:
    mixed = Remote(host, "mixed", local("mixed", keep={"age": "5d", "fresh": "30d"}))
    mixed.copy()
    mixed.restic("backup", "--quiet", "--tag", "source:mixed", "/etc/hostname")
    mixed.restic("backup", "--quiet", "/etc/hosts")
    host.make("mixed", [0])
    mixed.copy()
    done = host.run("prune", "mixed", "remote", "--allow", "share").stdout
    assert "mixed remote: 2 removed" in done
    assert "1 snapshots have the tag of the source but are no copies of ours; they are not touched" in done
    left = json.loads(mixed.restic("snapshots", "--json"))
    assert sorted(entry["paths"][0].rsplit("/", 1)[1][:4] for entry in left)[-2:] == ["host", "host"]
    assert len(left) == 4


def test_a_tree_of_uploads_is_proven_file_by_file(host: Host) -> None:
    """Names that are no UTF-8, links, hard links and empty files; then one file of the snapshot is changed."""
    place = f"{PLACE}/uploads"
    host.lab.exec("db1", ["mkdir", "-p", f"{place}/deep/er"])
    script = (
        "import os\n"
        f"os.chdir('{place}')\n"
        "for name in (b'caf\\xe9.pdf', 'Bericht \\u4e2d\\u6587.txt'.encode(), b'deep/er/x', b'a b', b'empty'):\n"
        "    open(name, 'wb').write(b'' if name == b'empty' else name * 1000)\n"
        "os.symlink('../none', 'deep/link')\n"
        "os.link('a b', 'same')\n"
    )
    host.lab.exec("db1", ["python3", "-c", script])
    host.config["sources"]["uploads"] = {
        "engine": "files", "paths": [place], "tiers": {"remote": local("remote-uploads", read_share=0)}
    }  # fmt: skip
    host.put(CONFIG, json.dumps(host.config))
    host.init("uploads", "remote")
    host.make("uploads", [-9, -8, -1], "snapshot")
    assert "3 copied, 3 proven" in host.run("copy", "uploads").stdout
    first = host.rows("uploads")[0]
    host.run("prune", "uploads", "local", "--allow", "share")
    host.run("fetch", "uploads", first["id"], "--tier", "remote")
    assert [row["verdict"] for row in host.rows("uploads")] == ["verified"] * 3
    made, back = (
        host.lab.exec("db1", ["find", tree, "-printf", "%P %y %s %m %l\\n"]).stdout.splitlines()[1:]
        for tree in (place, f"{first['path']}/tree{place}")
    )
    assert len(made) == 9
    assert sorted(back) == sorted(made)

    host.make("uploads", [0], "snapshot")
    changed = f"{host.rows('uploads')[-1]['path']}/tree{place}/deep/er/x"
    host.lab.exec("db1", ["cp", "--remove-destination", "/etc/hostname", changed])
    done = host.run("copy", "uploads", code=1).stderr
    assert "tree is not what its list says; verify the backup on this host too" in done


def test_the_playbook_tells_the_plan_and_fails_where_it_is_refused(host: Host, lab: Any) -> None:
    config, place = f"{PLACE}/playbook.json", f"{PLACE}/few"
    sources = {"few": {"engine": "files", "paths": [place], "keep": {"age": "5d"}}}
    host.put(config, json.dumps({**host.config, "sources": sources}))
    lab.exec("db1", ["mkdir", place])
    for day in (-12, -11, -10, -9, -8, -2, -1):
        host.put(f"{place}/file", f"day {day}")
        lab.exec("db1", ["env", f"SHIFT={day * DAY}", "python3", PROGRAM, "--config", config, "run", "few", "snapshot"])
    argv = ["worklog.maintenance.backup_prune", "-e", json.dumps({"target": "db1", "backup_prune_config": config})]

    def paths() -> list[str]:
        return lab.exec("db1", ["ls", f"{PLACE}/root/few/snapshot"]).stdout.split()

    before = paths()
    refused = lab.playbook(*argv)
    assert refused.returncode != 0
    assert "db1: few: 5 of 7 backups would go, more than 50% of them" in refused.stdout
    assert paths() == before
    checked = lab.playbook(*argv, "-e", "backup_prune_allow=share", "--check", "--diff")
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("it is older than 5 d, and") == 5
    assert paths() == before
    done = lab.playbook(*argv, "-e", "backup_prune_allow=share")
    assert done.returncode == 0, done.stdout
    tables = [[line for line in run.stdout.splitlines() if '"delete  ' in line] for run in (checked, done)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 5
    assert paths() == before[5:]
    again = lab.playbook(*argv)
    assert "changed=0" in again.stdout or "changed=1" in again.stdout, "only the record"
    assert paths() == before[5:]
    records = [json.loads(line) for line in lab.read("db1", "/var/log/worklog-maintenance/records.jsonl").splitlines()]
    mine = [entry["result"] for entry in records if entry["what"] == "backup_prune"][-3:]
    assert mine == ["refused", "ok", "ok"]
    bad = lab.playbook(*argv, "-e", "backup_prune_sources=none")
    assert "there is no source 'none'; there are few" in bad.stdout
    wrong = lab.playbook(*argv, "-e", "backup_prune_allow=everything")
    assert "value of backup_prune_allow must be one or more of: share, clock" in wrong.stdout


def test_a_host_whose_key_is_not_known_is_refused(host: Host, restore: Any) -> None:
    host.write_config("stranger", remote=sftp("vault", "repository/stranger"))
    restore.path("db1", f"{PLACE}/known_hosts")
    other = host.lab.read("db1", f"{PLACE}/key.pub").split()
    host.put(f"{PLACE}/known_hosts", f"ops1 {other[0]} {other[1]}\n")
    said = host.run("init", "stranger", "remote", code=1).stderr
    assert "the key of the host of sftp:vault@ops1" in said or "is the key of its host in known_hosts" in said
    host.config["sources"].pop("stranger")
    blind = sftp("vault", "repository/stranger")
    blind["options"] = [blind["options"][0].replace("Checking=yes", "Checking=no")]
    host.write_config("stranger", remote=blind)
    assert "options that check the key of the other host" in host.run("init", "stranger", "remote", code=2).stderr
    host.config["sources"].pop("stranger")
    host.put(CONFIG, json.dumps(host.config))


def test_a_host_that_does_not_answer_costs_nothing(host: Host, restore: Any) -> None:
    away = Remote(host, "away", sftp("vault", "repository/away"))
    away.copy()
    restore.run("ops1", ["systemctl", "start", "ssh"])
    host.lab.exec("ops1", ["systemctl", "stop", "ssh"])
    assert "cannot be reached" in away.copy(code=1)
    assert away.plan().count("delete  ") == 1, "what was proven lately still counts"
    assert "last checked 9 d ago" in host.run("prune", "away", "local", "--dry-run", day=9, code=None).stdout


def test_a_full_remote_disk_leaves_what_is_there_usable(host: Host, restore: Any) -> None:
    place = f"{VAULT}/vault/small"
    host.lab.exec("ops1", ["mkdir", place])
    host.lab.exec("ops1", ["mount", "-t", "tmpfs", "-o", "size=3M,mode=0777", "none", place])
    restore.run("ops1", ["rmdir", place])
    restore.run("ops1", ["umount", "--lazy", place])
    small = Remote(host, "small", sftp("vault", "small"), options={"size": 4000000})
    done = small.copy(code=1)
    assert "was not copied: " in done
    small.nothing_goes("the tier 'remote' has no proven copy of it")
    host.lab.exec("ops1", ["mount", "-o", "remount,size=60M", place])
    assert "3 copied, 3 proven" in small.copy()
    assert small.plan().count("delete  ") == 1


def test_an_off_site_account_that_cannot_delete(host: Host) -> None:
    """The other host takes what has arrived from the account; docs/backup.md tells the two lines that do it."""
    tier = sftp("offsite", "repository")
    host.write_config("kept", offsite=tier)
    host.init("kept", "offsite")
    host.make("kept", [-2, -1])
    host.run("copy", "kept")
    place = f"{VAULT}/offsite/repository"
    for argv in SEAL:
        host.lab.exec("ops1", [part.replace("PLACE", place) for part in argv])
    before = host.lab.exec("ops1", ["find", place, "-type", "f", "-exec", "sha256sum", "{}", "+"]).stdout
    found = [line.split()[1].replace(f"{VAULT}/offsite", "") for line in before.splitlines()]
    ssh = tier["options"][0].partition("=")[2].replace(" -s sftp", "").split()[1:]
    destination = ssh.pop()
    look = host.lab.exec("db1", ["sftp", *ssh, "-b", "-", destination], stdin="ls /repository/data", check=False)
    assert look.returncode == 0, look.stderr
    for path in (found[0], next(path for path in found if "/snapshots/" in path), "/repository/config"):
        for attack in (f"rm {path}", f"rename {path} {path}.gone", f"put /etc/hostname {path}", f"chmod 777 {path}"):
            done = host.lab.exec("db1", ["sftp", *ssh, "-b", "-", destination], stdin=attack, check=False)
            assert done.returncode != 0, attack
    named = [f"RESTIC_REPOSITORY={tier['repository']}", f"RESTIC_PASSWORD_FILE={PLACE}/password"]
    command = ["env", *named, "restic", "-o", tier["options"][0], "forget", "--keep-last", "1", "--prune"]
    host.lab.exec("db1", command, check=False)
    after = host.lab.exec("ops1", ["find", place, "-type", "f", "-exec", "sha256sum", "{}", "+"]).stdout
    assert set(before.splitlines()) <= set(after.splitlines()), "nothing that had arrived is gone or changed"
    host.make("kept", [0])
    assert "kept offsite: 1 copied, 1 proven" in host.run("copy", "kept").stdout


#: What the other host does with what has arrived, by a timer: it takes the files, and makes the directories sticky.
SEAL = (
    ["find", "PLACE", "-path", "PLACE/locks", "-prune", "-o", "-type", "f", "-user", "offsite",
     "-exec", "chown", "root:offsite", "{}", "+", "-exec", "chmod", "0440", "{}", "+"],
    ["find", "PLACE", "-path", "PLACE/locks", "-prune", "-o", "-type", "d",
     "-exec", "chown", "root:offsite", "{}", "+", "-exec", "chmod", "1770", "{}", "+"],
)  # fmt: skip


def test_secrets_are_in_no_list_of_processes(host: Host) -> None:
    quiet = Remote(host, "quiet", sftp("vault", "repository/quiet"), options={"size": 2000000})
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(host.lab.exec("db1", ["ps", "-e", "-ww", "-o", "args="], check=False).stdout.splitlines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        quiet.copy()
    finally:
        done.set()
        watcher.join()
    assert any("restic" in line and "backup" in line for line in seen), "the watcher saw it work"
    everything = "\n".join(seen) + host.lab.read("db1", f"{PLACE}/records.jsonl")
    everything += host.lab.exec("db1", ["grep", "-r", "", f"{PLACE}/root", "--include=*.json"]).stdout
    assert PASSWORD not in everything
    assert SECRET not in everything


@pytest.mark.campaign
@pytest.mark.parametrize("verb", ["copy", "prune", "fetch"])
def test_killed_at_any_moment_the_next_run_goes_on(host: Host, verb: str) -> None:
    killed = kill_at_random_moments(host, verb, rounds=KILLS, seed=20260131)
    print(f"{verb}: killed in {killed} of {KILLS} runs before it was done; the next run always went on")


ALLOW = ("--allow", "share", "--allow", "clock")


def kill_at_random_moments(host: Host, verb: str, rounds: int, seed: int) -> int:
    """Kill the program and what it started, then let it run: whole backups only, and all is well.

    Returns how many runs were killed before they were done.
    """
    chance, name = random.Random(f"{verb}{seed}"), f"kill-{verb}"
    keep = {"age": "5d", "fresh": "300d"}
    killed = Remote(host, name, local(name, keep=keep), (), options={"size": 400000, "keep": keep})
    commands = {
        "copy": ["copy", name],
        "prune": ["prune", name, *ALLOW],
        "fetch": ["fetch", name, "", "--tier", "remote"],
    }
    length, early = 4.0, 0
    for number in range(rounds):
        day = 30 * number
        host.make(name, [day - 20, day - 19, day])
        if verb != "copy":
            host.run("copy", name, day=day)
        oldest = host.rows(name)[0]["id"]
        if verb == "fetch":
            host.run("prune", name, "local", *ALLOW, day=day)
            assert oldest not in [row["id"] for row in host.rows(name)]
        command = [oldest if part == "" else part for part in commands[verb]]
        unit = f"{name}-{number}"
        argv = ["systemd-run", "--quiet", "--wait", "--collect", f"--unit={unit}", f"--setenv=SHIFT={day * DAY}"]
        begin = time.monotonic()
        with subprocess.Popen(
            ["docker", "exec", host.lab.container("db1"), *argv, "python3", PROGRAM, "--config", CONFIG, *command],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            time.sleep(moment := chance.uniform(0.05, length))
            host.lab.exec("db1", ["systemctl", "kill", "--kill-who=all", "--signal=KILL", unit], check=False)
            process.wait(timeout=120)
        if process.returncode == 0:
            length = time.monotonic() - begin  # it was done before
        early += process.returncode != 0
        host.whole(name)
        host.run(*command, day=day)
        host.whole(name)
        killed.restic("check")
        here = {row["id"] for row in host.rows(name)}
        there = {row["id"] for row in host.rows(name, "--tier", "remote") if row["verdict"]}
        if verb == "copy":
            assert there >= here, moment
        elif verb == "fetch":
            assert oldest in here, moment
        else:
            assert (len(here), here) == (2, there), (moment, host.run(*command, "--dry-run", day=day).stdout)
        listing = host.lab.exec("db1", ["find", f"{PLACE}/root/{name}", "-name", "*.partial"]).stdout
        assert listing == "", "nothing half-made is left"
    return early
