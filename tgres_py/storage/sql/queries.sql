-- The statements of the PostgreSQL store; each is known to the code by the name above it.

-- name: stage_table
-- Made once per connection. LIKE … STORAGE COMPRESSION: a chunk is compressed once, on its way in.
CREATE TEMP TABLE IF NOT EXISTS tgres_stage
    (LIKE ts INCLUDING STORAGE INCLUDING COMPRESSION) ON COMMIT DELETE ROWS

-- name: upsert_stage
-- The staged rows come in the order of ts's primary key, so two writers can't deadlock. A chunk
-- without unknown slots goes in as it is, still compressed: half the CPU of a merge. Rows that begin
-- after $1 were written by a clock that was wrong: any other lap takes their place.
INSERT INTO ts AS t (rrd_id, archive, n, start_s, dp)
SELECT rrd_id, archive, n, start_s, dp FROM tgres_stage
ON CONFLICT (rrd_id, archive, n) DO UPDATE
SET start_s = excluded.start_s,
    dp = CASE WHEN excluded.start_s <> t.start_s OR array_position(excluded.dp, 'NaN') IS NULL
              THEN excluded.dp
              ELSE tgres_merge(t.dp, excluded.dp) END
WHERE excluded.start_s >= t.start_s OR t.start_s > $1::bigint

-- name: fill_stage
-- The merge rule the other way round: what is known stays, staged values go into unknown slots only.
-- Unchanged rows are left alone, so that an import that is repeated writes nothing.
INSERT INTO ts AS t (rrd_id, archive, n, start_s, dp)
SELECT rrd_id, archive, n, start_s, dp FROM tgres_stage
ON CONFLICT (rrd_id, archive, n) DO UPDATE
SET start_s = excluded.start_s,
    dp = CASE WHEN excluded.start_s > t.start_s THEN excluded.dp
              ELSE tgres_merge(excluded.dp, t.dp) END
WHERE excluded.start_s > t.start_s
   OR excluded.start_s = t.start_s AND array_position(t.dp, 'NaN') IS NOT NULL
      AND excluded.dp <> t.dp

-- name: notify
SELECT pg_notify($1, $2)

-- name: count_servers
-- Servers that share the advisory lock $1 while they listen.
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint << 32 | objid::bigint = $1

-- name: series_of_names
SELECT name, id, bundle_id FROM rrd WHERE name = any($1::text[])

-- name: import_finished
-- Files of the given series that were imported; a series that was removed since counts as not imported.
SELECT f.name, f.size, f.mtime_ns, f.since_s FROM import_file f JOIN rrd r USING (name)
WHERE f.name = any($1::text[])

-- name: finish_import
INSERT INTO import_file (name, size, mtime_ns, since_s, slots)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (name) DO UPDATE
SET size = excluded.size, mtime_ns = excluded.mtime_ns, since_s = excluded.since_s,
    slots = excluded.slots, imported_at = now()

-- name: empty_stage
TRUNCATE tgres_stage

-- name: upsert_chunk
INSERT INTO ts AS t (rrd_id, archive, n, start_s, dp) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (rrd_id, archive, n) DO UPDATE
SET start_s = excluded.start_s,
    dp = CASE WHEN excluded.start_s <> t.start_s OR array_position(excluded.dp, 'NaN') IS NULL
              THEN excluded.dp
              ELSE tgres_merge(t.dp, excluded.dp) END
WHERE excluded.start_s >= t.start_s OR t.start_s > $6::bigint

-- name: set_late_seq
UPDATE server_state SET late_seq = $1

-- name: get_state
-- waits for a merge whose COMMIT is on its way, also that of a connection whose server was killed
SELECT journal_id, late_seq FROM server_state FOR SHARE

-- name: set_journal_id
UPDATE server_state SET journal_id = $1, late_seq = 0

-- name: read_chunks
SELECT rrd_id, n, start_s, array_send(dp) AS cell FROM ts
WHERE rrd_id = any($1::bigint[]) AND archive = $2 AND start_s >= $3 AND start_s < $4

-- name: read_chunks_of_ring
-- The window's place in the ring is known: n between $5 and $6.
SELECT rrd_id, n, start_s, array_send(dp) AS cell FROM ts
WHERE rrd_id = any($1::bigint[]) AND archive = $2 AND start_s >= $3 AND start_s < $4
  AND n BETWEEN $5 AND $6

-- name: insert_bundle
INSERT INTO rrd_bundle (retention, cf, xff, on_duplicate, steps_s, sizes, widths)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING

-- name: load_bundles
SELECT id, cf, xff, on_duplicate, steps_s, sizes, widths FROM rrd_bundle ORDER BY id

-- name: load_series
SELECT id, bundle_id, name FROM rrd ORDER BY id

-- name: series_ids
SELECT array_send(array_agg(nextval('rrd_id_seq'))) FROM generate_series(1, $1)

-- name: series_stage
CREATE TEMP TABLE IF NOT EXISTS tgres_series_stage
    (id bigint, name text COLLATE "C", tags jsonb, bundle_id bigint) ON COMMIT DELETE ROWS

-- name: insert_missing_series
INSERT INTO rrd (id, name, tags, bundle_id)
SELECT id, name, tags, bundle_id FROM tgres_series_stage ORDER BY name
ON CONFLICT (name) DO NOTHING

-- name: select_staged_series
SELECT array_send(array_agg(r.id ORDER BY s.id)) AS ids,
       array_send(array_agg(r.bundle_id ORDER BY s.id)) AS bundle_ids
FROM tgres_series_stage s JOIN rrd r USING (name)

-- name: untag_series
-- A series without tags here is not in the index of tags, whatever its name says.
UPDATE rrd SET tags = NULL WHERE name = any($1::text[]) AND tags IS NOT NULL

-- name: tag_series
UPDATE rrd SET tags = new.tags
FROM unnest($1::text[], $2::jsonb[]) AS new (name, tags)
WHERE rrd.name = new.name

-- name: load_untagged
SELECT name FROM rrd WHERE tags IS NULL AND strpos(name, ';') > 0 ORDER BY name

-- name: insert_event
INSERT INTO event (what, tags, data, at) VALUES ($1, $2, $3, to_timestamp($4)) RETURNING id

-- name: find_events
SELECT what, extract(epoch FROM at)::float8 AS at_s, tags, data, id
FROM (SELECT *, sum(octet_length(what) + octet_length(data) + octet_length(array_to_string(tags, ''))
                    + 64 * cardinality(tags)) OVER before AS bytes_before
      FROM event
      WHERE at BETWEEN to_timestamp($1) AND to_timestamp($2)
        AND ($3::text[] IS NULL OR CASE WHEN $4 THEN tags @> $3 ELSE tags && $3 END)
      WINDOW before AS (ORDER BY at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
      ORDER BY at, id
      LIMIT $5) found
WHERE coalesce(bytes_before, 0) <= $6
ORDER BY at, id

-- name: find_event_times
SELECT extract(epoch FROM at)::float8 AS at_s
FROM event
WHERE at BETWEEN to_timestamp($1) AND to_timestamp($2)
  AND ($3::text[] IS NULL OR CASE WHEN $4 THEN tags @> $3 ELSE tags && $3 END)
ORDER BY at, id
LIMIT $5

-- name: get_event
SELECT what, extract(epoch FROM at)::float8 AS at_s, tags, data, id FROM event WHERE id = $1

-- name: inspect_settings
SELECT name,
       CASE unit WHEN '8kB' THEN (setting::bigint * 8192)::text
                 WHEN 'kB' THEN (setting::bigint * 1024)::text
                 WHEN 'MB' THEN (setting::bigint * 1048576)::text
                 ELSE setting END AS value
FROM pg_settings
WHERE name IN ('autovacuum', 'track_counts', 'fsync', 'full_page_writes', 'synchronous_commit',
               'shared_buffers', 'max_wal_size', 'max_connections')

-- name: inspect_tables
SELECT c.relname::text AS name,
       coalesce(s.n_live_tup, 0)::bigint AS live,
       coalesce(s.n_dead_tup, 0)::bigint AS dead,
       pg_table_size(c.oid) AS table_bytes,
       pg_indexes_size(c.oid) AS index_bytes,
       age(c.relfrozenxid)::bigint AS age
FROM pg_class c
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.oid IN (to_regclass('ts'), to_regclass('rrd'), to_regclass('rrd_bundle'), to_regclass('event'),
                to_regclass('rrd_trash'))
ORDER BY pg_table_size(c.oid) DESC

-- name: inspect_server
SELECT current_setting('server_version') AS version,
       extract(epoch FROM clock_timestamp())::float8 AS now_s,
       coalesce((SELECT attcompression = 'l' FROM pg_attribute
                 WHERE attrelid = to_regclass('ts') AND attname = 'dp'), false) AS lz4,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       coalesce((SELECT extract(epoch FROM max(clock_timestamp() - xact_start)) FROM pg_stat_activity
                 WHERE state <> 'active' AND backend_type = 'client backend'), 0)::float8
           AS oldest_transaction_s,
       pg_database_size(current_database()) AS database_bytes

-- name: inspect_chunks_about
SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass('ts')

-- name: inspect_archives
SELECT r.bundle_id, t.archive, count(*) AS chunks, sum(pg_column_size(t.dp)) AS stored_bytes
FROM ts t TABLESAMPLE SYSTEM ($1::float4)
JOIN rrd r ON r.id = t.rrd_id
GROUP BY 1, 2
ORDER BY 1, 2

-- name: inspect_series
SELECT bundle_id, count(*) AS series FROM rrd GROUP BY 1

-- name: inspect_points
SELECT array_send(t.dp)
FROM ts t TABLESAMPLE SYSTEM ($3::float4)
JOIN rrd r ON r.id = t.rrd_id
WHERE r.bundle_id = $1 AND t.archive = $2
LIMIT $4
