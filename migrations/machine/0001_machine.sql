-- What every file of this kind says of itself.
CREATE TABLE schema (
    version INTEGER NOT NULL,
    readable_from INTEGER NOT NULL
) STRICT;
INSERT INTO schema (version, readable_from) VALUES (0, 1);

-- Every commit moves it where it has a row; a machine's own file has no position that a client could wait for.
CREATE TABLE replication_token (
    epoch TEXT NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;

-- What this machine owes the primary, in the order in which it came about.
CREATE TABLE spool (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    item_id TEXT NOT NULL,
    payload BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    UNIQUE (kind, item_id)
) STRICT;

-- What the primary would never take, kept for an operator to look at.
CREATE TABLE refused (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    item_id TEXT NOT NULL,
    payload BLOB NOT NULL,
    reason TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
