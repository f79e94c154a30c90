-- Rows of usage_logs that have left this file are in ledger.db: which one that is, and how many of its commits this
-- file relies on. No row while nothing has ever left.
CREATE TABLE archived (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    moves INTEGER NOT NULL
) STRICT;
