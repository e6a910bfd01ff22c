-- name: create_texts()
create temporary table forecast_text (input_hash bytea primary key, tokens integer not null);
create temporary table incoming_text (input_hash bytea not null, tokens integer not null);

-- name: empty_incoming()
truncate incoming_text;

-- name: add_incoming()
insert into forecast_text (input_hash, tokens)
select input_hash, tokens from incoming_text
on conflict (input_hash) do nothing;

-- name: add_waiting(source, everything, slot_low, slot_high)
-- Texts that are in the database and have no vector: a run would ask for them, too.
insert into forecast_text (input_hash, tokens)
select c.input_hash, max(c.token_count)
from kb.document d
join kb.source s on s.id = d.source_id and s.name = :source
join kb.chunk c
    on c.revision_id = d.pending_revision_id or (:everything and c.revision_id = d.live_revision_id)
where d.slot >= :slot_low and d.slot < :slot_high and d.vanished_at is null
    and not exists (select from {embeddings} e where e.input_hash = c.input_hash)
group by c.input_hash
on conflict (input_hash) do nothing;

-- name: count_texts()
select count(*), coalesce(sum(tokens), 0) from forecast_text;

-- name: count_new_texts(space_id)
select count(*), coalesce(sum(f.tokens), 0)
from forecast_text f
where not exists (select from {embeddings} e where e.input_hash = f.input_hash)
    and not exists (
        select from kb.quarantine q
        where q.space_id = :space_id and q.content_hash = f.input_hash
    );
