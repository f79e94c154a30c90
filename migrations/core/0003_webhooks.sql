-- Who is told of what, and where: of one instance, of a project's, or of all that its user owns.
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    instance_id TEXT REFERENCES instances (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    events TEXT NOT NULL CHECK (json_valid(events)),
    secret TEXT NOT NULL,
    disabled_reason TEXT,
    dropped INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    CHECK (project_id IS NULL OR instance_id IS NULL)
) STRICT;
CREATE INDEX webhooks_by_user ON webhooks (user_id);
CREATE INDEX webhooks_by_project ON webhooks (project_id) WHERE project_id IS NOT NULL;
CREATE INDEX webhooks_by_instance ON webhooks (instance_id) WHERE instance_id IS NOT NULL;

-- What happened, once for all who are told of it; the id is the webhook-id that they see.
CREATE TABLE webhook_events (
    id TEXT PRIMARY KEY,
    event_type TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;

-- The outbox, and afterwards the log: one row for each event and webhook.
CREATE TABLE webhook_deliveries (
    id TEXT PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id TEXT NOT NULL REFERENCES webhook_events (id),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_ms INTEGER,
    attempted_at_ms INTEGER,
    response_status INTEGER,
    error TEXT,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (webhook_id, event_id),
    CHECK ((state = 'pending') = (next_attempt_ms IS NOT NULL))
) STRICT;
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id);
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (event_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_attempt_ms)
    WHERE next_attempt_ms IS NOT NULL;
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (created_at_ms) WHERE next_attempt_ms IS NULL;

-- In whatever way the last delivery of an event goes, the event goes with it.
CREATE TRIGGER webhook_deliveries_deleted AFTER DELETE ON webhook_deliveries
BEGIN
    DELETE FROM webhook_events
    WHERE id = OLD.event_id AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE event_id = OLD.event_id);
END;
