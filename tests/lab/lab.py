# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: load balancers, applications, databases and a backup host as systemd containers on this machine.

    python3 tests/lab/lab.py up                     build what is missing, start every node, wait until all are well
    python3 tests/lab/lab.py up --prefix second     a second copy beside the first
    python3 tests/lab/lab.py exec app1 -- journalctl -u worklog-api
    python3 tests/lab/lab.py down                   remove the copy, and nothing else

Every step can be interrupted and run again. Only the standard library is needed, and the docker command line.
The nodes are defined in nodes.toml, their images below image/.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Callable

import tomllib

LAB = Path(__file__).resolve().parent
CACHE = LAB.parents[1] / ".cache" / "lab"
REPOSITORY = "worklog-lab"
LABEL = "worklog.lab"
PULL_TIMEOUT = 120
BUILD_TIMEOUT = 1200
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
DEGRADED_TIMEOUT = 20
KEYS = "/etc/worklog-maintenance"
BACKUPS = "/var/backups/worklog"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# systemd needs its cgroup tree and mounts, but not --privileged (tests/lab/README.md).
SYSTEMD = (
    "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run", "--tmpfs=/tmp:exec",
)  # fmt: skip


class LabError(Exception):
    """What is wrong, and what to do about it."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One line of nodes.toml; `index` decides its address."""

    name: str
    index: int
    image: str
    release: str
    ports: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reads_backups_of: tuple[str, ...] = ()


def definition() -> tuple[dict[str, dict[str, str]], dict[str, Node]]:
    """Read nodes.toml: {image: {source: target}} and {name: Node}."""
    data = tomllib.loads((LAB / "nodes.toml").read_text(encoding="utf-8"))
    images = {name: dict(image.get("copy", {})) for name, image in data["images"].items()}
    nodes = {}
    for index, (name, fields) in enumerate(data["nodes"].items()):
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        nodes[name] = Node(name=name, index=index, **values)
    return images, nodes


# --- running programs ------------------------------------------------------------------------------------------------

_print_lock = threading.Lock()
_begin = time.monotonic()
_children: set[subprocess.Popen[str]] = set()
_interrupted = threading.Event()


def interrupt(*_unused: object) -> None:
    """Signal handler: end the programs under way, so that nothing goes on behind the back of an interrupted run."""
    _interrupted.set()
    for child in list(_children):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
    raise KeyboardInterrupt


def say(message: str) -> None:
    with _print_lock:
        print(f"[{time.monotonic() - _begin:6.1f} s] {message}", flush=True)


def run(
    *argv: str | Path,
    timeout: float = 60,
    check: bool = True,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and keep its output; with `check` a failure or a timeout is a LabError with its last words."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    if _interrupted.is_set():
        raise LabError("interrupted")
    with subprocess.Popen(
        words, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", env=environment, cwd=cwd, start_new_session=True,
    ) as child:  # fmt: skip
        _children.add(child)
        try:
            out, err = child.communicate(timeout=timeout)
            status = child.returncode
        except subprocess.TimeoutExpired as error:
            os.killpg(child.pid, signal.SIGKILL)
            if check:
                raise LabError(f"`{' '.join(words[:6])} …` did not end within {timeout:.0f} s") from error
            status, out, err = 124, "", f"no answer within {timeout:.0f} s"
        finally:
            _children.discard(child)
    done = subprocess.CompletedProcess(words, status, out, err)
    if check and done.returncode:
        output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        tail = "\n".join(output.strip().splitlines()[-25:])
        raise LabError(f"`{' '.join(words[:6])} …` ended with {done.returncode}:\n{tail}")
    return done


def docker(*argv: str | Path, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("docker", *argv, timeout=timeout, check=check)


def lines(*argv: str) -> list[str]:
    return docker(*argv).stdout.split()


def preflight() -> None:
    """Say plainly what is missing and what to type."""
    if not shutil.which("docker"):
        raise LabError("there is no `docker` command; on Debian as root: apt-get install docker.io")
    info = docker("info", "--format", "{{.ServerVersion}}", timeout=20, check=False)
    if info.returncode or not info.stdout.strip():
        words = (info.stderr.strip().splitlines() or ["no answer"])[-1]
        if "permission denied" in words.lower():
            raise LabError("this user may not use the Docker engine; run as root, or join the group `docker`")
        raise LabError(
            f"the Docker engine does not answer ({words}); install it with `apt-get install docker.io` and start it "
            "with `systemctl start docker`"
        )


def raise_inotify_limit() -> None:
    """Every systemd takes about six inotify instances; the usual limit of 128 is too low for several copies."""
    limit = int(INOTIFY.read_text(encoding="ascii"))
    if limit < 512 and os.access(INOTIFY, os.W_OK):
        INOTIFY.write_text("1024\n", encoding="ascii")
        say(f"raised fs.inotify.max_user_instances from {limit} to 1024 until the next boot, for systemd in containers")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One run at a time for `name`; the lock goes with the process."""
    folder = Path(tempfile.gettempdir()) / f"{REPOSITORY}-{os.getuid()}"  # the same for every checkout
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / f"{name}.lock", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run ({name}) to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(parts: Iterable[str | Path]) -> str:
    """Hash of strings, files and trees (names, executable bits, content)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(f"text {part}\0".encode())
            continue
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if "__pycache__" in path.parts or "node_modules" in path.parts or not path.is_file():
                continue
            total.update(f"file {path.relative_to(LAB)} {path.stat().st_mode & 0o111}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:12]


def remove_tree(path: Path) -> None:
    """Remove a left-over directory, unmounting first what an interrupted debootstrap may have left in it."""
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    for point in sorted((line.split()[1] for line in mounts), reverse=True):
        if point.startswith(f"{path}/"):
            run("umount", point)
    if path.exists():
        shutil.rmtree(path)


# --- images ----------------------------------------------------------------------------------------------------------


def image_id(tag: str) -> str | None:
    found = docker("image", "inspect", "--format", "{{.Id}}", tag, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


class Images:
    """Builds what is missing. Every image and artefact is named by the hash of what it is made from."""

    def __init__(self, images: dict[str, dict[str, str]], nodes: Iterable[Node]) -> None:
        self.images = images
        self.nodes = list(nodes)
        self.pull_failed = threading.Event()
        self.locks: dict[str, threading.Lock] = {}
        self.tags: set[str] = set()
        self.guard = threading.Lock()

    def once(self, name: str) -> threading.Lock:
        with self.guard:
            return self.locks.setdefault(name, threading.Lock())

    def base(self, release: str) -> str:
        """The distribution: pulled where images can be pulled, else made by debootstrap."""
        tag = f"{REPOSITORY}/base:{release}"
        with self.once(tag):
            if image_id(tag):
                return tag
            if not self.pull_failed.is_set():
                pulled = docker("pull", "--quiet", f"debian:{release}", timeout=PULL_TIMEOUT, check=False)
                if pulled.returncode == 0:
                    docker("tag", f"debian:{release}", tag)
                    return tag
                self.pull_failed.set()
                say("debian images cannot be pulled here; making them with debootstrap")
            if not shutil.which("debootstrap") or os.geteuid():
                raise LabError(f"no image debian:{release} and no debootstrap; as root: apt-get install debootstrap")
            begin = time.monotonic()
            tree = CACHE / f"{release}.partial"
            remove_tree(tree)
            run("debootstrap", "--variant=minbase", release, tree, timeout=BUILD_TIMEOUT)
            with tempfile.TemporaryFile() as words:
                tar = ["tar", "--numeric-owner", "-C", str(tree), "-c", "."]
                with subprocess.Popen(tar, stdout=subprocess.PIPE, stderr=words) as producer:
                    args = ("docker", "import", "--change", f"LABEL {LABEL}=image", "-", tag)
                    done = run(*args, stdin=producer.stdout, timeout=600, check=False)
                if producer.returncode or done.returncode:
                    docker("rmi", tag, check=False)
                    raise LabError(f"docker import of {release} failed: {done.stderr.strip()}; run it again")
            remove_tree(tree)
            say(f"base {release}: made in {time.monotonic() - begin:.0f} s")
            return tag

    def build(self, name: str, version: str, dockerfile: Path, base: str, context: Callable[[Path], None]) -> str:
        tag = f"{REPOSITORY}/{name}:{version}"
        self.tags.add(tag)
        with self.once(tag):
            if image_id(tag):
                return tag
            begin = time.monotonic()
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="context-") as directory:
                shutil.copy(dockerfile, Path(directory) / "Dockerfile")
                context(Path(directory))
                docker(
                    "build", "--quiet", "--force-rm",
                    f"--build-arg=BASE={base}", f"--tag={tag}", directory, timeout=BUILD_TIMEOUT,
                )  # fmt: skip
            say(f"image {tag}: built in {time.monotonic() - begin:.0f} s")
            return tag

    def packages_version(self, release: str) -> str:
        """Empty as long as there is no base image."""
        base = image_id(f"{REPOSITORY}/base:{release}")
        return f"{release}-{digest([base, LAB / 'image' / 'Dockerfile.packages'])}" if base else ""

    def packages(self, release: str) -> str:
        base = self.base(release)
        dockerfile = LAB / "image" / "Dockerfile.packages"
        return self.build("packages", self.packages_version(release), dockerfile, base, lambda _unused: None)

    def container(self, image: str, work: Path, env: dict[str, str], *argv: str) -> None:
        """Run a build step in a throw-away container, with this machine's certificates and proxy settings."""
        args = ["run", "--rm", "--init", f"--label={LABEL}.build={CACHE}", f"--volume={work}:/work", "--workdir=/work"]
        bundles = [os.environ.get("SSL_CERT_FILE"), os.environ.get("NODE_EXTRA_CA_CERTS"), CA_BUNDLE]
        bundle = next((path for path in bundles if path and Path(path).is_file()), None)
        if bundle:
            args.append(f"--volume={Path(bundle).resolve()}:{CA_BUNDLE}:ro")
            env = {"SSL_CERT_FILE": CA_BUNDLE, "NODE_EXTRA_CA_CERTS": CA_BUNDLE, **env}
        passed = ("http_proxy", "https_proxy", "no_proxy", "GOPROXY", "GOSUMDB", "npm_config_registry")
        for name in passed:
            env.update({n: os.environ[n] for n in (name, name.upper()) if n in os.environ})
        args += [f"--env={name}={value}" for name, value in env.items()]
        docker(*args, image, *argv, timeout=BUILD_TIMEOUT)

    @staticmethod
    def artefact_inputs(name: str) -> list[Path]:
        source = LAB / ("mongo" if name == "mongo" else f"apps/{name}")
        return [source] if name == "mongo" else [source / "package.json", source / "package-lock.json"]

    def artefact(self, name: str) -> Path:
        """Directory of something compiled or fetched: `mongo`, or a folder of apps/ with its node_modules."""
        inputs = self.artefact_inputs(name)
        done = CACHE / f"{name}-{digest(inputs)}"
        with self.once(str(done)):
            if done.is_dir():
                return done
            begin = time.monotonic()
            for stale in CACHE.glob(f"{name}-*"):
                remove_tree(stale)
            work = CACHE / f"{name}-partial"
            work.mkdir(parents=True)
            if name == "mongo":
                self.mongo(inputs[0], work)
            else:
                for path in inputs:
                    shutil.copy(path, work)
                flags = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
                env = {"HOME": "/tmp", "npm_config_cache": "/tmp/npm"}
                self.container(self.packages("bookworm"), work, env, "npm", "ci", *flags)
            work.rename(done)
            say(f"artefact {name}: made in {time.monotonic() - begin:.0f} s")
            return done

    def mongo(self, source: Path, work: Path) -> None:
        """The document database and the MongoDB tools, static, by this machine's Go or in a container with Debian's."""
        tools = "github.com/mongodb/mongo-tools"
        targets = {"ferretdb": ".", **{t: f"{tools}/{t}/main" for t in ("mongodump", "mongorestore", "bsondump")}}
        wanted = re.search(r"^go (\d+)\.(\d+)", (source / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
        assert wanted
        found = None
        if shutil.which("go"):
            version = run("go", "env", "GOVERSION", env={"GOTOOLCHAIN": "local"}, check=False, cwd=LAB).stdout
            found = re.match(r"go(\d+)\.(\d+)", version)
        env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
        if found and [int(n) for n in found.groups()] >= [int(n) for n in wanted.groups()]:
            for name, package in targets.items():
                run("go", "build", *flags, "-o", work / name, package, env=env, cwd=source, timeout=BUILD_TIMEOUT)
            return
        packages, dockerfile = self.packages("trixie"), LAB / "image" / "Dockerfile.go"
        image = self.build("go", f"trixie-{digest([packages, dockerfile])}", dockerfile, packages, lambda _unused: None)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="context-") as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
            env = {**env, "GOPATH": "/work/go", "GOCACHE": "/work/cache", "GOFLAGS": "-modcacherw"}
            for name, package in targets.items():
                self.container(image, Path(directory), env, "go", "build", *flags, "-o", f"out-{name}", package)
                shutil.copy(Path(directory) / f"out-{name}", work / name)

    def node(self, image: str, release: str) -> str:
        """The image of a role on a release."""
        folder, dockerfile, copies = LAB / "image" / image, LAB / "image" / "Dockerfile.node", self.images[image]
        artefacts = {source: source[1:].split("/")[0] for source in copies if source.startswith("@")}
        inputs: list[str | Path] = [dockerfile, folder, json.dumps(copies)]
        for source in copies:
            inputs += self.artefact_inputs(artefacts[source]) if source in artefacts else [LAB / source]

        def version() -> str:
            return f"{release}-{digest([self.packages_version(release), *inputs])}"

        if image_id(tag := f"{REPOSITORY}/{image}:{version()}"):
            self.tags.add(tag)
            return tag
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            packages = pool.submit(self.packages, release)
            made = dict(zip(artefacts, pool.map(self.artefact, artefacts.values()), strict=True))

        def context(directory: Path) -> None:
            rootfs = directory / "rootfs"
            rootfs.mkdir()
            if (folder / "rootfs").is_dir():
                shutil.copytree(folder / "rootfs", rootfs, dirs_exist_ok=True, symlinks=True)
            for source, target in copies.items():
                path = made[source] / source[1:].partition("/")[2] if source in made else LAB / source
                place = rootfs / target.lstrip("/")
                if path.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", *(() if source in made else ("node_modules",)))
                    shutil.copytree(path, place, dirs_exist_ok=True, symlinks=True, ignore=ignored)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, place)
            shutil.copy(folder / "setup", rootfs / "lab-setup")

        return self.build(image, version(), dockerfile, packages.result(), context)

    def all(self) -> dict[str, str]:
        """Build the images of all nodes and remove ours that nobody needs any more: {node: tag}."""
        with locked("images"):
            for left_over in lines("ps", "--all", "--quiet", f"--filter=label={LABEL}.build={CACHE}"):
                docker("rm", "--force", left_over, check=False)
            for directory in CACHE.glob("context-*"):
                remove_tree(directory)
            wanted = sorted({(node.image, node.release) for node in self.nodes})
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                tags = dict(zip(wanted, pool.map(lambda pair: self.node(*pair), wanted), strict=True))
            self.clean()
        return {node.name: tags[node.image, node.release] for node in self.nodes}

    def clean(self) -> None:
        """Remove other versions of the images just used; those of running containers stay."""
        docker("image", "prune", "--force", f"--filter=label={LABEL}", check=False, timeout=120)
        names = {tag.rpartition("-")[0] for tag in self.tags}
        for tag in lines("images", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY}/*"):
            if tag not in self.tags and tag.rpartition("-")[0] in names:
                docker("rmi", tag, check=False, timeout=120)


# --- containers ------------------------------------------------------------------------------------------------------


class Copy:
    """One copy of the lab: the containers `<prefix>-<node>` on the network `<prefix>-lab`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.network = f"{prefix}-lab"
        self.label = f"{LABEL}.prefix={prefix}"

    def name(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def subnet(self) -> ipaddress.IPv4Network:
        """Make the network. Its range is fixed, so that a node's address outlives a restart.

        A network without a range asks the engine for a free one. It has a name of its own: whatever an interrupted run
        leaves behind, the network with the copy's name is always the one with a fixed range.
        """
        form, probe = "{{(index .IPAM.Config 0).Subnet}}", f"{self.network}-probe"
        for attempt in range(5):
            found = docker("network", "inspect", "--format", form, self.network, check=attempt == 4)
            if found.returncode == 0:
                break
            docker("network", "rm", probe, check=False)
            docker("network", "create", f"--label={self.label}", probe, check=False)
            free = docker("network", "inspect", "--format", form, probe, check=False).stdout.strip()
            docker("network", "rm", probe, check=False)
            if free:
                docker("network", "create", f"--label={self.label}", f"--subnet={free}", self.network, check=False)
        return ipaddress.IPv4Network(found.stdout.strip())

    def containers(self) -> dict[str, dict[str, Any]]:
        """What exists: {node: state, spec, ports, image}."""
        names = lines("ps", "--all", "--quiet", f"--filter=label={self.label}")
        if not names:
            return {}
        found = {}
        # Those removed meanwhile make it fail; it prints the others all the same.
        for item in json.loads(docker("inspect", *names, check=False).stdout or "[]"):
            ports = {
                port.split("/")[0]: int(bound[0]["HostPort"])
                for port, bound in sorted((item["NetworkSettings"]["Ports"] or {}).items())
                if bound
            }
            labels = item["Config"]["Labels"]
            found[labels[f"{LABEL}.node"]] = {
                "container": item["Name"].lstrip("/"),
                "state": item["State"]["Status"],
                "image": item["Config"]["Image"],
                "spec": labels[f"{LABEL}.spec"],
                "ports": ports,
            }
        return found

    def start(self, node: Node, image: str, nodes: dict[str, Node], subnet: ipaddress.IPv4Network, why: str) -> bool:
        """Start one node unless it runs as defined and there is no `why` to replace it; returns whether it did."""
        args = [
            "--detach", f"--name={self.name(node.name)}", f"--hostname={node.name}", *SYSTEMD,
            f"--network={self.network}", f"--network-alias={node.name}", f"--ip={subnet[10 + node.index]}",
            *(f"--add-host={other.name}:{subnet[10 + other.index]}" for other in nodes.values()),
            *(f"--publish=127.0.0.1::{port}" for port in node.ports),
        ]  # fmt: skip
        spec = hashlib.sha256(json.dumps([image, args]).encode()).hexdigest()[:12]
        labels = [f"--label={self.label}", f"--label={LABEL}.node={node.name}", f"--label={LABEL}.spec={spec}"]
        for attempt in range(5):
            old = self.containers().get(node.name)
            if old and not why and old["state"] == "running" and old["spec"] == spec:
                return False
            if old:
                why = why or ("its definition changed" if old["spec"] != spec else f"it is {old['state']}")
                say(f"{node.name}: replacing the container ({why})")
                docker("rm", "--force", "--volumes", old["container"], check=False)
            done = docker("run", *args, *labels, image, "/lib/systemd/systemd", check=False)
            if done.returncode == 0:
                return True
            # The engine may have gone on with what an interrupted run had asked for: look again.
            if attempt == 4 or "in use" not in done.stderr:
                break
            time.sleep(1)
        raise LabError(f"cannot start {self.name(node.name)}: {done.stderr.strip()}")

    def trouble(self, node: Node, running: set[str]) -> str | None:
        """Why the node is not well yet, or None."""

        def inside(*argv: str) -> subprocess.CompletedProcess[str]:
            return docker("exec", self.name(node.name), *argv, timeout=15, check=False)

        state = inside("systemctl", "is-system-running").stdout.strip()
        if state == "degraded":
            failed = inside("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout.split()
            return f"unit {failed[0] if failed else '?'} failed"
        if state != "running":
            return f"systemd is {state or 'not answering yet'}"
        active = inside("systemctl", "is-active", *node.units).stdout.split() if node.units else []
        for unit, found in zip(node.units, active, strict=False):
            if found != "active":
                return f"unit {unit} is {found}"
        if running.issuperset(node.needs):
            for url in node.urls:
                answer = inside("curl", "--silent", "--max-time", "5", "--write-out", " (status %{http_code})", url)
                if not answer.stdout.endswith("(status 200)"):
                    return f"{url} answers {answer.stdout.strip()[-300:]}"
        return None

    def lasting_trouble(self, node: Node, running: set[str]) -> str:
        """Trouble of a node that ran before. It gets a moment: its neighbours may just have been started."""
        reason: str | None = ""
        for _unused in range(10):
            reason = self.trouble(node, running)
            if not reason or reason.endswith(" failed"):
                break
            time.sleep(1)
        return reason or ""

    def wait(self, nodes: Iterable[Node], running: set[str], timeout: float) -> None:
        """Wait until all nodes are well, at most `timeout` seconds in all."""
        limit = time.monotonic() + timeout

        def until_well(node: Node) -> None:
            begin = failed_since = time.monotonic()
            while reason := self.trouble(node, running):
                now = time.monotonic()
                if not reason.endswith(" failed"):
                    failed_since = now
                if now > limit or now > failed_since + DEGRADED_TIMEOUT:
                    words = self.journal(node, reason)
                    raise LabError(f"{self.name(node.name)}: {reason}, waited {now - begin:.0f} s\n{words}")
                time.sleep(0.3)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for _unused in pool.map(until_well, nodes):
                pass

    def let_read(self, node: Node, sources: Iterable[str]) -> None:
        """Let a node read the backups of others over ssh, with a key of its own that is good for nothing else."""

        def inside(name: str, script: str, *argv: str) -> str:
            return docker("exec", self.name(name), "sh", "-euc", script, "sh", *argv).stdout.strip()

        make = 'mkdir -p "${1%/*}"; [ -s "$1" ] || ssh-keygen -q -t ed25519 -N "" -f "$1"; cat "$1.pub"'
        public = inside(node.name, make, f"{KEYS}/drill_key")
        admit = (
            'ssh-keygen -A >/dev/null; mkdir -p -m 700 /root/.ssh; printf "%s\\n" "$1" > /root/.ssh/authorized_keys; '
            "systemctl start ssh; cat /etc/ssh/ssh_host_ed25519_key.pub"
        )
        line = f'restrict,command="rrsync -ro {BACKUPS}" {public}'
        known = "".join(f"{source} {inside(source, admit, line)}\n" for source in sources)
        inside(node.name, 'printf "%s" "$2" > "$1"', f"{KEYS}/drill_known_hosts", known)

    def journal(self, node: Node, reason: str) -> str:
        """The last words of the unit that is to blame, or the warnings of the node."""
        unit = re.search(r"unit (\S+)", reason)
        show = ["systemctl", "status", "--no-pager", "--lines=15", unit[1]] if unit else []
        argv = show or ["journalctl", "--no-pager", "--lines=15", "--priority=warning"]
        return docker("exec", self.name(node.name), *argv, timeout=20, check=False).stdout.strip()

    def remove(self) -> int:
        """Remove the containers and networks with our label; returns how many."""
        names = lines("ps", "--all", "--quiet", f"--filter=label={self.label}")
        if names:
            docker("rm", "--force", "--volumes", *names, timeout=120)
        networks = lines("network", "ls", "--quiet", f"--filter=label={self.label}")
        for network in networks:
            docker("network", "rm", network)
        return len(names) + len(networks)


# --- verbs -----------------------------------------------------------------------------------------------------------


def up(options: argparse.Namespace) -> None:
    images, nodes = definition()
    names = options.nodes.split(",") if options.nodes else list(nodes)
    for name in names:
        if name not in nodes:
            raise LabError(f"there is no node '{name}' in nodes.toml; there are {', '.join(nodes)}")
    chosen = [node for node in nodes.values() if node.name in names]
    raise_inotify_limit()
    tags = Images(images, chosen).all()
    copy = Copy(options.prefix)
    with locked(f"copy-{copy.prefix}"):
        subnet = copy.subnet()

        def start(node: Node, why: str) -> bool:
            return copy.start(node, tags[node.name], nodes, subnet, why)

        def heal(node: Node) -> bool:
            why = copy.lasting_trouble(node, running)
            return bool(why) and start(node, why)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            begun = list(pool.map(lambda node: start(node, "as asked" if options.fresh else ""), chosen))
            running = {name for name, state in copy.containers().items() if state["state"] == "running"}
            reused = [node for node, new in zip(chosen, begun, strict=True) if not new]
            started = [node.name for node in chosen if node not in reused]
            say(f"{copy.prefix}: started {', '.join(started) or 'nothing'}; waiting until all are well")
            well = {node.name for node, healed in zip(reused, pool.map(heal, reused), strict=True) if not healed}
        copy.wait([node for node in chosen if node.name not in well], running, options.timeout)
        for node in chosen:
            copy.let_read(node, [source for source in node.reads_backups_of if source in running])
    say(f"{copy.prefix}: {len(chosen)} nodes are well")
    if not options.quiet:
        status(options)


def status(options: argparse.Namespace) -> None:
    found = Copy(options.prefix).containers()
    if getattr(options, "json", False):
        print(json.dumps(found, indent=1))
        return
    if not found:
        print(f"no node of '{options.prefix}' exists; start them with: python3 tests/lab/lab.py up")
    for _unused, item in sorted(found.items()):
        ports = "  ".join(f"{inner}→127.0.0.1:{outer}" for inner, outer in item["ports"].items())
        print(f"{item['container']:16} {item['state']:9} {item['image']:44} {ports}")


def down(options: argparse.Namespace) -> None:
    prefixes = [options.prefix]
    if options.all:
        form = f'{{{{.Label "{LABEL}.prefix"}}}}'
        prefixes = sorted(
            set(lines("ps", "--all", f"--filter=label={LABEL}.prefix", "--format", form))
            | set(lines("network", "ls", f"--filter=label={LABEL}.prefix", "--format", form))
        )
    for prefix in prefixes:
        with locked(f"copy-{prefix}"):
            say(f"{prefix}: removed {Copy(prefix).remove()} containers and networks")


def image(options: argparse.Namespace) -> None:
    images, nodes = definition()
    tags = Images(images, nodes.values()).all()
    for name, tag in tags.items():
        print(f"{name} {tag}")


def execute(options: argparse.Namespace) -> None:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("which command? For example: lab.py exec app1 -- systemctl status worklog-api")
    terminal = ["--interactive", "--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else ["--interactive"]
    os.execvp("docker", ["docker", "exec", *terminal, Copy(options.prefix).name(options.node), *command])


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, action: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        default = os.environ.get("LAB_PREFIX") or "worklog"
        sub.add_argument("--prefix", default=default, help="name of the copy (default: $LAB_PREFIX or worklog)")
        return sub

    sub = verb("up", up, "build what is missing, start the nodes, wait until all are well")
    sub.add_argument("--nodes", metavar="LB1,APP1", help="only these nodes (default: all)")
    sub.add_argument("--fresh", action="store_true", help="replace running nodes by new ones")
    sub.add_argument("--timeout", type=float, default=180, help="seconds to wait for the nodes (default: 180)")
    sub.add_argument("--quiet", action="store_true", help="do not list the nodes at the end")
    sub = verb("down", down, "remove the containers and the network of a copy, and nothing else")
    sub.add_argument("--all", action="store_true", help="every copy, whatever its prefix")
    sub = verb("status", status, "list the nodes and their published ports")
    sub.add_argument("--json", action="store_true", help="for programs")
    verb("image", image, "only build the images")
    sub = verb("exec", execute, "run a command in a node")
    sub.add_argument("node")
    sub.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z][a-z0-9]{0,20}", options.prefix):
        parser.error(f"a prefix is a lower-case letter and up to 20 letters or digits, not '{options.prefix}'")
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        preflight()
        options.action(options)
    except (LabError, KeyboardInterrupt) as error:
        if not _interrupted.is_set():
            print(f"lab: {error}", file=sys.stderr)
            return 1
        print("lab: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
