CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    updated_at_ms INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX projects_by_owner ON projects (owner_id);

-- A clone is `creating` until its home has the copy.
CREATE TABLE instances (
    id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9_-]*'),
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    is_readonly INTEGER NOT NULL DEFAULT 0 CHECK (is_readonly IN (0, 1)),
    region TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('creating', 'ready')),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX instances_by_project ON instances (project_id);
CREATE INDEX instances_creating ON instances (state) WHERE state = 'creating';

-- What was deleted: its home deletes the file, and the id stays refused.
CREATE TABLE instance_tombstones (
    instance_id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    deleted_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- In whatever way a row goes, with its project, its owner or by an operator's hand, its storage has to go too.
CREATE TRIGGER instances_deleted AFTER DELETE ON instances
BEGIN
    INSERT INTO instance_tombstones (instance_id, region, deleted_at_ms)
    VALUES (OLD.id, OLD.region, CAST(unixepoch('subsec') * 1000 AS INTEGER))
    ON CONFLICT DO NOTHING;
    INSERT INTO changes (topic, key) VALUES ('instance', OLD.id);
END;

CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX groups_by_owner ON groups (owner_id);

CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    added_at TEXT NOT NULL,
    PRIMARY KEY (group_id, user_id)
) STRICT;
CREATE INDEX group_members_by_user ON group_members (user_id, group_id);

-- A share is of a project or of an instance. The generated columns let one target_id lead to three tables.
CREATE TABLE shares (
    id TEXT PRIMARY KEY,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    instance_id TEXT REFERENCES instances (id) ON DELETE CASCADE,
    target_type TEXT NOT NULL CHECK (target_type IN ('user', 'group', 'api_key', 'public')),
    target_id TEXT CHECK ((target_id IS NULL) = (target_type = 'public')),
    target_user_id TEXT GENERATED ALWAYS AS (CASE target_type WHEN 'user' THEN target_id END) VIRTUAL
        REFERENCES users (id) ON DELETE CASCADE,
    target_group_id TEXT GENERATED ALWAYS AS (CASE target_type WHEN 'group' THEN target_id END) VIRTUAL
        REFERENCES groups (id) ON DELETE CASCADE,
    target_key_id TEXT GENERATED ALWAYS AS (CASE target_type WHEN 'api_key' THEN target_id END) VIRTUAL
        REFERENCES api_keys (id) ON DELETE CASCADE,
    permission TEXT NOT NULL CHECK (permission IN ('read', 'write', 'admin')),
    created_at TEXT NOT NULL,
    CHECK ((project_id IS NULL) <> (instance_id IS NULL))
) STRICT;
CREATE UNIQUE INDEX shares_of_project ON shares (project_id, target_type, ifnull(target_id, ''))
    WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX shares_of_instance ON shares (instance_id, target_type, ifnull(target_id, ''))
    WHERE instance_id IS NOT NULL;
CREATE INDEX shares_to_user ON shares (target_user_id) WHERE target_user_id IS NOT NULL;
CREATE INDEX shares_to_group ON shares (target_group_id) WHERE target_group_id IS NOT NULL;
CREATE INDEX shares_to_key ON shares (target_key_id) WHERE target_key_id IS NOT NULL;
CREATE INDEX shares_to_public ON shares (project_id) WHERE target_type = 'public';

CREATE TABLE delegates (
    delegate_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    can_read INTEGER NOT NULL CHECK (can_read IN (0, 1)),
    can_write INTEGER NOT NULL CHECK (can_write IN (0, 1)),
    can_system INTEGER NOT NULL CHECK (can_system IN (0, 1)),
    expires_at_ms INTEGER,
    expires_at TEXT GENERATED ALWAYS AS (datetime(expires_at_ms / 1000, 'unixepoch')) VIRTUAL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX delegates_by_user ON delegates (user_id);

CREATE TABLE delegate_secrets (
    secret_id TEXT PRIMARY KEY,
    delegate_id TEXT NOT NULL REFERENCES delegates (delegate_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL UNIQUE,
    last_used_at_ms INTEGER,
    last_used_at TEXT GENERATED ALWAYS AS (datetime(last_used_at_ms / 1000, 'unixepoch')) VIRTUAL,
    revoked_at_ms INTEGER,
    revoked_at TEXT GENERATED ALWAYS AS (datetime(revoked_at_ms / 1000, 'unixepoch')) VIRTUAL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX delegate_secrets_by_delegate ON delegate_secrets (delegate_id);

-- What a delegate may do at an instance; `do_id` is the name that operators' SQL knows it by.
CREATE TABLE do_permissions (
    delegate_id TEXT NOT NULL REFERENCES delegates (delegate_id) ON DELETE CASCADE,
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    do_id TEXT GENERATED ALWAYS AS (instance_id) VIRTUAL,
    permission TEXT NOT NULL CHECK (permission IN ('read', 'write', 'admin', 'system')),
    expires_at_ms INTEGER,
    expires_at TEXT GENERATED ALWAYS AS (datetime(expires_at_ms / 1000, 'unixepoch')) VIRTUAL,
    granted_at TEXT NOT NULL,
    PRIMARY KEY (delegate_id, instance_id)
) STRICT;
CREATE INDEX do_permissions_by_instance ON do_permissions (instance_id);
