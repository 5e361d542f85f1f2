-- The statements of changes of retention; each is known to the code by the name above it.

-- name: create_retention_job
INSERT INTO retention_job (state, rate, what, series) VALUES ('running', $1, $2, $3) RETURNING id

-- name: add_retention_moves
INSERT INTO retention_move (job_id, old_id, old_bundle, new_bundle)
SELECT $1, new.* FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS new (old_id, old_bundle, new_bundle)

-- name: retention_jobs
SELECT j.id, j.state, j.rate, j.what, j.series, j.failure,
       extract(epoch FROM j.created_at)::bigint AS created_at_s,
       extract(epoch FROM j.finished_at)::bigint AS finished_at_s,
       count(m.job_id) FILTER (WHERE m.state IN ('waiting', 'copying')) AS waiting,
       j.cleared_moved + count(m.job_id) FILTER (WHERE m.state = 'moved') AS moved,
       j.cleared_undone + count(m.job_id) FILTER (WHERE m.state = 'undone') AS undone,
       count(m.job_id) FILTER (WHERE m.state = 'gone') AS gone,
       count(m.job_id) FILTER (WHERE m.state IN ('moved', 'undone')) AS uncleared
FROM retention_job j LEFT JOIN retention_move m ON m.job_id = j.id
WHERE $1::bigint IS NULL OR j.id = $1
GROUP BY j.id ORDER BY j.id

-- name: retention_job_state
SELECT state, rate FROM retention_job WHERE id = $1

-- name: set_retention_job
UPDATE retention_job
SET state = $2, failure = $3, finished_at = CASE WHEN $4 THEN now() END
WHERE id = $1 AND state = any($5::text[])

-- name: set_retention_rate
UPDATE retention_job SET rate = $2 WHERE id = $1

-- name: next_retention_job
SELECT id FROM retention_job WHERE state IN ('running', 'undoing', 'forgetting') ORDER BY id LIMIT 1

-- name: next_retention_group
SELECT old_bundle, new_bundle, count(*) AS series FROM retention_move
WHERE job_id = $1 AND state = $2
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 1

-- name: claim_moves
WITH chosen AS (
    SELECT old_id FROM retention_move
    WHERE job_id = $1 AND state = 'waiting' AND old_bundle = $2 AND new_bundle = $3
    ORDER BY old_id LIMIT $4
)
UPDATE retention_move m
SET state = 'copying', new_id = coalesce(m.new_id, nextval('rrd_id_seq'))
FROM chosen WHERE m.job_id = $1 AND m.old_id = chosen.old_id
RETURNING m.old_id, m.new_id, 0::bigint AS cut_s

-- name: moved_series
SELECT old_id, new_id, cut_s FROM retention_move
WHERE job_id = $1 AND state = 'moved' AND old_bundle = $2 AND new_bundle = $3
ORDER BY old_id LIMIT $4

-- name: broken_off_moves
SELECT new_id FROM retention_move WHERE job_id = $1 AND state = 'copying'

-- name: release_moves
UPDATE retention_move SET state = 'waiting' WHERE job_id = $1 AND state = 'copying'

-- name: switch_rows
-- The series' row gets another id: a new one, or its old one again. Its name, tags and times stay.
UPDATE rrd SET id = new.to_id, bundle_id = $3
FROM unnest($1::bigint[], $2::bigint[]) AS new (from_id, to_id)
WHERE rrd.id = new.from_id
RETURNING new.from_id

-- name: mark_moves
UPDATE retention_move SET state = $3, cut_s = $4 WHERE job_id = $1 AND old_id = any($2::bigint[])

-- name: rows_there
SELECT id FROM rrd WHERE id = any($1::bigint[])

-- name: drop_moves
DELETE FROM retention_move WHERE job_id = $1 AND old_id = any($2::bigint[])

-- name: dead_rows
-- What undo doesn't need (any more): of series that were moved the old row, of those moved back the new one.
SELECT old_id, CASE state WHEN 'undone' THEN new_id ELSE old_id END AS dead_id, state FROM retention_move
WHERE job_id = $1 AND state = any($2::text[]) ORDER BY old_id LIMIT $3

-- name: count_cleared
UPDATE retention_job SET cleared_moved = cleared_moved + $2, cleared_undone = cleared_undone + $3 WHERE id = $1

-- name: delete_chunks
DELETE FROM ts WHERE rrd_id = any($1::bigint[])

-- name: later_moves
-- Jobs that moved series on which a job had moved.
SELECT DISTINCT later.job_id FROM retention_move m
JOIN retention_move later ON later.old_id = m.new_id AND later.job_id > m.job_id
WHERE m.job_id = $1 AND m.state = 'moved' AND later.state IN ('copying', 'moved')
ORDER BY 1

-- name: busy_series
-- Series that an unfinished job is going to move, or to move back.
SELECT CASE j.state WHEN 'undoing' THEN m.new_id ELSE m.old_id END AS id
FROM retention_move m JOIN retention_job j ON j.id = m.job_id
WHERE (j.state = 'running' AND m.state IN ('waiting', 'copying')) OR (j.state = 'undoing' AND m.state = 'moved')

-- name: chunk_spans
SELECT archive, min(start_s) AS first_s, max(start_s) AS last_s FROM ts
WHERE rrd_id = any($1::bigint[]) AND archive >= 0 GROUP BY archive

-- name: sizes_of_sample
-- Bytes of arrays as they lie there (compressed), chunks and the oldest chunk, by archive.
SELECT archive, count(*) AS chunks, sum(pg_column_size(dp))::bigint AS bytes, min(start_s) AS first_s
FROM ts WHERE rrd_id = any($1::bigint[]) GROUP BY archive ORDER BY archive

-- name: try_live_lock
SELECT CASE WHEN $2 THEN pg_try_advisory_lock_shared($1) ELSE pg_try_advisory_lock($1) END
