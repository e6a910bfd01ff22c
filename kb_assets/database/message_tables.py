"""The tables of messages, of their archive, and of what was erased."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kb_assets.database.metadata import metadata, now

conversation = Table(
    "conversation",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    Column("user_id", Text(collation="C")),
    Column("messages", BigInteger, nullable=False, server_default=text("0")),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
    now("created_at"),
    Index("conversation_user_idx", "user_id", postgresql_where=text("user_id is not null")),
    postgresql_with={"fillfactor": "80"},
    comment="What a conversation has had in all, hot and cold, and when",
)


def _message_columns() -> list[Column[object]]:
    """Return the columns of a message; archive/relation.py has them in the same order."""
    return [
        Column("id", Text(collation="C"), nullable=False),
        Column("conversation_id", Text(collation="C"), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("role", Text, nullable=False),
        Column("content", Text, nullable=False),
        Column("language", Text),
        Column("intent", Text),
        Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
        Column("token_count", Integer, nullable=False),
        Column("ordinal", BigInteger),
        Column("total_bytes", BigInteger),
        Column("total_tokens", BigInteger),
    ]


message = Table(
    "message",
    metadata,
    *_message_columns(),
    PrimaryKeyConstraint("created_at", "id"),
    Index(None, "conversation_id", "ordinal"),
    postgresql_partition_by="range (created_at)",
    comment="A turn of a conversation, with its place and running totals; a partition a month",
)

message_late = Table(
    "message_late",
    metadata,
    *_message_columns(),
    PrimaryKeyConstraint("created_at", "id"),
    comment="Messages that came for a month that is closed; archived by a later segment",
)

archive_month = Table(
    "archive_month",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("relation", Text(collation="C"), nullable=False),
    Column("month", Date, nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("hold_until", DateTime(timezone=True)),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("run_id", Text),
    Column("leased_at", DateTime(timezone=True)),
    UniqueConstraint("relation", "month"),
    comment="A month of an aging table; once closed, nothing is written to its partition",
)

archive_segment = Table(
    "archive_segment",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("month_id", Integer, ForeignKey("kb.archive_month.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("low", DateTime(timezone=True), nullable=False),
    Column("high", DateTime(timezone=True), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'copying'")),
    Column("object_key", Text),
    Column("sha256", LargeBinary),
    Column("bytes", BigInteger),
    Column("rows", BigInteger),
    Column("row_hash_sum", LargeBinary),
    Column("conversation_low", Text(collation="C")),
    Column("conversation_high", Text(collation="C")),
    Column("manifest", JSONB),
    Column("reason", Text),
    now("started_at"),
    Column("committed_at", DateTime(timezone=True)),
    Column("retired_at", DateTime(timezone=True)),
    Index(None, "month_id"),
    CheckConstraint("source in ('month', 'late', 'rewrite')", name="source"),
    CheckConstraint(
        "state in ('copying', 'committed', 'restored', 'retired', 'stale', 'removed')",
        name="state",
    ),
    CheckConstraint(
        "state in ('copying', 'stale', 'removed') or manifest is not null", name="manifest"
    ),
    comment="The unit of copy, verify, delete: one object, described by its manifest",
)

erasure = Table(
    "erasure",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("subject_hash", LargeBinary, nullable=False),
    Column("run_id", Text, nullable=False),
    now("requested_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("receipt", JSONB, nullable=False, server_default=text("'{}'")),
    CheckConstraint("scope in ('conversation', 'user', 'document')", name="scope"),
    comment="The ledger of what was erased for good; every restore replays it",
)

erased_conversation = Table(
    "erased_conversation",
    metadata,
    Column("conversation_id", Text(collation="C"), primary_key=True),
    Column("erasure_id", BigInteger, ForeignKey("kb.erasure.id"), nullable=False),
    Index(None, "erasure_id"),
    comment="Conversations of which nothing is kept, shown or taken in any more",
)

erased_document = Table(
    "erased_document",
    metadata,
    Column("source_id", Integer, ForeignKey("kb.source.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text(collation="C"), nullable=False),
    Column("erasure_id", BigInteger, ForeignKey("kb.erasure.id"), nullable=False),
    PrimaryKeyConstraint("source_id", "path"),
    Index(None, "erasure_id"),
    comment="Documents that are not read any more, though their source may still have them",
)
