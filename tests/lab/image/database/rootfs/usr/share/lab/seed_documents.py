# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the document database: 400 records with an index, and a small second collection."""

from __future__ import annotations

import datetime

import pymongo

START = datetime.datetime(2026, 1, 1, 8)

client = pymongo.MongoClient("mongodb://127.0.0.1:27017/", serverSelectionTimeoutMS=20000)
database = client["worklog"]
database["work_records"].insert_many(
    {
        "_id": number,
        "title": f"工单 / work item {number}",
        "status": ("open", "done", "blocked")[number % 3],
        "tags": ["lab", f"team-{number % 5}"],
        "effort": {"minutes": number % 240, "estimated": number % 7 == 0},
        "createdAt": START + datetime.timedelta(hours=number),
    }
    for number in range(1, 401)
)
database["work_records"].create_index([("status", 1), ("createdAt", -1)])
database["settings"].insert_one({"_id": "theme", "value": "dark"})
print(database["work_records"].count_documents({}), "documents")
