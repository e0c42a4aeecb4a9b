# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which CVEs an update fixes, by the data that Debian publishes for debsecan."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import PackageError
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.version import older


@dataclass(frozen=True)
class Vulnerability:
    """One CVE in one package.

    :param binary: whether ``package`` is a binary package; else a source package.
    :param fixed: the version of unstable that has the fix; empty: none has.
    :param good: further versions that have it, those of the release.
    """

    cve: str
    package: str
    binary: bool
    fixed: str
    good: tuple[str, ...]

    def affects(self, version: str) -> bool:
        """Tell whether a version has the flaw."""
        if self.binary:
            return not self.fixed or older(version, self.fixed)
        return version not in self.good and (not self.fixed or older(version, self.fixed))


class Data:
    """The data for one release, as downloaded (compressed) or as text.

    :raises PackageError: when it is something else.
    """

    def __init__(self, content: bytes) -> None:
        try:
            text = (content if content.startswith(b"VERSION") else zlib.decompress(content)).decode("utf-8", "replace")
            lines = iter(text.split("\n"))
            if next(lines) != "VERSION 1":
                raise ValueError("its first line is not 'VERSION 1'")
            names = [line.partition(",")[0] for line in _block(lines)]
            self._by_package: dict[tuple[str, bool], list[Vulnerability]] = {}
            for line in _block(lines):
                package, number, flags, fixed, good = line.split(",", 4)
                one = Vulnerability(names[int(number)], package, flags[:1] == "B", fixed, tuple(good.split()))
                self._by_package.setdefault((package, one.binary), []).append(one)
        except (ValueError, IndexError, zlib.error, StopIteration) as error:
            raise PackageError(
                f"the vulnerability data cannot be read: {error}; give the file that debsecan loads"
            ) from error

    def fixed(self, name: str, source: str, before: tuple[str, str], after: tuple[str, str]) -> tuple[str, ...]:
        """Return the CVEs of a package that one version has and another has not.

        :param before: version of the package and of its source that is installed.
        :param after: the same of the one to come.
        """
        found = {
            one.cve
            for number, key in enumerate(((name, True), (source, False)))
            for one in self._by_package.get(key, ())
            if one.affects(before[number]) and not one.affects(after[number])
        }
        return tuple(sorted(found))


def parse_debsecan(text: str) -> dict[str, tuple[str, ...]]:
    """Return the CVEs by package that ``debsecan --only-fixed`` printed in its summary format."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].startswith(("CVE-", "TEMP-")) and "obsolete" not in words[2:]:
            found.setdefault(words[1], set()).add(words[0])
    return {package: tuple(sorted(cves)) for package, cves in found.items()}


def _block(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line:
            return
        yield line
