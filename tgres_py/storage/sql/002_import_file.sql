-- What an import has finished, so that it can be interrupted and repeated: one row per series, the file
-- (size and time of last change) that it came from, and from which time on its slots were taken.
CREATE TABLE import_file (
    name        text COLLATE "C" PRIMARY KEY,
    size        bigint NOT NULL,
    mtime_ns    bigint NOT NULL,
    since_s     bigint NOT NULL,
    slots       bigint NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT now()
);
