# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nginx on this host or in a container: its program, its configuration, its processes, and how it is reloaded."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Result, Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, Tree

MASTER = "nginx: master process"
WORKER = "nginx: worker process"
LEAVING = "nginx: worker process is shutting down"
#: Seconds for ``nginx -t``, ``-V`` and the command that asks for a reload; names in the configuration may be resolved.
COMMAND_TIMEOUT = 120.0


class InstanceError(Exception):
    """The nginx that is meant cannot be told or reached; one sentence with the cure."""


def boot_time() -> float:
    """Return when this machine was started, in seconds since 1970.

    The best of several readings: a process that is interrupted between the two clocks reads a time that is too early.
    """
    return max(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) for _reading in range(5))


@dataclass(frozen=True)
class System:
    """What this code needs of the machine; tests hand in their own."""

    run: Runner
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    proc: str = "/proc"
    ticks_per_second: int = field(default_factory=lambda: os.sysconf("SC_CLK_TCK"))
    #: Seconds between 1970 and the start of this machine: what process start times are counted from.
    booted: Callable[[], float] = boot_time


@dataclass(frozen=True)
class Process:
    """One nginx process.

    :param started: its start time, in seconds since the machine started.
    """

    pid: int
    parent: int
    started: float
    title: str


@dataclass(frozen=True)
class Build:
    """What was compiled in, from ``nginx -V``.

    :param version: such as ``1.22.1``.
    :param arguments: the ``--name=value`` arguments of its configure script.
    """

    version: str
    arguments: Mapping[str, str]

    @property
    def prefix(self) -> str:
        """The directory that relative compiled paths start at."""
        return self.arguments.get("prefix", "/usr/local/nginx")

    def path(self, name: str, default: str) -> str:
        """Return a compiled path in full."""
        return os.path.join(self.prefix, self.arguments.get(name, default))


def parse_build(text: str) -> Build:
    """Return what ``nginx -V`` says.

    :raises InstanceError: when this is not nginx speaking.
    """
    version = re.search(r"^nginx version: \S+?/(\S+)", text, re.MULTILINE)
    if version is None:
        raise InstanceError(f"this is not nginx: -V says {text.strip()[:200]!r}")
    line = re.search(r"^configure arguments:(.*)$", text, re.MULTILINE)
    try:
        words = shlex.split(line.group(1)) if line else []
    except ValueError:
        words = line.group(1).split() if line else []
    pairs = (word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return Build(version.group(1), dict(pairs))


def nginx_processes(system: System) -> Iterator[Process]:
    """Yield every process of this machine that calls itself nginx."""
    for entry in os.listdir(system.proc):
        if not entry.isdigit():
            continue
        try:
            with open(os.path.join(system.proc, entry, "cmdline"), "rb") as stream:
                title = stream.read(65536).replace(b"\0", b" ").strip()
            if not title.startswith(b"nginx: "):
                continue
            with open(os.path.join(system.proc, entry, "stat"), "rb") as stream:
                values = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended
        started = int(values[19]) / system.ticks_per_second
        yield Process(int(entry), int(values[1]), started, title.decode("utf-8", "surrogateescape"))


def options_of(title: str) -> dict[str, str]:
    """Return the options a master was started with, from the title it gives itself."""
    options: dict[str, str] = {}
    parts = re.split(r"(?:^|\s)-([a-zA-Z])", title)
    for name, value in zip(parts[1::2], parts[2::2]):
        if name in "cpge":
            options[name] = value.strip()
    return options


@dataclass
class Instance:
    """One nginx, running or not.

    :param argv: how its program is called, before any option.
    :param options: options that make it use the configuration of the running one.
    :param master: the running master, None when it does not run.
    :param unit: the systemd unit it runs in.
    :param container: the container it runs in.
    :param mounts: of the container: destination → (source, writable, kind).
    """

    system: System
    argv: tuple[str, ...]
    options: tuple[str, ...]
    build: Build
    config: str
    tree: Tree
    master: Process | None = None
    unit: str | None = None
    container: str | None = None
    engine: str | None = None
    mounts: Mapping[str, tuple[str, bool]] = field(default_factory=dict)

    def test(self) -> Result:
        """Return what ``nginx -t`` says about the files as they are on disk."""
        return self.system.run([*self.argv, *self.options, "-t"], timeout=COMMAND_TIMEOUT)

    def reload(self, how: str) -> Result:
        """Ask for a reload; this alone proves nothing.

        :param how: ``systemd``, ``signal``, or ``auto``: through systemd where nginx runs as a unit of it.
        """
        if how == "systemd" or (how == "auto" and self.unit is not None):
            return self.system.run(["systemctl", "reload", self.unit or "nginx.service"], timeout=COMMAND_TIMEOUT)
        return self.system.run([*self.argv, *self.options, "-s", "reload"], timeout=COMMAND_TIMEOUT)

    def workers(self) -> tuple[list[Process], list[Process]]:
        """Return the workers that take requests, and those that only finish what they have."""
        if self.master is None:
            return [], []
        mine = [one for one in nginx_processes(self.system) if one.parent == self.master.pid]
        leaving = [one for one in mine if one.title.startswith(LEAVING)]
        return [one for one in mine if one.title.startswith(WORKER) and one not in leaving], leaving

    def outside(self, real: str) -> str:
        """Return the path of this host at which a file of the configuration can be replaced for good.

        :raises InstanceError: when a container keeps it where a change would be lost or not be seen.
        """
        if self.container is None:
            return real
        inside = max(
            (one for one in self.mounts if real == one or real.startswith(one.rstrip("/") + "/")), default=None, key=len
        )
        if inside is None:
            raise InstanceError(
                f"{real} lies in the image of container {self.container} and a change would be lost with it; "
                "mount its directory from the host"
            )
        source, writable = self.mounts[inside]
        if real == inside:
            raise InstanceError(
                f"{real} is mounted into container {self.container} as a single file, so a replaced file is not seen "
                "there; mount its directory instead"
            )
        if not writable and not os.access(source, os.W_OK):
            raise InstanceError(f"{source}, mounted as {inside} in container {self.container}, cannot be written")
        return source.rstrip("/") + real[len(inside.rstrip("/")) :]

    def error_logs(self, config: Config) -> list[str]:
        """Return the files that nginx writes its own errors to, as this host sees them."""
        named = [directive.args[0] for directive in config.top() if directive.name == "error_log" and directive.args]
        names = named or [self.build.arguments.get("error-log-path", "logs/error.log")]
        files = [os.path.join(self.build.prefix, name) for name in names if name != "stderr" and ":" not in name]
        return [self.tree.outside(file) for file in files]


def locate(
    system: System, *, executable: str | None = None, config: str | None = None, container: str | None = None
) -> Instance:
    """Return the nginx that is meant.

    :param executable: its program; by default that of the running master, else ``nginx`` on the path.
    :param config: its main configuration file; by default that of the running master, else the compiled one.
    :param container: name of the container it runs in.
    :raises InstanceError: when there is none, or several and ``config`` does not tell which.
    :raises CommandError: when a command could not be run.
    """
    if container is not None:
        return _in_container(system, container, executable, config)
    masters = _masters(system, os.path.join(system.proc, "self"))
    found = [_instance(system, master, Tree(), (), executable) for master in masters]
    if config is not None:
        found = [one for one in found if os.path.realpath(one.config) == os.path.realpath(config)]
    if not found:
        program = executable or which("nginx")
        if program is None:
            raise InstanceError(
                "nginx is not installed on this host: there is no program 'nginx'; name it in 'executable'"
            )
        build = _build(system, (program,))
        options = ("-c", config) if config is not None else ()
        path = config or build.path("conf-path", "conf/nginx.conf")
        return Instance(system, (program,), options, build, path, Tree())
    return _only(found)


def _only(found: Sequence[Instance]) -> Instance:
    if len(found) > 1:
        running = ", ".join(f"pid {one.master.pid} with {one.config}" for one in found if one.master)
        raise InstanceError(f"several nginx masters run here ({running}); name the one that is meant in 'config'")
    return found[0]


def _masters(system: System, like: str) -> list[Process]:
    """Return the masters that live in the same process namespace as another process."""
    wanted = _namespace(like)
    masters = [one for one in nginx_processes(system) if one.title.startswith(MASTER)]
    return sorted(
        (one for one in masters if _namespace(os.path.join(system.proc, str(one.pid))) == wanted),
        key=lambda one: one.pid,
    )


def _namespace(process: str) -> str:
    try:
        return os.readlink(os.path.join(process, "ns", "pid"))
    except OSError:
        return ""


def _instance(system: System, master: Process, tree: Tree, before: tuple[str, ...], executable: str | None) -> Instance:
    given = options_of(master.title)
    if executable is None:
        try:
            executable = os.readlink(os.path.join(system.proc, str(master.pid), "exe"))
        except OSError as error:
            raise InstanceError(
                f"the program of the nginx master {master.pid} cannot be read ({error.strerror}); set become: true"
            ) from error
        # a package update has replaced the program of the running master
        executable = executable[: -len(" (deleted)")] if executable.endswith(" (deleted)") else executable
    argv = (*before, executable)
    build = _build(system, argv)
    prefix = given.get("p", build.prefix)
    path = (
        os.path.join(prefix, given["c"])
        if "c" in given
        else os.path.join(prefix, build.path("conf-path", "conf/nginx.conf"))
    )
    options = tuple(part for name, value in given.items() for part in (f"-{name}", value))
    return Instance(system, argv, options, build, path, tree, master, None if before else unit_of(system, master.pid))


def _build(system: System, argv: tuple[str, ...]) -> Build:
    result = system.run([*argv, "-V"], timeout=COMMAND_TIMEOUT)
    if not result.ok:
        raise InstanceError(result.describe())
    return parse_build(result.stderr + result.stdout)


def unit_of(system: System, pid: int) -> str | None:
    """Return the systemd service a process belongs to."""
    try:
        with open(os.path.join(system.proc, str(pid), "cgroup"), encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _ignored, rest = line.partition(":")
        controllers, _ignored, path = rest.partition(":")
        unit = path.rstrip("/").rpartition("/")[2]
        if (controllers == "name=systemd" or number == "0") and unit.endswith(".service") and which("systemctl"):
            return unit
    return None


def _in_container(system: System, name: str, executable: str | None, config: str | None) -> Instance:
    engine = next((one for one in ("docker", "podman") if which(one)), None)
    if engine is None:
        raise InstanceError(f"neither docker nor podman is installed on this host to reach the container {name!r}")
    result = system.run([engine, "inspect", "--type", "container", name], timeout=COMMAND_TIMEOUT)
    if not result.ok:
        raise InstanceError(f"there is no container {name!r} here: {result.describe()}")
    facts: dict[str, Any] = json.loads(result.stdout)[0]
    pid = int(facts["State"].get("Pid") or 0)
    if not facts["State"].get("Running") or not pid:
        raise InstanceError(f"the container {name!r} does not run; start it")
    like = os.path.join(system.proc, str(pid))
    if not os.path.isdir(like):
        raise InstanceError(
            f"the processes of container {name!r} are not seen here; run this on the host of its engine"
        )
    tree = Tree(os.path.join(like, "root"))
    masters = _masters(system, like)
    found = [_instance(system, master, tree, (engine, "exec", name), executable) for master in masters]
    if config is not None:
        found = [one for one in found if tree.real(one.config) == tree.real(config)]
    if not found:
        raise InstanceError(f"no nginx master runs in the container {name!r}")
    instance = _only(found)
    instance.container, instance.engine = name, engine
    instance.mounts = {
        mount["Destination"]: (mount["Source"], bool(mount.get("RW", True)))
        for mount in facts.get("Mounts", [])
        if mount.get("Source") and mount.get("Type") in ("bind", "volume")
    }
    return instance


# -- proof ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proof:
    """That a reload took effect.

    :param old: the workers that served before.
    :param new: the workers that serve now.
    :param seconds: from asking for it until no old worker takes requests any more.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the proof as the module returns it."""
        return {"old_workers": list(self.old), "new_workers": list(self.new), "seconds": round(self.seconds, 3)}


class ReloadError(Exception):
    """nginx was asked to reload and goes on with its old configuration."""


def prove_reload(instance: Instance, logs: Sequence[str], how: str, timeout: float) -> Proof:
    """Reload and return when only workers of a new generation take requests.

    :param logs: error logs to look into for the reason of a failure.
    :param how: see :meth:`Instance.reload`.
    :param timeout: seconds to wait for the new workers.
    :raises ReloadError: when the old workers go on; with nginx's own words where it wrote some.
    """
    system = instance.system
    if instance.master is None:
        raise ReloadError("nginx does not run")
    old = {one.pid: one for one in instance.workers()[0]}
    positions = {log: _size(log) for log in logs}
    start = system.monotonic()
    try:
        result = instance.reload(how)
    except CommandError as error:
        raise ReloadError(str(error)) from error
    if not result.ok:
        raise ReloadError(result.describe())
    words: list[str] = []
    while True:
        active, _ignored = instance.workers()
        fresh = [one for one in active if old.get(one.pid) != one]
        if fresh and len(fresh) == len(active):
            return Proof(tuple(sorted(old)), tuple(sorted(one.pid for one in fresh)), system.monotonic() - start)
        words = _emergencies(positions, None if instance.container else instance.master.pid)
        final = [line for line in words if "bind() to" not in line]
        if final or system.monotonic() - start > timeout:
            break
        system.sleep(0.05)
    reason = " / ".join(dict.fromkeys(words)) or "it wrote no reason into its error log"
    raise ReloadError(
        f"'{' '.join(result.argv)}' ended with exit code 0, but the old workers "
        f"({', '.join(map(str, sorted(old))) or 'none'}) go on with the old configuration: {reason}"
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _emergencies(positions: Mapping[str, int], pid: int | None) -> list[str]:
    """Return what nginx wrote at level emerg behind these positions, without the time stamps."""
    found = []
    for path, position in positions.items():
        try:
            with open(path, "rb") as stream:
                stream.seek(position if _size(path) >= position else 0)
                text = stream.read(1024 * 1024).decode("utf-8", "replace")
        except OSError:
            continue
        for match in re.finditer(r"\[emerg\] (\d+)#\d+: (.*)", text):
            if pid is None or int(match.group(1)) == pid:
                found.append(match.group(2))
    return found


def changed_since(config: Config, instant: float) -> dict[str, float]:
    """Return the files and listed directories of a configuration that changed after an instant.

    :param instant: seconds since 1970.
    :returns: path as nginx names it → time of its last change, of content, name or link.
    """
    changed: dict[str, float] = {}
    tree = config.tree
    for path in [*config.files, *sorted(config.listed)]:
        try:
            link = os.path.join(tree.outside(os.path.dirname(path)), os.path.basename(path))
            latest = max(os.lstat(link).st_ctime, os.stat(tree.outside(path)).st_ctime)
        except OSError:
            continue
        if latest > instant:
            changed[path] = latest
    return changed


def serving_since(instance: Instance) -> float | None:
    """Return when the oldest worker that takes requests was started, in seconds since 1970; None without one."""
    active, _ignored = instance.workers()
    return min(one.started for one in active) + instance.system.booted() if active else None
