-- name: oldest_rows(low, high, limit)
-- Ids by their hash, as the ledger of erasures has them: what is shown is kept elsewhere.
select encode(sha256(convert_to(hot.id, 'UTF8')), 'hex'),
    encode(sha256(convert_to(hot.conversation_id, 'UTF8')), 'hex'),
    hot.role, hot.created_at, octet_length(hot.content), hot.token_count
from (
    (select id, conversation_id, role, created_at, content, token_count from {table}
        where created_at >= :low and created_at < :high order by created_at, id limit :limit)
    union all
    (select id, conversation_id, role, created_at, content, token_count from {late}
        where created_at >= :low and created_at < :high order by created_at, id limit :limit)
) as hot
order by hot.created_at, hot.id
limit :limit;
