-- What every file of this kind says of itself.
CREATE TABLE schema (
    version INTEGER NOT NULL,
    readable_from INTEGER NOT NULL
) STRICT;
INSERT INTO schema (version, readable_from) VALUES (0, 1);

-- The instance itself: the sequence number of its last change, and which of them history still tells.
CREATE TABLE instance (
    seq INTEGER NOT NULL,
    told_from INTEGER NOT NULL
) STRICT;
INSERT INTO instance (seq, told_from) VALUES (0, 1);

-- Each owner's stretch of the sequence: a client of an earlier epoch may resume below the next one's first_seq.
CREATE TABLE epochs (
    epoch TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE entries (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    attributes TEXT NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    expires_at_ms INTEGER
) STRICT;
CREATE INDEX entries_by_expiry ON entries (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- Every change with what it replaced and who made it; what a clear removed stands in cleared.
CREATE TABLE history (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    op TEXT NOT NULL CHECK (op IN ('set', 'delete', 'clear')),
    key TEXT,
    value TEXT,
    attributes TEXT,
    expires_at_ms INTEGER,
    previous_value TEXT,
    previous_attributes TEXT,
    previous_seq INTEGER,
    previous_expires_at_ms INTEGER,
    actor_kind TEXT NOT NULL,
    actor_id TEXT NOT NULL,
    actor_name TEXT,
    turn_id TEXT,
    op_id TEXT
) STRICT;
CREATE INDEX history_by_key ON history (key, seq);
CREATE INDEX history_by_time ON history (at_ms);

CREATE TABLE cleared (
    seq INTEGER NOT NULL REFERENCES history (seq) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    attributes TEXT NOT NULL,
    entry_seq INTEGER NOT NULL,
    expires_at_ms INTEGER,
    PRIMARY KEY (seq, key)
) STRICT, WITHOUT ROWID;

-- Operations that clients named, so that a repeat is acknowledged and not applied again.
CREATE TABLE operations (
    principal TEXT NOT NULL,
    op_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (principal, op_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_by_time ON operations (at_ms);

CREATE TABLE redeemed (
    ticket_id TEXT PRIMARY KEY,
    expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What webhooks are owed, written with the change and kept until the core has it.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    payload TEXT NOT NULL
) STRICT;
