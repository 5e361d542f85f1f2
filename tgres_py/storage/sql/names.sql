-- Statements that change which series there are: removal, restoring, renaming. Whoever changes rows of
-- rrd that are there already tells the servers on channel tgres_series, in the same transaction.

-- name: next_batch
SELECT nextval('rrd_batch_seq')

-- name: trash_series
-- Locked in one order, so that two who remove overlapping sets don't deadlock.
WITH chosen AS (
    SELECT id FROM rrd WHERE id = any($1::bigint[]) ORDER BY id FOR UPDATE
), gone AS (
    DELETE FROM rrd USING chosen WHERE rrd.id = chosen.id
    RETURNING rrd.id, name, tags, bundle_id, created_at, last_s
)
INSERT INTO rrd_trash (id, name, tags, bundle_id, created_at, last_s, batch, why)
SELECT id, name, tags, bundle_id, created_at, last_s, $2, $3 FROM gone
RETURNING id

-- name: restore_series
-- A name that lives again stays with the series that has it.
WITH back AS (
    INSERT INTO rrd (id, name, tags, bundle_id, created_at, last_s)
    SELECT id, name, tags, bundle_id, created_at, last_s FROM rrd_trash
    WHERE id = any($1::bigint[]) ORDER BY name
    ON CONFLICT (name) DO NOTHING
    RETURNING id
)
DELETE FROM rrd_trash USING back WHERE rrd_trash.id = back.id
RETURNING rrd_trash.id

-- name: rename_series
-- Names that change places with others of the same statement go through a name that nobody has.
UPDATE rrd SET name = new.name, tags = new.tags::jsonb
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS new (id, name, tags)
WHERE rrd.id = new.id

-- name: park_names
UPDATE rrd SET name = chr(1) || id WHERE id = any($1::bigint[])

-- name: names_taken
SELECT name FROM rrd WHERE name = any($1::text[]) AND NOT id = any($2::bigint[]) ORDER BY name

-- name: announce
SELECT pg_notify('tgres_series', payload) FROM unnest($1::text[]) AS payload

-- name: find_series
SELECT id, bundle_id, name FROM rrd WHERE id = any($1::bigint[]) ORDER BY id

-- name: find_untagged
SELECT name FROM rrd
WHERE id = any($1::bigint[]) AND tags IS NULL AND strpos(name, ';') > 0 ORDER BY name

-- name: load_trash
SELECT id, bundle_id, name FROM rrd_trash WHERE id = any($1::bigint[]) ORDER BY id

-- name: trash_batches
-- $1: how long batches are kept, in seconds; $2: one batch, or NULL for all.
SELECT batch, count(*) AS series, min(name) AS first_name, min(why) AS why,
       floor(extract(epoch FROM min(deleted_at)))::bigint AS deleted_at_s,
       floor(extract(epoch FROM min(deleted_at)))::bigint + $1::bigint AS purged_at_s
FROM rrd_trash WHERE $2::bigint IS NULL OR batch = $2
GROUP BY batch ORDER BY batch

-- name: trash_of_batch
SELECT id, bundle_id, name FROM rrd_trash WHERE batch = $1 ORDER BY name

-- name: trash_due
-- Older than $1 seconds; $2: of one batch, or NULL for all.
SELECT id FROM rrd_trash
WHERE deleted_at <= now() - make_interval(secs => $1) AND ($2::bigint IS NULL OR batch = $2)
ORDER BY id LIMIT $3

-- name: purge_points
DELETE FROM ts WHERE rrd_id = any($1::bigint[])

-- name: purge_rows
DELETE FROM rrd_trash WHERE id = any($1::bigint[])

-- name: touch_series
-- When points last came, to some hours: a row of rrd isn't written more often than that.
UPDATE rrd SET last_s = new.last_s
FROM unnest($1::bigint[], $2::bigint[]) AS new (id, last_s)
WHERE rrd.id = new.id AND (rrd.last_s IS NULL OR rrd.last_s < new.last_s - $3)

-- name: last_of_series
SELECT id, last_s, floor(extract(epoch FROM created_at))::bigint AS created_s
FROM rrd WHERE id = any($1::bigint[])

-- name: last_slot_of_series
-- For series whose last_s was never noted: their newest chunk, and the place of its last known slot.
SELECT rrd_id, start_s,
       (SELECT max(i) FROM unnest(dp) WITH ORDINALITY AS slot (value, i) WHERE value <> 'NaN') AS place
FROM (
    SELECT DISTINCT ON (rrd_id) rrd_id, start_s, dp FROM ts
    WHERE rrd_id = any($1::bigint[]) AND archive = 0 ORDER BY rrd_id, start_s DESC
) newest

-- name: sizes_of_series
SELECT archive, count(*) AS chunks, sum(pg_column_size(dp))::bigint AS bytes,
       min(start_s) AS first_s, max(start_s) AS last_s
FROM ts WHERE rrd_id = $1 GROUP BY archive ORDER BY archive

-- name: merge_rows
-- What series $1 knows goes where series $2 knows nothing; their archives are equal.
INSERT INTO ts AS t (rrd_id, archive, n, start_s, dp)
SELECT $2, archive, n, start_s, dp FROM ts WHERE rrd_id = $1 ORDER BY archive, n
ON CONFLICT (rrd_id, archive, n) DO UPDATE
SET start_s = excluded.start_s,
    dp = CASE WHEN excluded.start_s > t.start_s THEN excluded.dp
              ELSE tgres_merge(excluded.dp, t.dp) END
WHERE excluded.start_s > t.start_s
   OR excluded.start_s = t.start_s AND array_position(t.dp, 'NaN') IS NOT NULL
