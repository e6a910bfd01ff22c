-- name: find_conversations(conversation_id, user_id)
-- What there is to erase: conversations that were not erased before.
select c.id
from kb.conversation c
where (c.id = :conversation_id ::text or c.user_id = :user_id ::text)
    and not exists (select from kb.erased_conversation e where e.conversation_id = c.id)
order by c.id;

-- name: hold_months()
-- None of them is closed, opened or archived before this transaction ends.
select month from kb.archive_month where relation = 'message' order by month for share;

-- name: add_missing_conversations(conversation_ids)
insert into kb.conversation (id, first_at, last_at)
select id, now(), now()
from unnest(:conversation_ids ::text[]) as n (id)
order by id collate "C"
on conflict (id) do nothing;

-- name: hold_conversations(conversation_ids)
-- Whoever holds a conversation is the only one who adds to it.
select from kb.conversation
where id = any(:conversation_ids ::text[])
order by id
for update;

-- name: find_frozen(conversation_ids)
-- Months that are on their way to the archive, with rows of theirs.
select m.month
from kb.archive_month m
join pg_trigger t
    on t.tgrelid = to_regclass(format('kb.%I', m.relation || to_char(m.month, '_YYYY_MM')))
    and t.tgname = 'frozen'
where m.relation = 'message'
    and exists (
        select
        from kb.message hot
        where hot.conversation_id = any(:conversation_ids ::text[])
            and hot.created_at >= m.month::timestamp at time zone 'UTC'
            and hot.created_at < (m.month + interval '1 month') at time zone 'UTC'
    );

-- name: limit_lock_wait()
-- Whoever waits for a table's lock makes all others wait behind it.
set local lock_timeout = '2s';

-- name: thaw_month(month)
select kb.thaw_month('message', :month ::date);

-- name: freeze_month(month)
select kb.freeze_month('message', :month ::date);

-- name: count_hot(conversation_ids)
-- Months before their first and after their last message are left alone.
select count(*)
from {table}
where conversation_id = any(:conversation_ids ::text[])
    and created_at >= (
        select min(first_at) from kb.conversation where id = any(:conversation_ids ::text[])
    )
    and created_at <= (
        select max(last_at) from kb.conversation where id = any(:conversation_ids ::text[])
    );

-- name: delete_hot(conversation_ids)
delete from {table}
where conversation_id = any(:conversation_ids ::text[])
    and created_at >= (
        select min(first_at) from kb.conversation where id = any(:conversation_ids ::text[])
    )
    and created_at <= (
        select max(last_at) from kb.conversation where id = any(:conversation_ids ::text[])
    );

-- name: add_erasure(scope, subject_hash, run_id, requested_at, receipt)
insert into kb.erasure (scope, subject_hash, run_id, requested_at, receipt)
values (:scope, :subject_hash, :run_id, coalesce(:requested_at ::timestamptz, now()), :receipt)
returning id;

-- name: hide_conversations(erasure_id, conversation_ids)
with hidden as (
    insert into kb.erased_conversation (conversation_id, erasure_id)
    select id, :erasure_id from unnest(:conversation_ids ::text[]) as n (id)
    on conflict (conversation_id) do nothing
)
update kb.conversation set user_id = null where id = any(:conversation_ids ::text[]);

-- name: find_cold(conversation_ids)
-- Segments in which rows of theirs may be, by what is known without looking into them.
select distinct m.month, s.id, s.rows, s.bytes
from kb.conversation c
join kb.archive_segment s
    on c.id between s.conversation_low and s.conversation_high
    and c.first_at < s.high and c.last_at >= s.low
join kb.archive_month m on m.id = s.month_id and m.relation = 'message'
where c.id = any(:conversation_ids ::text[]) and s.state in ('committed', 'restored')
order by m.month, s.id;

-- name: find_kept(conversation_ids, kept)
-- Objects that were replaced, or never committed, and are removed later.
select distinct s.object_key, coalesce(s.retired_at, s.started_at) + :kept ::interval
from kb.conversation c
join kb.archive_segment s
    on c.id between s.conversation_low and s.conversation_high
    and c.first_at < s.high and c.last_at >= s.low
join kb.archive_month m on m.id = s.month_id and m.relation = 'message'
where c.id = any(:conversation_ids ::text[])
    and s.state in ('copying', 'stale', 'retired') and s.object_key is not null
order by 1;

-- name: find_erased_between(low, high)
select conversation_id, erasure_id
from kb.erased_conversation
where conversation_id between :low and :high;

-- name: commit_rewrite(id, state, manifest)
update kb.archive_segment
set state = :state, committed_at = now(), manifest = :manifest
where id = :id and state = 'copying';

-- name: retire(id)
update kb.archive_segment set state = 'retired', retired_at = now()
where id = :id and state in ('committed', 'restored');

-- name: count_rewritten(erasure_ids, rows)
update kb.erasure e
set receipt = e.receipt || jsonb_build_object(
    'cold_rows', (e.receipt ->> 'cold_rows')::bigint + n.rows,
    'segments', (e.receipt ->> 'segments')::bigint + 1
)
from unnest(:erasure_ids ::bigint[], :rows ::bigint[]) as n (erasure_id, rows)
where e.id = n.erasure_id;

-- name: find_document(source, path)
select s.id, d.id, d.slot, d.missing_since is null and d.vanished_at is null
from kb.source s
left join kb.document d on d.source_id = s.id and d.path = :path
where s.name = :source;

-- name: find_revisions(document_id)
select id from kb.document_revision where document_id = :document_id order by id;

-- name: count_chunks(revision_ids)
select count(*) from kb.chunk where revision_id = any(:revision_ids ::bigint[]);

-- name: find_own_texts(revision_ids)
-- Texts that nothing but these revisions has.
select distinct c.input_hash
from kb.chunk c
where c.revision_id = any(:revision_ids ::bigint[])
    and not exists (
        select
        from kb.chunk other
        where other.input_hash = c.input_hash
            and other.revision_id <> all(:revision_ids ::bigint[])
    );

-- name: count_vectors(hashes)
select count(*) from {embeddings} where input_hash = any(:hashes ::bytea[]);

-- name: delete_vectors(hashes)
delete from {embeddings} where input_hash = any(:hashes ::bytea[]);

-- name: forget_refusals(hashes)
delete from kb.quarantine where space_id is not null and content_hash = any(:hashes ::bytea[]);

-- name: delete_revisions(document_id)
delete from kb.document_revision where document_id = :document_id;

-- name: delete_document(document_id)
delete from kb.document where id = :document_id;

-- name: hide_document(source_id, path, erasure_id)
insert into kb.erased_document (source_id, path, erasure_id)
values (:source_id, :path, :erasure_id)
on conflict (source_id, path) do nothing;

-- name: correct_listings(source_id, slot, listed)
-- As if the listing had not shown it.
update kb.shard
set found_documents = found_documents - :listed ::int, listing_fingerprint = null
where source_id = :source_id and slot_low <= :slot and slot_high > :slot;

-- name: forget_answers()
delete from kb.search_cache;

-- name: note_change()
update kb.index_state set generation = generation + 1;

-- name: find_erasures(id)
select id, scope, subject_hash, run_id, requested_at, finished_at, receipt
from kb.erasure
where :id ::bigint is null or id = :id ::bigint
order by id;

-- name: find_last(scope, name, subject_hash)
-- A conversation may have been erased as one of a user's.
select e.id
from kb.erasure e
where e.scope = :scope and e.subject_hash = :subject_hash
    or e.id = (
        select erasure_id
        from kb.erased_conversation
        where :scope = 'conversation' and conversation_id = :name
    )
order by e.id desc
limit 1;

-- name: find_replayed(scope, subject_hash, requested_at)
select id
from kb.erasure
where scope = :scope and subject_hash = :subject_hash and requested_at = :requested_at;

-- name: find_unfinished(has_store)
-- Those that no file in the store tells of count as well, once there is a store.
select id from kb.erasure
where finished_at is null or (:has_store and not receipt ? 'ledger')
order by id;

-- name: add_to_receipt(id, facts)
update kb.erasure set receipt = receipt || :facts where id = :id;

-- name: finish(id)
update kb.erasure set finished_at = (receipt ->> 'finished_at')::timestamptz
where id = :id and finished_at is null;

-- name: find_conversations_of(id)
select conversation_id from kb.erased_conversation where erasure_id = :id order by conversation_id;

-- name: find_documents_of(id)
select s.id, s.name, d.path
from kb.erased_document d join kb.source s on s.id = d.source_id
where d.erasure_id = :id;
