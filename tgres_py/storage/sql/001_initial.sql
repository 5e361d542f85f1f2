-- The first schema. Everything here runs unchanged on Citus: rrd_bundle and rrd become reference
-- tables, ts is distributed by rrd_id (so storage options are set before anything else happens to it).

-- One row per distinct combination of what series share. steps_s, sizes and widths hold one element
-- per archive, finest first; retention says the same as steps_s and sizes, for people.
CREATE TABLE rrd_bundle (
    id           bigserial PRIMARY KEY,
    retention    text NOT NULL,
    cf           text NOT NULL,
    xff          float8 NOT NULL,
    on_duplicate text NOT NULL,
    steps_s      bigint[] NOT NULL,
    sizes        bigint[] NOT NULL,
    widths       int[] NOT NULL,
    UNIQUE (steps_s, sizes, widths, cf, xff, on_duplicate)
);

-- One row per series. tags is NULL for a name without tags. The collation makes LIKE 'prefix%' an
-- index condition and sorts as Python does.
CREATE TABLE rrd (
    id         bigserial PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    tags       jsonb,
    bundle_id  bigint NOT NULL REFERENCES rrd_bundle (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_s     bigint
);

-- One row per chunk; FORMAT.md draws it. No foreign key: it would cost a look-up for each chunk written.
CREATE TABLE ts (
    rrd_id  bigint NOT NULL,
    archive smallint NOT NULL,
    n       int NOT NULL,
    start_s bigint NOT NULL,
    dp      float8[] NOT NULL,
    PRIMARY KEY (rrd_id, archive, n)
) WITH (fillfactor = 100);

-- A row of 480 slots (3,840 bytes) is compressed in line and never leaves for the TOAST table.
ALTER TABLE ts ALTER COLUMN dp SET STORAGE MAIN;

DO $$
BEGIN
    ALTER TABLE ts ALTER COLUMN dp SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    RAISE NOTICE 'this PostgreSQL was built without lz4; chunks are compressed with pglz';
END
$$;

CREATE TABLE event (
    id   bigserial PRIMARY KEY,
    what text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    data text NOT NULL DEFAULT '',
    at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX event_at ON event (at);

-- What the journal needs to know; one row.
CREATE TABLE server_state (
    only_row   bool PRIMARY KEY DEFAULT true CHECK (only_row),
    journal_id text NOT NULL DEFAULT '',
    late_seq   bigint NOT NULL DEFAULT 0
);

INSERT INTO server_state DEFAULT VALUES;

-- Slots of one lap: a known value of the new array replaces, NaN never does. A function and not a
-- sub-select because Citus refuses sub-selects inside DO UPDATE.
CREATE FUNCTION tgres_merge(old float8[], new float8[]) RETURNS float8[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    IF array_length(old, 1) IS DISTINCT FROM array_length(new, 1)
       OR array_position(new, 'NaN'::float8) IS NULL THEN
        RETURN new;
    END IF;
    FOR i IN 1 .. array_length(new, 1) LOOP
        IF new[i] <> 'NaN'::float8 THEN
            old[i] := new[i];
        END IF;
    END LOOP;
    RETURN old;
END
$$;
