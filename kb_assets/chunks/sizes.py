"""How long chunks are, for people to look at."""

from kb_assets.database.connect import Database
from kb_assets.database.statements import Statements
from kb_assets.fingerprints import Shard

SAMPLE_DOCUMENTS = 500

_statements = Statements.beside(__file__)


def chunk_sizes(database: Database, shard: Shard) -> dict[int, int]:
    """Return how many chunks have how many tokens, in some of a shard's documents."""
    named = {
        "source": shard.source,
        "slot_low": shard.slot_low,
        "slot_high": shard.slot_high,
        "documents": SAMPLE_DOCUMENTS,
    }
    with database.transaction() as connection:
        rows = connection.execute(_statements("chunk_sizes"), named).fetchall()
    return {int(tokens): int(count) for tokens, count in rows}
