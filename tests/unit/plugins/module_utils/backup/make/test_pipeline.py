# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pipes: every exit code counts, nothing outlives the run, what came out is hashed as it passed."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import (
    PipelineError,
    Stage,
    last_words,
    run,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry


def python(name: str, code: str, folder: Path) -> Stage:
    """A program of this name, so that each has its own log."""
    program = folder / name
    program.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    program.chmod(0o700)
    return Stage([str(program)])


def test_the_output_is_kept_and_hashed_and_the_source_is_watched(tmp_path: Path) -> None:
    content = b"worklog " * 500_000
    (tmp_path / "data").write_bytes(content)
    seen = bytearray()
    target = tmp_path / "out"
    output = run(
        [Stage(["cat", str(tmp_path / "data")]), Stage(["tr", "a-z", "A-Z"])],
        str(target), logs=str(tmp_path), timeout=60, watch=seen.extend,
    )  # fmt: skip
    assert target.read_bytes() == content.upper()
    assert bytes(seen) == content
    assert (output.entry.size, output.entry.sha256) == (len(content), hashlib.sha256(content.upper()).hexdigest())
    assert output.entry.content == Entry(len(content), hashlib.sha256(content).hexdigest())
    assert output.exits == {"cat": 0, "tr": 0}
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("print('half'); raise SystemExit(3)", "import sys; sys.stdin.read()", "first ended with exit code 3"),
        (
            "print('x' * 9)",
            "import sys; sys.stdin.read(); sys.exit('no room')",
            "second ended with exit code 1: no room",
        ),
        # The first loses its reader: the second is to blame.
        ("while True: print('x' * 9999)", "raise SystemExit(7)", "second ended with exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", "import sys; sys.stdin.read()", "first was ended by signal 9"),
    ],
)
@pytest.mark.parametrize("content", [True, False])
def test_every_exit_code_counts(tmp_path: Path, first: str, second: str, words: str, content: bool) -> None:
    stages = [python("first", first, tmp_path), python("second", second, tmp_path)]
    with pytest.raises(PipelineError, match=words):
        run(stages, str(tmp_path / "out"), logs=str(tmp_path), timeout=60, content=content)


def test_what_has_checksums_of_its_own_goes_straight_on(tmp_path: Path) -> None:
    """The first program and the second one have the same pipe, and nothing of it is hashed."""
    show = "import os; os.write(1, os.readlink('/proc/self/fd/%d').encode())"
    stages = [
        python("first", show % 1, tmp_path),
        python("second", f"{show % 0}; os.write(1, os.read(0, 99))", tmp_path),
    ]
    output = run(stages, str(tmp_path / "out"), logs=str(tmp_path), timeout=60, content=False)
    names = (tmp_path / "out").read_text(encoding="ascii").split("pipe:")
    assert len(names) == 3 and names[1] == names[2]
    assert output.entry.content is None
    assert output.entry.sha256 == hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()


def ended(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is gone, or waits for its parent only, within 10 s."""
    for _attempt in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import os, time; print(os.getpid(), file=open({str(pid)!r}, 'w'), flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    with pytest.raises(PipelineError, match=r"first \| cat did not end within 2 s and was killed"):
        run([python("first", code, tmp_path), Stage(["cat"])], str(tmp_path / "out"), logs=str(tmp_path), timeout=2)
    assert time.monotonic() - began < 20
    assert ended(int(pid.read_text(encoding="ascii")))


def test_a_program_that_is_not_read_to_the_end(tmp_path: Path) -> None:
    stages = [
        Stage(["head", "-c", "9000000", "/dev/zero"]),
        python("early", "import sys; sys.stdin.buffer.read(9)", tmp_path),
    ]
    with pytest.raises(PipelineError, match="early did not read to the end"):
        run(stages, str(tmp_path / "out"), logs=str(tmp_path), timeout=60)


def test_a_missing_program_and_a_target_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="'no-such-program' is not installed"):
        run([Stage(["cat"]), Stage(["no-such-program"])], str(tmp_path / "a"), logs=str(tmp_path), timeout=9)
    (tmp_path / "b").write_bytes(b"older")
    with pytest.raises(PipelineError, match=r"cannot write .*File exists"):
        run([Stage(["echo", "new"])], str(tmp_path / "b"), logs=str(tmp_path), timeout=9)
    assert (tmp_path / "b").read_bytes() == b"older"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr("os.open", lambda path, *rest, **more: real("/dev/full", os.O_WRONLY))
    with pytest.raises(PipelineError, match=r"cannot write .*No space left on device"):
        run([Stage(["yes"])], str(tmp_path / "out"), logs=str(tmp_path), timeout=9)


def test_secrets_reach_a_program_by_its_environment(tmp_path: Path) -> None:
    show = python("show", "import os; print(os.environ['SECRET'], os.environ['LC_ALL'])", tmp_path)
    run([Stage(show.argv, {"SECRET": "s3cret"})], str(tmp_path / "out"), logs=str(tmp_path), timeout=9)
    assert (tmp_path / "out").read_text(encoding="ascii") == "s3cret C\n"
    assert "SECRET" not in os.environ


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"  one\n\n two \xff\n")
    assert last_words(str(log)) == "one; two \ufffd"
    log.write_bytes(b"")
    assert last_words(str(log)) == "it said nothing"
    assert "cannot be read" in last_words(str(tmp_path / "none"))


def test_a_program_that_writes_nothing_does_not_hold_up_the_failure_of_its_reader(tmp_path: Path) -> None:
    silent = python("silent", "import time; time.sleep(600)", tmp_path)
    failing = python("failing", "raise SystemExit(4)", tmp_path)
    began = time.monotonic()
    for watch in (None, len):
        target = str(tmp_path / f"out{watch}")
        with pytest.raises(PipelineError, match=r"^failing ended with exit code 4"):
            run([silent, failing], target, logs=str(tmp_path), timeout=60, watch=watch)
    assert time.monotonic() - began < 20
