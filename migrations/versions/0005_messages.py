"""Messages by the month, and what their archive knows of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kb_assets.database.months import define_functions, drop_functions, verbatim

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# In the order they can be dropped in.
TABLES = (
    "erased_document",
    "erased_conversation",
    "erasure",
    "archive_segment",
    "archive_month",
    "message_late",
    "message",
    "conversation",
)


def upgrade() -> None:
    create_tables()
    define_functions(verbatim(op.get_bind()))


def downgrade() -> None:
    drop_functions(verbatim(op.get_bind()))
    for table in TABLES:
        op.drop_table(table, schema="kb")


def create_tables() -> None:
    op.create_table(
        "archive_month",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("relation", sa.Text(collation="C"), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hold_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="archive_month_pkey"),
        sa.UniqueConstraint("relation", "month", name="archive_month_relation_month_key"),
        schema="kb",
        comment="A month of an aging table; once closed, nothing is written to its partition",
    )
    op.create_table(
        "conversation",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=True),
        sa.Column("messages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="conversation_pkey"),
        schema="kb",
        comment="What a conversation has had in all, hot and cold, and when",
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "conversation_user_idx",
        "conversation",
        ["user_id"],
        unique=False,
        schema="kb",
        postgresql_where=sa.text("user_id is not null"),
    )
    op.create_table(
        "erasure",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("receipt", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint("scope in ('conversation', 'user', 'document')", name="scope"),
        sa.PrimaryKeyConstraint("id", name="erasure_pkey"),
        schema="kb",
        comment="The ledger of what was erased for good; every restore replays it",
    )
    op.create_table(
        "message",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("intent", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("created_at", "id", name="message_pkey"),
        schema="kb",
        comment="A turn of a conversation, with its place and running totals; a partition a month",
        postgresql_partition_by="range (created_at)",
    )
    op.create_index(
        "message_conversation_id_ordinal_idx",
        "message",
        ["conversation_id", "ordinal"],
        unique=False,
        schema="kb",
    )
    op.create_table(
        "message_late",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("intent", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("created_at", "id", name="message_late_pkey"),
        schema="kb",
        comment="Messages that came for a month that is closed; archived by a later segment",
    )
    op.create_table(
        "archive_segment",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("month_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("low", sa.DateTime(timezone=True), nullable=False),
        sa.Column("high", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'copying'"), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("row_hash_sum", sa.LargeBinary(), nullable=True),
        sa.Column("conversation_low", sa.Text(collation="C"), nullable=True),
        sa.Column("conversation_high", sa.Text(collation="C"), nullable=True),
        sa.Column("manifest", postgresql.JSONB(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("source in ('month', 'late', 'rewrite')", name="source"),
        sa.CheckConstraint(
            "state in ('copying', 'committed', 'restored', 'retired', 'stale', 'removed')",
            name="state",
        ),
        sa.CheckConstraint(
            "state in ('copying', 'stale', 'removed') or manifest is not null",
            name="manifest",
        ),
        sa.ForeignKeyConstraint(
            ["month_id"], ["kb.archive_month.id"], name="archive_segment_month_id_fkey"
        ),
        sa.PrimaryKeyConstraint("id", name="archive_segment_pkey"),
        schema="kb",
        comment="The unit of copy, verify, delete: one object, described by its manifest",
    )
    op.create_index(
        "archive_segment_month_id_idx", "archive_segment", ["month_id"], unique=False, schema="kb"
    )
    op.create_table(
        "erased_conversation",
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["kb.erasure.id"], name="erased_conversation_erasure_id_fkey"
        ),
        sa.PrimaryKeyConstraint("conversation_id", name="erased_conversation_pkey"),
        schema="kb",
        comment="Conversations of which nothing is kept, shown or taken in any more",
    )
    op.create_index(
        "erased_conversation_erasure_id_idx",
        "erased_conversation",
        ["erasure_id"],
        unique=False,
        schema="kb",
    )
    op.create_table(
        "erased_document",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["kb.erasure.id"], name="erased_document_erasure_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["kb.source.id"],
            name="erased_document_source_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source_id", "path", name="erased_document_pkey"),
        schema="kb",
        comment="Documents that are not read any more, though their source may still have them",
    )
    op.create_index(
        "erased_document_erasure_id_idx",
        "erased_document",
        ["erasure_id"],
        unique=False,
        schema="kb",
    )
