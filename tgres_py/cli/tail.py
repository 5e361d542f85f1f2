"""``tgres tail GLOB``: points as they arrive."""

from __future__ import annotations

from tgres_py.cli.admin_client import admin_command

tail = admin_command("tail", nothing="nothing arrived")
