"""Describes a database's schema as text, one line per thing, so that two schemas can be compared."""

from __future__ import annotations

import asyncpg

_CATALOG = """
SELECT format('column %s.%s %s%s%s storage=%s', c.relname, a.attname,
              format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
              coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), ''), a.attstorage)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
UNION ALL
SELECT format('constraint %s %s', conrelid::regclass, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL
SELECT format('index %s', indexdef) FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT format('table %s %s', relname, reloptions) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
UNION ALL
SELECT format('view %s %s', relname, md5(pg_get_viewdef(oid))) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
UNION ALL
SELECT format('function %s %s', oid::regprocedure, md5(prosrc)) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
ORDER BY 1
"""


async def describe(connection: asyncpg.Connection) -> str:
    """Tables, columns, constraints, indexes, views and functions of schema ``public``."""
    return "".join(f"{line}\n" for (line,) in await connection.fetch(_CATALOG))
