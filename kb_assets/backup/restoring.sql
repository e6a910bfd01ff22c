-- name: try_lock(lock_class, lock_id)
select pg_try_advisory_lock(:lock_class::int4, :lock_id::int4);

-- name: describe_target()
select current_setting('server_version_num')::int / 10000, current_database(), current_user,
    (select jsonb_object_agg(extname, extversion) from pg_extension),
    (select jsonb_object_agg(name, default_version) from pg_available_extensions),
    (select jsonb_agg(nspname) from pg_namespace);

-- name: find_objects()
-- Whatever somebody made in this database: extensions and what belongs to them left out. Each
-- with the statement that drops it.
with made as (
    select 'pg_class'::regclass as class, c.oid, c.relnamespace as namespace
    from pg_class c
    where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and c.relpersistence <> 't'
    union all
    select 'pg_proc'::regclass, oid, pronamespace from pg_proc
    union all
    select 'pg_type'::regclass, t.oid, t.typnamespace
    from pg_type t left join pg_class c on c.oid = t.typrelid
    where t.typtype in ('d', 'e', 'r') or c.relkind = 'c'
)
select n.nspname, o.identity, format('drop %s if exists %s cascade', o.type, o.identity)
from made
join pg_namespace n on n.oid = made.namespace
cross join lateral pg_identify_object(made.class, made.oid, 0) o
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d
        where d.classid = made.class and d.objid = made.oid and d.deptype in ('e', 'i')
    )
order by n.nspname = 'kb_restore', 1, 2;

-- name: find_written_tables()
-- Tables of a knowledge base that rows were ever written to. Reading them might be forbidden.
select n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname in ('kb', 'kb_space') and pg_relation_size(c.oid) > 0;

-- name: end_killed()
-- Of a restore that was killed, programs and sessions may still be at work, and in the way.
select pg_terminate_backend(pid, 60000)
from pg_stat_activity
where datname = current_database() and usename = session_user and pid <> pg_backend_pid()
    and application_name in ('kb_assets restore', 'kb_assets pg_restore');

-- name: find_own_schemas()
-- Those that hold nothing of an extension.
select nspname
from pg_namespace n
where nspname !~ '^pg_' and nspname not in ('information_schema', 'public')
    and not exists (select from pg_extension e where e.extnamespace = n.oid);

-- name: drop_schema()
drop schema {schema} cascade;

-- name: find_claim()
select to_regclass('kb_restore.unfinished') is not null;

-- name: make_claim_schema()
create schema kb_restore;

-- name: make_claim_table()
create table kb_restore.unfinished (backup_id text not null, began_at timestamptz not null);

-- name: enter_claim(backup_id)
insert into kb_restore.unfinished values (:backup_id, now());

-- name: describe_roles(names)
select r.rolname,
    {attributes},
    array(
        select distinct o.rolname::text
        from pg_auth_members m join pg_roles o on o.oid = m.roleid
        where m.member = r.oid
    ),
    array(
        select wanted.name
        from unnest(array['connect', 'temporary', 'create']) as wanted (name)
        where has_database_privilege(r.oid, current_database(), wanted.name)
    )
from pg_roles r
where r.rolname = any(:names ::text[]);

-- name: find_not_ours(names)
-- Roles that we may not make owners of anything.
select rolname from pg_roles
where rolname = any(:names ::text[]) and not pg_has_role(oid, 'set')
order by 1;

-- name: create_role()
create role {role} {attributes};

-- name: grant_role()
grant {role} to {member};

-- name: grant_database()
grant {rights} on database {database} to {role};

-- name: truncate_table()
truncate only {table};

-- name: copy_rows_in()
-- Into a table that was emptied in the same transaction: rows need not be frozen once more.
copy {table} ({columns}) from stdin (format binary, freeze);

-- name: set_sequence()
select setval({sequence}::regclass, {value}, {is_called});

-- name: measure_vectors()
-- What the widest vector of each table takes.
select n.nspname, c.relname,
    max(case t.typname when 'halfvec' then 2 else 4 end * greatest(a.atttypmod, 0))
from pg_attribute a
join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_type t on t.oid = a.atttypid
where t.typname in ('vector', 'halfvec') and c.relkind = 'r' and a.attnum > 0
    and not a.attisdropped
group by 1, 2;

-- name: vacuum()
-- Where all rows of a page are known to be visible, indexes answer alone.
vacuum (analyze);

-- name: drop_tables()
drop table if exists {tables} cascade;

-- name: find_relation(schema, name)
select exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = :schema and c.relname = :name
);

-- name: find_version_owner()
select pg_get_userbyid(relowner), current_user from pg_class
where oid = 'kb.alembic_version'::regclass;

-- name: enter_version(revision)
insert into kb.alembic_version (version_num) values (:revision);

-- name: let_claim_be_used()
grant usage on schema kb_restore to public;

-- name: make_closing()
-- An upgrade enters its revision in the transaction that makes the tables. Until what was erased
-- is erased again, nobody may take the database for whole.
create function kb_restore.close() returns trigger language plpgsql as $$
begin
    delete from kb.alembic_version;
    return null;
end
$$;

-- name: close_when_upgraded()
create constraint trigger kb_restore_close after update on kb.alembic_version
deferrable initially deferred for each row execute function kb_restore.close();

-- name: drop_closing()
drop trigger if exists kb_restore_close on kb.alembic_version;

-- name: find_owned_sequences()
-- Sequences, the column that each fills, and which way it goes.
select s.seqrelid::regclass::text, n.nspname, c.relname, a.attname, s.seqincrement > 0
from pg_sequence s
join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid
    and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
join pg_class c on c.oid = d.refobjid
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
where n.nspname !~ '^pg_';

-- name: find_overtaken()
-- Whether the next value of a sequence may be in the table already.
select coalesce(case when is_called then last_value < used else last_value <= used end, false)
from {sequence}, (select max({column}) as used from {table}) as filled;

-- name: find_indexes()
select n.nspname, t.relname, i.relname, m.amname,
    x.indisvalid and x.indisready and x.indislive,
    pg_get_expr(x.indpred, x.indrelid),
    keys.plain, keys.ordered, keys.are_default,
    (
        select format('operator(%I.%s)', o_n.nspname, o.oprname)
        from pg_opclass oc
        join pg_amop ao on ao.amopfamily = oc.opcfamily and ao.amopstrategy = 1
            and ao.amoppurpose = 'o'
        join pg_operator o on o.oid = ao.amopopr and o.oprname in ('<=>', '<->')
        join pg_namespace o_n on o_n.oid = o.oprnamespace
        where oc.oid = x.indclass[0]
    )
from pg_index x
join pg_class i on i.oid = x.indexrelid and i.relkind = 'i'
join pg_class t on t.oid = x.indrelid
join pg_namespace n on n.oid = t.relnamespace
join pg_am m on m.oid = i.relam
cross join lateral (
    select array_agg(k.plain order by k.number) as plain,
        array_agg(
            k.plain
            || case when l.oid is null then ''
                else format(' collate %I.%I', k_n.nspname, l.collname) end
            || case when x.indoption[k.number - 1] & 1 = 1 then ' desc' else ' asc' end
            || case when x.indoption[k.number - 1] & 2 = 2 then ' nulls first'
                else ' nulls last' end
            order by k.number
        ) as ordered,
        bool_and(c.opcdefault) as are_default
    from (
        select number, pg_get_indexdef(x.indexrelid, number, false) as plain
        from generate_series(1, x.indnkeyatts) as number
    ) k
    join pg_opclass c on c.oid = x.indclass[k.number - 1]
    left join pg_collation l on l.oid = x.indcollation[k.number - 1]
    left join pg_namespace k_n on k_n.oid = l.collnamespace
) keys
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (
        select from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = t.oid and d.deptype = 'e'
    )
order by 1, 2, 3;

-- name: look_through_indexes()
-- Plans that go by an index if there is any way to.
select set_config(name, 'off', true)
from (
    values ('enable_seqscan'), ('enable_bitmapscan'), ('enable_sort'), ('enable_incremental_sort')
) as wanted (name);

-- name: look_through_tables()
select set_config('enable_seqscan', 'on', true), set_config('enable_indexscan', 'off', true),
    set_config('enable_indexonlyscan', 'off', true);

-- name: count_in_table()
select count(*) from only {table} where {condition};

-- name: count_in_order()
select count(*) from (select from only {table} where {condition} order by {keys}) as ordered;

-- name: find_themselves()
-- Some vectors, and of how many the index finds one that is the same.
select count(*), count(*) filter (where near.distance < 0.001)
from (
    select {key} as key from only {table}
    where {key} {distance} {key} < 0.001 and {condition}
    limit 20
) as drawn
left join lateral (
    select {key} {distance} drawn.key as distance
    from only {table}
    where {condition}
    order by {key} {distance} drawn.key
    limit 1
) as near on true;

-- name: find_amcheck()
select n.nspname
from pg_extension e join pg_namespace n on n.oid = e.extnamespace
where e.extname = 'amcheck';

-- name: check_index()
select {check}({index}::regclass, true);

-- name: check_table()
select count(*), min(msg) from {check}({table}::regclass);

-- name: create_database()
create database {database} template template0 encoding 'UTF8';

-- name: close_database()
revoke all on database {database} from public;

-- name: find_databases()
select datname from pg_database where not datistemplate;

-- name: measure_databases()
select sum(pg_database_size(oid))::bigint from pg_database where not datistemplate;
