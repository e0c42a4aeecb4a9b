# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the get-pip.py that ansible-test runs: installs pip from the wheel that lies beside this file."""

from __future__ import annotations

import pathlib
import runpy
import sys

here = pathlib.Path(__file__).resolve()
version = here.stem[len("get_pip_") :].replace("_", ".")
options = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]

sys.path.insert(0, str(here.with_name(f"pip-{version}-py3-none-any.whl")))
sys.argv = ["pip", "install", "--no-index", "--find-links", str(here.parent), *options]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
