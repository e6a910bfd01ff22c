-- name: add_shard(source, slot_low, slot_high)
insert into kb.shard (source_id, slot_low, slot_high)
select id, :slot_low, :slot_high from kb.source where name = :source
on conflict (source_id, slot_low, slot_high) do nothing;

-- name: find_shard(source, slot_low, slot_high)
-- The source, and the shard's own row if it has one.
select s.id, sh.id
from kb.source s
left join kb.shard sh
    on sh.source_id = s.id and sh.slot_low = :slot_low and sh.slot_high = :slot_high
where s.name = :source;

-- name: prepare_lease_session(lock_timeout)
-- The connection is idle while the shard's work goes on: no server setting may end it. Raising
-- the fence waits for a writer that has just passed the guard, but not for ever.
select set_config('idle_session_timeout', '0', false),
       set_config('lock_timeout', :lock_timeout, false);

-- name: try_lock(lock_class, shard_id)
select pg_try_advisory_lock(:lock_class::int4, :shard_id::int4);

-- name: unlock(lock_class, shard_id)
select pg_advisory_unlock(:lock_class::int4, :shard_id::int4);

-- name: find_holders(lock_class, shard_id)
-- Other sessions that hold this shard, or one of another layout that shares slots with it.
select held.run_id, held.leased_at
from kb.shard mine
join kb.shard held
  on held.source_id = mine.source_id
 and held.slot_low < mine.slot_high
 and held.slot_high > mine.slot_low
join pg_locks l
  on l.locktype = 'advisory'
 and l.database = (select oid from pg_database where datname = current_database())
 and l.classid = :lock_class::int4::oid
 and l.objid = held.id::oid
 and l.objsubid = 2
 and l.granted
 and l.pid <> pg_backend_pid()
where mine.id = :shard_id
order by held.leased_at desc nulls last;

-- name: raise_fence(shard_id, run_id)
update kb.shard set fence = fence + 1, run_id = :run_id, leased_at = clock_timestamp()
where id = :shard_id
returning fence;

-- name: guard(shard_id, fence)
-- FOR SHARE: whoever wants to raise the fence waits until this transaction has ended.
select 1 from kb.shard where id = :shard_id and fence = :fence for share;
