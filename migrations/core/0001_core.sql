-- What every file of this kind says of itself.
CREATE TABLE schema (
    version INTEGER NOT NULL,
    readable_from INTEGER NOT NULL
) STRICT;
INSERT INTO schema (version, readable_from) VALUES (0, 1);

-- The position: bumped by every commit, sent to clients as X-Txid.
CREATE TABLE replication_token (
    epoch TEXT NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO replication_token (epoch, sequence) VALUES (lower(hex(randomblob(4))), 0);

-- What caches must forget, written with the fact itself.
CREATE TABLE changes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    key TEXT NOT NULL
) STRICT;

-- Values that die: idempotency answers, later sessions and OAuth tokens.
CREATE TABLE expiring (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT;
CREATE INDEX expiring_by_expiry ON expiring (expires_at_ms);

-- Origins that an operator lists without a deploy.
CREATE TABLE origins (
    origin TEXT PRIMARY KEY,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE plans (
    name TEXT PRIMARY KEY,
    monthly_tokens INTEGER NOT NULL CHECK (monthly_tokens >= -1),
    requests_per_minute INTEGER NOT NULL CHECK (requests_per_minute >= 0),
    burst INTEGER NOT NULL CHECK (burst >= 0),
    price_cents INTEGER CHECK (price_cents >= 0),
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    updated_at TEXT NOT NULL DEFAULT (datetime('now')),
    CHECK (requests_per_minute = 0 OR burst > 0)
) STRICT;
INSERT INTO plans (name, monthly_tokens, requests_per_minute, burst, price_cents) VALUES
    ('free', 1000000, 10, 20, 0),
    ('basic', 10000000, 60, 100, 999),
    ('premium', 50000000, 300, 500, 2999),
    ('enterprise', -1, 0, 0, NULL),
    ('starter', 10000000, 60, 100, NULL),
    ('essentials', 50000000, 300, 500, NULL),
    ('professional', 100000000, 300, 500, NULL),
    ('business', 500000000, 300, 500, NULL),
    ('fallback', 0, 10, 20, NULL),
    ('unlimited', -1, 0, 0, NULL);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT,
    first_name TEXT,
    last_name TEXT,
    image_url TEXT,
    plan TEXT NOT NULL DEFAULT 'free' REFERENCES plans (name),
    token_quota INTEGER CHECK (token_quota = -1 OR token_quota > 0),
    suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
    seen_at_ms INTEGER,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX users_by_plan ON users (plan);
CREATE INDEX users_by_email ON users (email);

-- One user, many sign-ins: (clerk, user_2x…), (github, 583231), …
CREATE TABLE identities (
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (provider, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_user ON identities (user_id, provider);

-- Who was deleted, as a hash of provider and subject: enough to refuse, not enough to name.
CREATE TABLE tombstones (
    subject_hash BLOB PRIMARY KEY,
    deleted_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When each object of a provider (user, subscription, …) was last changed there: older never overwrites newer.
CREATE TABLE provider_objects (
    provider TEXT NOT NULL,
    object_id TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (provider, object_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_objects_by_user ON provider_objects (user_id);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key_prefix TEXT NOT NULL,
    key_hash BLOB NOT NULL UNIQUE,
    scope_type TEXT NOT NULL DEFAULT 'account' CHECK (scope_type IN ('account', 'project', 'instance')),
    scope_id TEXT,
    permissions TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(permissions)),
    scopes TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(scopes)),
    by_operator INTEGER NOT NULL DEFAULT 0 CHECK (by_operator IN (0, 1)),
    rate_limit INTEGER NOT NULL DEFAULT 0 CHECK (rate_limit >= 0),
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'revoked')),
    expires_at_ms INTEGER,
    last_used_at_ms INTEGER,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- Every event that a provider told us of; event_id is the svix-id, subject the provider's id of whom it is about.
CREATE TABLE webhook_logs (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    processing_status TEXT NOT NULL CHECK (processing_status IN ('pending', 'success', 'failed')),
    error_message TEXT,
    outcome TEXT,
    payload TEXT NOT NULL,
    subject TEXT,
    attempts INTEGER NOT NULL DEFAULT 1,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX webhook_logs_by_subject ON webhook_logs (subject) WHERE subject IS NOT NULL;
CREATE INDEX webhook_logs_counted ON webhook_logs (event_type, processing_status, created_at);

-- The ledger. Append-only; no foreign key and no index by user, because both would cost every insert:
-- counters answer quota, roll-ups answer history, and previous_id leads from a user's row to the one before it
-- in the same period, beginning at usage_periods.last_log_id.
CREATE TABLE usage_logs (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    session_id TEXT,
    response_id TEXT,
    event_id TEXT NOT NULL,
    event_type TEXT,
    provider TEXT,
    model TEXT,
    total_tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    input_token_details TEXT,
    output_token_details TEXT,
    metadata TEXT,
    created_at TEXT NOT NULL,
    source TEXT NOT NULL,
    occurred_at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    cost_micros INTEGER,
    instance_id TEXT,
    api_key_id TEXT,
    endpoint TEXT,
    amends_id INTEGER,
    previous_id INTEGER,
    event_key BLOB NOT NULL UNIQUE CHECK (length(event_key) = 16),
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 16)
) STRICT;

CREATE INDEX usage_logs_amendments ON usage_logs (amends_id) WHERE amends_id IS NOT NULL;

-- Sessions as the old relay summed them up, kept for what operators query.
CREATE TABLE usage_data (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    session_id TEXT,
    model TEXT,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    duration_seconds REAL,
    metadata TEXT,
    created_at TEXT NOT NULL
) STRICT;

-- What a user spent in a period: the sum of the ledger, kept with each insert, and its newest row there.
CREATE TABLE usage_periods (
    user_id TEXT NOT NULL,
    period_start_ms INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    events INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    last_log_id INTEGER NOT NULL,
    PRIMARY KEY (user_id, period_start_ms)
) STRICT, WITHOUT ROWID;

-- The same by day, session, model and endpoint: what history and plots read.
CREATE TABLE usage_rollups (
    user_id TEXT NOT NULL,
    day_start_ms INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    total_tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    events INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (user_id, day_start_ms, session_id, model, endpoint)
) STRICT, WITHOUT ROWID;

-- The ledger keeps its own counters: whoever adds a row, in whatever way, adds to them in the same statement.
CREATE TRIGGER usage_logs_counted AFTER INSERT ON usage_logs
BEGIN
    INSERT INTO usage_periods (
        user_id, period_start_ms, total_tokens, input_tokens, output_tokens, events, cost_micros, last_log_id)
    VALUES (
        NEW.user_id, unixepoch(NEW.occurred_at_ms / 1000, 'unixepoch', 'start of month') * 1000,
        NEW.total_tokens, NEW.input_tokens, NEW.output_tokens, 1, coalesce(NEW.cost_micros, 0), NEW.id)
    ON CONFLICT (user_id, period_start_ms) DO UPDATE SET
        total_tokens = total_tokens + excluded.total_tokens,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        events = events + 1,
        cost_micros = cost_micros + excluded.cost_micros,
        last_log_id = excluded.last_log_id;
    INSERT INTO usage_rollups (
        user_id, day_start_ms, session_id, model, endpoint,
        total_tokens, input_tokens, output_tokens, events, cost_micros)
    VALUES (
        NEW.user_id, NEW.occurred_at_ms - NEW.occurred_at_ms % 86400000,
        coalesce(NEW.session_id, ''), coalesce(NEW.model, 'unknown'), coalesce(NEW.endpoint, ''),
        NEW.total_tokens, NEW.input_tokens, NEW.output_tokens, 1, coalesce(NEW.cost_micros, 0))
    ON CONFLICT (user_id, day_start_ms, session_id, model, endpoint) DO UPDATE SET
        total_tokens = total_tokens + excluded.total_tokens,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        events = events + 1,
        cost_micros = cost_micros + excluded.cost_micros;
END;

CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    max_tokens INTEGER NOT NULL CHECK (max_tokens >= 0),
    ttl_seconds INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'released', 'settled')),
    settled_tokens INTEGER,
    expires_at_ms INTEGER NOT NULL,
    first_expires_at_ms INTEGER NOT NULL,
    api_key_id TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX reservations_held ON reservations (user_id, expires_at_ms) WHERE state = 'held';

-- What a model costs, from an instant on. An unknown price is NULL in the ledger, never 0.
CREATE TABLE prices (
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    valid_from_ms INTEGER NOT NULL,
    prompt_micros_per_million INTEGER NOT NULL CHECK (prompt_micros_per_million >= 0),
    completion_micros_per_million INTEGER NOT NULL CHECK (completion_micros_per_million >= 0),
    PRIMARY KEY (provider, model, valid_from_ms)
) STRICT, WITHOUT ROWID;

-- Thresholds that a user passed, each once in a period.
CREATE TABLE usage_alerts (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    period_start_ms INTEGER NOT NULL,
    threshold TEXT NOT NULL CHECK (threshold IN ('50', '80', '100', 'forecast')),
    used INTEGER NOT NULL,
    total INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (user_id, period_start_ms, threshold)
) STRICT;

-- How far an import has come, so that it can go on after an interruption.
CREATE TABLE imports (
    source TEXT NOT NULL,
    position INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (source)
) STRICT, WITHOUT ROWID;
