# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook patch costs on many hosts, beside a bare play of ansible.builtin.apt with the same batches.

    python3 tests/bench/bench_patch_scale.py [HOSTS ...]     # default: 10 50 100

A host is a container of the lab's image of ops1 without systemd, whose only source of packages is a signed repository
on its own disk; Ansible reaches it by docker exec. So apt, dpkg, Ansible and the modules are real and each host has its
own packages; no service is restarted, nothing is loaded over a network, and all hosts share this machine's processors,
which real ones do not. That favours the bare play: what a host does by itself is paid here too.

Each number of hosts is begun with one package that is out of date. The bare play loads the lists and upgrades, one
task; the same again finds nothing to do. The play by hand also does, with builtin modules, some of what the playbook
does: it reads packages and services before and after, compares the services, and leaves a line on the host; it keeps no
old packages and looks for nothing that stands in the way. The playbook is run twice, as the bare play. All begin on
hosts that were put back. Seconds are those of the whole command; "controller" is the processor time of ansible-playbook
itself, without what the hosts do.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.lab import package_repository  # noqa: E402

IMAGE = "worklog-lab/operations"
NAME = "wl-bench-patch"
SERIAL = [1, "10%", "25%"]
BARE: list[dict[str, Any]] = [
    {
        "hosts": "all",
        "gather_facts": False,
        "become": True,
        "serial": SERIAL,
        "tasks": [{"name": "Upgrade", "ansible.builtin.apt": {"update_cache": True, "upgrade": "safe"}}],
    }
]
STATES = "services | dict2items | selectattr('value.state', 'eq', 'running') | map(attribute='key')"
READ: list[dict[str, Any]] = [
    {"name": "Read the packages", "ansible.builtin.command": "dpkg-query -W", "changed_when": False},
    {"name": "Read the services", "ansible.builtin.service_facts": {}},
]
BEFORE, AFTER = ([{**task, "register": f"{when}_{name}"} for task, name in zip(READ, ("packages", "services"))]
                 for when in ("before", "after"))  # fmt: skip
STOPPED = f"before_services.ansible_facts.{STATES} | difference(after_services.ansible_facts.{STATES})"
BY_HAND = [
    {
        **BARE[0],
        "tasks": [
            *BEFORE,
            *BARE[0]["tasks"],
            *AFTER,
            {"name": "Compare the services", "ansible.builtin.assert": {"that": f"{STOPPED} | length == 0"}},
            {
                "name": "Leave a line",
                "ansible.builtin.lineinfile": {
                    "path": "/var/log/patch",
                    "line": "{{ after_packages.stdout_lines | difference(before_packages.stdout_lines) | join(', ') }}",
                    "create": True,
                    "mode": "0640",
                },
            },
        ],
    }
]
OURS = {"patch_watch": 0, "patch_settle": 0, "patch_batches": SERIAL[1:]}
Figures = dict[str, tuple[float, float]]


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker {' '.join(argv)} failed: {done.stderr}")
    return done.stdout


def make(directory: Path) -> None:
    """Make a repository with two versions of a package that has no service."""
    package_repository.publish(directory, *(
        package_repository.package(directory, "wl-data", version, "", {"usr/share/wl-data": (f"{version}\n", 0o644)})
        for version in ("1.0", "1.1")
    ))  # fmt: skip


def start(directory: Path, hosts: Sequence[str]) -> None:
    """Start the hosts, each with the old version."""
    make(directory)
    image = next(iter(docker("image", "ls", "--quiet", IMAGE).split()), "")
    if not image:
        raise SystemExit(f"there is no image {IMAGE}; make lab makes it")
    for host in hosts:
        docker("run", "--detach", "--init", f"--name={host}", "--network=none", image, "sleep", "infinity")
    copy = f"{directory}/repository/."
    package_repository.each(hosts, lambda one: docker("cp", "--quiet", copy, f"{one}:{package_repository.TARGET}.new"))
    package_repository.shell(hosts, package_repository.SUPPLY)
    back(hosts)


def back(hosts: Sequence[str]) -> None:
    """Put the old version back, and forget what was recorded."""
    old = f"{package_repository.TARGET}/wl-data_1.0_all.deb"
    package_repository.shell(hosts, f"dpkg -i {old}\nrm -rf /var/lib/worklog-maintenance /var/lib/apt/wl-lists/_*")


def versions(hosts: Sequence[str]) -> set[str]:
    return {docker("exec", host, "dpkg-query", "-W", "-f", "${Version}", "wl-data") for host in hosts}


def play(inventory: Path, *argv: str) -> tuple[float, float]:
    """Run a playbook; return its seconds and those of the processor on the controller."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), *argv]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(directory: Path, hosts: Sequence[str]) -> Figures:
    inventory, bare, by_hand = (directory / f"{name}.json" for name in ("hosts", "bare", "by_hand"))
    common = {
        "ansible_connection": "community.docker.docker",
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory.write_text(json.dumps({"all": {"vars": common, "hosts": {host: {} for host in hosts}}}), encoding="utf-8")
    bare.write_text(json.dumps(BARE), encoding="utf-8")
    by_hand.write_text(json.dumps(BY_HAND), encoding="utf-8")
    ours = ["worklog.maintenance.patch", "--extra-vars", json.dumps(OURS)]
    found: Figures = {}
    for name, argv in (("bare", [str(bare)]), ("by hand", [str(by_hand)]), ("patch", ours)):
        back(hosts)
        found[f"{name}, one package"] = play(inventory, *argv)
        if versions(hosts) != {"1.1"}:
            raise SystemExit(f"{name}: the hosts have {versions(hosts)}")
        if name != "by hand":
            found[f"{name}, nothing to do"] = play(inventory, *argv)
    return found


def main() -> int:
    numbers = [int(word) for word in sys.argv[1:]] or [10, 50, 100]
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, batches {SERIAL}, 20 forks"
    )
    print(f"{'':30} {'hosts':>5} {'seconds':>8} {'a host':>7} {'controller':>10} {'a host':>7} {'load':>5} ratio")
    for number in numbers:
        hosts = [f"{NAME}-{index:03}" for index in range(number)]
        left = docker("ps", "--all", "--quiet", f"--filter=name=^{NAME}-").split()
        if left:
            docker("rm", "--force", *left)
        with tempfile.TemporaryDirectory() as directory:
            try:
                start(Path(directory), hosts)
                found = measure(Path(directory), hosts)
            finally:
                left = docker("ps", "--all", "--quiet", f"--filter=name=^{NAME}-").split()
                if left:
                    docker("rm", "--force", *left)
        for name, (seconds, controller) in found.items():
            base = found[f"bare,{name.partition(',')[2]}"]
            ratio = f"{seconds / base[0]:5.2f}  (controller {controller / base[1]:.2f})"
            print(
                f"{name:30} {number:5} {seconds:8.1f} {seconds / number:7.2f} {controller:10.1f}"
                f" {controller / number:7.2f} {os.getloadavg()[0]:5.1f}  {'' if name.startswith('bare') else ratio}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
