-- name: limit_wait(wait)
select set_config('statement_timeout', :wait, true);

-- name: find_cached(key)
select value from kb.search_cache where key = :key and expires_at > now();

-- name: keep_cached(key, value, ttl_seconds)
-- Each new value makes room: more leave than come, for as long as any have expired. Not the row
-- itself: PostgreSQL does not say what comes of changing one twice in a statement.
with expired as (
    delete from kb.search_cache
    where key in (
        select key from kb.search_cache
        where expires_at <= now() and key <> :key
        order by expires_at
        limit 10
        for update skip locked
    )
)
insert into kb.search_cache (key, value, expires_at)
values (:key, :value, now() + make_interval(secs => :ttl_seconds))
on conflict (key) do update set value = excluded.value, expires_at = excluded.expires_at;
