# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import effective
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Tree

from tests.unit.plugins.module_utils.nginx import configs


@pytest.mark.capability("F3")
def test_there_are_at_least_sixty_configurations():
    assert len(configs.CASES) >= 60


@pytest.mark.parametrize("case", configs.GOOD, ids=lambda case: case.name)
def test_effective_limit(case):
    check(case, case.path)


@pytest.mark.parametrize("variant", ["crlf", "latin1", "last line without an end"])
@pytest.mark.parametrize(
    "case", [case for case in configs.GOOD if case.path.name != "nginx.conf"], ids=lambda case: case.name
)
def test_line_endings_and_encodings_make_no_difference(case, variant, tmp_path):
    text = case.path.read_bytes()
    if variant == "crlf":
        text = text.replace(b"\n", b"\r\n")
    elif variant == "latin1":
        text = b"# caf\xe9\n" + text.replace(b" return 200 ", b" add_header x \xe9; return 200 ")
    else:
        text = text.rstrip(b"\n")
    (tmp_path / "nginx.conf").write_bytes(text)
    check(case, tmp_path / "nginx.conf")


def check(case, path):
    http = effective.build(Config(str(path), Tree()))
    for wanted in case.expectations:
        try:
            answers = effective.answers(http, wanted.host, wanted.port, default=wanted.default)
        except effective.UnknownServer as error:
            assert wanted.limit == "unknown", error
            continue
        assert wanted.limit != "unknown", f"{wanted.host} is answered by {answers}"
        path = effective.normalise(wanted.path)
        found = {effective.find_location(answer.server, path).limit for answer in answers}
        assert found == {effective.parse_size(wanted.limit)}, wanted
        assert all((answer.by == "default") == wanted.default for answer in answers)


@pytest.mark.parametrize("case", [case for case in configs.CASES if case.error is not None], ids=lambda case: case.name)
def test_refused(case):
    with pytest.raises(ConfigError) as caught:
        effective.build(Config(str(case.path), Tree()))
    assert case.error in str(caught.value)
    assert str(case.path.parent) in str(caught.value)
