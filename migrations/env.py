"""How Alembic reaches the database: by `kb upgrade`, or by hand with the settings of `kb.toml`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from kb_assets.database.connect import conninfo, resolve_urls
from kb_assets.database.migrate import VERSION_TABLE
from kb_assets.database.names import SCHEMA
from kb_assets.database.schema import metadata
from kb_assets.settings import Settings

MIGRATION_LOCK = 0x6B625F6D69677261
"""The advisory lock ("kb_migra") that keeps two upgrades apart."""


def only_our_schema(name, type_, parent_names):
    """Leave out what is made at run time, `kb_space` and months, and whatever is not ours."""
    if type_ == "schema":
        return name == SCHEMA
    return type_ != "table" or not re.fullmatch(r"message_\d{4}_\d\d", name)


@contextmanager
def connection_to_migrate() -> Iterator[psycopg.Connection]:
    given = context.config.attributes.get("psycopg")
    if given is not None:
        yield given
        return
    url = resolve_urls(Settings.load()).migrator
    with psycopg.connect(conninfo(url, "alembic")) as connection:
        yield connection


def migrate(given: psycopg.Connection) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: given, poolclass=StaticPool)
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        # The version table lives in our schema, and is there before the first step runs.
        connection.execute(text(f"create schema if not exists {SCHEMA}"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table=VERSION_TABLE,
            version_table_schema=SCHEMA,
            include_schemas=True,
            include_name=only_our_schema,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("select pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


if context.is_offline_mode():
    raise SystemExit("Migrations look at the database they change: run them without --sql.")
with connection_to_migrate() as connection:
    migrate(connection)
