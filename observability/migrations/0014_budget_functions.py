from django.db import migrations

# What budgets are asked before and after each call, as functions, because their plans are then kept by the database session: planning
# these statements took longer than running them (docs/adr/0020-budgets-as-functions.md). observability/budgets.py calls them.
#
# A kept plan is chosen while the tables may be empty, so none may read a whole table: every row is found by its key.

# Every period that is asked for, locked in the order of their ids, so that two transactions never wait for each other in a circle;
# those that were missing are added first, and said to be new.
LOCK = """
CREATE FUNCTION lock_budget_periods(
    of_budgets bigint[], of_subjects bigint[], from_moments timestamptz[], to_moments timestamptz[]
)
RETURNS TABLE (
    id bigint, budget_id bigint, subject_id bigint, starts_at timestamptz, is_new boolean, name text, limit_usd numeric,
    limit_tokens bigint, on_unknown_price text, ends_at timestamptz, spent_usd numeric, reserved_usd numeric, spent_tokens bigint,
    reserved_tokens bigint, was_refused boolean
)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    added bigint[];
BEGIN
    WITH new_rows AS (
        INSERT INTO observability_budgetperiod (budget_id, subject_id, starts_at, ends_at, spent_usd, spent_tokens)
        SELECT asked.budget_id, asked.subject_id, asked.starts_at, asked.ends_at, 0, 0
        FROM unnest(of_budgets, of_subjects, from_moments, to_moments) AS asked (budget_id, subject_id, starts_at, ends_at)
        JOIN observability_budget budget ON budget.id = asked.budget_id AND budget.is_active
        WHERE NOT EXISTS (
            SELECT FROM observability_budgetperiod old
            WHERE old.budget_id = asked.budget_id AND old.subject_id = asked.subject_id AND old.starts_at = asked.starts_at
        )
        ORDER BY 1, 2, 3
        ON CONFLICT (budget_id, subject_id, starts_at) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(new_rows.id), '{}') INTO added FROM new_rows;
    RETURN QUERY
    SELECT period.id, period.budget_id::bigint, period.subject_id::bigint, period.starts_at, period.id = ANY(added), budget.name::text,
           budget.limit_usd, budget.limit_tokens::bigint, budget.on_unknown_price::text, period.ends_at, period.spent_usd,
           period.reserved_usd, period.spent_tokens::bigint, period.reserved_tokens::bigint,
           coalesce(period.refused_at >= budget.updated_at, false)
    FROM observability_budgetperiod period
    JOIN unnest(of_budgets, of_subjects, from_moments) AS asked (budget_id, subject_id, starts_at)
      USING (budget_id, subject_id, starts_at)
    JOIN observability_budget budget ON budget.id = period.budget_id AND budget.is_active
    ORDER BY period.id
    FOR NO KEY UPDATE OF period;
END $$;
COMMENT ON FUNCTION lock_budget_periods IS
    'The periods of budgets that a call draws on, locked until the transaction ends; missing ones are made.';
"""
# Of periods that the transaction has locked.
PROMISE = """
CREATE FUNCTION promise_to_budgets(of_attempts uuid[], of_periods bigint[], more_usd numeric[], more_tokens bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
    INSERT INTO observability_reservation (attempt_id, period_id, usd, tokens)
    SELECT * FROM unnest(of_attempts, of_periods, more_usd, more_tokens);
    UPDATE observability_budgetperiod period
    SET reserved_usd = period.reserved_usd + more.usd, reserved_tokens = period.reserved_tokens + more.tokens
    FROM (
        SELECT asked.id, sum(asked.usd) AS usd, sum(asked.tokens)::bigint AS tokens
        FROM unnest(of_periods, more_usd, more_tokens) AS asked (id, usd, tokens) GROUP BY asked.id
    ) AS more
    WHERE period.id = more.id;
END $$;
COMMENT ON FUNCTION promise_to_budgets IS
    'Notes what calls may cost at worst, by call and period, in periods that lock_budget_periods has locked.';
"""
# Periods are locked in the order of their ids here, too, before any of them is changed.
SETTLE = """
CREATE FUNCTION settle_with_budgets(of_attempts uuid[], used_usd numeric[], used_tokens bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
    WITH taken AS (
        DELETE FROM observability_reservation reservation
        USING unnest(of_attempts, used_usd, used_tokens) AS spent (attempt_id, usd, tokens)
        WHERE reservation.attempt_id = spent.attempt_id
        RETURNING reservation.period_id, reservation.usd AS reserved_usd, reservation.tokens AS reserved_tokens,
                  spent.usd AS spent_usd, spent.tokens AS spent_tokens
    ), done AS (
        SELECT period_id, sum(reserved_usd) AS reserved_usd, sum(reserved_tokens)::bigint AS reserved_tokens,
               sum(spent_usd) AS spent_usd, sum(spent_tokens)::bigint AS spent_tokens
        FROM taken GROUP BY period_id
    ), locked AS MATERIALIZED (
        SELECT id FROM observability_budgetperiod WHERE id IN (SELECT period_id FROM done) ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE observability_budgetperiod period
    SET reserved_usd = period.reserved_usd - done.reserved_usd, reserved_tokens = period.reserved_tokens - done.reserved_tokens,
        spent_usd = period.spent_usd + done.spent_usd, spent_tokens = period.spent_tokens + done.spent_tokens
    FROM done JOIN locked ON locked.id = done.period_id
    WHERE period.id = done.period_id;
END $$;
COMMENT ON FUNCTION settle_with_budgets IS
    'Turns what was promised to calls into what they used: what they did not use is free again.';
"""


class Migration(migrations.Migration):
    dependencies = [("observability", "0013_cost_of_people")]

    operations = [
        migrations.RunSQL(LOCK, "DROP FUNCTION lock_budget_periods"),
        migrations.RunSQL(PROMISE, "DROP FUNCTION promise_to_budgets"),
        migrations.RunSQL(SETTLE, "DROP FUNCTION settle_with_budgets"),
    ]
