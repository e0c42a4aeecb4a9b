# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pwd
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, run, stream, which

PYTHON = sys.executable


def test_arguments_reach_the_program_as_they_are() -> None:
    hostile = "; touch /tmp/x $(id) `id` \n 'quote'"
    result = run([PYTHON, "-c", "import sys; print(sys.argv[1], end='')", hostile], timeout=10)
    assert (result.stdout, result.ok) == (hostile, True)


def test_locale_environment_and_standard_input() -> None:
    code = "import os, sys; print(os.environ['LC_ALL'], os.environ['TOKEN'], sys.stdin.read(), end='')"
    result = run([PYTHON, "-c", code], timeout=10, env={"TOKEN": "t"}, stdin=b"secret")
    assert result.stdout == "C t secret"


def test_standard_input_is_empty_unless_given() -> None:
    assert run([PYTHON, "-c", "import sys; print(len(sys.stdin.read()))"], timeout=10).stdout == "0\n"


def test_a_failure_says_command_code_and_words() -> None:
    result = run([PYTHON, "-c", "import sys; sys.stderr.write('no such table'); sys.exit(3)"], timeout=10)
    assert result.rc == 3
    assert result.describe().endswith("ended with exit code 3: no such table")


def test_a_signal_is_named() -> None:
    result = run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"], timeout=10)
    assert "was ended by signal 9" in result.describe()


def test_a_timeout_is_an_error_and_ends_the_children_too(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(9)"
    with pytest.raises(CommandError, match=r"did not end within 0\.7 s and was killed"):
        run([PYTHON, "-c", code], timeout=0.7)
    time.sleep(1.5)
    assert not mark.exists()


def test_a_daemon_left_behind_does_not_hold_us() -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4)']); print('up')"
    started = time.monotonic()
    assert run([PYTHON, "-c", code], timeout=10).stdout == "up\n"
    assert time.monotonic() - started < 3


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandError, match="the program 'no-such-tool' is not installed on this host"):
        run(["no-such-tool"], timeout=1)
    assert which("no-such-tool") is None


def test_what_cannot_be_executed_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("text")
    with pytest.raises(CommandError, match="could not be started"):
        run([str(script)], timeout=1)


def test_undecodable_output_is_replaced() -> None:
    assert run([PYTHON, "-c", "import os; os.write(1, b'a\\xffb')"], timeout=10).stdout == "a\ufffdb"


def test_an_unknown_account_is_named() -> None:
    with pytest.raises(CommandError, match="there is no account 'nobody-here' on this host"):
        run(["true"], timeout=1, user="nobody-here")


def test_another_account_gets_its_own_home() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to change the account")
    account = pwd.getpwnam("nobody")
    result = run(["/bin/sh", "-c", "id -u; echo $HOME"], timeout=10, user="nobody", cwd="/")
    assert result.stdout.split() == [str(account.pw_uid), account.pw_dir]


def test_output_is_read_while_the_program_runs() -> None:
    kept: list[bytes] = []
    code = "import os, sys; sys.stdout.write(os.environ['TOKEN'] * 100000); sys.stderr.write('words'); sys.exit(4)"
    result = stream([PYTHON, "-c", code], lambda out: kept.append(out.read(7)), timeout=20, env={"TOKEN": "secret "})
    assert kept == [b"secret "]
    assert (result.rc, result.stdout, result.stderr) == (4, "", "words")


def test_a_reader_that_fails_ends_the_program() -> None:
    def fail(_unused: object) -> None:
        raise ValueError("not what I wanted")

    begin = time.monotonic()
    with pytest.raises(ValueError, match="not what I wanted"):
        stream([PYTHON, "-c", "import time; time.sleep(60)"], fail, timeout=60)
    assert time.monotonic() - begin < 20


def test_a_stream_that_does_not_end_in_time_is_an_error() -> None:
    code = "import sys, time; sys.stderr.write('waiting'); sys.stderr.flush(); time.sleep(60)"
    with pytest.raises(CommandError, match=r"did not end within 3 s and was killed: waiting"):
        stream([PYTHON, "-c", code], lambda out: None, timeout=3)
    with pytest.raises(CommandError, match="'no-such-program' is not installed"):
        stream(["no-such-program"], lambda out: None, timeout=3)
