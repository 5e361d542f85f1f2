-- How many series a job had moved, or moved back, whose rows in retention_move are gone with what undo would have needed.
ALTER TABLE retention_job
    ADD COLUMN cleared_moved  bigint NOT NULL DEFAULT 0,
    ADD COLUMN cleared_undone bigint NOT NULL DEFAULT 0;
