-- name: has_dagster_tables()
-- Whether Dagster keeps its runs and events here.
select to_regclass('runs') is not null and to_regclass('event_logs') is not null

-- name: find_old_runs(before)
-- Runs that ended before a moment, oldest first. Left out are those that still answer a question:
-- an asset's last run, which its page shows; a run that was to make a partition, or to evaluate a
-- check, and is the last word on that, for without it nobody knows that it failed; and runs of a
-- backfill that is not over.
select r.run_id
from runs r
where r.status in ('SUCCESS', 'FAILURE', 'CANCELED')
    and r.update_timestamp < :before
    and not exists (select from asset_keys k where k.last_run_id = r.run_id)
    and not exists (
        select from bulk_actions b
        where b.key = r.backfill_id
            and b.status in ('REQUESTED', 'CANCELING', 'FAILING')
    )
    and not exists (
        select from event_logs planned
        where planned.run_id = r.run_id
            and planned.dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'
            and not exists (
                select from event_logs later
                where later.asset_key = planned.asset_key
                    and later.partition = planned.partition
                    and later.dagster_event_type
                        in ('ASSET_MATERIALIZATION', 'ASSET_MATERIALIZATION_PLANNED')
                    and later.id > planned.id
            )
            and not exists (
                select from event_logs later
                where planned.partition is null
                    and later.asset_key = planned.asset_key
                    and later.partition is null
                    and later.dagster_event_type
                        in ('ASSET_MATERIALIZATION', 'ASSET_MATERIALIZATION_PLANNED')
                    and later.id > planned.id
            )
    )
    and not exists (
        select from asset_check_executions planned
        where planned.run_id = r.run_id
            and planned.execution_status = 'PLANNED'
            and not exists (
                select from asset_check_executions later
                where later.asset_key = planned.asset_key
                    and later.check_name = planned.check_name
                    and later.id > planned.id
            )
    )
order by r.id

-- name: delete_events(run_ids, kinds)
-- What runs did, step by step: log lines and events of these kinds. Events of any other kind tell
-- what became of assets, and stay.
delete from event_logs
where run_id = any(:run_ids)
    and (dagster_event_type is null or dagster_event_type = any(:kinds))

-- name: delete_runs(run_ids)
-- The runs themselves; their tags go with them.
delete from runs where run_id = any(:run_ids)

-- name: delete_backfills(before)
-- Backfills that are over, and of which no run is left.
with gone as (
    delete from bulk_actions b
    where b.timestamp < :before
        and b.status not in ('REQUESTED', 'CANCELING', 'FAILING')
        and not exists (select from runs r where r.backfill_id = b.key)
    returning key
)
delete from backfill_tags using gone where backfill_tags.backfill_id = gone.key

-- name: find_tables(only_current_schema)
-- Every table that holds rows, the largest first: how large it is, what is dead in it, and whether
-- autovacuum would be due by the server's own thresholds. Who may vacuum it owns it, or the
-- database.
select
    n.nspname,
    c.relname,
    greatest(s.n_live_tup, 0),
    greatest(s.n_dead_tup, 0),
    pg_table_size(c.oid),
    pg_indexes_size(c.oid),
    s.n_dead_tup > current_setting('autovacuum_vacuum_threshold')::float8
        + current_setting('autovacuum_vacuum_scale_factor')::float8 * greatest(c.reltuples, 0),
    s.n_mod_since_analyze > current_setting('autovacuum_analyze_threshold')::float8
        + current_setting('autovacuum_analyze_scale_factor')::float8 * greatest(c.reltuples, 0),
    pg_has_role(c.relowner, 'usage')
        or exists (
            select from pg_database d
            where d.datname = current_database() and pg_has_role(d.datdba, 'usage')
        ),
    extract(epoch from clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8
from pg_stat_all_tables s
join pg_class c on c.oid = s.relid
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm')
    and c.relpersistence <> 't'
    and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    and (n.nspname = current_schema() or not :only_current_schema)
order by pg_total_relation_size(c.oid) desc, n.nspname, c.relname

-- name: measure_database()
-- How large the database is, how many transactions old its oldest row may be, at how many the
-- server freezes rows by itself, and for how long the longest transaction has been open.
select
    pg_database_size(d.oid),
    age(d.datfrozenxid),
    current_setting('autovacuum_freeze_max_age')::bigint,
    coalesce((
        select extract(epoch from max(clock_timestamp() - a.xact_start))
        from pg_stat_activity a
        where a.datid = d.oid and a.backend_xmin is not null and a.pid <> pg_backend_pid()
            and a.backend_type = 'client backend'
    ), 0)::float8
from pg_database d
where d.datname = current_database()

-- name: vacuum()
-- Makes room of dead rows, and counts anew; a table that is in use by another vacuum is left.
vacuum (analyze, skip_locked) {table}

-- name: analyze()
analyze (skip_locked) {table}
