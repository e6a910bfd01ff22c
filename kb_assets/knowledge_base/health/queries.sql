-- name: versions()^
select (select version_num from kb.alembic_version), current_setting('server_version'),
    coalesce((select extversion from pg_extension where extname = 'vector'), ''),
    pg_database_size(current_database());

-- name: about_chunks()^
-- The size of the table, and about how many rows it has: as the planner has it.
select pg_relation_size(c.oid),
    (greatest(c.reltuples, 0) / greatest(c.relpages, 1) * pg_relation_size(c.oid)
        / current_setting('block_size')::integer)::bigint
from pg_class c
where c.oid = 'kb.chunk'::regclass;

-- name: last_quality(mode, ndcg, recall)^
select evaluated_at, verdict, reasons, questions,
    (metrics #>> array[:mode, :ndcg, 'mean'])::double precision,
    (metrics #>> array[:mode, :recall, 'mean'])::double precision
from kb.evaluation
where purpose = 'quality'
order by id desc
limit 1;

-- name: spending()^
select coalesce(sum(texts) filter (where outcome = 'answered'), 0)::bigint,
    coalesce(sum(tokens), 0)::bigint,
    coalesce(sum(cost_usd), 0)::double precision,
    coalesce(sum(cost_usd) filter (where called_at > now() - interval '30 days'), 0)
        ::double precision
from kb.embedding_call;

-- name: archive_contents(relation, asked_before)^
select count(*), coalesce(sum(s.bytes), 0)::bigint, coalesce(sum(s.rows), 0)::bigint,
    (select count(*) from kb.erasure where finished_at is null
        and requested_at < :asked_before)
from kb.archive_segment s
join kb.archive_month m on m.id = s.month_id
where m.relation = :relation and s.state = 'committed';

-- name: has_history()^
-- Whether Dagster has made its tables yet.
select to_regclass('event_logs') is not null;

-- name: last_looks(asset, shards)
-- In Dagster's database: when each shard's source was last listed, also if nothing had changed.
select wanted.key, last.timestamp at time zone 'UTC'
from unnest(:shards::text[]) as wanted (key)
cross join lateral (
    select e.timestamp
    from event_logs e
    where e.asset_key = :asset and e.dagster_event_type = 'ASSET_MATERIALIZATION'
        and e.partition = wanted.key
    order by e.id desc
    limit 1
) as last;

-- name: automation()^
-- In Dagster's database: when the daemon last reported, and what somebody has switched off.
select (select max(timestamp) at time zone 'UTC' from daemon_heartbeats),
    array(
        select instigator_body::jsonb -> 'origin' ->> 'job_name'
        from instigators
        where status = 'STOPPED'
        order by 1
    );
