-- name: search_index(vector, limit)
-- The nearest live chunks by the vector index. What is live hangs on one join alone: another
-- condition beside it hides from the planner how few documents a chunk can belong to.
select s.name, d.path, r.id, c.ordinal, c.heading_path, c.byte_start, c.byte_end, c.text,
    r.title, r.tags, r.metadata, 1 - (e.vector <=> :vector) as score
from {embeddings} e
join kb.chunk c on c.input_hash = e.input_hash
join kb.document d on d.live_revision_id = c.revision_id
join kb.document_revision r on r.id = c.revision_id
join kb.source s on s.id = d.source_id
where {condition}
order by e.vector <=> :vector
limit :limit;

-- name: search_exactly(vector, limit)
-- The same by sorting all that match: for the few that a narrow filter leaves.
with matching as materialized (
    select s.name, d.path, r.id as revision_id, c.ordinal, c.heading_path, c.byte_start,
        c.byte_end, c.text, r.title, r.tags, r.metadata, e.vector <=> :vector as distance
    from kb.document d
    join kb.document_revision r on r.id = d.live_revision_id
    join kb.source s on s.id = d.source_id
    join kb.chunk c on c.revision_id = d.live_revision_id
    join {embeddings} e on e.input_hash = c.input_hash
    where {condition}
)
select name, path, revision_id, ordinal, heading_path, byte_start, byte_end, text, title, tags,
    metadata, 1 - distance as score
from matching
order by distance
limit :limit;
