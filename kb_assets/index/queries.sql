-- name: lock_publishing(lock_class)
-- One publisher at a time. What it protects must be looked at in a later statement, whose
-- snapshot is taken after the lock was.
select pg_advisory_xact_lock(:lock_class, 0);

-- name: look_for_work(source, slot_low, slot_high)
-- By what a source was analysed, and whether the shard may have something to publish.
select l.analyser, exists (
    select from kb.document d
    where d.source_id = s.id and d.slot >= :slot_low and d.slot < :slot_high
        and (d.vanished_at is not null or d.pending_revision_id is not null)
)
from kb.source s
left join kb.lexical_source l on l.source_id = s.id
where s.name = :source;

-- name: find_publishable(source_id, slot_low, slot_high)
-- Documents of the shard with something to publish: a revision that is split, or their end.
select d.id, case when d.vanished_at is null then r.id end, coalesce(octet_length(r.text), 0)
from kb.document d
left join kb.document_revision r on r.id = d.pending_revision_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
    and (d.vanished_at is not null or d.pending_revision_id is not null)
    and (d.vanished_at is not null or r.state = 'chunked')
order by d.id;

-- name: flip(document_ids, space_id)
-- Make revisions live of which every text has its vector, or was refused one.
with ready as (
    select d.id, d.live_revision_id as old_id, d.pending_revision_id as new_id, r.tags
    from kb.document d
    join kb.document_revision r on r.id = d.pending_revision_id
    where d.id = any(:document_ids) and d.vanished_at is null and r.state = 'chunked'
        and not exists (
            select
            from kb.chunk c
            where c.revision_id = r.id
                and not exists (select from {embeddings} e where e.input_hash = c.input_hash)
                and not exists (
                    select from kb.quarantine q
                    where q.space_id = :space_id and q.content_hash = c.input_hash
                )
        )
)
update kb.document d
set live_revision_id = ready.new_id, pending_revision_id = null, live_tags = ready.tags
from ready
where d.id = ready.id
returning d.id, ready.old_id, ready.new_id;

-- name: find_vanished(document_ids)
select d.id, array_remove(array_agg(r.id), null)
from kb.document d
left join kb.document_revision r on r.document_id = d.id
where d.id = any(:document_ids) and d.vanished_at is not null
group by d.id;

-- name: note_unused_texts(revision_ids)
-- Texts that only these revisions have are left over from here on.
insert into kb.embedding_unused (input_hash)
select distinct c.input_hash
from kb.chunk c
where c.revision_id = any(:revision_ids)
    and not exists (
        select from kb.chunk other
        where other.input_hash = c.input_hash and other.revision_id <> all(:revision_ids)
    )
order by c.input_hash
on conflict (input_hash) do update set since = excluded.since;

-- name: delete_revisions(revision_ids)
delete from kb.document_revision where id = any(:revision_ids);

-- name: delete_documents(document_ids)
delete from kb.document where id = any(:document_ids);

-- name: collect_unused(grace_seconds, limit)
-- Forget texts that were left over for long enough, and say which of them no chunk has now.
with due as (
    delete from kb.embedding_unused
    where input_hash in (
        select input_hash from kb.embedding_unused
        where since < now() - make_interval(secs => :grace_seconds)
        order by since
        limit :limit
    )
    returning input_hash
)
select due.input_hash, exists (select from kb.chunk c where c.input_hash = due.input_hash) as used
from due;

-- name: delete_vectors(hashes)
delete from {embeddings} where input_hash = any(:hashes);

-- name: count_vectors()
select count(*) from {embeddings};

-- name: count_vectors_up_to(most)
select count(*) from (select from {embeddings} limit :most) counted;

-- name: find_vector_indexes(tables)
-- Every index on spaces' vectors, with what makes it fit for use, and about how many vectors there
-- are: as the planner has it, from the size of the table and how dense it was last.
select t.place,
    (greatest(c.reltuples, 0) / greatest(c.relpages, 1) * pg_relation_size(c.oid)
        / current_setting('block_size')::integer)::bigint,
    x.relname, x.valid, x.opcname, x.bytes, x.comment
from unnest(:tables ::text[]) with ordinality as t (name, place)
join pg_class c on c.oid = to_regclass(t.name)
left join (
    select i.indrelid, x.relname, i.indisvalid and i.indisready and i.indislive as valid, o.opcname,
        coalesce(pg_relation_size(x.oid), 0) as bytes,
        obj_description(x.oid, 'pg_class') as comment
    from pg_index i
    join pg_class x on x.oid = i.indexrelid
    join pg_am a on a.oid = x.relam and a.amname = 'hnsw'
    join pg_opclass o on o.oid = i.indclass[0]
) x on x.indrelid = c.oid
order by t.place, x.relname;

-- name: set_building(memory, workers)
-- For the session, and pgvector is to say when the graph outgrows that memory.
select set_config('maintenance_work_mem', :memory, false),
    set_config('max_parallel_maintenance_workers', :workers ::text, false),
    set_config('client_min_messages', 'notice', false);

-- name: build_vector_index()
create index concurrently {index} on {embeddings} using hnsw (vector {operator_class});

-- name: drop_vector_index()
drop index concurrently if exists {index};

-- name: rename_vector_index()
alter index {index} rename to {name};

-- name: find_pgvector_version()
select extversion from pg_extension where extname = 'vector';

-- name: comment_vector_index()
comment on index {index} is {words};

-- name: analyze_vectors()
analyze {embeddings};

-- name: promote_space(space_id)
update kb.embedding_space
set state = 'live', promoted_at = now()
where id = :space_id;

-- name: find_former_space()
-- The space that was live before.
select id from kb.embedding_space
where state = 'retired' and promoted_at is not null
order by promoted_at desc
limit 1;

-- name: space_bytes(table, index)
select pg_table_size(to_regclass(:table)), coalesce(pg_relation_size(to_regclass(:index)), 0);

-- name: space_cost(space_id)
-- What filling a space took so far.
select coalesce(sum(tokens), 0)::bigint, coalesce(sum(cost_usd), 0)::double precision
from kb.embedding_call
where space_id = :space_id;

-- name: last_verdict()
-- What the last evaluation of the configured questions came to.
select verdict, reasons, evaluated_at
from kb.evaluation
where purpose = 'quality'
order by id desc
limit 1;

-- name: retire_live_space(space_id)
update kb.embedding_space set state = 'retired' where state = 'live' and id <> :space_id;

-- name: count_texts_without_vectors(space_id)
-- Distinct texts readers see now that a space could not answer with.
select count(distinct c.input_hash)
from kb.document d
join kb.chunk c on c.revision_id = d.live_revision_id
where not exists (select from {embeddings} e where e.input_hash = c.input_hash)
    and not exists (
        select from kb.quarantine q
        where q.space_id = :space_id and q.content_hash = c.input_hash
    );

-- name: delete_space(space_id)
delete from kb.embedding_space where id = :space_id and state <> 'live';

-- name: drop_vectors()
drop table if exists {embeddings};

-- name: account(source_id, slot_low, slot_high)
-- Every document of a source's slots in exactly one place. A document in quarantine counts there
-- even while an older revision of it answers.
with placed as (
    select d.id,
        case
            when d.vanished_at is not null then 'vanishing'
            when d.missing_since is not null then 'pending'
            when q.document_id is not null then 'quarantined'
            when d.pending_revision_id is not null or d.live_revision_id is null then 'pending'
            else 'live'
        end as place,
        d.missing_since is not null as missing,
        d.live_revision_id
    from kb.document d
    left join kb.quarantine q on q.document_id = d.id
    where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
),
partial as (
    select distinct p.id
    from kb.quarantine q
    join kb.embedding_space s on s.id = q.space_id and s.state = 'live'
    join kb.chunk c on c.input_hash = q.content_hash
    join placed p on p.live_revision_id = c.revision_id
    where q.stage = 'embed' and p.place = 'live'
)
select count(*) filter (where place <> 'vanishing'),
    count(*) filter (where place = 'live'),
    (select count(*) from partial),
    count(*) filter (where place = 'quarantined'),
    count(*) filter (where place = 'pending'),
    count(*) filter (where missing),
    count(*) filter (where place = 'vanishing')
from placed;

-- name: listed(source_id, slot_low, slot_high)
-- What the last listings of these slots showed, null before the first; and what of the source is
-- not listed any more, because it was erased.
select sum(found_documents)::bigint, min(listed_at),
    array(select path from kb.erased_document where source_id = :source_id)
from kb.shard
where source_id = :source_id and slot_low >= :slot_low and slot_high <= :slot_high
    and listed_at is not null;

-- name: source_id(name)
select id from kb.source where name = :name;

-- name: count_chunks(source_id, slot_low, slot_high)
select count(*), count(distinct c.input_hash), coalesce(sum(c.token_count), 0)::bigint
from kb.document d
join kb.chunk c on c.revision_id = d.live_revision_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high;

-- name: list_quarantine(source_id, slot_low, slot_high, limit)
select s.name, d.path, q.stage, q.reason, q.detail, q.attempts, q.first_seen, q.last_seen
from kb.quarantine q
join kb.document d on d.id = q.document_id
join kb.source s on s.id = d.source_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
order by d.path
limit :limit;

-- name: story(path, source)
select s.name, d.path, d.created_at, d.missing_since, d.vanished_at,
    v.token is not null, v.content_hash,
    live.id, live.created_at, live.title, live.media_type, octet_length(live.text), live.run_id,
    pending.id, pending.created_at, pending.state,
    q.stage, q.reason, q.detail, q.attempts, q.first_seen
from kb.document d
join kb.source s on s.id = d.source_id
left join kb.document_version v on v.document_id = d.id
left join kb.document_revision live on live.id = d.live_revision_id
left join kb.document_revision pending on pending.id = d.pending_revision_id
left join kb.quarantine q on q.document_id = d.id
where d.path = :path and (:source ::text is null or s.name = :source)
order by s.name;

-- name: find_erased(path, source)
select s.name, d.path, e.id, e.requested_at
from kb.erased_document d
join kb.source s on s.id = d.source_id
join kb.erasure e on e.id = d.erasure_id
where d.path = :path and (:source ::text is null or s.name = :source)
order by s.name;

-- name: similar_paths(part)
select s.name, d.path
from kb.document d
join kb.source s on s.id = d.source_id
where strpos(lower(d.path), lower(:part)) > 0
order by length(d.path)
limit 5;

-- name: story_of_texts(space_id, revision_id)
-- How many texts a revision has, and how many of them the live space can answer with.
select count(*), coalesce(sum(c.token_count), 0)::bigint,
    count(*) filter (where exists (
        select from {embeddings} e where e.input_hash = c.input_hash
    )),
    count(*) filter (where exists (
        select from kb.quarantine q
        where q.space_id = :space_id and q.content_hash = c.input_hash
    ))
from kb.chunk c
where c.revision_id = :revision_id;

-- name: refused_texts(space_id, revision_id)
select c.ordinal, q.reason, q.detail
from kb.chunk c
join kb.quarantine q on q.space_id = :space_id and q.content_hash = c.input_hash
where c.revision_id = :revision_id
order by c.ordinal
limit 10;

-- name: find_busy_shards(lock_class)
-- Slots that a run is working on right now, whoever asks.
select s.name, busy.slot_low, busy.slot_high
from kb.shard busy
join kb.source s on s.id = busy.source_id
join pg_locks l
  on l.locktype = 'advisory'
 and l.database = (select oid from pg_database where datname = current_database())
 and l.classid = :lock_class::int4::oid
 and l.objid = busy.id::oid
 and l.objsubid = 2
 and l.granted;

-- name: count_shard_texts_without_vectors(source_id, slot_low, slot_high, space_id)
-- Distinct texts of a shard: those readers see, and those of them that could not be found.
select count(distinct c.input_hash),
    count(distinct c.input_hash) filter (
        where not exists (select from {embeddings} e where e.input_hash = c.input_hash)
            and not exists (
                select from kb.quarantine q
                where q.space_id = :space_id and q.content_hash = c.input_hash
            )
    )
from kb.document d
join kb.chunk c on c.revision_id = d.live_revision_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high;

-- name: find_unsound_waiting(source_id, slot_low, slot_high, dimensions, limit)
-- Vectors the next publish would let readers search, of texts not searched yet.
with waiting as (
    select e.vector
    from kb.document d
    join kb.chunk c on c.revision_id = d.pending_revision_id
    join {embeddings} e on e.input_hash = c.input_hash
    where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
        and d.pending_revision_id is not null
    limit :limit
)
select count(*),
    count(*) filter (
        where vector_dims(vector) <> :dimensions
            or not (l2_norm(vector) > 0 and l2_norm(vector) < 'infinity')
    )
from waiting;

-- name: find_unsound(start, dimensions, limit)
-- Hashes are evenly spread, so that the first ones after a random hash are a random sample.
with sample as (
    select vector from {embeddings} where input_hash >= :start order by input_hash limit :limit
)
select count(*),
    count(*) filter (
        where vector_dims(vector) <> :dimensions
            or not (l2_norm(vector) > 0 and l2_norm(vector) < 'infinity')
    )
from sample;

-- name: let_only_the_index_answer()
select set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);

-- name: find_themselves(start, limit)
-- How near the index says that the nearest vector is to vectors that are in it.
with sample as (
    select vector from {embeddings} where input_hash >= :start order by input_hash limit :limit
)
select count(*), count(*) filter (where nearest.distance < 0.001)
from sample
left join lateral (
    select e.vector <=> sample.vector as distance
    from {embeddings} e
    order by e.vector <=> sample.vector
    limit 1
) nearest on true;

-- name: count_shard_chunks(source_id, slot_low, slot_high)
-- Chunks of all of a shard's revisions, those that wait included.
select count(*)
from kb.document d
join kb.document_revision r on r.document_id = d.id
join kb.chunk c on c.revision_id = r.id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high;

-- name: newest_documents(source_id, slot_low, slot_high, limit)
-- Among the newest revisions of all shards: a shard nobody touched for long has none to show.
select d.path, r.title, r.media_type, octet_length(r.text), r.created_at
from (select * from kb.document_revision order by id desc limit 5000) r
join kb.document d on d.id = r.document_id
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
order by r.id desc
limit :limit;

-- name: newest_chunks(source_id, slot_low, slot_high, limit)
-- One chunk of each of the newest revisions.
select d.path, c.heading_path, c.token_count, c.text
from (select id, document_id from kb.document_revision order by id desc limit 5000) r
join kb.document d on d.id = r.document_id
join lateral (
    select * from kb.chunk where revision_id = r.id order by ordinal desc limit 1
) c on true
where d.source_id = :source_id and d.slot >= :slot_low and d.slot < :slot_high
order by r.id desc
limit :limit;

-- name: sample_hashes(start, limit)
select input_hash from {embeddings} where input_hash >= :start order by input_hash limit :limit;

-- name: let_no_index_answer()
select set_config('enable_indexscan', 'off', true);

-- name: search_as_readers_do(candidates)
select set_config('hnsw.iterative_scan', 'strict_order', true),
    set_config('hnsw.ef_search', :candidates, true);

-- name: distances_to_neighbours(hashes, neighbours)
-- How far the nearest vectors are from each of some, nearest first.
select asked.input_hash, array_agg(nearest.distance order by nearest.distance)
from {embeddings} asked
cross join lateral (
    select e.vector <=> asked.vector as distance
    from {embeddings} e
    order by e.vector <=> asked.vector
    limit :neighbours
) nearest
where asked.input_hash = any(:hashes)
group by asked.input_hash;

-- name: stems(language, words)
-- A word's stem by the dictionaries of a text search configuration, which may have one for ASCII
-- words and one for others. Null for a stop word; a word no dictionary knows stays as it is.
with dictionary as (
    select max(mapdict) filter (where maptokentype = 1) as of_ascii,
        max(mapdict) filter (where maptokentype = 2) as of_others
    from pg_ts_config_map
    where mapcfg = ('pg_catalog.' || :language)::regconfig and mapseqno = 1
)
select w.word,
    case
        when stem.lexemes is null then w.word
        when stem.lexemes = '{}' then null
        else stem.lexemes[1]
    end
from dictionary, unnest(:words ::text[]) as w (word),
    ts_lexize(case when w.word ~ '^[ -~]+$' then of_ascii else of_others end, w.word)
        as stem (lexemes);

-- name: find_lexical_source(source_id)
select analyser from kb.lexical_source where source_id = :source_id;

-- name: delete_lexical_source(source_id)
with postings as (delete from kb.lexical_posting where source_id = :source_id)
delete from kb.lexical_source where source_id = :source_id;

-- name: add_lexical_source(source_id, language, analyser)
insert into kb.lexical_source (source_id, language, analyser)
values (:source_id, :language, :analyser);

-- name: advance_lexical_source(source_id, chunks, tokens)
-- Reserve ordinals and a generation for chunks that go live.
update kb.lexical_source
set chunks = chunks + :chunks, tokens = tokens + :tokens,
    next_ordinal = next_ordinal + :chunks, generation = generation + 1
where source_id = :source_id
returning next_ordinal - :chunks, generation;

-- name: chunks_to_analyse(revision_ids)
select c.revision_id, r.title, c.heading_path, c.text
from kb.chunk c
join kb.document_revision r on r.id = c.revision_id
where c.revision_id = any(:revision_ids)
order by c.revision_id, c.ordinal;

-- name: live_chunks_to_analyse(source_id)
select c.revision_id, r.title, c.heading_path, c.text
from kb.document d
join kb.document_revision r on r.id = d.live_revision_id
join kb.chunk c on c.revision_id = r.id
where d.source_id = :source_id
order by c.revision_id, c.ordinal;

-- name: mark_dead(revision_ids)
-- What leaves is no longer counted at once; its postings go with a later merge.
with dead as (
    update kb.lexical_document
    set is_dead = true
    where revision_id = any(:revision_ids) and not is_dead
    returning source_id, chunks, tokens
),
sums as (
    select source_id, sum(chunks) as chunks, sum(tokens) as tokens from dead group by source_id
)
update kb.lexical_source l
set chunks = l.chunks - sums.chunks, tokens = l.tokens - sums.tokens
from sums
where l.source_id = sums.source_id;

-- name: lexical_states()
select l.source_id, l.chunks,
    (
        select coalesce(sum(d.chunks), 0)::int
        from kb.lexical_document d
        where d.source_id = l.source_id and d.is_dead
    ),
    l.next_ordinal, l.generation, l.merged_generation, l.base_generation, l.base_ordinal
from kb.lexical_source l
order by l.source_id;

-- name: postings_after(source_id, after, generation)
select term, block, ordinals, counts, lengths
from kb.lexical_posting
where source_id = :source_id and generation > :after and generation < :generation
order by term, block, generation;

-- name: delete_merged(source_id, after, generation)
delete from kb.lexical_posting
where source_id = :source_id and generation > :after and generation < :generation;

-- name: take_lexical_documents(source_id)
delete from kb.lexical_document
where source_id = :source_id
returning first_ordinal, chunks, tokens, revision_id, is_dead;

-- name: note_merge(source_id, generation, next_ordinal, full)
update kb.lexical_source
set generation = :generation, merged_generation = :generation, next_ordinal = :next_ordinal,
    base_generation = case when :full then :generation else base_generation end,
    base_ordinal = case when :full then :next_ordinal else base_ordinal end
where source_id = :source_id;

-- name: note_change()
update kb.index_state set generation = generation + 1;
