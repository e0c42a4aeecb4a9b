# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the program worklog-backup says to who started it."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Say something, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Say what is wrong, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
