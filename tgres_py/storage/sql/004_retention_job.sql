-- Changes of retention: jobs, and what each does to which series. A series that was moved keeps the
-- chunks of its old row (ts.rrd_id = old_id) until the job is forgotten, so that it can be undone.
CREATE TABLE retention_job (
    id          bigserial PRIMARY KEY,
    state       text NOT NULL,
    rate        float8 NOT NULL DEFAULT 0,
    what        text NOT NULL DEFAULT '',
    series      bigint NOT NULL DEFAULT 0,
    failure     text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- state: waiting, copying (new_id is given, its chunks are being written), moved, undone, gone (the series was
-- removed after it had moved). cut_s: older slots were copied, younger ones came from memory.
CREATE TABLE retention_move (
    job_id     bigint NOT NULL,
    old_id     bigint NOT NULL,
    new_id     bigint,
    old_bundle bigint NOT NULL,
    new_bundle bigint NOT NULL,
    cut_s      bigint,
    state      text NOT NULL DEFAULT 'waiting',
    PRIMARY KEY (job_id, old_id)
);

CREATE INDEX retention_move_state ON retention_move (job_id, state, old_bundle, new_bundle, old_id);
CREATE INDEX retention_move_new ON retention_move (new_id);
