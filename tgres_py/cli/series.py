"""``tgres series …``: names of series – list, look, remove, restore, rename, merge."""

from __future__ import annotations

from tgres_py.cli.admin_client import admin_command, admin_group

series = admin_group(
    "series",
    "List, inspect, remove, restore, rename and merge series.",
    {"ls": admin_command("series.ls", nothing="no series found")},
)
