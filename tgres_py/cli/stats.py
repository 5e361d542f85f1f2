"""``tgres stats …``: numbers on what is stored."""

from __future__ import annotations

from tgres_py.cli.admin_client import admin_command, admin_group

stats = admin_group(
    "stats",
    "Numbers on what is stored.",
    {"storage": admin_command("stats.storage", nothing="no chunk is stored yet")},
)
