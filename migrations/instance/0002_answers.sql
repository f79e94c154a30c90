-- The first answer to an operation that came with an Idempotency-Key; a client's own opId has none.
ALTER TABLE operations ADD COLUMN answer BLOB;

-- Whom the frames of a change named; unknown for what was changed before this.
ALTER TABLE history ADD COLUMN public_id TEXT;
