#!/bin/sh
# Creates what kb_assets needs on a server of its own: seven roles that are not superusers, two
# databases, pgvector. The image runs it once, on an empty volume; an administrator can run it
# against any PostgreSQL 16 or later:
#
#   PGHOST=db.example.com PGUSER=postgres PGPASSWORD=… \
#   MIGRATOR_PASSWORD=… WRITER_PASSWORD=… READER_PASSWORD=… CALLER_PASSWORD=… \
#   ARCHIVER_PASSWORD=… BACKUP_PASSWORD=… DAGSTER_PASSWORD=… sh deploy/initdb/10-roles.sh
#
# Run again, it creates what is missing and sets the passwords anew. The same roles and rights as
# kb_assets/database/provision.py gives the embedded server.
set -eu

: "${MIGRATOR_PASSWORD:?the password of kb_migrator, who changes the schema}"
: "${WRITER_PASSWORD:?the password of kb_writer, who indexes}"
: "${READER_PASSWORD:?the password of kb_reader, who searches}"
: "${CALLER_PASSWORD:?the password of kb_caller, who searches for callers with less in view}"
: "${ARCHIVER_PASSWORD:?the password of kb_archiver, who archives and erases messages}"
: "${BACKUP_PASSWORD:?the password of kb_backup, who reads everything for backups}"
: "${DAGSTER_PASSWORD:?the password of dagster, who keeps runs and events}"
export MIGRATOR_PASSWORD WRITER_PASSWORD READER_PASSWORD CALLER_PASSWORD BACKUP_PASSWORD
export ARCHIVER_PASSWORD DAGSTER_PASSWORD
export PGUSER="${PGUSER:-${POSTGRES_USER:-postgres}}"
export PGDATABASE="${PGDATABASE:-postgres}"

# psql takes the passwords from its environment: as arguments, every process could see them.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 <<'SQL'
\getenv migrator_password MIGRATOR_PASSWORD
\getenv writer_password WRITER_PASSWORD
\getenv reader_password READER_PASSWORD
\getenv caller_password CALLER_PASSWORD
\getenv archiver_password ARCHIVER_PASSWORD
\getenv backup_password BACKUP_PASSWORD
\getenv dagster_password DAGSTER_PASSWORD

select rolsuper as is_superuser, rolsuper or rolbypassrls as may_bypass,
    (rolsuper or rolbypassrls)
    and pg_has_role(current_user, 'pg_read_all_data', 'member with admin option') as may_read_all
from pg_roles where rolname = current_user \gset

select format('create role %I login', wanted.name)
from unnest(array['kb_migrator', 'kb_writer', 'kb_reader', 'kb_archiver', 'dagster']) as wanted (name)
where not exists (select from pg_roles where rolname = wanted.name) \gexec

alter role kb_migrator password :'migrator_password';
alter role kb_writer password :'writer_password';
alter role kb_reader password :'reader_password';
alter role kb_archiver password :'archiver_password';
alter role dagster password :'dagster_password';

-- The migrator changes tables the writer made at run time, and says who may read them.
grant kb_writer to kb_migrator;

-- The administrator of a managed server is no superuser: only a member may make them owners.
\if :is_superuser
\else
grant kb_migrator, dagster to current_user;
\endif

select format('create database %I owner %I', wanted.name, wanted.owner)
from (values ('kb', 'kb_migrator'), ('dagster', 'dagster')) as wanted (name, owner)
where not exists (select from pg_database where datname = wanted.name) \gexec

-- Row-level security binds kb_caller, and must not bind the writer: COPY would be refused.
\if :may_bypass
select 'create role kb_caller login'
where not exists (select from pg_roles where rolname = 'kb_caller') \gexec
alter role kb_caller password :'caller_password';
alter role kb_writer bypassrls;
grant connect, temporary on database kb to kb_caller;
\else
\echo 'kb_caller is not set up: this account may not give kb_writer BYPASSRLS. See docs/deploy.md.'
\endif

-- A backup holds all rows, or it is none.
\if :may_read_all
select 'create role kb_backup login'
where not exists (select from pg_roles where rolname = 'kb_backup') \gexec
alter role kb_backup bypassrls password :'backup_password';
grant pg_read_all_data to kb_backup;
grant connect, temporary on database kb to kb_backup;
\else
\echo 'kb_backup is not set up: this account may not give it BYPASSRLS and pg_read_all_data. See docs/deploy.md.'
\endif

revoke all on database kb, dagster from public;
grant connect, temporary on database kb to kb_migrator, kb_writer, kb_reader, kb_archiver;
grant connect, temporary on database dagster to dagster;

\connect kb
select 'create extension vector with schema public'
where not exists (select from pg_extension where extname = 'vector') \gexec

select 'alter extension vector update'
from pg_extension join pg_available_extensions on name = extname
where extname = 'vector' and extversion <> default_version \gexec

\if :is_superuser
\else
revoke kb_migrator, dagster from current_user;
\endif
SQL
