"""What is known of a knowledge base at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kb_assets.embeddings.space import Space
from kb_assets.index.account import Account, Contents


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs.

    Attributes:
        kb: The version of this package.
        schema: The revision of the database's schema.
        postgres: The server's version.
        pgvector: The extension's version.
        database_bytes: The size of the database.
    """

    kb: str
    schema: str
    postgres: str
    pgvector: str
    database_bytes: int


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """A shard of a source.

    Attributes:
        source: The source's name.
        shard: The shard's key; the source's name if it is not cut.
        account: Where its documents are.
        contents: What readers can find; None where counting would take long.
        looked_at: When its source was last listed to the end, whether anything had changed or
            not; None if it never was, or nobody knows.
        is_busy: Whether a run is working on it.
    """

    source: str
    shard: str
    account: Account
    contents: Contents | None
    looked_at: datetime | None
    is_busy: bool


@dataclass(frozen=True, slots=True)
class SpaceHealth:
    """An embedding space.

    Attributes:
        space: The space.
        vectors: How many vectors it has, or about how many.
        missing: How many texts that readers see it could not answer with; None where counting
            would take long.
        indexed: Whether its index can be used.
        index_bytes: The index's size.
    """

    space: Space
    vectors: int
    missing: int | None
    indexed: bool
    index_bytes: int


@dataclass(frozen=True, slots=True)
class QualityHealth:
    """The last evaluation of the configured questions.

    Attributes:
        evaluated_at: When it was stored.
        verdict: `holds` or `fails`.
        reasons: Why it fails.
        questions: How many were asked.
        ndcg: nDCG@10 of hybrid search.
        recall: Recall@5 of it.
    """

    evaluated_at: datetime
    verdict: str
    reasons: tuple[str, ...]
    questions: int
    ndcg: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class BackupHealth:
    """The backups.

    Attributes:
        uri: Where they are.
        backups: How many are whole.
        newest: The newest that is whole, as far as is known; empty if none is.
        made_at: The moment whose state it holds.
        stored_bytes: Its size.
        is_signed: Whether it is signed with our key.
        drilled_at: When a backup was last proven by a drill.
        drill_seconds: How long the steps of that drill took.
        failed_drill: The newest backup, if its last drill failed; empty otherwise.
    """

    uri: str
    backups: int
    newest: str
    made_at: datetime | None
    stored_bytes: int
    is_signed: bool
    drilled_at: datetime | None
    drill_seconds: float
    failed_drill: str


@dataclass(frozen=True, slots=True)
class ArchiveHealth:
    """The archive of messages.

    Attributes:
        months_due: Months in the database that are old enough to leave it.
        months_overdue: Those among them that have been for longer than a week.
        objects: Of how many objects the archive consists.
        object_bytes: Their size.
        rows: How many messages are in them.
        open_erasures: Erasures that did not finish.
    """

    months_due: int
    months_overdue: int
    objects: int
    object_bytes: int
    rows: int
    open_erasures: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What embeddings cost.

    Attributes:
        texts: How many texts providers were asked for.
        tokens: What they counted.
        cost_usd: What that cost.
        month_cost_usd: What the last 30 days cost.
        saved_usd: What the live chunks would have cost besides, had each been paid for: those
            that repeat a text of another share its vector.
    """

    texts: int
    tokens: int
    cost_usd: float
    month_cost_usd: float
    saved_usd: float


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that somebody should do.

    Attributes:
        about: What it is about: a shard, `backup`, `quality` and so on.
        words: What is the matter.
        fix: What to do.
        is_urgent: Whether a monitor should call somebody; the rest is what to do next.
    """

    about: str
    words: str
    fix: str
    is_urgent: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """How a knowledge base is.

    Attributes:
        looked_at: The moment.
        seconds: How long looking took.
        versions: What runs.
        shards: Every shard, in the order of the settings.
        spaces: Every embedding space, oldest first.
        chunks: How many chunks there are.
        is_exact: Whether chunks and vectors were counted; a large knowledge base's are estimated.
        quality: The last evaluation; None if there was none.
        backup: The backups; None if their place does not answer.
        archive: The archive; None without one.
        spending: What embeddings cost.
        unknown: What could not be looked at, and why.
        concerns: What should be done, the urgent first.
    """

    looked_at: datetime
    seconds: float
    versions: Versions
    shards: tuple[ShardHealth, ...]
    spaces: tuple[SpaceHealth, ...]
    chunks: int
    is_exact: bool
    quality: QualityHealth | None
    backup: BackupHealth | None
    archive: ArchiveHealth | None
    spending: Spending
    unknown: Mapping[str, str]
    concerns: tuple[Concern, ...]

    @property
    def is_settled(self) -> bool:
        """Whether every document is accounted for and nothing waits."""
        return all(one.account.is_settled for one in self.shards)

    @property
    def is_urgent(self) -> bool:
        """Whether a monitor should call somebody."""
        return any(concern.is_urgent for concern in self.concerns)
