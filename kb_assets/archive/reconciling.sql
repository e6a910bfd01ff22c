-- name: find_known(relation)
-- Every object that the database knows of.
select s.object_key
from kb.archive_segment s join kb.archive_month m on m.id = s.month_id
where m.relation = :relation and s.object_key is not null;

-- name: use_up_numbers(highest)
-- Objects are named by their segment's number: none may be given out again.
select count(nextval(pg_get_serial_sequence('kb.archive_segment', 'id')))
from generate_series(
    1,
    :highest ::bigint
        - coalesce(pg_sequence_last_value(pg_get_serial_sequence('kb.archive_segment', 'id')), 0)
);

-- name: has_month(relation, month)
select from kb.archive_month where relation = :relation and month = :month;

-- name: add_month(relation, month)
select kb.add_month(:relation, :month ::date);

-- name: take_up(object_key, state, manifest)
-- Its copy was not committed yet when the backup was made.
update kb.archive_segment
set state = :state, reason = null, committed_at = now(), manifest = :manifest
where object_key = :object_key and state in ('copying', 'stale')
returning id;

-- name: take_in(month_id, source, low, high, fence, run_id, state, object_key, sha256, object_bytes, rows, row_hash_sum, conversation_low, conversation_high, manifest)
insert into kb.archive_segment (
    month_id, source, low, high, fence, run_id, state, object_key, sha256, bytes, rows,
    row_hash_sum, conversation_low, conversation_high, committed_at, manifest
)
values (
    :month_id, :source, :low, :high, :fence, :run_id, :state, :object_key, :sha256, :object_bytes,
    :rows, :row_hash_sum, :conversation_low, :conversation_high, now(), :manifest
)
returning id;

-- name: retire(object_keys)
update kb.archive_segment set state = 'retired', retired_at = now()
where object_key = any(:object_keys) and state in ('committed', 'restored');

-- name: add_leftover(month_id, low, high, fence, run_id, object_key, reason)
insert into kb.archive_segment
    (month_id, source, low, high, fence, run_id, state, object_key, reason)
values (:month_id, 'month', :low, :high, :fence, :run_id, 'stale', :object_key, :reason);

-- name: widen_conversations()
-- As if those messages had come in here: a conversation spans them, and has room for them.
insert into kb.conversation as c (id, messages, bytes, tokens, first_at, last_at)
select
    {group},
    coalesce(max(ordinal), 0),
    coalesce(max(total_bytes), 0),
    coalesce(max(total_tokens), 0),
    min({time}),
    max({time})
from restored
group by {group}
order by {group}
on conflict (id) do update
set messages = greatest(c.messages, excluded.messages),
    bytes = greatest(c.bytes, excluded.bytes),
    tokens = greatest(c.tokens, excluded.tokens),
    first_at = least(c.first_at, excluded.first_at),
    last_at = greatest(c.last_at, excluded.last_at);
