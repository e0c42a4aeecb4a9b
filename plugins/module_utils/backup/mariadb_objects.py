# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a MariaDB has besides rows, counted when it is backed up and again when it is restored."""

from __future__ import annotations

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"

#: How many of each there are outside the server's own databases; recorded when a backup is made, and compared here.
OBJECTS = {
    "views": f"SELECT COUNT(*) FROM information_schema.views WHERE table_schema NOT IN {_SYSTEM}",
    "routines": f"SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema NOT IN {_SYSTEM}",
    "triggers": f"SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema NOT IN {_SYSTEM}",
    "events": f"SELECT COUNT(*) FROM information_schema.events WHERE event_schema NOT IN {_SYSTEM}",
    "indexes": "SELECT COUNT(DISTINCT table_schema, table_name, index_name) FROM information_schema.statistics "
    f"WHERE table_schema NOT IN {_SYSTEM}",
    "accounts": "SELECT COUNT(*) FROM mysql.global_priv",
}
