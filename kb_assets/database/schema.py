"""The tables of a knowledge base: the schema's one source of truth.

Migrations are compared with what is declared here. Tables made at run time, one
for each embedding space, live in the schema `kb_space` and are not declared. The tables of
messages and their archive are in `message_tables`.
"""

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

import kb_assets.database.message_tables  # noqa: F401 (declares its tables)
from kb_assets.database.metadata import metadata, now
from kb_assets.database.months import define_functions, verbatim
from kb_assets.database.names import SCHEMA
from kb_assets.database.row_security import protect_rows

source = Table(
    "source",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'")),
    comment="A named place documents come from",
)

processing_recipe = Table(
    "processing_recipe",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False, unique=True),
    Column("settings", JSONB, nullable=False),
    now("created_at"),
    comment="The versions and settings of parser, splitter and input text that make a revision",
)

shard = Table(
    "shard",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("source_id", Integer, ForeignKey("kb.source.id", ondelete="CASCADE"), nullable=False),
    Column("slot_low", SmallInteger, nullable=False),
    Column("slot_high", SmallInteger, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("run_id", Text),
    Column("leased_at", DateTime(timezone=True)),
    Column("found_documents", BigInteger),
    Column("listed_at", DateTime(timezone=True)),
    Column("listing_fingerprint", LargeBinary),
    UniqueConstraint("source_id", "slot_low", "slot_high"),
    CheckConstraint("0 <= slot_low and slot_low < slot_high and slot_high <= 4096", name="slots"),
    comment="A range of a source's slots, the fence of its last lease, and what its listing found",
)

document = Table(
    "document",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source_id", Integer, ForeignKey("kb.source.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text(collation="C"), nullable=False),
    Column("slot", SmallInteger, nullable=False),
    Column("live_revision_id", BigInteger, unique=True),
    Column("pending_revision_id", BigInteger),
    Column("missing_since", DateTime(timezone=True)),
    Column("vanished_at", DateTime(timezone=True)),
    now("created_at"),
    Column("live_tags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    UniqueConstraint("source_id", "path"),
    Index(None, "source_id", "slot"),
    Index(
        "document_pending_idx",
        "source_id",
        "slot",
        postgresql_where=text("pending_revision_id is not null or vanished_at is not null"),
    ),
    CheckConstraint("slot between 0 and 4095", name="slot"),
    postgresql_with={"fillfactor": "80"},
    comment="One entry of a source, for as long as it exists there",
)

document_version = Table(
    "document_version",
    metadata,
    Column(
        "document_id",
        BigInteger,
        ForeignKey("kb.document.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("token", Text(collation="C")),
    Column("content_hash", LargeBinary, nullable=False),
    Column("recipe_id", Integer, nullable=False),
    Index(None, "content_hash"),
    postgresql_with={"fillfactor": "60"},
    comment="What a document's content was when last read; without a token it is read again",
)

document_revision = Table(
    "document_revision",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "document_id", BigInteger, ForeignKey("kb.document.id", ondelete="CASCADE"), nullable=False
    ),
    Column("content_hash", LargeBinary, nullable=False),
    Column("recipe_id", Integer, ForeignKey("kb.processing_recipe.id"), nullable=False),
    Column("title", Text),
    Column("text", Text, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("tags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("media_type", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'parsed'")),
    Column("run_id", Text),
    now("created_at"),
    UniqueConstraint("document_id", "content_hash", "recipe_id"),
    Index("document_revision_metadata_idx", "metadata", postgresql_using="gin"),
    Index("document_revision_tags_idx", "tags", postgresql_using="gin"),
    CheckConstraint("state in ('parsed', 'chunked')", name="state"),
    comment="One state of a document's content under one recipe",
)

chunk = Table(
    "chunk",
    metadata,
    Column(
        "revision_id",
        BigInteger,
        ForeignKey("kb.document_revision.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("ordinal", Integer, nullable=False),
    Column("source_id", Integer, nullable=False),
    Column("input_hash", LargeBinary, nullable=False),
    Column("byte_start", Integer, nullable=False),
    Column("byte_end", Integer, nullable=False),
    Column("token_count", Integer, nullable=False),
    Column("heading_path", ARRAY(Text), nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("revision_id", "ordinal"),
    Index(None, "input_hash"),
    comment="A span of a revision's text",
)
embedding_space = Table(
    "embedding_space",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("fingerprint", LargeBinary, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("precision", Text, nullable=False),
    Column("query_prefix", Text, nullable=False, server_default=text("''")),
    Column("document_prefix", Text, nullable=False, server_default=text("''")),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'")),
    Column("state", Text, nullable=False, server_default=text("'building'")),
    now("created_at"),
    Column("promoted_at", DateTime(timezone=True)),
    CheckConstraint("state in ('building', 'live', 'retired')", name="state"),
    CheckConstraint("precision in ('halfvec', 'vector')", name="precision"),
    CheckConstraint("dimensions between 1 and 4000", name="dimensions"),
    Index(
        "embedding_space_live_idx", "state", unique=True, postgresql_where=text("state = 'live'")
    ),
    comment="Provider, model, dimensions, precision and prefixes: one table of vectors each",
)

embedding_unused = Table(
    "embedding_unused",
    metadata,
    Column("input_hash", LargeBinary, primary_key=True),
    now("since"),
    Index(None, "since"),
    comment="Input texts that no chunk had when they were last looked at",
)

embedding_claim = Table(
    "embedding_claim",
    metadata,
    Column(
        "space_id",
        Integer,
        ForeignKey("kb.embedding_space.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("input_hash", LargeBinary, nullable=False),
    Column("shard_id", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    now("claimed_at"),
    PrimaryKeyConstraint("space_id", "input_hash"),
    comment="Texts a run is paying for; void once its shard's lock is gone or its fence was raised",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("stage", Text, nullable=False),
    Column("document_id", BigInteger, ForeignKey("kb.document.id", ondelete="CASCADE")),
    Column("space_id", Integer, ForeignKey("kb.embedding_space.id", ondelete="CASCADE")),
    Column("content_hash", LargeBinary, nullable=False),
    Column("conditions", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    now("first_seen"),
    now("last_seen"),
    CheckConstraint("stage in ('read', 'parse', 'split', 'embed')", name="stage"),
    CheckConstraint("(stage = 'embed') = (space_id is not null)", name="space"),
    CheckConstraint("(stage = 'embed') = (document_id is null)", name="document"),
    Index(
        "quarantine_document_idx",
        "document_id",
        unique=True,
        postgresql_where=text("document_id is not null"),
    ),
    Index(
        "quarantine_text_idx",
        "space_id",
        "content_hash",
        unique=True,
        postgresql_where=text("space_id is not null"),
    ),
    comment="What cannot be processed, and why; tried again once its conditions have changed",
)

embedding_call = Table(
    "embedding_call",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("space_id", Integer, nullable=False),
    Column("source_id", Integer),
    Column("texts", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(14, 8), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("outcome", Text, nullable=False),
    now("called_at"),
    Index(None, "run_id"),
    CheckConstraint("outcome in ('answered', 'refused', 'failed')", name="outcome"),
    comment="What was asked of embedding providers, and what it cost",
)

lexical_source = Table(
    "lexical_source",
    metadata,
    Column(
        "source_id",
        Integer,
        ForeignKey("kb.source.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("language", Text, nullable=False),
    Column("analyser", Text, nullable=False),
    Column("chunks", Integer, nullable=False, server_default=text("0")),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("next_ordinal", Integer, nullable=False, server_default=text("0")),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("merged_generation", Integer, nullable=False, server_default=text("0")),
    Column("base_generation", Integer, nullable=False, server_default=text("0")),
    Column("base_ordinal", Integer, nullable=False, server_default=text("0")),
    comment="What BM25 needs to know of a source as a whole; exact, changed by publishing",
)

lexical_document = Table(
    "lexical_document",
    metadata,
    Column("source_id", Integer, nullable=False),
    Column("first_ordinal", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("revision_id", BigInteger, nullable=False, unique=True),
    Column("is_dead", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("source_id", "first_ordinal"),
    ForeignKeyConstraint(["source_id"], ["kb.lexical_source.source_id"], ondelete="CASCADE"),
    Index("lexical_document_dead_idx", "source_id", postgresql_where=text("is_dead")),
    comment="Which ordinals of its source the chunks of a published revision have",
)

lexical_posting = Table(
    "lexical_posting",
    metadata,
    Column("source_id", Integer, nullable=False),
    Column("term", Text(collation="C"), nullable=False),
    Column("block", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("ordinals", LargeBinary, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    Column("lengths", LargeBinary, nullable=False),
    PrimaryKeyConstraint("source_id", "term", "block", "generation"),
    # No foreign key: checking it, row by row, took longer than storing the rows. Whatever analyses
    # a source anew deletes these first.
    comment="Where a term occurs: little-endian arrays of uint16, uint8 and uint16",
)

index_state = Table(
    "index_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", name="singleton"),
    comment="Grows with everything that changes what a search may find",
)

search_cache = Table(
    "search_cache",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index(None, "expires_at"),
    prefixes=["UNLOGGED"],
    comment="Answers to repeated searches, for those who have no Redis",
)

query_log = Table(
    "query_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    now("asked_at"),
    Column("caller", Text),
    Column("question", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("space", Text),
    Column("filters", JSONB, nullable=False, server_default=text("'{}'")),
    Column("seconds", JSONB, nullable=False),
    Column("hits", JSONB, nullable=False),
    Column("notes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Index(None, "asked_at"),
    comment="What was asked and found, for as long as search.log_days says",
)

evaluation = Table(
    "evaluation",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    now("evaluated_at"),
    Column("run_id", Text, nullable=False),
    Column("space_id", Integer, ForeignKey("kb.embedding_space.id", ondelete="CASCADE")),
    Column("purpose", Text, nullable=False),
    Column("questions_hash", LargeBinary, nullable=False),
    Column("questions", Integer, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("per_question", JSONB, nullable=False),
    Column("seconds", JSONB, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reasons", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Index(None, "evaluated_at"),
    CheckConstraint("purpose in ('quality', 'comparison')", name="purpose"),
    CheckConstraint("verdict in ('holds', 'fails')", name="verdict"),
    comment="How well golden questions were answered, and the verdict on it",
)

_EXTERNAL = {
    "document_revision": ("text",),
    "lexical_posting": ("ordinals", "counts", "lengths"),
}
"""What is read whole, and compresses badly beside its speed."""

for _table, _columns in _EXTERNAL.items():
    for _column in _columns:
        event.listen(
            metadata.tables[f"{SCHEMA}.{_table}"],
            "after_create",
            DDL(  # type: ignore[no-untyped-call]
                f"alter table {SCHEMA}.{_table} alter column {_column} set storage external"
            ),
        )


def _secure(_: MetaData, connection: Connection, **__: object) -> None:
    protect_rows(connection.exec_driver_sql)
    define_functions(verbatim(connection))


event.listen(metadata, "after_create", _secure)
