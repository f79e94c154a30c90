-- Each machine that owns instances. It holds its lease under its session, which ends when the primary gives away
-- something of that machine: it then has to begin anew, and to forget what it believed to own.
CREATE TABLE machines (
    machine TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    session TEXT,
    began_at_ms INTEGER NOT NULL
) STRICT;

-- Who owns what is not the primary's. `source` has the file as the last owner left it, where it was handed over.
CREATE TABLE homes (
    name TEXT PRIMARY KEY,
    machine TEXT NOT NULL,
    region TEXT NOT NULL,
    number INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    source TEXT,
    given_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX homes_by_machine ON homes (machine);

-- A machine that was away when an instance was deleted finds here that it has a file to delete.
ALTER TABLE instance_tombstones ADD COLUMN machine TEXT;
ALTER TABLE instance_tombstones ADD COLUMN number INTEGER;
DROP TRIGGER instances_deleted;
CREATE TRIGGER instances_deleted AFTER DELETE ON instances
BEGIN
    INSERT INTO instance_tombstones (instance_id, region, deleted_at_ms, machine, number)
    VALUES (
        OLD.id,
        OLD.region,
        CAST(unixepoch('subsec') * 1000 AS INTEGER),
        (SELECT machine FROM homes WHERE name = OLD.id),
        (SELECT number FROM homes WHERE name = OLD.id)
    )
    ON CONFLICT DO NOTHING;
    DELETE FROM homes WHERE name = OLD.id;
    INSERT INTO changes (topic, key) VALUES ('instance', OLD.id);
END;
