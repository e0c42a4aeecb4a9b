# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx_upload_limit on 1,000 server blocks against crossplane's parser and nginx's own test, in one run on lb1.

    python3 tests/bench/bench_nginx_upload_limit.py [ROUNDS]

The servers are in 1,000 files and in one. Everything runs inside the node, one after the other in each round:
the whole module as Ansible starts it there (a fresh Python, in check mode: nginx -V, nginx -t, parse, plan for one
server), its work alone without Python's start and the nginx programs, `crossplane parse`, its parser alone, and
`nginx -t`. Times are processor seconds, which other work on the machine hardly changes. The medians and the ratios are
printed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import crossplane
from ansible import module_utils

ROOT = Path(__file__).resolve().parents[2]
SERVERS = 1000
SERVER = """# site {n}
server {{
    listen 80;
    server_name site{n}.test www.site{n}.test;
    root /srv/site{n};
    access_log off;
    client_max_body_size {size}m;
    location / {{
        proxy_pass http://127.0.0.1:9;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
    location ~* \\.(png|jpg|css|js)$ {{
        expires 7d;
    }}
    location = /upload {{
        client_max_body_size 20m;
        proxy_pass http://127.0.0.1:9;
    }}
}}
"""
MAIN = "events {}\nhttp {\n    server_names_hash_max_size 8192;\n    server_names_hash_bucket_size 128;\n    %s\n}\n"

INSIDE = r"""
import json, resource, statistics, subprocess, sys
rounds, config = int(sys.argv[1]), sys.argv[2]
options = {"config": config, "executable": "/usr/sbin/nginx", "limit": "50m", "servers": [{"name": "site500.test"}]}
arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": True}})
module = "ansible_collections.worklog.maintenance.plugins.modules.nginx_upload_limit"
work = '''
import gc, time
gc.disable()
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import config, effective, plan
began = time.process_time()
one = config.Config(%r, config.Tree())
made = plan.make(one, effective.build(one), [plan.Ask("site500.test", limit="50m")], "auto", "50m")
assert len(made.edits) == 1, made.edits
print(time.process_time() - began)
''' % config
parse = '''
import crossplane, gc, time
gc.disable()
began = time.process_time()
assert crossplane.parse(%r)["status"] == "ok"
print(time.process_time() - began)
''' % config
cases = {
    "module": ["python3", "-m", module, arguments],
    "work": ["python3", "-c", work],
    "parse": ["python3", "-c", parse],
    "crossplane": ["python3", "-m", "crossplane", "parse", config],
    "nginx -t": ["/usr/sbin/nginx", "-t", "-c", config],
}
def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime
taken = {name: [] for name in cases}
for number in range(rounds + 1):
    for name, argv in cases.items():
        began = used()
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seconds = used() - began
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        if name == "module":
            assert json.loads(done.stdout)["changed"], done.stdout
        if number:
            taken[name].append(float(done.stdout) if name in ("work", "parse") else seconds)
print(json.dumps({name: statistics.median(values) for name, values in taken.items()}))
"""


def call(argv: list[str], timeout: float = 600) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv[:4])} ... ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def prepare(directory: Path) -> None:
    """Lay out the configurations and what the node needs to run the three programs."""
    for name, files in (("1,000 files", SERVERS), ("1 file", 1)):
        base = directory / name.replace(",", "").replace(" ", "-")
        (base / "sites").mkdir(parents=True)
        (base / "nginx.conf").write_text(MAIN % "include sites/*.conf;")
        blocks = [SERVER.format(n=n, size=n % 9 + 1) for n in range(SERVERS)]
        each = SERVERS // files
        for number in range(files):
            (base / "sites" / f"{number:04}.conf").write_text("".join(blocks[number * each : (number + 1) * each]))
    library = directory / "library"
    collection = library / "ansible_collections" / "worklog" / "maintenance"
    collection.mkdir(parents=True)
    ansible = Path(next(iter(module_utils.__path__)))
    call(["cp", "-r", str(ROOT / "plugins"), str(collection)])
    (library / "ansible").mkdir()
    (library / "ansible" / "__init__.py").touch()
    call(["cp", "-r", str(ansible), str(library / "ansible")])
    call(["cp", "-r", str(Path(crossplane.__file__).parent), str(library)])


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    prefix = os.environ.get("LAB_PREFIX") or "worklog"
    node = f"{prefix}-lb1"
    lab = [sys.executable, str(ROOT / "tests" / "lab" / "lab.py")]
    call([*lab, "up", "--prefix", prefix, "--nodes", "lb1", "--quiet"], 1800)
    try:
        with tempfile.TemporaryDirectory() as directory:
            prepare(Path(directory))
            call(["docker", "exec", node, "mkdir", "-p", "/opt/bench"])
            call(["docker", "cp", f"{directory}/.", f"{node}:/opt/bench/"])
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, {SERVERS} servers, "
            f"median of {rounds} rounds, processor seconds:\n"
        )
        print(f"{'':14}{'module':>9}{'its work':>10}{'crossplane parse':>18}{'(parse alone)':>15}{'nginx -t':>10}")
        ratios = []
        for name in ("1,000 files", "1 file"):
            config = f"/opt/bench/{name.replace(',', '').replace(' ', '-')}/nginx.conf"
            argv = ["docker", "exec", "--env", "PYTHONPATH=/opt/bench/library", node, "python3", "-c", INSIDE]
            one = json.loads(call([*argv, str(rounds), config]))
            print(
                f"{name:14}{one['module']:9.3f}{one['work']:10.3f}{one['crossplane']:18.3f}"
                f"{one['parse']:15.3f}{one['nginx -t']:10.3f}"
            )
            ratios.append(
                f"{name}: the module takes {one['module'] / one['crossplane']:.2f} of crossplane parse, "
                f"{one['module'] / one['nginx -t']:.1f} times nginx -t; parse and plan alone take "
                f"{one['work'] / one['parse']:.2f} of crossplane's parser"
            )
        print("\n" + "\n".join(ratios))
    finally:
        subprocess.run(["docker", "exec", node, "rm", "-rf", "/opt/bench"], check=False, timeout=60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
