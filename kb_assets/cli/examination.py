"""What `kb doctor` looks at: one function for each thing, that says what it found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice

import psycopg

from kb_assets.cli import surroundings
from kb_assets.cli.finding import Finding
from kb_assets.database.connect import Database, DatabaseUrls, conninfo, resolve_urls
from kb_assets.database.migrate import current, head
from kb_assets.database.row_security import require_bound
from kb_assets.documents.open import open_source
from kb_assets.embeddings.open import open_embedder
from kb_assets.embeddings.space import list_spaces
from kb_assets.errors import KbError
from kb_assets.settings import Settings, SourceSettings

_LISTED_AT_MOST = 1_000_000


def examine(settings: Settings, *, probe: bool) -> Iterator[Finding]:
    """Look at everything a run needs, one thing after the other.

    Args:
        settings: The knowledge base's settings.
        probe: Ask the embedding provider for one tiny vector.
    """
    for source in settings.sources:
        yield from _guarded(f"source {source.name}", partial(_source, settings, source))
    if not settings.sources:
        yield Finding("sources", "fail", "kb.toml names none.", "Add [[sources]] to kb.toml.")
    yield from _guarded("provider", partial(_provider, settings, probe))
    yield from surroundings.variables(settings)
    yield from surroundings.disks(settings)
    yield from surroundings.dagster_files(settings)
    yield from surroundings.ui_port()
    yield from surroundings.alerts()
    yield from _guarded("backup", partial(surroundings.backups, settings))
    try:
        urls = resolve_urls(settings)
    except KbError as error:
        yield Finding.failed("database", error)
        return
    yield from _databases(settings, urls)


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turn an error into a finding, so that the other looks are taken all the same."""
    try:
        yield from look()
    except KbError as error:
        yield Finding.failed(name, error)
    except psycopg.Error as error:
        yield Finding(name, "fail", str(error).strip(), "See whether the server runs.")


def _source(settings: Settings, source: SourceSettings) -> Iterator[Finding]:
    entries = open_source(source, settings.root).entries()
    count = sum(1 for _ in islice(entries, _LISTED_AT_MOST))
    name = f"source {source.name}"
    if count:
        more = " or more" if count == _LISTED_AT_MOST else ""
        yield Finding(name, "ok", f"{count:,}{more} document{'s' * (count != 1)} in {source.uri}")
    else:
        fix = "Put documents there, or look at uri, include and exclude in kb.toml."
        yield Finding(name, "warn", f"no documents in {source.uri}", fix)


def _provider(settings: Settings, probe: bool) -> Iterator[Finding]:
    embedder = open_embedder(settings.embedding)
    model = embedder.model
    words = f"{model.provider} {model.name}, {model.dimensions} dimensions"
    if probe:
        from kb_assets.embeddings.request import embed_query

        embed_query(embedder, "probe")
        words += ", answers"
    if model.provider == "hash":
        fix = "For meaning, set embedding.provider in kb.toml to openai or local."
        yield Finding("provider", "warn", f"{words}: finds shared words, not meaning", fix)
    else:
        yield Finding("provider", "ok", words, "" if probe else "--probe asks it.")


def _databases(settings: Settings, urls: DatabaseUrls) -> Iterator[Finding]:
    reachable = []
    for name, url in (("writer", urls.writer), ("reader", urls.reader)):
        found = list(_guarded(f"database {name}", partial(_server, name, url)))
        reachable.append(all(finding.level != "fail" for finding in found))
        yield from found
    if all(reachable):
        yield from _guarded("schema", partial(_schema, settings, urls))
    if settings.callers:
        yield from _guarded("callers", partial(_callers, settings, urls))
    yield from _guarded("Dagster's database", partial(_dagster, settings, urls))


def _server(name: str, url: str) -> Iterator[Finding]:
    with Database(url) as database, database.connect_outside_pool() as connection:
        row = connection.execute(
            "select current_setting('server_version'), current_database(), current_user,"
            " (select extversion from pg_extension where extname = 'vector'),"
            " (select rolsuper from pg_roles where rolname = current_user)"
        ).fetchone()
    assert row is not None
    version, where, role, pgvector, is_super = row
    words = f"PostgreSQL {version.split()[0]}, pgvector {pgvector}, {where} as {role}"
    if is_super:
        fix = "Let KB_DATABASE_URL name a role of its own: a superuser may do anything."
        yield Finding(f"database {name}", "warn", f"{words}, a superuser", fix)
    else:
        yield Finding(f"database {name}", "ok", words)


def _schema(settings: Settings, urls: DatabaseUrls) -> Iterator[Finding]:
    with Database(urls.reader) as database:
        with database.transaction() as connection:
            found = current(connection)
        needed = head()
        if found == needed:
            yield Finding("schema", "ok", f"revision {found}")
            yield from _leftovers(settings, database)
        elif not settings.database_url and (found is None or found < needed):
            yield Finding("schema", "ok", f"revision {found or 'none'}; `kb index` brings {needed}")
        else:
            newer = found is not None and found > needed
            fix = "Upgrade kb-assets." if newer else "Run `kb upgrade`."
            words = f"revision {found or 'none'}, this code needs {needed}"
            yield Finding("schema", "fail", words, fix)


def _callers(settings: Settings, urls: DatabaseUrls) -> Iterator[Finding]:
    if not urls.caller:
        words = "kb.toml names some, and no role they search as"
        fix = "Make the role kb_caller (docs/deploy.md), and set KB_CALLER_DATABASE_URL."
        yield Finding("callers", "fail", words, fix)
        return
    with _connected(urls.caller) as connection:
        require_bound(connection.execute)
    yield Finding("callers", "ok", f"{len(settings.callers)} in kb.toml, kept to what they may see")


def _leftovers(settings: Settings, database: Database) -> Iterator[Finding]:
    named = [source.name for source in settings.sources]
    with database.transaction() as connection:
        rows = connection.execute(
            "select s.name, count(d.id) from kb.source s"
            " left join kb.document d on d.source_id = s.id and d.live_revision_id is not null"
            " where s.name <> all(%s) group by s.name order by s.name",
            (named,),
        ).fetchall()
    for name, documents in rows:
        words = (
            f"source {name} is not in kb.toml any more; {documents:,} documents are kept unsearched"
        )
        fix = "Put it back; or let it name an empty folder, and run `kb index --confirm-deletes`."
        yield Finding("leftovers", "warn", words, fix)
    for space in list_spaces(database):
        if space.state == "retired":
            fix = f"When nothing needs it any more: kb space drop {space.name}"
            yield Finding("leftovers", "warn", f"space {space.name} is retired", fix)


def _dagster(settings: Settings, urls: DatabaseUrls) -> Iterator[Finding]:
    with _connected(urls.dagster) as connection:
        row = connection.execute(
            "select current_database(), to_regclass('runs') is not null"
        ).fetchone()
        assert row is not None
        where, has_tables = row
        if not has_tables:
            yield Finding("Dagster's database", "ok", f"{where}, no runs yet")
            return
        stale = connection.execute(
            "select count(*) from runs where status in ('STARTED', 'STARTING', 'CANCELING')"
            " and update_timestamp < now() at time zone 'utc' - interval '1 day'"
        ).fetchone()
    yield Finding("Dagster's database", "ok", where)
    yield from surroundings.automation(settings, urls)
    if stale and stale[0]:
        words = f"{stale[0]} runs have been going on for more than a day"
        fix = "If their processes are gone, end them on the page Runs of `kb dev`."
        yield Finding("leftovers", "warn", words, fix)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(conninfo(url, "kb_doctor"), autocommit=True) as connection:
        yield connection
