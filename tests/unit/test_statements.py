from pathlib import Path

import pytest
from aiosql import SQLParseException

from kb_assets.database.statements import Statements


@pytest.fixture
def statements(tmp_path: Path):
    def write(sql: str) -> Statements:
        (tmp_path / "queries.sql").write_text(sql)
        return Statements.beside(str(tmp_path / "store.py"))

    return write


def test_parameters_and_casts(statements):
    found = statements(
        "-- name: find(ids, name)\n-- Why.\n"
        "select 1::text where id = any(:ids::int8[])\n  and n = :name;"
    )
    assert found("find").as_string() == (
        "select 1::text where id = any(%(ids)s::int8[])\n  and n = %(name)s"
    )


def test_identifiers_are_quoted_and_may_have_a_schema(statements):
    found = statements("-- name: count()\nselect {column} from {table}")
    statement = found("count", column='a"b', table=("kb_space", "embedding_1"))
    assert statement.as_string() == 'select "a""b" from "kb_space"."embedding_1"'


def test_quoted_text_stays_as_it_is(statements):
    sql = """select '{}'::jsonb, '{a}'::text[], ':no', "{odd}", 'it''s {x}'"""
    assert statements(f"-- name: quoted()\n{sql};")("quoted").as_string() == sql


def test_percent_signs_are_doubled_only_where_psycopg_looks_for_parameters(statements):
    found = statements(
        "-- name: plain()\nselect 7 % 3, 'a%';\n-- name: bound(n)\nselect 7 % :n, 'a%';\n"
    )
    assert found("plain").as_string() == "select 7 % 3, 'a%'"
    assert found("bound").as_string() == "select 7 %% %(n)s, 'a%%'"


def test_several_statements_have_their_names(statements):
    found = statements("-- name: one()\nselect 1;\n\n-- name: two()\nselect 2;\n")
    assert found.names == {"one", "two"}


def test_an_unknown_name_is_an_error(statements):
    with pytest.raises(KeyError, match="has no statement 'three'"):
        statements("-- name: one()\nselect 1")("three")


@pytest.mark.parametrize("identifiers", [{}, {"table": "a", "other": "b"}])
def test_identifiers_must_be_exactly_the_places(statements, identifiers):
    found = statements("-- name: one()\nselect 1 from {table}")
    with pytest.raises(KeyError, match="needs identifiers"):
        found("one", **identifiers)


def test_parameters_must_be_the_declared_ones(statements):
    with pytest.raises(SQLParseException, match="undeclared parameter"):
        statements("-- name: one(a)\nselect :a, :b")


def test_two_statements_of_one_name_are_an_error(statements):
    with pytest.raises(ValueError, match="two statements of one name"):
        statements("-- name: one()\nselect 1;\n-- name: one()\nselect 2;")
