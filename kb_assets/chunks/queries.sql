-- name: measure_unsplit(fingerprint, source, slot_low, slot_high, most)
select count(*), coalesce(sum(size_bytes), 0)::bigint
from (
    select octet_length(r.text) as size_bytes
    from kb.source s
    join kb.document d on d.source_id = s.id
    join kb.document_revision r on r.id = d.pending_revision_id
    join kb.processing_recipe p on p.id = r.recipe_id and p.fingerprint = :fingerprint
    where s.name = :source and d.slot >= :slot_low and d.slot < :slot_high
        and d.pending_revision_id is not null
        and r.state = 'parsed'
    limit :most
) waiting;

-- name: find_unsplit(fingerprint, source_id, slot_low, slot_high, after, limit)
-- Revisions of the shard that wait, were made by this recipe, and have no chunks yet.
select r.id, octet_length(r.text)
from kb.document d
join kb.document_revision r on r.id = d.pending_revision_id
join kb.processing_recipe p on p.id = r.recipe_id and p.fingerprint = :fingerprint
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
    and d.pending_revision_id is not null
    and r.state = 'parsed'
    and r.id > :after
order by r.id
limit :limit;

-- name: read_unsplit(ids)
select r.id, r.document_id, r.content_hash, r.title, r.media_type, r.text
from kb.document_revision r
where r.id = any(:ids)
order by r.id;

-- name: mark_chunked(ids)
update kb.document_revision set state = 'chunked' where id = any(:ids);

-- name: drop_pending(revision_ids)
-- What cannot be split is never published; an older revision goes on answering.
update kb.document d set pending_revision_id = null
from kb.document_revision r
where r.id = any(:revision_ids) and d.id = r.document_id and d.pending_revision_id = r.id;

-- name: delete_revisions(revision_ids)
delete from kb.document_revision where id = any(:revision_ids);

-- name: chunk_sizes(source, slot_low, slot_high, documents)
-- How many chunks there are of which size, in a few documents of the shard: a slot is a hash, so
-- the first ones are as good as drawn at random, and cost the same however many there are.
select c.token_count, count(*)
from (
    select coalesce(d.pending_revision_id, d.live_revision_id) as revision_id
    from kb.source s
    join kb.document d on d.source_id = s.id
    where s.name = :source and d.slot >= :slot_low and d.slot < :slot_high
    order by d.source_id, d.slot
    limit :documents
) drawn
join kb.chunk c on c.revision_id = drawn.revision_id
group by c.token_count;
