"""This project as a library: `fixed` splitting as the peers have it, or everything as it comes.

Without `--default`, the stages that make a folder searchable by words and exactly by vectors;
with it, `KnowledgeBase.index()` with the settings of a new knowledge base: Markdown splitting,
exact tokens, and the HNSW index.
"""

import sys
from pathlib import Path

from benchmarks.peers.embedding import DIMENSIONS, EMBEDDER
from benchmarks.peers.protocol import (
    CHUNK_CHARACTERS,
    Contestant,
    Texts,
    markdown_files,
    serve,
)
from kb_assets import Answer, KnowledgeBase, Model
from kb_assets.chunks.plan import split_settings
from kb_assets.chunks.splitters import split
from kb_assets.database.provision import MIGRATOR, READER, WRITER
from kb_assets.documents.parse import parse
from kb_assets.knowledge_base import ShardReport
from kb_assets.knowledge_base.indexing import index_shard
from kb_assets.settings import EmbeddingSettings

SETTINGS = """
database_url = "{writer}"
migration_database_url = "{migrator}"
read_database_url = "{reader}"
[[sources]]
name = "docs"
uri = "{folder}"
[embedding]
provider = "benchmarks.peers.kb_assets_index:Trivial"
"""

AS_PEERS_HAVE_IT = f"""
[splitting]
strategy = "fixed"
unit = "characters"
size = {CHUNK_CHARACTERS}
overlap = 0
"""

LIVE = """
select d.path, c.text, c.input_hash
from kb.document d
left join kb.chunk c on c.revision_id = d.live_revision_id
where d.live_revision_id is not null
"""


class Trivial:
    """The provider of embeddings."""

    usd_per_million_tokens = 0.0
    model = Model("benchmarks.peers.kb_assets_index:Trivial", "trivial", DIMENSIONS)

    def __init__(self, settings: EmbeddingSettings) -> None:
        pass

    def embed(self, texts: list[str]) -> Answer:
        return Answer(EMBEDDER.embed(texts), 0)


class KbAssets(Contestant):
    def __init__(self, *, default: bool) -> None:
        self.default = default

    def open(self, folder: Path, home: Path, url: str) -> None:
        self.folder = folder
        urls = {role.removeprefix("kb_"): url.replace(MIGRATOR, role) for role in (WRITER, READER)}
        settings = SETTINGS.format(folder=folder, migrator=url, **urls)
        config = home / "kb.toml"
        config.write_text(settings + ("" if self.default else AS_PEERS_HAVE_IT))
        self.kb = KnowledgeBase.open(config)
        self.kb.upgrade()
        self.inputs: set[bytes] = set()

    def index(self) -> dict[str, float]:
        run = self.kb.run(confirm_deletes=True)
        if self.default:
            reports = self.kb.index(run=run).shards
        else:
            reports = tuple(index_shard(run, shard) for shard in self.kb.settings.shards)
        for report in reports:
            for space in report.embedded:
                if space.failure is not None:
                    raise space.failure
        return _parts(reports[0])

    def stored(self) -> Texts:
        found: Texts = {}
        with self.kb.database.transaction() as connection:
            for path, text, input_hash in connection.execute(LIVE):
                texts = found.setdefault(path, set())
                if text is not None:
                    texts.add(text)
                    self.inputs.add(input_hash)
        return found

    def wanted(self) -> Texts:
        settings = split_settings(self.kb.settings.splitting)
        return {
            path: {chunk.text for chunk in split(document.text, settings)}
            for path in markdown_files(self.folder)
            for document in [parse(path, (self.folder / path).read_bytes())]
        }

    def flaw(self) -> str:
        status = self.kb.status()
        if not status.is_settled:
            return "not every document is accounted for"
        if EMBEDDER.distinct_texts != len(self.inputs):
            return f"{EMBEDDER.distinct_texts} texts embedded, {len(self.inputs)} ever stored"
        if missing := sum(space.missing for space in status.spaces):
            return f"{missing} texts have no vector"
        return ""


def _parts(report: ShardReport) -> dict[str, float]:
    return {
        "read": report.read.seconds,
        "chunk": report.chunked.seconds,
        "embed": sum(space.seconds for space in report.embedded),
        "publish": report.published.seconds,
        "words": report.published.lexical_seconds,
    }


if __name__ == "__main__":
    serve(KbAssets(default="--default" in sys.argv))
