-- name: hold_table()
-- The first statement of a snapshot: months that leave meanwhile leave after it.
lock table {table} in access share mode;

-- name: export_snapshot()
select pg_export_snapshot() as name;

-- name: use_snapshot()
set transaction snapshot {snapshot};

-- name: find_spans(groups)
-- When conversations began and ended, hot and cold.
select id, first_at, last_at from kb.conversation where id = any(:groups::text[]);

-- name: read_rows(groups, low, high)
select {columns}
from {table} hot
where hot.{time} >= coalesce(:low::timestamptz, '-infinity')
    and hot.{time} <= coalesce(:high::timestamptz, 'infinity')
    and (:groups::text[] is null or hot.{group} = any(:groups::text[]));

-- name: read_erased(groups)
select conversation_id as {group}
from kb.erased_conversation
where :groups::text[] is null or conversation_id = any(:groups::text[]);

-- name: make_restored()
create temporary table restored (like {table}, row_hash bytea) on commit drop;

-- name: open_month(month_id, hold_until)^
-- Waits for intake that goes on beside the month; what comes later goes into the month again.
update kb.archive_month
set closed_at = null, hold_until = greatest(hold_until, :hold_until)
where id = :month_id
returning hold_until;

-- name: add_month(relation, month)
select kb.add_month(:relation, :month), kb.thaw_month(:relation, :month);

-- name: hold_conversations()
-- Before it is asked what was erased: whoever erases holds them, too.
select from kb.conversation
where id in (select distinct {group} from restored)
order by id
for share;

-- name: leave_out_erased()
delete from restored where {group} in (select conversation_id from kb.erased_conversation);

-- name: insert_restored()
insert into {table} ({columns})
select {columns} from restored
on conflict do nothing;

-- name: find_different(limit)
-- Rows that were hot already, and are not what was archived.
select r.{key}
from restored r left join {table} hot on hot.{time} = r.{time} and hot.{key} = r.{key}
where {row_hash} is distinct from r.row_hash
order by r.{key}
limit :limit;

-- name: take_late(low, high)
-- A late row whose key the month has is a repeat of it.
with taken as (
    delete from {late} where {time} >= :low and {time} < :high returning {columns}
)
insert into {table} ({columns})
select {columns} from taken
on conflict do nothing;

-- name: mark_restored(ids)
update kb.archive_segment set state = 'restored' where id = any(:ids) and state = 'committed';
