"""``tgres series …``: names of series – list, look, remove, restore, rename, merge."""

from __future__ import annotations

from tgres_py.cli.admin_client import admin_command, admin_group

NONE = "no series found"

series = admin_group(
    "series",
    "List, inspect, remove, restore, rename and merge series.",
    {
        "ls": admin_command("series.ls", nothing=NONE),
        "show": admin_command("series.show", nothing=NONE, record=True),
        "stale": admin_command("series.stale", nothing="all series had points lately"),
        "rm": admin_command("series.rm", nothing=NONE, record=True),
        "trash": admin_command("series.trash", nothing="the trash is empty"),
        "undo": admin_command("series.undo", record=True),
        "purge": admin_command("series.purge", nothing="nothing is due in the trash", record=True),
        "rename": admin_command("series.rename", nothing="no series is to be renamed"),
        "merge": admin_command("series.merge", nothing=NONE, record=True),
    },
)
