"""DuckDB for SQL that somebody else wrote: one SELECT over one table, and nothing else.

It gets no file but those it is lent, no network, no extension, and none of Python's variables;
and it may not change these settings.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from kb_assets.archive.relation import Aging
from kb_assets.errors import SettingsError

TABLE = "messages"
"""What a query calls the table."""

PLANNED_TABLE = f"memory.main.{TABLE}"
"""What a plan calls it."""

_MEMORY = "512MB"
_TYPES = {
    "text": "varchar",
    "jsonb": "varchar",
    "timestamptz": "timestamptz",
    "int4": "integer",
    "int8": "bigint",
    "bytea": "blob",
}
# Rules that look at what a table holds, or that scan it a second time to no purpose here.
_NOT_PLANNED = "statistics_propagation,late_materialization,top_n,join_filter_pushdown"


def declared(aging: Aging) -> str:
    """Return a table's columns as DuckDB declares them."""
    return ", ".join(f'"{column.name}" {_TYPES[column.type]}' for column in aging.columns)


def quoted(text: str) -> str:
    """Return a literal."""
    return "'" + text.replace("'", "''") + "'"


def plan_of(sql: str, aging: Aging) -> Any:  # noqa: ANN401
    """Return DuckDB's plan of a query, made over an empty table, as `explain` gives it.

    Raises:
        SettingsError: It is not one SELECT that can be run.
    """
    with _connected() as connection:
        connection.execute(f"create table {TABLE} ({declared(aging)})")
        connection.execute(f"set disabled_optimizers = '{_NOT_PLANNED}'")
        lock(connection, ())
        with told_to_the_author(aging):
            _require_one_select(sql)
            # Looked at, not run, so that errors quote the query as it was written.
            connection.sql(sql)
            row = connection.execute(f"explain (format json) {sql}").fetchone()
    return json.loads(row[1])


@contextmanager
def opened(spill: Path) -> Iterator[Any]:
    """Lend a connection that is still ours: to be filled, and then locked.

    Args:
        spill: The folder for what does not fit into memory.
    """
    with _connected(temp_directory=str(spill)) as connection:
        yield connection


def lock(connection: Any, files: Sequence[Path]) -> None:  # noqa: ANN401
    """Leave a connection to somebody else, with these files to read."""
    allowed = ", ".join(quoted(str(file)) for file in files)
    connection.execute(f"set allowed_paths = [{allowed}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


@contextmanager
def told_to_the_author(aging: Aging) -> Iterator[None]:
    """Tell DuckDB's errors to whoever wrote the query.

    Raises:
        SettingsError: The query is wrong, or asks for more than it may have.
    """
    try:
        yield
    except duckdb.PermissionException as error:
        raise SettingsError(
            "The query asks for more than messages.",
            why=str(error),
            fix=f"Read from `{TABLE}` only.",
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise SettingsError(
            f"The query needs more than {_MEMORY} of memory.",
            why=str(error).partition("\n")[0],
            fix="Narrow it by conversation_id or created_at, or aggregate.",
        ) from error
    except duckdb.Error as error:
        raise SettingsError(
            "The query cannot be run.",
            why=str(error),
            fix=f"Correct it. The columns of `{TABLE}` are {', '.join(aging.names)}.",
        ) from error


def _require_one_select(sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except TypeError:
        statements = []
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SettingsError(
            "The query is not one SELECT.",
            why=f"It has {len(statements)} statements." if len(statements) != 1 else "",
            fix=f"Write one, such as `from {TABLE} select count(*)`.",
        )


@contextmanager
def _connected(**settings: str) -> Iterator[Any]:
    config: dict[str, Any] = {
        "memory_limit": _MEMORY,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        **settings,
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set enable_progress_bar = false")
        yield connection
