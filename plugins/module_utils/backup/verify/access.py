# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How what is encrypted is opened: where the password of a repository is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem


class Closed(Exception):
    """The repository cannot be looked into.

    :param problem: why.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Secret:
    """Where the password is: never in an argument, since everyone on the host can read those.

    :param file: a file that holds it.
    :param variable: a variable of the environment that holds it.
    """

    file: str | None = None
    variable: str | None = None

    def environment(self, file: Mapping[str, str], variable: str, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that tell a program the password; none when there is none.

        :param file: the variables when it is in a file.
        :param variable: the name of the variable that takes the password itself.
        :param given: the environment of this process.
        :raises Closed: when it is not where it should be.
        """
        if self.file is not None:
            if not os.access(self.file, os.R_OK):
                text = f"the password file {self.file} is not there or cannot be read"
                raise Closed(Problem("repository.password", text, damage=False, advice="Put it there with mode 0600."))
            return dict(file)
        if self.variable is not None:
            if not given.get(self.variable):
                text = f"the variable {self.variable} with the password is not set on the host"
                raise Closed(
                    Problem("repository.password", text, damage=False, advice="Set it with environment on the task.")
                )
            return {variable: given[self.variable]}
        return {}
