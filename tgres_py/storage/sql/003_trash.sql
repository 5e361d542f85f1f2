-- Series that were removed and can be brought back: rows of rrd, with their ids, so that their points
-- (which stay in ts) and the journal's know them. A reference table on Citus, as rrd is.
CREATE TABLE rrd_trash (
    id         bigint PRIMARY KEY,
    name       text COLLATE "C" NOT NULL,
    tags       jsonb,
    bundle_id  bigint NOT NULL,
    created_at timestamptz NOT NULL,
    last_s     bigint,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    batch      bigint NOT NULL,
    why        text NOT NULL DEFAULT ''
);

CREATE INDEX rrd_trash_batch ON rrd_trash (batch);
CREATE INDEX rrd_trash_deleted_at ON rrd_trash (deleted_at);

-- Numbers of the batches in the trash.
CREATE SEQUENCE rrd_batch_seq;
