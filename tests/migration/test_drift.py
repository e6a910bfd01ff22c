"""The migrations make what `schema.py` declares, and nothing else."""

import re
import subprocess

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from kb_assets.database import migrate
from kb_assets.database.embedded import embedded_binaries
from kb_assets.database.schema import metadata


def engine(url):
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def dump(unmigrated, url):
    """What is in schema `kb`, without what depends on how or when it got there."""
    command = [embedded_binaries(unmigrated.major) / "pg_dump", "--schema-only", "--schema=kb"]
    options = ["--no-owner", "--no-privileges", "--exclude-table=kb.alembic_version", url]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return [line for line in lines if not re.match(r"--|SET |SELECT |\\(un)?restrict|$", line)]


def test_alembic_sees_no_difference(unmigrated):
    migrate.upgrade(unmigrated.urls.migrator)
    with engine(unmigrated.urls.migrator).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: name == "kb" if kind == "schema" else True,
                "version_table_schema": "kb",
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_migrated_and_declared_are_the_same_to_pg_dump(unmigrated, servers):
    migrate.upgrade(unmigrated.urls.migrator)
    with servers(unmigrated.major).new_database(template=None) as name:
        declared = servers(unmigrated.major).url(name, "kb_migrator")
        with engine(declared).begin() as connection:
            connection.execute(text("create schema kb"))
            metadata.create_all(connection)
        assert dump(unmigrated, unmigrated.urls.migrator) == dump(unmigrated, declared)


def test_step_by_step_and_at_once_are_the_same(unmigrated, servers):
    migrate.upgrade(unmigrated.urls.migrator)
    with servers(unmigrated.major).new_database(template=None) as name:
        stepwise = servers(unmigrated.major).url(name, "kb_migrator")
        for revision in migrate.revisions():
            migrate.upgrade(stepwise, revision)
            with psycopg.connect(stepwise) as connection:
                assert migrate.current(connection) == revision
        assert dump(unmigrated, unmigrated.urls.migrator) == dump(unmigrated, stepwise)


def test_revisions_are_those_that_alembic_sees():
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_folder()))
    scripts = ScriptDirectory.from_config(config)
    ordered = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(ordered)) == migrate.revisions()
    assert scripts.get_current_head() == migrate.head()
