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
    number bigint generated always as identity primary key,
    input_hash bytea not null,
    revision_id bigint not null,
    ordinal integer not null
);

-- name: drop_wanted()
drop table if exists wanted;

-- name: find_wanted(everything, source_id, slot_low, slot_high, space_id, conditions)
-- Texts of the shard that have no vector in the space, each once, in the order of documents.
-- One that was refused is wanted again under other conditions than those it was refused under.
insert into wanted (input_hash, revision_id, ordinal)
select input_hash, revision_id, ordinal
from (
    select distinct on (c.input_hash) c.input_hash, c.revision_id, c.ordinal
    from kb.document d
    join kb.document_revision r
        on r.id = d.pending_revision_id or (:everything and r.id = d.live_revision_id)
    join kb.chunk c on c.revision_id = r.id
    where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
        and (:everything or d.pending_revision_id is not null)
        and d.vanished_at is null
        and not exists (select from {embeddings} e where e.input_hash = c.input_hash)
        and not exists (
            select from kb.quarantine q
            where q.space_id = :space_id and q.content_hash = c.input_hash
                and q.conditions = :conditions
        )
    order by c.input_hash, c.revision_id, c.ordinal
) once
order by revision_id, ordinal;

-- name: find_refused(space_id, conditions)
-- Texts of any shard that were refused under other conditions than today's. They stay in
-- quarantine until they have been answered: a run that ends before that forgets nothing.
insert into wanted (input_hash, revision_id, ordinal)
select distinct on (c.input_hash) c.input_hash, c.revision_id, c.ordinal
from kb.quarantine q
join kb.chunk c on c.input_hash = q.content_hash
where q.space_id = :space_id and q.conditions <> :conditions
    and not exists (select from {embeddings} e where e.input_hash = c.input_hash)
    and not exists (select from wanted w where w.input_hash = c.input_hash)
order by c.input_hash, c.revision_id, c.ordinal;

-- name: count_wanted()
-- Texts and tokens; title and headings, which stand before each chunk, at three bytes a token.
select count(*),
    coalesce(sum(
        c.token_count
        + (octet_length(coalesce(r.title, '')) + octet_length(array_to_string(c.heading_path, ' > ')))
            / 3
    ), 0)
from wanted w
join kb.chunk c on c.revision_id = w.revision_id and c.ordinal = w.ordinal
join kb.document_revision r on r.id = w.revision_id;

-- name: count_texts(source_id, slot_low, slot_high)
-- Distinct texts of what waits in the shard: those not wanted are had already.
select count(distinct c.input_hash)
from kb.document d
join kb.chunk c on c.revision_id = d.pending_revision_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
    and d.pending_revision_id is not null and d.vanished_at is null;

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

-- name: claim(space_id, shard_id, fence, hashes, lock_class, conditions)
-- Claim texts that nobody else is paying for. A claim is void once its shard's fence was raised
-- or nobody holds its shard's lock. Fences only grow: a claim whose fence this statement's snapshot
-- does not know yet is a newer one, and stands.
insert into kb.embedding_claim (space_id, input_hash, shard_id, fence)
select :space_id, u.input_hash, :shard_id, :fence
from unnest(:hashes ::bytea[]) as u (input_hash)
where not exists (select from {embeddings} e where e.input_hash = u.input_hash)
    and not exists (
        select from kb.quarantine q
        where q.space_id = :space_id and q.content_hash = u.input_hash
            and q.conditions = :conditions
    )
order by u.input_hash
on conflict (space_id, input_hash) do update
    set shard_id = excluded.shard_id, fence = excluded.fence, claimed_at = now()
    where embedding_claim.shard_id = excluded.shard_id
        or exists (
            select from kb.shard s
            where s.id = embedding_claim.shard_id and s.fence > embedding_claim.fence
        )
        or not exists (
            select from pg_locks l
            where l.locktype = 'advisory' and l.granted and l.objsubid = 2
                and l.classid = :lock_class ::bigint::oid
                and l.objid = embedding_claim.shard_id::bigint::oid
                and l.database = (select oid from pg_database where datname = current_database())
        )
returning input_hash;

-- name: drop_answered_claims(hashes, space_id, shard_id, fence, conditions)
-- Give up claims on texts that were answered while they were being claimed: whoever held them
-- before stored the vectors and let go in one transaction, which only a later statement sees.
delete from kb.embedding_claim c
where c.space_id = :space_id and c.shard_id = :shard_id and c.fence = :fence
    and c.input_hash = any(:hashes ::bytea[])
    and (
        exists (select from {embeddings} e where e.input_hash = c.input_hash)
        or exists (
            select from kb.quarantine q
            where q.space_id = c.space_id and q.content_hash = c.input_hash
                and q.conditions = :conditions
        )
    )
returning c.input_hash;

-- name: answered_elsewhere(hashes, space_id, conditions)
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
-- In the order in which texts are claimed, so that two shards never wait for each other.
with mine as materialized (
    select space_id, input_hash
    from kb.embedding_claim
    where space_id = :space_id and shard_id = :shard_id and fence = :fence
        and input_hash = any(:hashes)
    order by input_hash
    for update
)
delete from kb.embedding_claim c
using mine
where c.space_id = mine.space_id and c.input_hash = mine.input_hash;

-- name: drop_void_claims(shard_id, fence)
with void as materialized (
    select space_id, input_hash
    from kb.embedding_claim
    where shard_id = :shard_id and fence < :fence
    order by space_id, input_hash
    for update
)
delete from kb.embedding_claim c
using void
where c.space_id = void.space_id and c.input_hash = void.input_hash;

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

-- name: record_call(run_id, space_id, source_id, texts, tokens, cost_usd, seconds, outcome)
insert into kb.embedding_call (run_id, space_id, source_id, texts, tokens, cost_usd, seconds, outcome)
values (:run_id, :space_id, :source_id, :texts, :tokens, :cost_usd, :seconds, :outcome);

-- name: spent_by_run(run_id)
select coalesce(sum(cost_usd), 0)::double precision from kb.embedding_call where run_id = :run_id;
