"""Nothing that a caller gives becomes part of a statement."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from kb_assets.database.connect import DatabaseUrls
from kb_assets.errors import SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.conditions import Comparison
from kb_assets.settings import Settings

ATTACKS = [
    "or 1=1",
    "or true) or (true",
    "and 1/0 = 1",
    "; drop table kb.chunk cascade",
    "; delete from kb.document",
    "; update kb.document_revision set tags = '{stolen}'",
    "; truncate kb.quarantine",
    "; create table kb.stolen()",
    "; insert into kb.source (name, kind, uri) values ('x', 'x', 'x')",
    "union select rolname, rolpassword from pg_authid",
    "; copy kb.source to program 'touch /tmp/kb-stolen'",
    "; copy kb.document from '/etc/passwd'",
    "and pg_sleep(3600) is null",
    "; set role postgres",
    "; reset role; set row_security = off",
    "; select set_config('kb.tags', '*', false)",
    "; do $$ begin raise exception 'in'; end $$",
    "; commit; vacuum full",
    "::int",
    "::numeric > 0",
    "#>> '{0}' is null",
    "->> 'secret' is not null",
    "@? '$.** ? (@ like_regex \"s\")'",
    '$.secret ? (@ == "x" || 1 == 1)',
    ",secret}",
    "{where_0} {vector} {condition} {}",
    "%s %% %(vector)s %(where_0)s %(limit)s",
    ":vector :limit ?| array['x']",
    "\u2019 or \u201c1\u201d=\u201c1 \uff07 or 1=1 \u02bc",
    '[{"or": true}] \\u0000 \\x27 \\\' or 1=1 \ud800',
]
CONTEXTS = [
    "{}",
    "' {}",
    "' {} --",
    "')) {} --",
    '" {}',
    "\\' {} /*",
    "*/ {} --",
    "$$ {} $$",
    "x\x00' {}\x00",
    "E'\\'' {}\n--",
]
PAYLOADS = [context.replace("{}", attack) for attack, context in product(ATTACKS, CONTEXTS)]

HEADS = {
    "public.md": "tags: [api]\nowner: ann\nyear: 2024",
    "secret.md": "tags: [secret]\nowner: eve\nsecret: s\nowners: [ann, eve]",
    "plain.md": "",
}
ALL = set(HEADS)
CHANGES_WITH_SEARCHES = {"query_log", "search_cache"}


@pytest.fixture
def powerful(
    make_settings: Callable[..., Settings], folder: Path, database_urls: DatabaseUrls
) -> Iterator[KnowledgeBase]:
    """A knowledge base that searches as the owner of its tables: whatever gets in can do harm."""
    for path, head in HEADS.items():
        (folder / path).write_text(f"---\n{head}\n---\nAll about {path}.\n" if head else "All.\n")
    everything = make_settings().model_copy(update={"read_database_url": database_urls.migrator})
    with KnowledgeBase(everything) as kb:
        kb.index()
        yield kb


@pytest.fixture
def unchanged(powerful: KnowledgeBase, database_urls: DatabaseUrls) -> Iterator[None]:
    """Holds that all rows, tables, functions, policies and roles are as before."""
    before = picture(database_urls.migrator)
    assert sum(map(len, before.values())) > 50
    yield
    assert picture(database_urls.migrator) == before


def picture(url: str) -> dict[str, Any]:
    catalogues = {
        "columns": "select table_schema, table_name, column_name, data_type"
        " from information_schema.columns where table_schema in ('kb', 'kb_space', 'public')",
        "functions": "select oid, proname, prosrc from pg_proc",
        "policies": "select * from pg_policies",
        "roles": "select rolname, rolsuper, rolbypassrls from pg_roles",
        "indexes": "select schemaname, indexname, indexdef from pg_indexes",
        "settings": "select setdatabase, setrole, setconfig from pg_db_role_setting",
    }
    tables = "select schemaname, tablename from pg_tables where schemaname in ('kb', 'kb_space')"
    with psycopg.connect(url) as connection:
        found: dict[str, Any] = {
            name: sorted(connection.execute(query).fetchall(), key=str)  # type: ignore[call-overload]
            for name, query in catalogues.items()
        }
        for schema, table in connection.execute(tables).fetchall():
            if table not in CHANGES_WITH_SEARCHES:
                rows = SQL("select t::text from {} t").format(Identifier(schema, table))
                found[f"{schema}.{table}"] = sorted(connection.execute(rows).fetchall())
    return found


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def nothing_matches(payload: str) -> Iterator[dict[str, Any]]:
    """Every place for a value or a key: no document has this one, so nothing may be found."""
    yield {"path_prefix": payload}
    yield {"tags": (payload,)}
    yield {"tags": ("api", payload)}
    yield {"metadata": {"owner": payload}}
    yield {"metadata": {payload: "ann"}}
    yield {"metadata": {"owners": [payload], payload: {payload: payload}}}
    yield {"where": f"path = {quoted(payload)} or path starts with {quoted(payload)}"}
    yield {"where": f"source = {quoted(payload)} or source in ({quoted(payload)})"}
    yield {"where": f"title = {quoted(payload)} or media_type = {quoted(payload)}"}
    yield {"where": f"title contains {quoted(payload)} or tags has {quoted(payload)}"}
    yield {"where": f"metadata.owner in ({quoted(payload)}, {quoted(payload)})"}
    yield {"where": f"metadata.owner contains {quoted(payload)}"}
    yield {"where": f"metadata.owner between {quoted(payload)} and {quoted(payload)}"}
    yield {"where": f"metadata.{quoted(payload)} exists"}
    yield {"where": f"metadata.owner.{quoted(payload)} != 'x'"}
    yield {"where": f"metadata.{quoted(payload)}.{quoted(payload)} < 7"}
    yield {"where": {"field": "metadata.owner", "operator": "=", "value": payload}}
    yield {"where": Comparison(f"metadata.{quoted(payload)}", "contains", payload)}


def may_be_refused(payload: str) -> Iterator[dict[str, Any]]:
    """Every place where something else than a value is expected."""
    yield {"sources": (payload,)}
    yield {"mode": payload}
    yield {"where": payload}
    yield {"where": f"metadata.{payload} = 1"}
    yield {"where": f"metadata.owner {payload} 'ann'"}
    yield {"where": f"metadata.year = {payload}"}
    yield {"where": json.dumps(payload)}
    yield {"where": "{" + payload}
    yield {"where": {"field": payload, "operator": "=", "value": "x"}}
    yield {"where": {"field": f"metadata.{payload}", "operator": "=", "value": "x"}}
    yield {"where": {"field": "metadata.owner", "operator": payload, "value": "x"}}
    yield {"where": {payload: [{"field": "tags", "operator": "exists"}]}}


def found(kb: KnowledgeBase, text: str = "all about", **filters: Any) -> set[str]:
    return {hit.path for hit in kb.search(text, **{"mode": "vector", **filters})}


def test_there_are_300_payloads() -> None:
    assert len(set(PAYLOADS)) == 300


@pytest.mark.usefixtures("unchanged")
def test_values_and_keys_find_what_has_them_and_nothing_else(powerful: KnowledgeBase) -> None:
    assert found(powerful) == ALL
    for payload in PAYLOADS:
        for filters in nothing_matches(payload):
            try:
                assert found(powerful, **filters) == set(), filters
            except SettingsError:
                assert "\x00" in payload or "\ud800" in payload, filters
        assert found(powerful, where=f"not metadata.owner = {quoted(payload)}") == ALL
        some = found(powerful, where=f"metadata.owner != {quoted(payload)}")
        assert some == {"public.md", "secret.md"}


@pytest.mark.usefixtures("unchanged")
def test_whatever_is_no_value_is_refused(powerful: KnowledgeBase) -> None:
    for payload in PAYLOADS:
        for filters in may_be_refused(payload):
            with pytest.raises(SettingsError):
                found(powerful, **filters)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
def test_a_question_may_say_anything(powerful: KnowledgeBase, mode: Any) -> None:
    for payload in PAYLOADS:
        assert found(powerful, payload, tags=("api",), mode=mode) <= {"public.md"}
        assert found(powerful, payload, where='tags has "nobody"', mode=mode) == set()
