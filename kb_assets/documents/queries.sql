-- name: ensure_source(name, kind, uri, settings)
-- Register the source, or note that its settings changed; its name is its identity.
insert into kb.source (name, kind, uri, settings)
values (:name, :kind, :uri, :settings)
on conflict (name) do update
    set kind = excluded.kind, uri = excluded.uri, settings = excluded.settings
    where (source.kind, source.uri, source.settings)
        is distinct from (excluded.kind, excluded.uri, excluded.settings);

-- name: source_id(name)
select id from kb.source where name = :name;

-- name: ensure_recipe(fingerprint, settings)
insert into kb.processing_recipe (fingerprint, settings)
values (:fingerprint, :settings)
on conflict (fingerprint) do nothing;

-- name: recipe_id(fingerprint)
select id from kb.processing_recipe where fingerprint = :fingerprint;

-- name: create_listing()
-- What a source lists, with the paths of other shards: what moved there is not lost.
create temporary table listing (
    path text collate "C" primary key,
    token text collate "C",
    own boolean not null,
    size_bytes bigint not null,
    sidecar text,
    problem text
);

-- name: analyze_listing()
analyze listing;

-- name: find_to_read(everything, conditions, source_id, recipe_id)
-- Entries whose content may differ from what was last read, or is to be judged anew.
select l.path, l.token, l.size_bytes, l.sidecar, l.problem,
    d.id, v.content_hash, v.recipe_id, live.content_hash, live.recipe_id,
    q.document_id is not null and (:everything or q.conditions <> :conditions) as judge_again
from listing l
left join kb.document d on d.source_id = :source_id and d.path = l.path
left join kb.document_version v on v.document_id = d.id
left join kb.document_revision live on live.id = d.live_revision_id
left join kb.quarantine q on q.document_id = d.id
where l.own
    and (
        :everything
        or v.token is null
        or v.token is distinct from l.token
        or v.recipe_id <> :recipe_id
        or q.conditions <> :conditions
    )
order by l.path;

-- name: count_returned(source_id)
select count(*)
from kb.document d
join listing l on l.path = d.path
where d.source_id = :source_id and l.own
    and (d.missing_since is not null or d.vanished_at is not null);

-- name: welcome_back(source_id)
-- What is listed is neither missing nor vanished, whatever an earlier run thought.
update kb.document d
set missing_since = null, vanished_at = null
from listing l
where d.source_id = :source_id and d.path = l.path and l.own
    and (d.missing_since is not null or d.vanished_at is not null);

-- name: find_movable(source_id, slot_low, slot_high, recipe_id)
-- Documents of the shard that are not listed, were read under this recipe, and are no puzzle.
select d.id, d.path, v.content_hash
from kb.document d
join kb.document_version v on v.document_id = d.id and v.recipe_id = :recipe_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
    and d.vanished_at is null
    and not exists (select from listing l where l.path = d.path)
    and not exists (select from kb.quarantine q where q.document_id = d.id);

-- name: move_documents(document_ids, paths, slots)
update kb.document d
set path = u.path, slot = u.slot, missing_since = null
from unnest(:document_ids ::bigint[], :paths ::text[], :slots ::smallint[])
    as u (document_id, path, slot)
where d.id = u.document_id;

-- name: note_change()
-- What a search finds has other paths now.
update kb.index_state set generation = generation + 1;

-- name: find_missing(source_id, slot_low, slot_high)
-- Documents of the shard that are not listed. One is moved, not lost, if its content stands
-- under a path that is listed now, in this shard or another: a copy elsewhere may be gone as well.
with missing as (
    select d.id, d.live_revision_id is not null as seen_by_readers, v.content_hash
    from kb.document d
    left join kb.document_version v on v.document_id = d.id
    where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
        and d.vanished_at is null
        and not exists (select from listing l where l.path = d.path)
)
select m.id, m.seen_by_readers,
    exists (
        select
        from kb.document_version v
        join kb.document d on d.id = v.document_id
        where v.content_hash = m.content_hash and d.source_id = :source_id
            and d.vanished_at is null
            and exists (select from listing l where l.path = d.path)
    ) as moved
from missing m;

-- name: count_live(source_id, slot_low, slot_high)
select count(*) from kb.document
where source_id = :source_id and slot >= :slot_low and slot < :slot_high
    and vanished_at is null and live_revision_id is not null;

-- name: mark_vanished(ids)
update kb.document set vanished_at = now(), missing_since = null where id = any(:ids);

-- name: mark_missing(ids)
update kb.document set missing_since = now() where id = any(:ids) and missing_since is null;

-- name: find_state(source, slot_low, slot_high)
-- Every lease of the shard, or of one that shares slots with it, raises a fence.
select coalesce(sum(sh.fence), 0)::bigint,
    (array_agg(sh.listing_fingerprint)
        filter (where sh.slot_low = :slot_low and sh.slot_high = :slot_high)) [1],
    array(
        select e.path
        from kb.erased_document e
        join kb.source of on of.id = e.source_id
        where of.name = :source
    )
from kb.source s
join kb.shard sh on sh.source_id = s.id
where s.name = :source and sh.slot_low < :slot_high and sh.slot_high > :slot_low;

-- name: forget_listing(shard_id)
-- Shards of another layout that share slots with it must not take theirs for true either.
with known as materialized (
    select other.id
    from kb.shard mine
    join kb.shard other
        on other.source_id = mine.source_id
        and other.slot_low < mine.slot_high and other.slot_high > mine.slot_low
    where mine.id = :shard_id and other.listing_fingerprint is not null
    order by other.id
    for update of other
)
update kb.shard s set listing_fingerprint = null from known where s.id = known.id;

-- name: record_listing(found, fingerprint, shard_id)
update kb.shard
set found_documents = :found, listed_at = now(), listing_fingerprint = :fingerprint
where id = :shard_id;

-- name: forget_other_listings(shard_id)
-- What shards of another layout found in the same slots would be counted a second time.
with others as materialized (
    select other.id
    from kb.shard mine
    join kb.shard other
        on other.source_id = mine.source_id and other.id <> mine.id
        and other.slot_low < mine.slot_high and other.slot_high > mine.slot_low
    where mine.id = :shard_id and other.listed_at is not null
    order by other.id
    for update of other
)
update kb.shard s
set found_documents = null, listed_at = null, listing_fingerprint = null
from others
where s.id = others.id;

-- name: reserve_document_ids(count)
select nextval('kb.document_id_seq') from generate_series(1, :count);

-- name: reserve_revision_ids(count)
select nextval('kb.document_revision_id_seq') from generate_series(1, :count);

-- name: clear_pending(document_ids)
update kb.document set pending_revision_id = null
where id = any(:document_ids) and pending_revision_id is not null;

-- name: set_pending(document_ids, revision_ids)
-- Point documents at what shall be published next.
update kb.document d
set pending_revision_id = u.revision_id
from unnest(:document_ids ::bigint[], :revision_ids ::bigint[]) as u (document_id, revision_id)
where d.id = u.document_id;

-- name: note_unused_texts(document_ids)
-- Texts that only superseded revisions of these documents have are left over from here on.
with superseded as (
    select r.id
    from kb.document_revision r
    join kb.document d on d.id = r.document_id
    where d.id = any(:document_ids)
        and r.id is distinct from d.live_revision_id
        and r.id is distinct from d.pending_revision_id
)
insert into kb.embedding_unused (input_hash)
select distinct c.input_hash
from kb.chunk c
where c.revision_id in (select id from superseded)
    and not exists (
        select
        from kb.chunk other
        where other.input_hash = c.input_hash
            and other.revision_id not in (select id from superseded)
    )
order by c.input_hash
on conflict (input_hash) do update set since = excluded.since;

-- name: delete_superseded(document_ids)
delete from kb.document_revision r
using kb.document d
where d.id = any(:document_ids) and r.document_id = d.id
    and r.id is distinct from d.live_revision_id
    and r.id is distinct from d.pending_revision_id;

-- name: save_versions(document_ids, tokens, content_hashes, recipe_ids)
insert into kb.document_version (document_id, token, content_hash, recipe_id)
select *
from unnest(
    :document_ids ::bigint[], :tokens ::text[], :content_hashes ::bytea[], :recipe_ids ::integer[]
)
on conflict (document_id) do update
    set token = excluded.token,
        content_hash = excluded.content_hash,
        recipe_id = excluded.recipe_id;

-- name: touch_versions(document_ids, tokens)
update kb.document_version v
set token = u.token
from unnest(:document_ids ::bigint[], :tokens ::text[]) as u (document_id, token)
where v.document_id = u.document_id;

-- name: forget_versions(document_ids)
-- A document that could not be read has no known content: it is read again by every run.
delete from kb.document_version where document_id = any(:document_ids);

-- name: release_from_quarantine(document_ids)
delete from kb.quarantine where document_id = any(:document_ids);

-- name: save_quarantine(conditions, stages, document_ids, content_hashes, reasons, details)
insert into kb.quarantine (stage, document_id, content_hash, conditions, reason, detail)
select stage, document_id, content_hash, :conditions, reason, detail
from unnest(
    :stages ::text[], :document_ids ::bigint[], :content_hashes ::bytea[],
    :reasons ::text[], :details ::text[]
) as u (stage, document_id, content_hash, reason, detail)
on conflict (document_id) where document_id is not null do update
    set stage = excluded.stage,
        content_hash = excluded.content_hash,
        conditions = excluded.conditions,
        reason = excluded.reason,
        detail = excluded.detail,
        attempts = quarantine.attempts + 1,
        last_seen = now();

-- name: find_listings(source)
select sh.slot_low, sh.slot_high, sh.fence, sh.listing_fingerprint
from kb.source s
join kb.shard sh on sh.source_id = s.id
where s.name = :source;

-- name: find_erased_paths(source)
select e.path
from kb.erased_document e
join kb.source s on s.id = e.source_id
where s.name = :source;
