"""A small knowledge base on a real database, and Dagster's view of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.database.connect import DAGSTER_VARIABLE, DatabaseUrls
from kb_assets.database.embedded import Major
from kb_assets.defs.build import build_definitions
from kb_assets.defs.launch import IndexRun, run_index
from kb_assets.defs.resources import KnowledgeBaseResource
from kb_assets.defs.storage import KnowledgeBaseStorage
from kb_assets.settings import Settings
from tests.conftest import Server

SOURCE = '[[sources]]\nname = "{name}"\nuri = "{name}"\nshards = {shards}\n'


def write_config(folder: Path, **sources: int) -> Path:
    """Write a kb.toml with sources of so many shards, and their folders."""
    tables = [SOURCE.format(name=name, shards=shards) for name, shards in sources.items()]
    file = folder / "kb.toml"
    file.write_text('owners = ["team:docs"]\n' + "\n".join(tables))
    for name in sources:
        (folder / name).mkdir(exist_ok=True)
    return file


def write_documents(folder: Path, count: int, *, words: str = "lighthouses and tides") -> None:
    for number in range(count):
        text = f"# Document {number}\n\nNumber {number} is about {words}.\n\n## More\n\nPart two.\n"
        (folder / f"document-{number}.md").write_text(text)


@pytest.fixture(scope="session")
def template(servers: Callable[[Major], Server]) -> Iterator[str]:
    """A migrated database in which Dagster has made its tables, which takes it a second."""
    server = servers(16)
    with server.new_database() as name:
        KnowledgeBaseStorage.at(server.url(name, "dagster"))
        yield name


@pytest.fixture
def database_urls(servers: Callable[[Major], Server], template: str) -> Iterator[DatabaseUrls]:
    server = servers(16)
    with server.new_database(template) as name:
        yield server.urls(name)


@pytest.fixture
def environment(database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every process of the test is told: where the databases are."""
    monkeypatch.setenv("KB_DATABASE_URL", database_urls.writer)
    monkeypatch.setenv("KB_READ_DATABASE_URL", database_urls.reader)
    monkeypatch.setenv("KB_MIGRATION_DATABASE_URL", database_urls.migrator)
    monkeypatch.setenv("KB_ARCHIVE_DATABASE_URL", database_urls.archiver)
    monkeypatch.setenv("KB_BACKUP_DATABASE_URL", database_urls.backup)
    monkeypatch.setenv(DAGSTER_VARIABLE, database_urls.dagster)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def kb(environment: None, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """One source of four shards, with twelve documents."""
    file = write_config(tmp_path, wiki=4)
    write_documents(tmp_path / "wiki", 12)
    with KnowledgeBase.open(file) as knowledge_base:
        yield knowledge_base


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a source of four shards, without a database."""
    return Settings.load(write_config(tmp_path, wiki=4))


def index(kb: KnowledgeBase, **options: bool) -> IndexRun:
    return run_index(kb, kb.settings.shards, on_event=lambda _: None, **options)


def job(kb: KnowledgeBase, selection: dg.AssetSelection) -> dg.JobDefinition:
    """Return a job over some of the knowledge base's definitions."""
    resource = KnowledgeBaseResource(kb.settings, knowledge_base=kb)
    chosen = dg.Definitions(jobs=[dg.define_asset_job("chosen", selection=selection)])
    merged = dg.Definitions.merge(build_definitions(kb.settings, resource), chosen)
    return merged.resolve_job_def("chosen")


def evaluate_all(
    kb: KnowledgeBase, *checks: tuple[str, str], **tags: str
) -> dict[str, dg.AssetCheckEvaluation]:
    """Run checks by themselves and return what each said."""
    keys = [dg.AssetCheckKey(dg.AssetKey(asset), check) for asset, check in checks]
    names = {name.replace("_", "/", 1): value for name, value in tags.items()}
    result = job(kb, dg.AssetSelection.checks(*keys)).execute_in_process(
        tags=names, raise_on_error=False
    )
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def evaluate(kb: KnowledgeBase, asset: str, check: str, **tags: str) -> dg.AssetCheckEvaluation:
    """Run one check by itself and return what it said."""
    return evaluate_all(kb, (asset, check), **tags)[check]
