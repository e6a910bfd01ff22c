-- name: find_late_waiting(relation)
-- Late rows by month, and when the month was closed, or anything of it archived last.
select late.month, late.rows, greatest(max(s.committed_at), m.closed_at)
from (
    select date_trunc('month', created_at at time zone 'UTC')::date as month, count(*) as rows
    from {late}
    group by 1
) as late
left join kb.archive_month m on m.relation = :relation and m.month = late.month
left join kb.archive_segment s on s.month_id = m.id
group by late.month, late.rows, m.closed_at
order by late.month;

-- name: count_open_erasures(before)^
select count(*) from kb.erasure where finished_at is null and requested_at < :before;

-- name: count_objects(relation)^
select count(*)
from kb.archive_segment s join kb.archive_month m on m.id = s.month_id
where m.relation = :relation and s.state = 'committed';

-- name: has_rows(low, high)^
select exists (select from {table} where created_at >= :low and created_at < :high);

-- name: count_known(ids, moments)^
-- How many of these keys the hot table has.
select count(*)
from unnest(:ids::text[], :moments::timestamptz[]) as cold (id, created_at)
join {table} hot on hot.created_at = cold.created_at and hot.id = cold.id;
