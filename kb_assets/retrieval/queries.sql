-- name: search_index(vector, limit)
-- The nearest live chunks by the vector index. What is live hangs on one join alone: another
-- condition beside it hides from the planner how few documents a chunk can belong to. The offset
-- keeps it from beginning at the other end, with all that a caller or a filter admits.
with nearest as (
    select found.revision_id, found.ordinal, e.vector <=> :vector as distance
    from {embeddings} e
    cross join lateral (
        select c.revision_id, c.ordinal
        from kb.chunk c
        join kb.document d on d.live_revision_id = c.revision_id
        where c.input_hash = e.input_hash and {condition}
        offset 0
    ) found
    order by e.vector <=> :vector
    limit :limit
)
select n.revision_id, n.ordinal, 1 - n.distance, l.source_id, l.first_ordinal + n.ordinal
from nearest n
left join kb.lexical_document l on l.revision_id = n.revision_id;

-- name: search_index_of_documents(vector, limit)
-- The same where the condition looks at documents, revisions and sources.
with nearest as (
    select found.revision_id, found.ordinal, e.vector <=> :vector as distance
    from {embeddings} e
    cross join lateral (
        select c.revision_id, c.ordinal
        from kb.chunk c
        join kb.document d on d.live_revision_id = c.revision_id
        join kb.document_revision r on r.id = c.revision_id
        join kb.source s on s.id = d.source_id
        where c.input_hash = e.input_hash and {condition}
        offset 0
    ) found
    order by e.vector <=> :vector
    limit :limit
)
select n.revision_id, n.ordinal, 1 - n.distance, l.source_id, l.first_ordinal + n.ordinal
from nearest n
left join kb.lexical_document l on l.revision_id = n.revision_id;

-- name: search_exactly(vector, limit, revision_ids)
-- The nearest among the chunks of revisions, all of which are looked at.
with matching as materialized (
    select c.revision_id, c.ordinal, e.vector <=> :vector as distance
    from kb.chunk c
    join {embeddings} e on e.input_hash = c.input_hash
    where c.revision_id = any(:revision_ids)
),
best as (
    select * from matching order by distance limit :limit
)
select b.revision_id, b.ordinal, 1 - b.distance, l.source_id, l.first_ordinal + b.ordinal
from best b
left join kb.lexical_document l on l.revision_id = b.revision_id
order by b.distance;

-- name: estimate_vectors(table)
-- About how many vectors a space has; -1 before the first ANALYZE.
select reltuples::bigint from pg_class where oid = to_regclass(:table);

-- name: prepare_search(ef_search, timeout)
-- Without sorting, only the vector index gives an order: whether it is to be asked is decided
-- before, by what is known of the filter. Compiling a plan takes longer than a search does.
select set_config('hnsw.iterative_scan', 'relaxed_order', true),
    set_config('enable_sort', 'off', true),
    set_config('hnsw.ef_search', :ef_search, true),
    set_config('statement_timeout', :timeout, true),
    set_config('jit', 'off', true);

-- name: limit_to_caller(source_ids, tags, any_tag)
-- Until the transaction ends, row-level security shows what these may see.
select set_config('kb.source_ids', cast(:source_ids ::int[] as text), true),
    set_config(
        'kb.tags', case when :any_tag then '*' else cast(:tags ::text[] as text) end, true
    );

-- name: find_source_ids(names)
select id from kb.source where :names ::text[] = '{}' or name = any(:names ::text[]) order by id;

-- name: find_searched_sources(names)
-- What is searched, in what language, and the state of the index that this snapshot shows.
select s.id, l.language, l.chunks, l.tokens, l.next_ordinal,
    (select generation from kb.index_state)
from kb.source s
left join kb.lexical_source l on l.source_id = s.id
where :names ::text[] = '{}' or s.name = any(:names ::text[])
order by s.id;

-- name: find_index_state()
select generation, array(select name from kb.source) from kb.index_state;

-- name: find_origins(revision_ids)
select id, run_id, created_at from kb.document_revision where id = any(:revision_ids);

-- name: find_matching(source_ids)
-- Which live revisions a filter admits, and where their chunks are among those of their source;
-- packed, because there may be many. What is live and has chunks is what is not dead here. A left
-- join that the condition does not look at costs nothing: PostgreSQL leaves it out.
select l.source_id,
    string_agg(int8send(r.id), ''),
    string_agg(int4send(l.first_ordinal) || int4send(l.chunks), '')
from kb.document_revision r
join kb.lexical_document l on l.revision_id = r.id and not l.is_dead
left join kb.document d on d.live_revision_id = r.id
left join kb.source s on s.id = l.source_id
where l.source_id = any(:source_ids) and {condition}
group by l.source_id;

-- name: find_matching_documents(source_ids)
-- The same while the words of a source were not analysed yet.
select d.source_id, string_agg(int8send(r.id), ''), null::bytea
from kb.document d
join kb.document_revision r on r.id = d.live_revision_id
join kb.source s on s.id = d.source_id
where d.source_id = any(:source_ids) and {condition}
group by d.source_id;

-- name: find_postings(source_ids, terms)
select p.source_id, p.term, p.block, p.ordinals, p.counts, p.lengths
from unnest(:source_ids ::int[], :terms ::text[]) as w (source_id, term)
join kb.lexical_posting p on p.source_id = w.source_id and p.term = w.term;

-- name: find_dead(source_ids)
select source_id, string_agg(int4send(first_ordinal) || int4send(chunks), '')
from kb.lexical_document
where source_id = any(:source_ids) and is_dead
group by source_id;

-- name: find_chunks_by_position(source_ids, positions)
-- The chunks that ordinals of sources stand for.
select w.place::int, c.revision_id, c.ordinal
from unnest(:source_ids ::int[], :positions ::int[]) with ordinality
    as w (source_id, position, place)
cross join lateral (
    select l.revision_id, l.first_ordinal
    from kb.lexical_document l
    where l.source_id = w.source_id and l.first_ordinal <= w.position
    order by l.first_ordinal desc
    limit 1
) l
join kb.chunk c on c.revision_id = l.revision_id and c.ordinal = w.position - l.first_ordinal
order by w.place;

-- name: find_similarities(vector, revision_ids, ordinals)
-- How near chunks are that their words have led to.
select c.revision_id, c.ordinal, 1 - (e.vector <=> :vector)
from unnest(:revision_ids ::bigint[], :ordinals ::int[]) as w (revision_id, ordinal)
join kb.chunk c on c.revision_id = w.revision_id and c.ordinal = w.ordinal
join {embeddings} e on e.input_hash = c.input_hash;

-- name: fetch_passages(revision_ids, bests, firsts, lasts)
select s.name, d.path, best.heading_path, first.byte_start, last.byte_end,
    case
        when w.first = w.last then best.text
        else convert_from(
            substring(
                convert_to(r.text, 'UTF8')
                from first.byte_start + 1 for last.byte_end - first.byte_start
            ),
            'UTF8'
        )
    end,
    r.title, r.tags, r.metadata
from unnest(:revision_ids ::bigint[], :bests ::int[], :firsts ::int[], :lasts ::int[])
    with ordinality as w (revision_id, best, first, last, place)
join kb.document d on d.live_revision_id = w.revision_id
join kb.document_revision r on r.id = w.revision_id
join kb.source s on s.id = d.source_id
join kb.chunk best on best.revision_id = w.revision_id and best.ordinal = w.best
join kb.chunk first on first.revision_id = w.revision_id and first.ordinal = w.first
join kb.chunk last on last.revision_id = w.revision_id and last.ordinal = w.last
order by w.place;

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

-- name: forget_evaluations(keep)
-- All but the last ones; and of each set of questions, the last one of each verdict.
delete from kb.evaluation
where id <= (select id from kb.evaluation order by id desc offset :keep limit 1)
    and id not in (
        select max(id) from kb.evaluation group by purpose, questions_hash, verdict
    );

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

-- name: forget_queries(seconds, limit)
delete from kb.query_log
where id in (
    select id from kb.query_log
    where asked_at < now() - make_interval(secs => :seconds)
    order by asked_at
    limit :limit
);

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
