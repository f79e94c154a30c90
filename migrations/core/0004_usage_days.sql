-- What everybody spent on each day, UTC: what operators look at, which the roll-ups of all users take long to add up to.
CREATE TABLE usage_days (
    day_start_ms INTEGER PRIMARY KEY,
    total_tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    events INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL
) STRICT;

INSERT INTO usage_days (day_start_ms, total_tokens, input_tokens, output_tokens, events, cost_micros)
SELECT day_start_ms, sum(total_tokens), sum(input_tokens), sum(output_tokens), sum(events), sum(cost_micros)
FROM usage_rollups GROUP BY day_start_ms;

CREATE TRIGGER usage_logs_dated AFTER INSERT ON usage_logs
BEGIN
    INSERT INTO usage_days (day_start_ms, total_tokens, input_tokens, output_tokens, events, cost_micros)
    VALUES (
        NEW.occurred_at_ms - NEW.occurred_at_ms % 86400000,
        NEW.total_tokens, NEW.input_tokens, NEW.output_tokens, 1, coalesce(NEW.cost_micros, 0))
    ON CONFLICT (day_start_ms) DO UPDATE SET
        total_tokens = total_tokens + excluded.total_tokens,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        events = events + 1,
        cost_micros = cost_micros + excluded.cost_micros;
END;
