-- name: find_space(fingerprint)
select id, name, provider, model, dimensions, precision, query_prefix, document_prefix,
    settings, state
from kb.embedding_space
where fingerprint = :fingerprint;

-- name: list_spaces()
select id, name, provider, model, dimensions, precision, query_prefix, document_prefix,
    settings, state
from kb.embedding_space
order by id;

-- name: find_work(fingerprint, conditions, source, slot_low, slot_high)
-- The space that answers and the configured one; which is the latter; and whether the shard
-- has something to do there: documents or refused texts wait, or a run left claims behind.
select s.id, s.name, s.provider, s.model, s.dimensions, s.precision, s.query_prefix,
    s.document_prefix, s.settings, s.state,
    s.fingerprint = :fingerprint,
    exists (
        select
        from kb.source o
        join kb.document d on d.source_id = o.id
        where o.name = :source and d.slot >= :slot_low and d.slot < :slot_high
            and d.pending_revision_id is not null and d.vanished_at is null
    ) or exists (
        select
        from kb.quarantine q
        where q.space_id = s.id and q.conditions <> :conditions
            and exists (select from kb.chunk c where c.input_hash = q.content_hash)
    ) or exists (
        select
        from kb.embedding_claim c
        join kb.shard h on h.id = c.shard_id
        join kb.source o on o.id = h.source_id
        where o.name = :source and h.slot_low = :slot_low and h.slot_high = :slot_high
    )
from kb.embedding_space s
where s.state = 'live' or (s.fingerprint = :fingerprint and s.state <> 'retired')
order by s.state <> 'live';

-- name: lock_spaces()
-- One at a time makes a space, so that exactly one is the first, and live.
lock table kb.embedding_space in share row exclusive mode;

-- name: add_space(name, fingerprint, provider, model, dimensions, precision, query_prefix, document_prefix, settings)
insert into kb.embedding_space (
    name, fingerprint, provider, model, dimensions, precision, query_prefix, document_prefix,
    settings, state, promoted_at
)
select :name, :fingerprint, :provider, :model, :dimensions, :precision, :query_prefix,
    :document_prefix, :settings,
    case when live.found then 'building' else 'live' end,
    case when live.found then null else now() end
from (select exists (select from kb.embedding_space where state = 'live') as found) live
returning id, state;

-- name: revive_space(space_id)
update kb.embedding_space set state = 'building' where id = :space_id and state = 'retired';

-- name: create_vectors()
create table {embeddings} (
    input_hash bytea primary key,
    vector {vector_type} not null
);

-- name: keep_vectors_inline()
alter table {embeddings} alter column vector set storage plain;

-- name: create_wanted()
create temporary table wanted (
    number bigint primary key,
    input_hash bytea not null,
    revision_id bigint not null,
    ordinal integer not null
);

-- name: find_wanted(everything, source_id, slot_low, slot_high, space_id, conditions)
-- Texts of the shard that have no vector in the space, each once, in the order of documents.
-- One that was refused is wanted again under other conditions than those it was refused under.
-- Returns how many texts wait, had or wanted; how many are wanted; and whether any is in
-- quarantine under other conditions.
with text as materialized (
    select distinct on (c.input_hash)
        c.input_hash, c.revision_id, c.ordinal,
        d.pending_revision_id is not distinct from c.revision_id as waits
    from kb.document d
    join kb.chunk c
        on c.revision_id = d.pending_revision_id
        or (:everything and c.revision_id = d.live_revision_id)
    where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
        and (:everything or d.pending_revision_id is not null)
        and d.vanished_at is null
    order by c.input_hash, waits desc, c.revision_id, c.ordinal
), found as (
    insert into wanted (number, input_hash, revision_id, ordinal)
    select row_number() over (order by t.revision_id, t.ordinal),
        t.input_hash, t.revision_id, t.ordinal
    from text t
    where not exists (select from {embeddings} e where e.input_hash = t.input_hash)
        and not exists (
            select from kb.quarantine q
            where q.space_id = :space_id and q.content_hash = t.input_hash
                and q.conditions = :conditions
        )
    returning number
)
select
    (select count(*) from text where waits),
    (select count(*) from found),
    exists (select from kb.quarantine q where q.space_id = :space_id and q.conditions <> :conditions);

-- name: find_refused(space_id, conditions)
-- Texts of any shard that were refused under other conditions than today's. They stay in
-- quarantine until they have been answered: a run that ends before that forgets nothing.
insert into wanted (number, input_hash, revision_id, ordinal)
select (select coalesce(max(number), 0) from wanted) + row_number() over (),
    refused.input_hash, refused.revision_id, refused.ordinal
from (
    select distinct on (c.input_hash) c.input_hash, c.revision_id, c.ordinal
    from kb.quarantine q
    join kb.chunk c on c.input_hash = q.content_hash
    where q.space_id = :space_id and q.conditions <> :conditions
        and not exists (select from {embeddings} e where e.input_hash = c.input_hash)
        and not exists (select from wanted w where w.input_hash = c.input_hash)
    order by c.input_hash, c.revision_id, c.ordinal
) refused;

-- name: count_tokens()
-- Of all that is wanted; title and headings, which stand before each chunk, at three bytes a token.
select coalesce(sum(
    c.token_count
    + (octet_length(coalesce(r.title, '')) + octet_length(array_to_string(c.heading_path, ' > '))) / 3
), 0)
from wanted w
join kb.chunk c on c.revision_id = w.revision_id and c.ordinal = w.ordinal
join kb.document_revision r on r.id = w.revision_id;

-- name: read_wanted(after, limit)
select w.number, w.input_hash, r.title, c.heading_path, c.text,
    c.token_count
    + (octet_length(coalesce(r.title, '')) + octet_length(array_to_string(c.heading_path, ' > '))) / 3
from wanted w
join kb.chunk c on c.revision_id = w.revision_id and c.ordinal = w.ordinal
join kb.document_revision r on r.id = w.revision_id
where w.number > :after
order by w.number
limit :limit;

-- name: claim(space_id, shard_id, fence, hashes)
-- Claim texts that nobody has claimed. Rows are written in the order of their hashes, so that two
-- shards never wait for each other; those of others are neither locked nor waited for, unless they
-- are being written or deleted at this moment.
insert into kb.embedding_claim (space_id, input_hash, shard_id, fence)
select :space_id, u.input_hash, :shard_id, :fence
from unnest(:hashes ::bytea[]) as u (input_hash)
order by u.input_hash
on conflict (space_id, input_hash) do nothing;

-- name: take_over_claims(space_id, shard_id, fence, hashes, lock_class)
-- A claim is void once its shard's fence was raised or nobody holds its shard's lock. Fences only
-- grow: a claim whose fence this statement's snapshot does not know yet is a newer one, and stands.
with void as materialized (
    select c.space_id, c.input_hash
    from kb.embedding_claim c
    where c.space_id = :space_id and c.input_hash = any(:hashes)
        and (
            exists (select from kb.shard s where s.id = c.shard_id and s.fence > c.fence)
            or not exists (
                select from pg_locks l
                where l.locktype = 'advisory' and l.granted and l.objsubid = 2
                    and l.classid = :lock_class ::bigint::oid
                    and l.objid = c.shard_id::bigint::oid
                    and l.database = (
                        select oid from pg_database where datname = current_database()
                    )
            )
        )
    for update skip locked
)
update kb.embedding_claim c
set shard_id = :shard_id, fence = :fence, claimed_at = now()
from void
where c.space_id = void.space_id and c.input_hash = void.input_hash;

-- name: find_claimed(space_id, shard_id, fence, hashes)
select input_hash
from kb.embedding_claim
where space_id = :space_id and shard_id = :shard_id and fence = :fence
    and input_hash = any(:hashes);

-- name: find_answered(hashes, space_id, conditions)
-- Texts that need no vector from us any more.
select u.input_hash
from unnest(:hashes ::bytea[]) as u (input_hash)
where exists (select from {embeddings} e where e.input_hash = u.input_hash)
    or exists (
        select from kb.quarantine q
        where q.space_id = :space_id and q.content_hash = u.input_hash
            and q.conditions = :conditions
    );

-- name: release_claims(space_id, shard_id, fence, hashes)
delete from kb.embedding_claim
where space_id = :space_id and shard_id = :shard_id and fence = :fence
    and input_hash = any(:hashes);

-- name: release_all_claims(shard_id, fence)
-- Also those that earlier runs of the shard left behind.
delete from kb.embedding_claim where shard_id = :shard_id and fence <= :fence;

-- name: create_incoming()
create temporary table incoming (input_hash bytea, vector {vector_type}) on commit drop;

-- name: add_vectors()
insert into {embeddings} (input_hash, vector)
select input_hash, vector from incoming
order by input_hash
on conflict (input_hash) do nothing;

-- name: release_from_quarantine(space_id, hashes)
delete from kb.quarantine where space_id = :space_id and content_hash = any(:hashes);

-- name: quarantine_texts(space_id, conditions, hashes, reasons, details)
insert into kb.quarantine (stage, space_id, content_hash, conditions, reason, detail)
select 'embed', :space_id, content_hash, :conditions, reason, detail
from unnest(:hashes ::bytea[], :reasons ::text[], :details ::text[])
    as u (content_hash, reason, detail)
on conflict (space_id, content_hash) where space_id is not null do update
    set conditions = excluded.conditions,
        reason = excluded.reason,
        detail = excluded.detail,
        attempts = quarantine.attempts + 1,
        last_seen = now();

-- name: record_calls(run_id, space_id, source_id, texts, tokens, costs_usd, seconds, outcomes)
-- Returns whether any text of the space is in quarantine.
insert into kb.embedding_call (run_id, space_id, source_id, texts, tokens, cost_usd, seconds, outcome)
select :run_id, :space_id, :source_id, u.*
from unnest(
    :texts ::integer[], :tokens ::bigint[], :costs_usd ::double precision[],
    :seconds ::double precision[], :outcomes ::text[]
) as u
returning exists (select from kb.quarantine where space_id = :space_id);

-- name: spent_by_run(run_id)
select coalesce(sum(cost_usd), 0)::double precision from kb.embedding_call where run_id = :run_id;
