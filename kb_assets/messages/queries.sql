-- name: find_new_months(months)
-- Those that never had a partition; one that has been archived has none any more, and gets none.
select n.month
from unnest(:months::date[]) as n (month)
where not exists (
    select from kb.archive_month a where a.relation = 'message' and a.month = n.month
)
order by n.month;

-- name: add_month(month)
select kb.add_month('message', :month::date);

-- name: hold_months(months)
-- None of them is closed, or opened, before this transaction ends.
select month, closed_at is not null
from kb.archive_month
where relation = 'message' and month = any(:months::date[])
order by month
for share;

-- name: add_conversations(ids, firsts, lasts)
-- Ordered, so that two writers who add the same ones wait for each other one way only.
insert into kb.conversation (id, first_at, last_at)
select
    n.id,
    timestamptz '1970-01-01 00:00:00+00' + n.first_microsecond * interval '1 microsecond',
    timestamptz '1970-01-01 00:00:00+00' + n.last_microsecond * interval '1 microsecond'
from unnest(:ids::text[], :firsts::bigint[], :lasts::bigint[])
    as n (id, first_microsecond, last_microsecond)
where not exists (select from kb.erased_conversation e where e.conversation_id = n.id)
order by n.id collate "C"
on conflict (id) do nothing
returning id;

-- name: hold_conversations(ids)
-- Whoever holds a conversation is the only one who adds to it.
select id, user_id, messages, bytes, tokens
from kb.conversation
where id = any(:ids::text[])
order by id
for update;

-- name: find_erased(ids)
select conversation_id from kb.erased_conversation where conversation_id = any(:ids::text[]);

-- name: find_stored(microseconds, ids, low, high)
-- By the primary key, one by one: a lateral join with a limit lets nobody read a whole month, and
-- the bounds leave other months out of the plan.
select k.place - 1, m.conversation_id
from unnest(:microseconds::bigint[], :ids::text[]) with ordinality as k (microsecond, id, place)
cross join lateral (
    select conversation_id
    from kb.message
    where created_at
        = timestamptz '1970-01-01 00:00:00+00' + k.microsecond * interval '1 microsecond'
        and id = k.id and created_at between :low and :high
    union all
    select conversation_id
    from kb.message_late
    where (select exists (select from kb.message_late where created_at between :low and :high))
        and created_at
        = timestamptz '1970-01-01 00:00:00+00' + k.microsecond * interval '1 microsecond'
        and id = k.id
    limit 1
) m;

-- name: save_conversations(ids, user_ids, messages, bytes, tokens, firsts, lasts)
update kb.conversation c
set user_id = n.user_id,
    messages = n.messages,
    bytes = n.bytes,
    tokens = n.tokens,
    first_at = least(
        c.first_at,
        timestamptz '1970-01-01 00:00:00+00' + n.first_microsecond * interval '1 microsecond'
    ),
    last_at = greatest(
        c.last_at,
        timestamptz '1970-01-01 00:00:00+00' + n.last_microsecond * interval '1 microsecond'
    )
from unnest(
    :ids::text[], :user_ids::text[], :messages::bigint[], :bytes::bigint[], :tokens::bigint[],
    :firsts::bigint[], :lasts::bigint[]
) as n (id, user_id, messages, bytes, tokens, first_microsecond, last_microsecond)
where c.id = n.id;

-- name: make_late_arrivals()
create temporary table late_arrivals (like kb.message_late) on commit drop;

-- name: add_late()
insert into kb.message_late
select * from late_arrivals
order by created_at, id
on conflict (created_at, id) do nothing;

-- name: find_conversation(conversation_id)
select messages, bytes, tokens, first_at, last_at
from kb.conversation c
where id = :conversation_id
    and not exists (select from kb.erased_conversation e where e.conversation_id = c.id);

-- name: read_window(conversation_id, first_at, last_at, last_ordinal, floor)
-- The inner query walks back from the newest message to the first that does not fit: nothing
-- older is looked at. What came in since the conversation's totals were read is left out.
select id, created_at, role, content, language, intent, metadata, token_count
from kb.message
where conversation_id = :conversation_id
    and created_at between :first_at and :last_at
    and ordinal <= :last_ordinal
    and ordinal > coalesce((
        select ordinal
        from kb.message
        where conversation_id = :conversation_id
            and created_at between :first_at and :last_at
            and ordinal <= :last_ordinal
            and {before} < :floor
        order by ordinal desc
        limit 1
    ), 0)
order by ordinal;
