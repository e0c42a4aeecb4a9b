# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path
from typing import IO

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import (
    Output,
    PipelineError,
    Stage,
    run,
)

DATA = random.Random(1).randbytes(1000) * 5000
COPY = Stage([sys.executable, "-c", "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"])
EARLY = Stage([sys.executable, "-c", "import sys; sys.stdin.buffer.read(10)"])
FAIL = Stage([sys.executable, "-c", "import sys; sys.stdin.buffer.read(10); sys.exit('no space')"])


def fed(tmp_path: Path, stages: list[Stage], data: bytes = DATA, error: BaseException | None = None) -> Output:
    def feed(stream: IO[bytes]) -> None:
        stream.write(data)
        if error is not None:
            raise error

    return run(stages, str(tmp_path / "out"), logs=str(tmp_path), timeout=30, feed=feed)


@pytest.mark.parametrize("stages", [[], [COPY]])
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["nothing", "a byte", "much"])
def test_what_is_fed_comes_out(tmp_path: Path, stages: list[Stage], data: bytes) -> None:
    output = fed(tmp_path, stages, data)
    assert (tmp_path / "out").read_bytes() == data
    assert (output.entry.size, output.entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert output.exits == {stage.name: 0 for stage in stages}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("stages", [[], [COPY]])
def test_a_feed_that_fails_is_a_failure_although_the_programs_ended_well(tmp_path: Path, stages: list[Stage]) -> None:
    with pytest.raises(PermissionError, match="the key"):
        fed(tmp_path, stages, error=PermissionError("the key"))


def test_a_program_that_fails_is_to_blame_for_the_broken_pipe(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="ended with exit code 1: no space"):
        fed(tmp_path, [FAIL])


def test_a_program_that_does_not_read_to_the_end_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="did not read to the end"):
        fed(tmp_path, [EARLY])


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="'no-such-tool' is not installed"):
        fed(tmp_path, [Stage(["no-such-tool"])])
    assert not (tmp_path / "out").exists()


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(PipelineError, match=r"cannot write .*out: File exists"):
        fed(tmp_path, [])
