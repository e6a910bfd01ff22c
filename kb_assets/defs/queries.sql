-- name: find_state(sources, lows, highs, space_schema)
-- What is different once anything was done to shards, or to what all of them share. Null if that
-- cannot be told: a listing was not read for certain, or documents wait. Without either, nothing
-- is done to a shard's documents before the next listing that differs; its texts are embedded by
-- calls only, and what becomes of any is noted by the generation.
with wanted as (
    select s.id as source_id, w.low, w.high, own.id, own.listing_fingerprint, own.listed_at
    from unnest(:sources ::text[], :lows ::int[], :highs ::int[]) as w (source, low, high)
    left join kb.source s on s.name = w.source
    left join kb.shard own
        on own.source_id = s.id and own.slot_low = w.low and own.slot_high = w.high
)
select concat_ws(
    ', ',
    'generation ' || state.generation,
    'call ' || (select coalesce(max(id), 0) from kb.embedding_call),
    (
        -- Of another layout: a run of one of those ends with forgetting what was listed.
        select 'leases ' || sum(other.fence)
        from kb.shard other
        join wanted w
            on w.source_id = other.source_id and w.id <> other.id
            and w.low < other.slot_high and w.high > other.slot_low
    ),
    (
        select 'listings ' || md5(
            string_agg(listing_fingerprint::text || listed_at, ' ' order by source_id, low)
        )
        from wanted
    ),
    (
        select string_agg(concat_ws(' ', s.state, s.name, 'indexes', found.oids), ', ' order by s.id)
        from kb.embedding_space s
        cross join lateral (
            select string_agg(i.indexrelid::text, ' ' order by i.indexrelid) as oids
            from pg_index i
            where i.indrelid = to_regclass(:space_schema || '.embedding_' || s.id) and i.indisvalid
        ) as found
        where s.state <> 'retired'
    )
)
from kb.index_state state
where not exists (select from wanted where listing_fingerprint is null)
    and not exists (
        select
        from wanted w
        join kb.document d on d.source_id = w.source_id and d.slot >= w.low and d.slot < w.high
        where d.pending_revision_id is not null or d.vanished_at is not null
    );

-- name: find_whole(sources, lows, highs)
-- What all shards have together, from what is counted anyway: no table of documents or chunks.
select
    (
        select coalesce(sum(h.found_documents), 0)::bigint
        from unnest(:sources ::text[], :lows ::int[], :highs ::int[]) as w (source, low, high)
        join kb.source s on s.name = w.source
        join kb.shard h on h.source_id = s.id and h.slot_low = w.low and h.slot_high = w.high
    ),
    (select coalesce(sum(chunks), 0)::bigint from kb.lexical_source),
    (select count(*) from kb.embedding_unused),
    calls.texts, calls.tokens, calls.cost_usd
from (
    select coalesce(sum(texts) filter (where outcome = 'answered'), 0)::bigint as texts,
        coalesce(sum(tokens), 0)::bigint as tokens,
        coalesce(sum(cost_usd), 0)::double precision as cost_usd
    from kb.embedding_call
) calls;

-- name: count_vectors(most)
select count(*) from (select from {embeddings} limit :most) counted;
