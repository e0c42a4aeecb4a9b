# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of MongoDB, Redis, uploads, secrets and logs, by the real programs, in good times and in bad ones."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.backup_program import Program
from tests.system.conftest import Lab, Restore

pytestmark = [pytest.mark.capability("A4", "A5", "A6")]

PLACE = "/var/lib/backup-sources"
DATA = f"{PLACE}-data"
SECRET = "hunter2-very-secret"
MONGO = "mongodb://127.0.0.1:27017/"
PORT = 6390

#: Writes into a node a tree with everything that a file system can hold.
TREE = r"""
import os, socket, stat, sys
root = sys.argv[1].encode()
os.makedirs(root + b"/deep/" + b"/".join([b"d" * 100] * 15))
open(root + b"/deep/" + b"/".join([b"d" * 100] * 15) + b"/file", "w").write("deep")
for name in (b"-rf", b"--delete", b"line\nbreak", b"tab\tand\rreturn", b"\xff\xfe", "\u5de5\u5355.pdf".encode(),
             b"quote'\"$(id)`", b"x" * 255, b"...", b"*?[a]", b" ", b"\\", b"tree.jsonl.gz", b"manifest.json"):
    with open(root + b"/" + name, "wb") as file:
        file.write(name * 3)
os.makedirs(root + b"/empty")
os.mkdir(root + b"/-dir")
open(root + b"/-dir/broken.rdb", "w").write("REDIS0010 and then nothing")
open(root + b"/-dir/half.sql.gz", "wb").write(b"\x1f\x8b\x08 no")
os.symlink(b"/etc/shadow", root + b"/out")
os.symlink(b"../../../../etc/passwd", root + b"/up")
os.symlink(b"nowhere", root + b"/dangling")
os.symlink(b".", root + b"/loop")
os.link(root + b"/-rf", root + b"/-dir/hard")
os.mkfifo(root + b"/pipe")
os.mknod(root + b"/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
socket.socket(socket.AF_UNIX).bind(os.path.relpath(root + b"/socket"))
open(root + b"/private", "w").write("mode 0")
os.chmod(root + b"/private", 0)
os.chown(root + b"/...", 1234567, 7654321)
os.chmod(root + b"/*?[a]", 0o6755)
os.setxattr(root + b"/private", "user.note", b"\0\xff")
with open(root + b"/sparse", "wb") as file:
    file.truncate(3_000_000)
    file.write(b"x")
"""

#: Changes files until the secret is gone: names come, go, grow and become links to it.
CHURN = r"""
import os, random, sys, time
root, secret = sys.argv[1:3]
choose = random.Random(7)
while os.path.exists(secret):
    path = f"{root}/churn{choose.randrange(60)}"
    try:
        what = choose.randrange(100)
        if what < 25:
            os.unlink(path)
        elif what < 27:
            os.symlink(secret, path + ".new")
            os.replace(path + ".new", path)
        else:
            if os.path.islink(path):
                os.unlink(path)
            with open(path, "a") as file:
                file.write("y" * choose.randrange(200_000))
                if file.tell() > 2_000_000:
                    file.truncate(0)
    except OSError:
        pass
    time.sleep(0.002)
"""

#: Runs a program, and prints every command line that was seen meanwhile.
WATCH = r"""
import os, subprocess, sys
seen = set()
with open("/dev/null") as null:
    process = subprocess.Popen(sys.argv[1:], stdin=null)
while process.poll() is None:
    for number in os.listdir("/proc"):
        if number.isdigit():
            try:
                seen.add(open(f"/proc/{number}/cmdline", "rb").read().replace(b"\0", b" "))
            except OSError:
                pass
print(b"\n".join(sorted(seen)).decode("utf-8", "replace"))
sys.exit(process.returncode)
"""


def python(lab: Lab, node: str, code: str, *words: str, **options: Any) -> str:
    return lab.exec(node, ["python3", "-c", code, *words], **options).stdout


@pytest.fixture
def databases(lab: Lab) -> Program:
    """The program on db1."""
    return Program(lab, "db1", PLACE, {})


@pytest.fixture
def host(lab: Lab) -> Program:
    """The program on app1, and a place for data."""
    lab.exec("app1", ["rm", "-rf", DATA])
    lab.exec("app1", ["mkdir", "-p", DATA])
    return Program(lab, "app1", PLACE, {})


def source(program: Program, **options: Any) -> None:
    """Have the program know one source, called it."""
    program.configure({"it": options})


def fails(program: Program, kind: str, *sentences: str) -> str:
    """The backup fails with these sentences, and leaves nothing that looks like one."""
    before = program.directories("it")
    done = program.run("it", kind, code=1)
    for sentence in sentences:
        assert sentence in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert program.directories("it") == before
    record = json.loads(program.lab.read(program.node, f"{program.folder}/records.jsonl").splitlines()[-1])
    assert (record["what"], record["result"], record["severity"]) == ("backup", "failed", "critical")
    return done.stdout + done.stderr


def is_private(program: Program) -> None:
    """Nobody but the owner reads anything: what is in a snapshot's tree keeps its modes, below a closed directory."""
    argv = ["find", program.root, "-name", "tree", "-prune", "-o", "-perm", "/077", "-not", "-type", "l", "-print"]
    assert program.lab.exec(program.node, argv).stdout == ""


# MongoDB


def mongo(lab: Lab, code: str) -> str:
    return python(lab, "db1", f"import pymongo\nclient = pymongo.MongoClient('mongodb://127.0.0.1')\n{code}")


def documents(lab: Lab, database: str = "worklog") -> dict[str, int]:
    code = f"db = client['{database}']\nimport json\n"
    code += "print(json.dumps({name: db[name].count_documents({}) for name in db.list_collection_names()}))"
    found: dict[str, int] = json.loads(mongo(lab, code))
    return found


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "archive.zst"),
        ({"compression": "gzip"}, "archive.gz"),
        ({"compression": "none"}, "archive"),
        ({"databases": ["worklog"]}, "archive-worklog.zst"),
    ],
)
def test_mongodb_is_dumped_counted_and_can_be_restored(
    lab: Lab, databases: Program, options: dict[str, Any], file: str
) -> None:
    source(databases, engine="mongodb", uri=MONGO, **options)
    kept = databases.made("it", "full")
    assert kept["counts"]["worklog"] == documents(lab)
    assert kept["counts"]["worklog"]["work_records"] >= 400
    assert (kept["method"], kept["oplog"], set(kept["exits"].values())) == ("mongodump", False, {0})
    assert file in [entry["path"] for entry in kept["files"]]
    assert databases.list("it")[-1]["verdict"] == "verified"
    is_private(databases)
    opened = f"{DATA}.archive"
    unpack = {"zst": ["zstd", "-dc"], "gz": ["gzip", "-dc"]}.get(file.rpartition(".")[2], ["cat"])
    code = "import subprocess, sys\nsubprocess.run(sys.argv[2:], check=True, stdout=open(sys.argv[1], 'wb'))"
    python(lab, "db1", code, opened, *unpack, f"{kept['path']}/{file}")
    restore = ["mongorestore", f"--archive={opened}", "--noIndexRestore", "--nsFrom=worklog.*", "--nsTo=copy.*"]
    try:
        lab.exec("db1", [*restore, "--nsInclude=worklog.*"])
        assert documents(lab, "copy") == documents(lab)
    finally:
        mongo(lab, "client.drop_database('copy')")
        lab.exec("db1", ["rm", "-f", opened])


def test_an_archive_that_lost_documents_is_told_by_the_counts(lab: Lab, databases: Program) -> None:
    """The counts of the source are the expectation: an archive that is sound in itself, but of another day, fails."""
    source(databases, engine="mongodb", uri=MONGO, compression="none")
    first = databases.made("it", "full")
    mongo(lab, "client.worklog.settings.insert_one({'_id': 'more'})")
    try:
        second = databases.made("it", "full")
    finally:
        mongo(lab, "client.worklog.settings.delete_one({'_id': 'more'})")
    assert second["counts"]["worklog"]["settings"] == first["counts"]["worklog"]["settings"] + 1
    code = (
        "import hashlib, json, shutil, sys\nold, new = sys.argv[1:]\nshutil.copy(old + '/archive', new + '/archive')\n"
        "data = open(new + '/archive', 'rb').read()\ndocument = json.load(open(new + '/manifest.json'))\n"
        "for entry in document['files']:\n  if entry['path'] == 'archive':\n"
        "    entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())\n"
        "json.dump(document, open(new + '/manifest.json', 'w'))"
    )
    python(lab, "db1", code, first["path"], second["path"])
    done = lab.exec("db1", databases.argv("verify", "it"), check=False)
    assert done.returncode == 1
    assert "worklog.settings has 1 rows, but the manifest says 2" in done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"uri": "mongodb://127.0.0.1:27099/", "timeout": "3s"}, "did not end within 3 s and was killed"),
        ({"databases": ["worklog", "nothing"]}, "mongodump found nothing in the database nothing: is its name right?"),
        ({"oplog": True}, "mongodump ended with exit code 1"),
        ({"oplog": True, "databases": ["worklog"]}, "the oplog belongs to all databases"),
        ({"credentials": f"{DATA}/none"}, "No such file or directory; it must hold the credentials"),
        ({"credentials": "/etc/hostname"}, "has mode 0644: take it from others with chmod 600"),
    ],
)
def test_mongodb_failures_are_told(databases: Program, options: dict[str, Any], sentence: str) -> None:
    source(databases, engine="mongodb", **{"uri": MONGO, **options})
    fails(databases, "full", sentence)


def watched(program: Program, kind: str, code: int, until: str = "") -> str:
    """Make a backup, and return what it says with every command line that was seen meanwhile.

    :param until: make another one, up to ten in all, when this was not seen: what lives a moment may be missed.
    """
    argv, said = ["python3", "-c", WATCH, *program.argv("run", "it", kind)], ""
    for _unused in range(10):
        done = program.lab.exec(program.node, argv, check=False, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        said += done.stdout + done.stderr
        if until in said:
            break
    return said


def holds_secret(program: Program) -> list[str]:
    """The files below the folder of the program that hold the secret."""
    argv = ["grep", "-rlaF", "--", SECRET, program.folder]
    return program.lab.exec(program.node, argv, check=False).stdout.split()


def test_a_password_of_mongodb_is_seen_nowhere(lab: Lab, databases: Program) -> None:
    lab.exec("db1", ["install", "-m", "600", "/dev/null", f"{PLACE}/mongo.yml"])
    lab.write("db1", f"{PLACE}/mongo.yml", f"password: {SECRET}\n")
    address = "mongodb://backup@127.0.0.1:27017/"
    source(databases, engine="mongodb", uri=address, credentials=f"{PLACE}/mongo.yml")
    said = watched(databases, "full", 1, "mongodump --archive")  # the lab's server knows no accounts: it refuses
    assert "mongodump --archive" in said
    assert "AuthenticationFailed" in said
    assert SECRET not in said
    assert holds_secret(databases) == [f"{PLACE}/mongo.yml"]


@pytest.fixture
def large(lab: Lab) -> Iterator[None]:
    """A database whose dump takes a while."""
    code = "import os\nfor part in range(24):\n  client.large.rows.insert_many("
    code += "[{'_id': part * 1000 + n, 'data': os.urandom(3000)} for n in range(1000)])"
    mongo(lab, code)
    yield
    mongo(lab, "client.drop_database('large')")


def grown(program: Program, size: int) -> None:
    """Wait until what is made now has this many bytes."""
    argv = ["find", f"{program.root}/it", "-path", "*.partial/*", "-type", "f", "-size", f"+{size}c"]
    end = time.monotonic() + 120
    while not program.lab.exec(program.node, argv, check=False).stdout:
        assert time.monotonic() < end, "nothing was written"
        time.sleep(0.02)


@contextlib.contextmanager
def stopped(lab: Lab, unit: str) -> Iterator[None]:
    lab.exec("db1", ["systemctl", "kill", "--signal=KILL", unit])
    lab.exec("db1", ["systemctl", "stop", unit])
    try:
        yield
    finally:
        lab.exec("db1", ["systemctl", "start", unit])


def test_a_mongodb_that_stops_in_the_middle_is_a_failure(lab: Lab, databases: Program, large: None) -> None:
    source(databases, engine="mongodb", uri=MONGO, compression="none", databases=["large"])
    process = databases.start("it", "full")
    grown(databases, 100_000)
    with stopped(lab, "ferretdb"):
        said, _err = process.communicate(timeout=120)
        assert process.returncode == 1, said
        assert "mongodump ended with exit code 1" in said
        assert databases.directories("it") == []
    end = time.monotonic() + 120
    while lab.exec("db1", databases.argv("run", "it", "full"), check=False).returncode:
        assert time.monotonic() < end, "no backup could be made after the server had come back"
    databases.nothing_false("it")


# Redis


@pytest.fixture
def redis(lab: Lab) -> Iterator[Callable[..., str]]:
    """A Redis of its own with a password, an append-only file and some keys; what is returned speaks to it."""
    lab.exec("db1", ["rm", "-rf", f"{DATA}-redis"])
    lab.exec("db1", ["install", "-d", "-o", "redis", "-m", "700", f"{DATA}-redis"])
    lab.exec("db1", ["install", "-m", "600", "/dev/null", f"{DATA}.password"])
    lab.write("db1", f"{DATA}.password", f"{SECRET}\n")
    lab.write(
        "db1", f"{DATA}.conf",
        f"port {PORT}\nrequirepass {SECRET}\ndir {DATA}-redis\nappendonly yes\nsave \"\"\nrepl-diskless-sync-delay 1\n",
    )  # fmt: skip
    unit = "backup-sources-redis"

    def ask(*words: str) -> str:
        argv = ["env", f"REDISCLI_AUTH={SECRET}", "redis-cli", "-p", str(PORT), *words]
        return lab.exec("db1", argv).stdout.strip()

    argv = ["systemd-run", "--quiet", f"--unit={unit}", "--uid=redis", "redis-server", f"{DATA}.conf"]
    lab.exec("db1", ["chown", "redis", f"{DATA}.conf"])
    lab.exec("db1", argv)
    end = time.monotonic() + 120
    while "PONG" not in lab.exec("db1", ["redis-cli", "-p", str(PORT), "ping"], check=False).stdout:
        if "NOAUTH" in lab.exec("db1", ["redis-cli", "-p", str(PORT), "ping"], check=False).stdout:
            break
        assert time.monotonic() < end
        time.sleep(0.1)
    code = "for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'k' .. i, string.rep('v' .. i, 50)) end"
    ask("EVAL", code, "0", "2000")
    ask("-n", "3", "EVAL", "redis.call('RPUSH', 'list', 1, 2, 3) redis.call('SET', 'gone', 1, 'EX', 9999)", "0")
    yield ask
    lab.exec("db1", ["systemctl", "stop", unit], check=False)
    lab.exec("db1", ["systemctl", "reset-failed", unit], check=False)


def cache(program: Program, **options: Any) -> None:
    source(program, **{"engine": "redis", "port": PORT, "password_file": f"{DATA}.password", **options})


LOADED = r"""
import os, shutil, subprocess, sys, tempfile, time
kept, appendonly = sys.argv[1:]
place = tempfile.mkdtemp()
for name in os.listdir(kept):
    if name in ("dump.rdb", "appendonlydir"):
        (shutil.copytree if os.path.isdir(f"{kept}/{name}") else shutil.copy)(f"{kept}/{name}", f"{place}/{name}")
argv = ["redis-server", "--port", "0", "--unixsocket", f"{place}/s", "--dir", place, "--appendonly", appendonly]
server = subprocess.Popen([*argv, "--save", "", "--enable-debug-command", "yes"], stdout=subprocess.DEVNULL)
def ask(*words):
    return subprocess.run(["redis-cli", "-s", f"{place}/s", *words], capture_output=True, text=True).stdout.strip()
for _unused in range(100):
    if ask("PING") == "PONG":  # until it has loaded everything it says LOADING; DEBUG answers meanwhile
        break
    time.sleep(0.1)
print(ask("DEBUG", "DIGEST"))
server.kill()
server.wait()
shutil.rmtree(place)
"""


@pytest.mark.parametrize("options", [{}, {"method": "bgsave"}, {"aof": True}, {"method": "bgsave", "aof": True}])
def test_redis_is_backed_up_and_a_server_that_loads_it_has_the_same_data(
    lab: Lab, databases: Program, redis: Callable[..., str], options: dict[str, Any]
) -> None:
    cache(databases, **options)
    kept = databases.made("it", "full")
    assert kept["counts"] == {"db0": {"keys": 2000}, "db3": {"keys": 2}}
    assert kept["keys_before"] == kept["keys_after"] == {"db0": 2000, "db3": 2}
    assert kept["method"] == options.get("method", "rdb")
    assert databases.list("it")[-1]["verdict"] == "verified"
    is_private(databases)
    loaded = python(lab, "db1", LOADED, kept["path"], "no").strip()
    assert len(loaded) == 40
    assert set(loaded) != {"0"}
    if options.get("aof"):
        assert python(lab, "db1", LOADED, kept["path"], "yes").strip() == loaded
        assert redis("CONFIG", "GET", "auto-aof-rewrite-percentage").split()[-1] == "100"
        names = {entry["path"] for entry in kept["files"]}
        assert {"appendonlydir/appendonly.aof.manifest", "appendonlydir/appendonly.aof.1.incr.aof"} <= names


def test_an_append_only_file_is_copied_whole_while_it_is_written(
    lab: Lab, databases: Program, redis: Callable[..., str]
) -> None:
    cache(databases, aof=True, method="bgsave")
    code = "for i = 1, 50 do redis.call('SET', 'w' .. math.random(100000), string.rep('x', 5000)) end"
    writer = [
        "env",
        f"REDISCLI_AUTH={SECRET}",
        "redis-cli",
        "-p",
        str(PORT),
        "-r",
        "100000",
        "-i",
        "0.005",
        "EVAL",
        code,
        "0",
    ]
    command = ["docker", "exec", lab.container("db1"), *writer]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            for _unused in range(4):
                kept = databases.made("it", "full")
                assert python(lab, "db1", LOADED, kept["path"], "yes").strip() not in ("", "0" * 40)
        finally:
            for number in databases.processes(r"redis-cli.*-r 100000"):
                lab.exec("db1", ["kill", str(number)])
            process.wait(timeout=120)
    assert kept["keys_before"]["db0"] <= kept["keys_after"]["db0"]
    databases.nothing_false("it")


def test_a_password_of_redis_is_seen_nowhere(lab: Lab, databases: Program, redis: Callable[..., str]) -> None:
    cache(databases)
    said = watched(databases, "full", 0, "redis-cli -h")
    assert f"redis-cli -h 127.0.0.1 -p {PORT} --rdb" in said
    assert SECRET not in said
    assert holds_secret(databases) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": 6399}, "Connection refused"),
        ({"password_file": None}, "NOAUTH Authentication required"),
        ({"password_file": f"{DATA}.wrong"}, "WRONGPASS"),
        ({"password_file": "/etc/hostname"}, "has mode 0644: take it from others with chmod 600"),
        ({"username": "nobody"}, "WRONGPASS"),
        ({"socket": "/run/none.sock"}, "No such file or directory"),
    ],
)
def test_redis_failures_are_told(
    lab: Lab, databases: Program, redis: Callable[..., str], options: dict[str, Any], sentence: str
) -> None:
    lab.exec("db1", ["install", "-m", "600", "/dev/null", f"{DATA}.wrong"])
    lab.write("db1", f"{DATA}.wrong", "wrong-and-secret\n")
    cache(databases, **options)
    assert "wrong-and-secret" not in fails(databases, "full", sentence)


def test_a_redis_that_cannot_save_is_told(lab: Lab, databases: Program, redis: Callable[..., str]) -> None:
    lab.exec("db1", ["chown", "root", f"{DATA}-redis"])  # now it may not write there
    cache(databases, method="bgsave")
    fails(
        databases, "full", "Redis could not save a snapshot (BGSAVE): look into its log, and at the space of its disk"
    )
    cache(databases)  # its memory can still be saved, and must be
    done = databases.run("it", "full")
    assert "is verified" in done.stdout
    warning = "Redis says that its last snapshot failed (rdb_last_bgsave_status)"
    assert warning in databases.manifest(databases.list("it")[-1]["path"])["warnings"][0]
    record = json.loads(lab.read("db1", f"{PLACE}/records.jsonl").splitlines()[-1])
    assert any(warning in finding["message"] for finding in record["findings"])
    lab.exec("db1", ["chown", "redis", f"{DATA}-redis"])
    cache(databases, method="bgsave")
    assert "warnings" not in databases.made("it", "full")


def test_a_redis_that_stops_in_the_middle_is_a_failure(lab: Lab, databases: Program, redis: Callable[..., str]) -> None:
    cache(databases)
    process = databases.start("it", "full")
    end = time.monotonic() + 120
    while not databases.processes(f"{PORT} --rdb"):
        assert time.monotonic() < end
    lab.exec("db1", ["systemctl", "kill", "--signal=KILL", "backup-sources-redis"])
    said, _err = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "redis" in said
    assert databases.directories("it") == []


def test_an_append_only_file_that_is_not_kept_is_told(databases: Program, redis: Callable[..., str]) -> None:
    cache(databases, aof=True)
    redis("CONFIG", "SET", "appendonly", "no")
    fails(databases, "full", "Redis keeps no append-only file (appendonly no): leave out the option aof")


# Uploads


def difference(program: Program, kept: dict[str, Any], *exclude: str) -> str:
    """What another rsync, which compares contents, would change in a snapshot to make it like its source."""
    argv = ["rsync", "-aHAX", "--numeric-ids", "--checksum", "--dry-run", "--itemize-changes", "--delete", "--relative"]
    argv += [*(f"--exclude={pattern}" for pattern in exclude), DATA, f"{kept['path']}/tree/"]
    return program.lab.exec(program.node, argv).stdout


def inodes(program: Program, kept: dict[str, Any]) -> dict[str, str]:
    argv = ["find", f"{kept['path']}/tree", "-type", "f", "-printf", "%P\\0%i\\0"]
    parts = program.lab.exec(program.node, argv).stdout.split("\0")
    return dict(zip(parts[::2], parts[1::2], strict=False))


def test_uploads_are_copied_with_everything_and_shared_between_snapshots(lab: Lab, host: Program) -> None:
    python(lab, "app1", TREE, f"{DATA}/up")
    source(host, engine="files", paths=[DATA], exclude=["*.tmp"])
    lab.exec("app1", ["touch", f"{DATA}/up/left.tmp"])
    first = host.made("it", "snapshot")
    assert difference(host, first, "*.tmp") == ""
    assert first["paths"] == {DATA: f"tree{DATA}"}
    assert (first["listing"]["files"], first["new_files"], first["links"]) == (20, 20, 4)
    assert first["warnings"] == ["3 pipes, sockets or devices are in the tree, which hold no data to back up"]
    is_private(host)
    time.sleep(0.01)
    lab.exec("app1", ["touch", f"{DATA}/up/new"])
    second = host.made("it", "snapshot")
    assert difference(host, second, "*.tmp") == ""
    assert (second["base"], second["new_files"], second["listing"]["files"]) == (first["id"], 1, 21)
    before, after = inodes(host, first), inodes(host, second)
    assert {name: after[name] for name in before} == before
    # the same length, the same second, another content
    code = f"import os\nfor text in 'ab':\n  open('{DATA}/up/new', 'w').write(text)\n"
    code += f"  os.utime('{DATA}/up/new', ns=(10**18, 10**18 + ord(text)))"
    python(lab, "app1", code.replace("'ab'", "'a'"))
    host.run("it", "snapshot")
    python(lab, "app1", code.replace("'ab'", "'b'"))
    last = host.made("it", "snapshot")
    assert difference(host, last, "*.tmp") == ""
    assert last["new_files"] == 1
    host.nothing_false("it")


def test_a_link_in_the_path_is_followed_and_several_paths_are_copied(lab: Lab, host: Program) -> None:
    lab.exec("app1", ["mkdir", "-p", f"{DATA}/real/up", f"{DATA}/other"])
    lab.exec("app1", ["touch", f"{DATA}/real/up/file", f"{DATA}/other/file"])
    lab.exec("app1", ["ln", "-s", "real", f"{DATA}/pointer"])
    source(host, engine="files", paths=[f"{DATA}/pointer/up", f"{DATA}/other"])
    kept = host.made("it", "snapshot")
    assert kept["paths"] == {f"{DATA}/pointer/up": f"tree{DATA}/real/up", f"{DATA}/other": f"tree{DATA}/other"}
    assert sorted(inodes(host, kept)) == [f"{DATA[1:]}/other/file", f"{DATA[1:]}/real/up/file"]


def test_uploads_that_are_not_mounted_are_no_empty_snapshot(lab: Lab, host: Program) -> None:
    lab.exec("app1", ["mkdir", f"{DATA}/up"])
    source(host, engine="files", paths=[f"{DATA}/up"])
    host.made("it", "snapshot")  # a new system has no uploads yet
    lab.exec("app1", ["touch", f"{DATA}/up/file"])
    host.made("it", "snapshot")
    lab.exec("app1", ["rm", f"{DATA}/up/file"])
    fails(host, "snapshot", f"{DATA}/up holds no file, but the snapshot before has 1: is its file system mounted?")
    source(host, engine="files", paths=[f"{DATA}/up"], allow_empty=True)
    assert host.made("it", "snapshot")["listing"]["files"] == 0
    source(host, engine="files", paths=[f"{DATA}/none"])
    fails(host, "snapshot", f"{DATA}/none is no directory: put the path right, or mount it")


ROT = r"""
import os, sys
for path in sys.argv[1:]:
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
"""


def test_a_file_that_rots_is_found_and_the_next_snapshot_heals(lab: Lab, host: Program) -> None:
    lab.exec("app1", ["mkdir", f"{DATA}/up"])
    for name in ("one", "two"):
        lab.write("app1", f"{DATA}/up/{name}", name * 100)
    source(host, engine="files", paths=[f"{DATA}/up"])
    first = host.made("it", "snapshot")
    python(lab, "app1", ROT, f"{first['path']}/tree{DATA}/up/one")
    done = host.run("it", "snapshot", code=1)  # it is whole, but shares the inode
    assert "tree/var/lib/backup-sources-data/up/one: its bytes are not those that were copied" in done.stderr
    done = host.run("it", "snapshot")
    assert "the last snapshot is not sound: comparing every file by its content" in done.stdout
    healed = host.manifest(host.list("it")[-1]["path"])
    assert healed["new_files"] == 1
    assert difference(host, healed) == ""
    lab.exec("app1", ["truncate", "--size=-3", f"{healed['path']}/tree.jsonl.gz"])
    again = host.made("it", "snapshot")  # its list is of no use as a base
    assert again["base"] != healed["id"]
    assert difference(host, again) == ""
    verdicts = [row["verdict"] for row in host.list("it")]
    assert verdicts == ["verified", "damaged", "verified", "verified"]


@contextlib.contextmanager
def churned(lab: Lab) -> Iterator[None]:
    """Files of the source change all the time while the block runs."""
    lab.exec("app1", ["mkdir", "-p", f"{DATA}/up"])
    lab.exec("app1", ["install", "-m", "600", "/dev/null", f"{DATA}.secret"])
    lab.write("app1", f"{DATA}.secret", SECRET * 1000)
    command = ["docker", "exec", lab.container("app1"), "python3", "-c", CHURN, f"{DATA}/up", f"{DATA}.secret"]
    with subprocess.Popen(command) as process:
        try:
            time.sleep(0.5)
            yield
        finally:
            lab.exec("app1", ["rm", f"{DATA}.secret"])
            process.wait(timeout=120)


def test_files_that_change_all_the_time_are_told_and_no_link_is_followed(lab: Lab, host: Program) -> None:
    source(host, engine="files", paths=[f"{DATA}/up"])
    with churned(lab):
        done: list[subprocess.CompletedProcess[str]] = []
        while len(done) < 8 or sum(run.returncode == 0 for run in done) < 3:
            assert len(done) < 60, "a copy hardly ever succeeds"
            done.append(lab.exec("app1", host.argv("run", "it", "snapshot"), check=False, timeout=120))
    assert all(run.returncode == 0 or "rsync ended with exit code 23" in run.stderr for run in done), done
    kept = [host.manifest(row["path"]) for row in host.list("it")]
    warnings = " ".join(warning for document in kept for warning in document.get("warnings", []))
    assert "was written while it was copied" in warnings
    argv = ["find", f"{host.root}/it", "-type", "f", "-exec", "grep", "-lF", "--", SECRET, "{}", "+"]
    assert lab.exec("app1", argv, check=False).stdout == ""
    host.nothing_false("it")


def test_without_rsync_the_program_is_named(host: Program, restore: Restore) -> None:
    host.lab.exec("app1", ["mv", "/usr/bin/rsync", "/usr/bin/rsync.away"])
    restore.run("app1", ["mv", "/usr/bin/rsync.away", "/usr/bin/rsync"])
    source(host, engine="files", paths=[DATA])
    host.lab.exec("app1", ["mv", "/usr/bin/setpriv", "/usr/bin/setpriv.away"])
    restore.run("app1", ["mv", "/usr/bin/setpriv.away", "/usr/bin/setpriv"])
    fails(host, "snapshot", "the program 'rsync' is not installed on this host")


# Secrets and logs


def test_secrets_of_the_applications_are_kept_and_only_when_they_change(
    lab: Lab, host: Program, restore: Restore
) -> None:
    restore.path("app1", "/srv/lowcode/shared/.env")
    paths = ["/srv/lowcode/shared/.env", "/etc/worklog", "/etc/ssh/*_config"]
    source(host, engine="secrets", paths=paths, expect={"max_age": "1h"})
    first = host.made("it", "snapshot")
    lab.exec("app1", ["tar", "-xf", f"{first['path']}/files.tar", "-C", DATA])
    lab.exec("app1", ["diff", "-r", "/etc/worklog", f"{DATA}/etc/worklog"])
    stat = ["stat", "-c", "%a %u %g %Y", "/srv/lowcode/shared/.env"]
    assert lab.exec("app1", stat).stdout == lab.exec("app1", [*stat[:-1], DATA + stat[-1]]).stdout
    done = host.run("it", "snapshot")
    assert f"unchanged since {first['path']}" in done.stdout
    assert host.directories("it") == [first["path"]]
    row = host.list("it")[0]
    assert row["unchanged"] >= row["end"]
    record = json.loads(lab.read("app1", f"{PLACE}/records.jsonl").splitlines()[-1])
    assert (record["result"], record["details"]["unchanged"], record["details"]["id"]) == ("ok", True, first["id"])
    lab.write("app1", "/srv/lowcode/shared/.env", f"MONGO_PASSWORD={SECRET}\n")
    second = host.made("it", "snapshot")
    assert second["fingerprint"] != first["fingerprint"]
    assert [row["path"] for row in host.list("it")] == [first["path"], second["path"]]
    assert holds_secret(host) == [f"{second['path']}/files.tar"]
    is_private(host)


@pytest.mark.parametrize("by", ["recipients", "recipients_file"])
def test_secrets_can_be_encrypted(lab: Lab, host: Program, by: str) -> None:
    lab.write("app1", f"{DATA}/.env", f"PASSWORD={SECRET}\n")
    lab.exec("app1", ["truncate", "--size", "60M", f"{DATA}/large"])  # that the programs live long enough to be seen
    key = f"{DATA}.age"
    lab.exec("app1", ["rm", "-f", key])
    public = lab.exec("app1", ["age-keygen", "-o", key]).stderr.split()[-1]
    lab.write("app1", f"{DATA}.recipients", public + "\n")
    given = {"recipients": [public]} if by == "recipients" else {"recipients_file": f"{DATA}.recipients"}
    source(host, engine="secrets", paths=[f"{DATA}/.env", f"{DATA}/large"], **given)
    said = watched(host, "snapshot", 0)
    assert "age --encrypt" in said
    assert SECRET not in said
    kept = host.manifest(host.list("it")[0]["path"])
    assert (kept["encrypted"], kept["exits"], kept["members"]) == (True, {"age": 0}, 2)
    assert "files.tar.age" in [entry["path"] for entry in kept["files"]]
    assert holds_secret(host) == []
    lab.exec("app1", ["rm", f"{DATA}/large"])
    source(host, engine="secrets", paths=[f"{DATA}/.env"], **given)
    host.run("it", "snapshot")
    assert "unchanged since" in host.run("it", "snapshot").stdout
    lab.exec("app1", ["age", "--decrypt", "-i", key, "-o", f"{DATA}/files.tar", f"{kept['path']}/files.tar.age"])
    assert SECRET in lab.exec("app1", ["tar", "-xOf", f"{DATA}/files.tar"]).stdout
    lab.exec("app1", ["rm", key])
    public = lab.exec("app1", ["age-keygen", "-o", key]).stderr.split()[-1]  # another key: what is there is not for it
    lab.write("app1", f"{DATA}.recipients", public + "\n")
    given = {"recipients": [public]} if by == "recipients" else {"recipients_file": f"{DATA}.recipients"}
    source(host, engine="secrets", paths=[f"{DATA}/.env"], **given)
    assert "made " in host.run("it", "snapshot").stdout
    source(host, engine="secrets", paths=[f"{DATA}/.env"], recipients=["age1nonsense"])
    fails(host, "snapshot", "age ended with exit code 1")


def test_logs_are_archived_while_they_are_written(lab: Lab, host: Program) -> None:
    code = f"import os, time\nfile = open('{DATA}/app.log', 'ab')\nwhile not os.path.exists('{DATA}/stop'):\n"
    code += "  file.write(b'line\\n' * 5000)\n  time.sleep(0.002)"
    command = ["docker", "exec", lab.container("app1"), "timeout", "20", "python3", "-c", code]
    lab.write("app1", f"{DATA}/line\nbreak.log", "old\n")
    time.sleep(2.1)  # what was written in the second in which an archive begins is in the next one, too
    source(host, engine="archive", paths=[f"{DATA}/*.log", "/var/log/apt"])
    with subprocess.Popen(command) as process:
        time.sleep(0.3)
        first = host.made("it", "archive")
        second = host.made("it", "archive")
        lab.exec("app1", ["touch", f"{DATA}/stop"])
        process.wait(timeout=120)
    assert "warnings" not in first
    assert (first["members"], second["members"], second["since"]) == (5, 1, first["start"])
    lab.exec("app1", ["mkdir", f"{DATA}/out"])
    lab.exec("app1", ["tar", "--zstd", "-xf", f"{first['path']}/logs.tar.zst", "-C", f"{DATA}/out"])
    lab.exec("app1", ["diff", "-r", "/var/log/apt", f"{DATA}/out/var/log/apt"])
    assert lab.exec("app1", ["tail", "-n", "1", f"{DATA}/out{DATA}/line\nbreak.log"]).stdout == "old\n"
    time.sleep(1.1)
    assert "made " in host.run("it", "archive").stdout  # the last lines
    time.sleep(1.1)
    assert "unchanged since" in host.run("it", "archive").stdout
    host.nothing_false("it")


# For all


#: What is backed up on which node, by the name of the engine.
EVERY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mongodb": ("db1", "full", {"uri": MONGO}),
    "redis": ("db1", "full", {"port": PORT, "password_file": f"{DATA}.password", "method": "bgsave", "aof": True}),
    "files": ("app1", "snapshot", {"paths": [DATA]}),
    "secrets": ("app1", "snapshot", {"paths": [DATA]}),
    "archive": ("app1", "archive", {"paths": [f"{DATA}/*"], "since_last": False}),
}


@pytest.mark.parametrize("engine", ["files", "secrets", "archive"])
def test_what_may_not_be_read_is_a_failure(lab: Lab, host: Program, engine: str) -> None:
    lab.exec("app1", ["install", "-m", "600", "/dev/null", f"{DATA}/closed"])
    _node, kind, options = EVERY[engine]
    program = Program(lab, "app1", PLACE, {"it": {"engine": engine, **options}}, user="worklog")
    done = program.run("it", kind, code=1)
    assert f"{DATA}/closed" in done.stderr
    assert "Permission denied" in done.stderr
    assert program.directories("it") == []
    lab.exec("app1", ["chown", "worklog", f"{DATA}/closed"])
    lab.exec("app1", ["install", "-d", "-o", "worklog", "-m", "555", f"{DATA}/readonly"])
    lab.exec("app1", ["install", "-o", "worklog", "-m", "600", "/dev/null", f"{DATA}/readonly/file"])
    program.run("it", kind)
    program.nothing_false("it")
    lab.exec("app1", ["install", "-m", "600", "/dev/null", f"{DATA}/closed2"])
    program.run("it", kind, code=1)  # and what was begun can be removed, although its owner may not write there
    assert len(program.directories("it")) == 1


@pytest.fixture
def small(lab: Lab, restore: Restore) -> Callable[[str], None]:
    """Mounts a file system of 3 MiB as the root of the backups."""

    def mount(node: str) -> None:
        lab.exec(node, ["mkdir", "-p", f"{PLACE}/backups"])
        lab.exec(node, ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", f"{PLACE}/backups"])
        restore.run(node, ["umount", "--lazy", f"{PLACE}/backups"])

    return mount


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("mongodb", "No space left on device"),
        ("archive", "No space left on device"),
        ("files", "not enough space"),
        ("secrets", "not enough space"),
        ("redis", "not enough space"),
    ],
)
def test_a_full_disk_is_a_failure_that_leaves_nothing(
    request: pytest.FixtureRequest, lab: Lab, small: Callable[[str], None], engine: str, sentence: str
) -> None:
    node, kind, options = EVERY[engine]
    if engine == "redis":
        ask = request.getfixturevalue("redis")
        ask("EVAL", "for i = 1, 400 do redis.call('SET', 'b' .. i, string.rep('x', 10000)) end", "0")
    if engine == "mongodb":
        request.getfixturevalue("large")
    program = Program(lab, node, PLACE, {})
    small(node)
    if node == "app1":
        lab.exec("app1", ["rm", "-rf", DATA])
        lab.exec("app1", ["mkdir", DATA])
        lab.exec("app1", ["dd", "if=/dev/urandom", f"of={DATA}/random.log", "bs=1M", "count=8", "status=none"])
    source(program, engine=engine, **options)
    fails(program, kind, sentence)
    assert lab.exec(node, ["find", program.root, "-name", "*.partial"]).stdout == ""


def kill_at_random_moments(lab: Lab, program: Program, engine: str, kind: str, rounds: int, seed: int) -> str:
    """Kill the program at so many moments; returns the counts."""
    started = time.monotonic()
    program.run("it", kind)
    longest = time.monotonic() - started
    choose = random.Random(f"{engine} {seed}")
    killed = done = 0
    for _unused in range(rounds):
        moment = f"{choose.uniform(0.05, longest):.3f}"
        change(lab, program, engine, choose.randrange(1 << 30))
        argv = ["timeout", "--signal=KILL", moment, *program.argv("run", "it", kind)]
        code = lab.exec(program.node, argv, check=False, timeout=120).returncode
        assert code in (0, 137, 124, -9), code
        killed += code != 0
        done += code == 0
        finished = [path for path in program.directories("it") if not path.endswith(".partial")]
        assert sorted(row["path"] for row in program.list("it")) == finished
    change(lab, program, engine, 1 << 31)
    program.run("it", kind)
    program.nothing_false("it")
    assert program.left(r"^\d+ (setpriv|rsync|mongodump|zstd|age) ") == []
    assert killed, "no round was killed"
    return f"{engine}: killed at {killed} of {rounds} moments (seed {seed}), {done} ended before"


def change(lab: Lab, program: Program, engine: str, number: int) -> None:
    """Change something, so that there is something to back up."""
    if program.node == "app1":
        lab.write("app1", f"{DATA}/up{number % 50}", str(number) * 1000)


@pytest.fixture
def prepared(request: pytest.FixtureRequest, lab: Lab) -> Callable[[str], tuple[Program, str]]:
    """Makes the data of an engine, and returns the program and the kind."""

    def prepare(engine: str) -> tuple[Program, str]:
        node, kind, options = EVERY[engine]
        if engine == "redis":
            request.getfixturevalue("redis")
        elif engine == "mongodb":
            request.getfixturevalue("large")
        else:
            lab.exec("app1", ["rm", "-rf", DATA])
            lab.exec("app1", ["mkdir", DATA])
            for number in range(12):
                lab.exec(
                    "app1", ["dd", "if=/dev/urandom", f"of={DATA}/data{number}", "bs=1M", "count=2", "status=none"]
                )
        return Program(lab, node, PLACE, {"it": {"engine": engine, **options}}), kind

    return prepare


@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=[pytest.mark.soak] if engine == "mongodb" else []) for engine in EVERY]
)  # that of MongoDB takes minutes: it needs a large database
def test_a_kill_leaves_nothing_that_looks_like_a_backup(
    lab: Lab, prepared: Callable[[str], tuple[Program, str]], engine: str
) -> None:
    program, kind = prepared(engine)
    print(kill_at_random_moments(lab, program, engine, kind, 3, 1))
    if engine == "redis":
        assert lab.exec("db1", ["find", program.root, "-name", "redis-rewrite.json"]).stdout == ""


@pytest.mark.soak
@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("seed", [2, 3])
def test_kills_by_the_dozen(lab: Lab, prepared: Callable[[str], tuple[Program, str]], engine: str, seed: int) -> None:
    program, kind = prepared(engine)
    print(kill_at_random_moments(lab, program, engine, kind, 40, seed))


@pytest.mark.soak
def test_files_that_change_all_the_time_for_long(lab: Lab, host: Program) -> None:
    source(host, engine="files", paths=[f"{DATA}/up"])
    codes = []
    with churned(lab):
        for _unused in range(40):
            done = lab.exec("app1", host.argv("run", "it", "snapshot"), check=False, timeout=120)
            assert done.returncode == 0 or "rsync ended with exit code 23" in done.stderr, done
            codes.append(done.returncode)
    argv = ["find", f"{host.root}/it", "-type", "f", "-exec", "grep", "-lF", "--", SECRET, "{}", "+"]
    assert lab.exec("app1", argv, check=False).stdout == ""
    host.nothing_false("it")
    print(f"files under change (seed 7): {codes.count(0)} of {len(codes)} snapshots made, the others failed")
