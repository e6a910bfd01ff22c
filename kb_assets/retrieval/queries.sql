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

-- name: find_named_documents(names)
-- Live documents that golden questions name. A looser form of a name counts only where no
-- document has a stricter one.
with form as (
    select s.name as source, d.path, f.name, f.looseness
    from kb.document d
    join kb.source s on s.id = d.source_id
    join kb.document_revision r on r.id = d.live_revision_id
    cross join lateral (
        values (s.name || ':' || d.path, 0),
            (d.path, 0),
            (regexp_replace(d.path, '\.[^./]*$', ''), 1),
            (regexp_replace(d.path, '^.*/|\.[^./]*$', '', 'g'), 1),
            (r.metadata ->> 'id', 1)
    ) f (name, looseness)
    where f.name = any(:names ::text[])
),
ranked as (
    select *, min(looseness) over (partition by name) as strictest from form
)
select distinct source, path, name from ranked where looseness = strictest;

-- name: add_evaluation(run_id, space_id, purpose, questions_hash, questions, metrics, per_question, seconds, verdict, reasons)
insert into kb.evaluation (
    run_id, space_id, purpose, questions_hash, questions, metrics, per_question, seconds,
    verdict, reasons
)
values (
    :run_id, :space_id, :purpose, :questions_hash, :questions, :metrics, :per_question, :seconds,
    :verdict, :reasons
)
returning id, evaluated_at, purpose, questions_hash, questions, metrics, per_question, seconds,
    verdict, reasons;

-- name: find_evaluation(purpose, questions_hash, verdict)
-- The last one of the same questions; of any verdict if none is given.
select id, evaluated_at, purpose, questions_hash, questions, metrics, per_question, seconds,
    verdict, reasons
from kb.evaluation
where purpose = :purpose and questions_hash = :questions_hash
    and (:verdict ::text is null or verdict = :verdict)
order by id desc
limit 1;

-- name: list_evaluations(limit)
-- The last ones of the configured questions, newest first.
select id, evaluated_at, purpose, questions_hash, questions, metrics, per_question, seconds,
    verdict, reasons
from kb.evaluation
where purpose = 'quality'
order by id desc
limit :limit;

-- name: draw_passages(seed, number, sources, least_tokens)
-- Passages to ask about: one of each document, the sources in turn, in an order that the seed
-- and the paths decide, so that the same documents give the same draw after they are indexed anew.
with drawn as materialized (
    select s.name, d.path, d.live_revision_id,
        row_number() over (
            partition by s.id order by md5(:seed ::text || '/' || d.path), d.path
        ) as turn
    from kb.document d
    join kb.source s on s.id = d.source_id
    where (:sources ::text[] = '{}' or s.name = any(:sources ::text[]))
        and exists (
            select from kb.chunk c
            where c.revision_id = d.live_revision_id and c.token_count >= :least_tokens
        )
    order by turn, s.name
    limit :number
)
select drawn.name, drawn.path, passage.heading_path, passage.text
from drawn
cross join lateral (
    select c.heading_path, c.text
    from kb.chunk c
    where c.revision_id = drawn.live_revision_id and c.token_count >= :least_tokens
    order by md5(:seed ::text || '/' || c.ordinal), c.ordinal
    limit 1
) passage
order by drawn.turn, drawn.name;
