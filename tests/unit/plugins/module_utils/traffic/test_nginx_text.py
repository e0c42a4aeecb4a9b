# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small files of nginx, and the connections that the kernel tells."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import connections, nginx_text
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError

SIDES = [Side("blue", ("app1:8080 max_fails=0", "app3:8080")), Side("green", ("app2:8080",))]


def test_an_upstream_is_written_and_read() -> None:
    given = {"app1:8080 max_fails=0": 45, "app3:8080": 45, "app2:8080": 0}
    text = nginx_text.upstream("worklog", ["least_conn"], SIDES, given, {"blue": 100.0, "green": 0.0})
    assert text == (
        "# Managed by worklog.maintenance.traffic_split: blue 100 %, green 0 %\n"
        "upstream worklog {\n"
        "    least_conn;\n"
        "    # blue\n"
        "    server app1:8080 max_fails=0 weight=45;\n"
        "    server app3:8080 weight=45;\n"
        "    # green\n"
        "    server app2:8080 down;\n"
        "}\n"
    )
    assert nginx_text.read_upstream(text, "/x", "worklog") == given
    with pytest.raises(TrafficError, match="/x has no upstream other"):
        nginx_text.read_upstream(text, "/x", "other")
    for cut in (len(text) - 3, text.index("app3") + 2, text.index("down")):
        with pytest.raises(TrafficError, match="/x is not whole"):
            nginx_text.read_upstream(text[:cut], "/x", "worklog")


def test_an_upstream_of_somebody_is_read() -> None:
    text = "upstream a { server x; server y weight=3 backup; server z weight=2 down; }\nupstream b { server x:1; }"
    assert nginx_text.read_upstream(text, "/x", "a") == {"x": 1, "y backup": 3, "z": 0}


@pytest.mark.parametrize(
    ("shares", "block"),
    [
        ((95, 5), "    5.00% green;\n    * blue;\n"),
        ((99.99, 0.01), "    0.01% green;\n    * blue;\n"),
        ((0, 100), "    * green;\n"),
        ((100, 0), "    * blue;\n"),
    ],
)
def test_clients_are_split_and_read(shares: tuple[float, float], block: str) -> None:
    sides = [Side("blue", percent=shares[0]), Side("green", percent=shares[1])]
    text = nginx_text.split_clients("$cookie_uid", "side", sides)
    assert text.split("\n", 1)[1] == f'split_clients "$cookie_uid" $side {{\n{block}}}\n'
    found = nginx_text.read_split_clients(text, "/x", "side")
    assert found == {name: share for name, share in zip(("blue", "green"), shares) if share}


def test_clients_are_split_to_two_decimals() -> None:
    with pytest.raises(TrafficError, match="takes two decimals"):
        nginx_text.split_clients("$a", "b", [Side("blue", percent=99.999), Side("green", percent=0.001)])
    with pytest.raises(TrafficError, match=r"no split_clients for \$other"):
        nginx_text.read_split_clients("split_clients $a $b { * x; }", "/x", "other")


@pytest.mark.parametrize("text", ["a; b", "a }", "{", "a # b", 'a "b', "a\nb", "a\\", ""])
def test_nothing_ends_a_statement_early(text: str) -> None:
    with pytest.raises(TrafficError):
        nginx_text.check_plain("option", text)


# -- connections ----------------------------------------------------------------------------------------------------

#: From a Debian 12 with nginx in front of 127.0.0.1:9101 (0x238D), shortened.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:238D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 81210 1 0000000000000000
   1: 0100007F:A1C2 0100007F:238D 01 00000000:00000000 00:00000000 00000000    33        0 91233 1 0000000000000000 20 4
   2: 0100007F:238D 0100007F:A1C2 01 00000000:00000000 00:00000000 00000000     0        0 91234 1 0000000000000000 20 4
   3: 0100007F:A1C4 0100007F:238D 02 00000000:00000000 00:00000000 00000000    33        0 91235 1 0000000000000000 20 4
   4: 0100007F:A1C6 0100007F:238D 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000
   5: 0100007F:A1C8 0100007F:238E 01 00000000:00000000 00:00000000 00000000    33        0 91237 1 0000000000000000 20 4
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 0000000000000000FFFF00000100007F:A1D0 0000000000000000FFFF00000100007F:238D 01 00000000:00000000
   1: 00000000000000000000000001000000:A1D0 00000000000000000000000001000000:238D 01 00000000:00000000
"""
UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 32233 /run/two-sides/blue.sock
0000000000000000: 00000003 00000000 00000000 0001 03 32240 /run/two-sides/blue.sock
0000000000000000: 00000003 00000000 00000000 0001 02     0 /run/two-sides/blue.sock
0000000000000000: 00000003 00000000 00000000 0001 03 32241
0000000000000000: 00000003 00000000 00000000 0001 03 32242 /run/two-sides/green.sock
0000000000000000: 00000003 00000000 00000000 0001 03 32243 /run/two sides/blue.sock
"""


@pytest.fixture
def proc(tmp_path: Path) -> str:
    (tmp_path / "net").mkdir()
    for name, text in (("tcp", TCP), ("tcp6", TCP6), ("unix", UNIX)):
        (tmp_path / "net" / name).write_text(text)
    return str(tmp_path)


def resolve(host: str, port: int, type: int) -> list[tuple[object, ...]]:
    if host == "::1":
        return [(socket.AF_INET6, type, 6, "", ("::1", port, 0, 0))]
    return [(socket.AF_INET, type, 6, "", ("127.0.0.1", port))]


@pytest.mark.parametrize(
    ("addresses", "count"),
    [
        (["app1:9101"], 3),  # established, being established, and one in a socket of IPv6
        (["app1:9102"], 1),
        (["[::1]:9101"], 1),
        (["app1:9101", "app1:9102"], 4),
        (["app1"], 0),
        (["unix:/run/two-sides/blue.sock"], 2),  # accepted, and waiting
        (["unix:/run/two sides/blue.sock"], 1),
        (["unix:/run/two-sides/none.sock"], 0),
        ([], 0),
    ],
)
def test_connections_are_counted(proc: str, addresses: list[str], count: int) -> None:
    assert connections.count(addresses, proc, resolve) == count


def test_addresses_that_are_none() -> None:
    for address in ("app1:http", ":80", "app1:0", "app1:70000"):
        with pytest.raises(TrafficError, match="is not an address"):
            connections.split_address(address)
    assert connections.split_address("[::1]:81") == ("::1", 81)
    assert connections.split_address("[::1]") == ("::1", 80)


def test_real_connections_are_counted(tmp_path: Path) -> None:
    """Against this machine's own kernel."""
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert connections.count([address]) == 0
        client.connect(listener.getsockname())
        assert connections.count([address]) == 1
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        assert connections.count([f"unix:{path}"]) == 0
        client.connect(path)
        assert connections.count([f"unix:{path}"]) == 1  # waiting to be accepted
        accepted, _ignored = listener.accept()
        assert connections.count([f"unix:{path}"]) == 1
        accepted.close()
        assert connections.count([f"unix:{path}"]) == 0
