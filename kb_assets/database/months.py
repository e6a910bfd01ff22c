"""Months of an aging table: made, frozen and dropped by functions the owner of the schema lends.

Runs write as a role that owns nothing, and partitions are made and dropped while they run. So
that is done by functions that run as their owner, and that do nothing else: they know which
tables age, and drop no month that can still be written to.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

AGING = ("message",)
"""The partitioned tables of schema `kb` whose months come and go."""

Execute = Callable[[str], Any]

_FUNCTION = """
create or replace function kb.{name}(relation text, month date) returns {returns}
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    part text := format('%s_%s', relation, to_char(month, 'YYYY_MM'));
begin
    if relation not in ({aging}) or month <> date_trunc('month', month::timestamp)::date then
        raise exception 'kb.{name}: % is no month of an aging table', part;
    end if;
    {body}
end $$
"""

_BODIES = {
    # Attaching lets others go on reading and writing; `partition of` would not.
    "add_month": (
        "void",
        """
    insert into kb.archive_month (relation, month) values (relation, month)
        on conflict on constraint archive_month_relation_month_key do nothing;
    perform from kb.archive_month m
        where m.relation = add_month.relation and m.month = add_month.month for update;
    if to_regclass(format('kb.%I', part)) is not null then
        return;
    end if;
    execute format(
        'create table kb.%I (like kb.%I including defaults including constraints)', part, relation
    );
    execute format(
        'alter table kb.%I attach partition kb.%I for values from (%L) to (%L)',
        relation, part, month::timestamp at time zone 'UTC',
        (month + interval '1 month')::timestamp at time zone 'UTC'
    );
    if exists (select from pg_roles where rolname = 'kb_archiver') then
        execute format('grant select, insert, delete on kb.%I to kb_archiver', part);
        if exists (select from pg_roles where rolname = 'kb_writer') then
            execute format('revoke delete on kb.%I from kb_writer', part);
        end if;
    end if;
    """,
    ),
    # Waits for writes under way; later ones are refused, whoever makes them and by whatever way.
    "freeze_month": (
        "boolean",
        """
    if to_regclass(format('kb.%I', part)) is null then
        return false;
    end if;
    if not exists (
        select from pg_trigger
        where tgrelid = format('kb.%I', part)::regclass and tgname = 'frozen'
    ) then
        execute format(
            'create trigger frozen before insert or update or delete on kb.%I'
            ' for each row execute function kb.refuse_write()', part
        );
        execute format(
            'create trigger frozen_whole before truncate on kb.%I'
            ' for each statement execute function kb.refuse_write()', part
        );
        execute format('alter table kb.%I enable always trigger frozen', part);
        execute format('alter table kb.%I enable always trigger frozen_whole', part);
    end if;
    return true;
    """,
    ),
    "thaw_month": (
        "void",
        """
    if to_regclass(format('kb.%I', part)) is not null then
        execute format('drop trigger if exists frozen on kb.%I', part);
        execute format('drop trigger if exists frozen_whole on kb.%I', part);
    end if;
    """,
    ),
    "drop_month": (
        "void",
        """
    if not exists (
        select from pg_trigger
        where tgrelid = to_regclass(format('kb.%I', part)) and tgname = 'frozen'
    ) then
        raise exception 'kb.%: only a frozen month can be dropped', part;
    end if;
    execute format('alter table kb.%I detach partition kb.%I', relation, part);
    execute format('drop table kb.%I', part);
    """,
    ),
}

_REFUSE = """
create or replace function kb.refuse_write() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '%.% is being archived and cannot be written to', tg_table_schema, tg_table_name
        using errcode = 'read_only_sql_transaction';
end $$
"""

_ROLES = ("kb_writer",)


def verbatim(connection: Connection) -> Execute:
    """Return what runs statements as they are: a percent sign in them stands for itself."""
    return lambda statement: connection.exec_driver_sql(
        statement, execution_options={"no_parameters": True}
    )


def define_functions(execute: Execute) -> None:
    """Define the functions, for those who may write messages; safe to run again.

    Where there is an archiver, `message_rights.separate_archiver` is run afterwards.

    Args:
        execute: Runs a statement as the owner of the tables.
    """
    aging = ", ".join(f"'{name}'" for name in AGING)
    execute(_REFUSE)
    for name, (returns, body) in _BODIES.items():
        execute(_FUNCTION.format(name=name, returns=returns, aging=aging, body=body.strip()))
        signature = f"kb.{name}(text, date)"
        execute(f"revoke all on function {signature} from public")
        for role in _ROLES:
            known = execute(f"select 1 from pg_roles where rolname = '{role}'")  # noqa: S608 (ours)
            if next(iter(known), None) is not None:
                execute(f"grant execute on function {signature} to {role}")


def drop_functions(execute: Execute) -> None:
    """Remove the functions again."""
    for name in _BODIES:
        execute(f"drop function if exists kb.{name}(text, date)")
    execute("drop function if exists kb.refuse_write()")
