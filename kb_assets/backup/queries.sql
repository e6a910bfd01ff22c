-- name: prepare_session()
-- A session waits while others work: no setting of the server may end it. Rows that row-level
-- security would hide are an error. What is printed must not depend on the server's settings.
select set_config(name, value, false)
from (
    values ('statement_timeout', '0'),
        ('idle_in_transaction_session_timeout', '0'),
        ('idle_session_timeout', '0'),
        ('transaction_timeout', '0'),
        ('lock_timeout', '600s'),
        ('row_security', 'off'),
        ('extra_float_digits', '1'),
        ('jit', 'off')
) as wanted (name, value)
join pg_settings using (name);

-- name: begin_snapshot()
begin isolation level repeatable read, read only;

-- name: hold_tables()
-- Takes no snapshot itself.
lock table {tables} in access share mode;

-- name: export_snapshot()
select pg_export_snapshot(), clock_timestamp();

-- name: use_snapshot()
set transaction snapshot {snapshot};

-- name: try_lock(lock_class, lock_id)
select pg_try_advisory_lock(:lock_class::int4, :lock_id::int4);

-- name: unlock(lock_class, lock_id)
select pg_advisory_unlock(:lock_class::int4, :lock_id::int4);

-- name: find_holder(lock_class, lock_id)
select a.application_name, a.backend_start
from pg_locks l
left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory'
    and l.database = (select oid from pg_database where datname = current_database())
    and l.classid = :lock_class::int4::oid and l.objid = :lock_id::int4::oid and l.objsubid = 2
    and l.granted;

-- name: find_tables()
-- Tables that hold rows, and how each stored column is hashed: as it is where the number of its
-- type is the same everywhere, by its type's own function where not. An array or a row would
-- tell the numbers of what it is made of, so these are hashed as text.
select n.nspname, c.relname, coalesce(stored.columns, '[]'), coalesce(stored.has_vectors, false),
    coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8,
    current_setting('block_size')::int8, coalesce(pg_table_size(c.oid), 0)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (
    select
        jsonb_agg(
            jsonb_build_array(
                a.attname,
                case
                    when t.oid < 16384 then null
                    when p.proname in ('array_send', 'record_send') then '[]'::jsonb
                    else jsonb_build_array(pn.nspname, p.proname)
                end
            )
            order by a.attnum
        ) as columns,
        bool_or(
            t.typname in ('vector', 'halfvec', 'sparsevec')
            and exists (
                select from pg_depend d
                join pg_extension e on e.oid = d.refobjid and e.extname = 'vector'
                where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
            )
        ) as has_vectors
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    join pg_proc p on p.oid = t.typsend
    join pg_namespace pn on pn.oid = p.pronamespace
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
) stored
where c.relkind = 'r' and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
order by n.nspname collate "C", c.relname collate "C";

-- name: find_unreadable()
-- Tables and sequences that this role cannot read, or may, but not all rows of.
select format('%I.%I', n.nspname, c.relname),
    has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
    and (
        not has_schema_privilege(n.oid, 'usage')
        or not has_table_privilege(c.oid, 'select')
        or c.relkind <> 'S' and row_security_active(c.oid)
    )
order by 1;

-- name: hash_rows()
select count(*), string_agg(sha256(record_send(row({columns}))), ''::bytea)
from only {table} t
where {part};

-- name: copy_rows()
copy {table} ({columns}) to stdout (format binary);

-- name: find_sequences()
select n.nspname, c.relname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'S' and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
order by n.nspname collate "C", c.relname collate "C";

-- name: read_sequence()
select {place} ::int, last_value, is_called from {sequence}

-- name: role_attributes()
-- What role r is, in words.
array_remove(
    array[
        case when r.rolbypassrls then 'bypassrls' end,
        case when r.rolcreatedb then 'createdb' end,
        case when r.rolcreaterole then 'createrole' end,
        case when r.rolinherit then 'inherit' end,
        case when r.rolcanlogin then 'login' end
    ],
    null
)

-- name: find_roles()
-- Who owns something here or may do something, their members, and all whose rights these have.
with recursive here as (
    select oid, datacl from pg_database where datname = current_database()
),
named as (
    select distinct s.refobjid as oid
    from pg_shdepend s, here
    where s.refclassid = 'pg_authid'::regclass
        and (
            s.dbid = here.oid
            or s.dbid = 0 and s.classid = 'pg_database'::regclass and s.objid = here.oid
        )
),
given as (
    select roleid, member from pg_auth_members where inherit_option or set_option
),
members as (
    select oid from named
    union
    select given.member from members join given on given.roleid = members.oid
),
related as (
    select oid from members
    union
    select given.roleid from related join given on given.member = related.oid
)
select r.rolname,
    {attributes},
    array(
        select distinct o.rolname::text collate "C"
        from given join pg_roles o on o.oid = given.roleid
        where given.member = r.oid and not o.rolsuper
        order by 1
    ),
    array(
        select distinct lower(acl.privilege_type) collate "C"
        from here, aclexplode(here.datacl) acl
        where acl.grantee = r.oid
        order by 1
    )
from related
join pg_roles r on r.oid = related.oid
where not r.rolsuper and r.rolname !~ '^pg_'
order by r.rolname collate "C";

-- name: describe_database()
select current_setting('server_version_num')::int, current_database(),
    pg_database_size(current_database()),
    (select jsonb_object_agg(extname, extversion) from pg_extension);

-- name: find_nearest(vector, most, limit)
-- The nearest live chunks, without any index: it gives no order by what is subtracted from one.
with near as materialized (
    select e.input_hash, 1 - (e.vector <=> :vector) as similarity
    from {embeddings} e
    order by similarity desc, e.input_hash
    limit :most
)
select s.name, d.path, c.ordinal, round(n.similarity::numeric, 5)::float8
from near n
join kb.chunk c on c.input_hash = n.input_hash
join kb.document d on d.live_revision_id = c.revision_id
join kb.source s on s.id = d.source_id
order by n.similarity desc, s.name collate "C", d.path collate "C", c.ordinal
limit :limit;

-- name: name_chunks(revision_ids, ordinals)
select s.name, d.path, w.ordinal
from unnest(:revision_ids ::bigint[], :ordinals ::int[])
    with ordinality as w (revision_id, ordinal, place)
join kb.document d on d.live_revision_id = w.revision_id
join kb.source s on s.id = d.source_id
order by w.place;

-- name: draw_chunks(limit)
-- Some live chunks and their vectors. Hashes are in no order that says anything: these are a
-- random draw, and the same one for the same content.
select left(c.text, 200), e.vector
from {embeddings} e
cross join lateral (
    select c.text
    from kb.chunk c
    join kb.document d on d.live_revision_id = c.revision_id
    where c.input_hash = e.input_hash
    order by c.text collate "C"
    limit 1
) c
order by e.input_hash
limit :limit;
