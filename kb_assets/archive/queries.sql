-- name: find_month(relation, month)^
select id from kb.archive_month where relation = :relation and month = :month;

-- name: find_months(relation)
-- Months that somebody archives, or may have to: those whose rows are hot, in their partition or late.
select m.month, m.closed_at is not null, m.hold_until,
    to_regclass(format('kb.%I', m.relation || to_char(m.month, '_YYYY_MM'))) is not null
from kb.archive_month m
where m.relation = :relation
order by m.month;

-- name: find_abandoned(relation, before)
-- Months in which copies were begun long ago, and never ended.
select distinct m.month
from kb.archive_segment s join kb.archive_month m on m.id = s.month_id
where m.relation = :relation and s.state = 'copying' and s.started_at < :before;

-- name: find_columns(table)
select a.attname, t.typname
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = :table::regclass and a.attnum > 0 and not a.attisdropped
order by a.attnum;

-- name: find_late_months()
select distinct date_trunc('month', created_at at time zone 'UTC')::date from {late} order by 1;

-- name: try_lock(lock_class, month_id)^
select pg_try_advisory_lock(:lock_class, :month_id);

-- name: unlock(lock_class, month_id)^
select pg_advisory_unlock(:lock_class, :month_id);

-- name: find_holder(month_id)^
select run_id, leased_at from kb.archive_month where id = :month_id;

-- name: raise_fence(month_id, run_id)^
update kb.archive_month set fence = fence + 1, run_id = :run_id, leased_at = now()
where id = :month_id
returning fence;

-- name: guard(month_id, fence)^
select from kb.archive_month where id = :month_id and fence = :fence for share;

-- name: month_state(month_id)^
select closed_at is not null, hold_until from kb.archive_month where id = :month_id;

-- name: close_month(month_id, relation, month)^
-- First the row, which intake holds while it writes; then the partition, which others may hold.
with closed as (
    update kb.archive_month set closed_at = coalesce(closed_at, now()), hold_until = null
    where id = :month_id
    returning true
)
select kb.freeze_month(:relation, :month) from closed;

-- name: measure_month(table)^
select count(*), pg_table_size(:table::regclass) from {table};

-- name: measure_late(low, high, table)^
-- What rows of a month take of a table that holds those of other months, too.
select count(*) filter (where created_at >= :low and created_at < :high),
    (pg_table_size(:table::regclass) * count(*) filter (where created_at >= :low and created_at < :high)
        / greatest(count(*), 1))::bigint
from {table};

-- name: row_after(low, high, rows)^
select created_at from {table}
where created_at >= :low and created_at < :high
order by created_at
offset :rows
limit 1;

-- name: moment_after(low, high)^
select created_at from {table}
where created_at > :low and created_at < :high
order by created_at
limit 1;

-- name: copied()
select {copied} from {table} hot where hot.created_at >= {low} and hot.created_at < {high};

-- name: give_up_copies(month_id, fence)
-- Copies that earlier holders of the month never finished.
update kb.archive_segment set state = 'stale', reason = 'The run that copied it ended early.'
where month_id = :month_id and state = 'copying' and fence < :fence;

-- name: add_segment(month_id, source, low, high, fence, run_id)^
insert into kb.archive_segment (month_id, source, low, high, fence, run_id)
values (:month_id, :source, :low, :high, :fence, :run_id)
returning id;

-- name: note_object(id, object_key, sha256, object_bytes, rows, row_hash_sum, conversation_low, conversation_high)
-- Before the upload: whatever happens then, we know what is ours to remove.
update kb.archive_segment
set object_key = :object_key, sha256 = :sha256, bytes = :object_bytes, rows = :rows,
    row_hash_sum = :row_hash_sum, conversation_low = :conversation_low,
    conversation_high = :conversation_high
where id = :id and state = 'copying';

-- name: mark_stale(ids, reason)
update kb.archive_segment set state = 'stale', reason = :reason
where id = any(:ids) and state = 'copying';

-- name: commit_segments(ids, manifests)
update kb.archive_segment s
set state = 'committed', committed_at = now(), manifest = m.manifest
from unnest(:ids::bigint[], :manifests::jsonb[]) m (id, manifest)
where s.id = m.id and s.state = 'copying';

-- name: retire_segments(ids)
update kb.archive_segment set state = 'retired', retired_at = now()
where id = any(:ids) and state in ('committed', 'restored');

-- name: retire_restored(month_id)
-- What a restored month was archived in before: its rows are in the new segments.
update kb.archive_segment set state = 'retired', retired_at = now()
where month_id = :month_id and state = 'restored';

-- name: limit_lock_wait()
-- Whoever waits for a table's lock makes all others wait behind it.
set local lock_timeout = '2s';

-- name: drop_month(relation, month)
select kb.drop_month(:relation, :month);

-- name: make_keys()
create temporary table archived_key (id text collate "C", created_at timestamptz, row_hash bytea)
on commit drop;

-- name: delete_archived()
-- Only what is still as it was copied.
delete from {table} hot using archived_key k
where hot.created_at = k.created_at and hot.id = k.id and {row_hash} = k.row_hash;

-- name: segment_states(ids)
-- Waits for a commit that is still under way.
select id, state from kb.archive_segment where id = any(:ids) for share;

-- name: find_segments(relation, months, states)
select s.id, m.month, s.source, s.low, s.high, s.state, s.object_key, s.sha256, s.bytes, s.rows,
    s.row_hash_sum, s.conversation_low, s.conversation_high, s.manifest
from kb.archive_segment s join kb.archive_month m on m.id = s.month_id
where m.relation = :relation and s.state = any(:states)
    and (:months::date[] is null or m.month = any(:months::date[]))
order by m.month, s.id;

-- name: find_removable(before)
-- Only what this archive made, and only what has failed or been replaced for long enough.
select id, object_key
from kb.archive_segment left_over
where object_key is not null
    and (state = 'stale' and started_at < :before or state = 'retired' and retired_at < :before)
    and not exists (
        select
        from kb.archive_segment used
        where used.object_key = left_over.object_key
            and used.state in ('copying', 'committed', 'restored')
    );

-- name: mark_removed(ids)
update kb.archive_segment set state = 'removed'
where id = any(:ids) and state in ('stale', 'retired');

-- name: describe_server()^
select current_setting('server_version'), (select version_num from kb.alembic_version);
