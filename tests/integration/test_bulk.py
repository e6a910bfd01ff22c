import datetime as dt

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from kb_assets.database.bulk import copy_rows

COLUMNS = ("hash", "tags", "meta", "number", "half", "full", "at", "note")
TYPES = ("bytea", "text[]", "jsonb", "int8", "halfvec", "vector", "timestamptz", "text")
NOW = dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)


def make_table(connection):
    connection.execute(
        "create temporary table rows (hash bytea, tags text[], meta jsonb, number int8,"
        ' half halfvec(3), "full" vector(3), at timestamptz, note text)'
    )


def test_every_type_comes_back_as_it_was(database):
    one, two = np.array([1, 2, 3]), np.float32([0.5, 0, -2])
    rows = [
        (b"\x00\xff", ["a", 'b"{},'], {"k": [1, None, "é"]}, 2**62, one, one / 4, NOW, "x"),
        (b"", [], [], -1, two, two / 4, NOW, None),
    ]
    with database.transaction() as connection:
        make_table(connection)
        assert copy_rows(connection, "rows", COLUMNS, TYPES, iter(rows)) == 2
        found = connection.execute("select * from rows").fetchall()
    for row, back in zip(rows, found, strict=True):
        assert (*back[:4], *back[6:]) == (*row[:4], *row[6:])
        assert back[4].to_list() == row[4].tolist()
        assert back[5].to_list() == row[5].tolist()


def test_a_table_in_a_schema(database):
    with database.transaction() as connection:
        count = copy_rows(
            connection,
            ("kb", "processing_recipe"),
            ("fingerprint", "settings"),
            ("bytea", "jsonb"),
            ((bytes([n]), Jsonb({"n": n})) for n in range(100)),
        )
        assert count == 100
        total = connection.execute("select sum((settings->>'n')::int) from kb.processing_recipe")
        assert total.fetchone() == (4950,)


def test_no_rows_are_no_error(database):
    with database.transaction() as connection:
        make_table(connection)
        assert copy_rows(connection, "rows", COLUMNS, TYPES, []) == 0


@pytest.mark.parametrize("bad", [np.array([1.0, 2.0]), np.array([1.0, np.nan, 3.0])])
def test_a_row_the_table_refuses_leaves_nothing(database, bad):
    good = np.array([1.0, 2.0, 3.0])
    with database.transaction() as connection:
        make_table(connection)
        with pytest.raises(psycopg.DataError), connection.transaction():
            copy_rows(connection, "rows", ("half",), ("halfvec",), [(good,), (bad,)])
        assert connection.execute("select count(*) from rows").fetchone() == (0,)


def test_vectors_of_two_dimensions_are_refused(database):
    with database.transaction() as connection:
        make_table(connection)
        with pytest.raises(ValueError, match="one dimension, not 2"), connection.transaction():
            copy_rows(connection, "rows", ("half",), ("halfvec",), [(np.zeros((1, 3)),)])


def test_types_must_match_columns(database):
    with database.transaction() as connection, pytest.raises(ValueError, match="2 columns"):
        copy_rows(connection, "rows", ("half", "note"), ("halfvec",), [])
