"""Everything the first release needs: the tables, where vectors go, and who may do what."""
# ruff: noqa: E501

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kb_assets.errors import DatabaseRefusedError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# In the order they can be dropped in.
TABLES = (
    "chunk",
    "quarantine",
    "document_version",
    "document_revision",
    "shard",
    "embedding_claim",
    "document",
    "source",
    "processing_recipe",
    "embedding_unused",
    "embedding_space",
    "embedding_call",
)


def upgrade() -> None:
    create_tables()
    # Texts are read whole and compress badly beside their speed: kept as they are.
    op.execute("alter table kb.document_revision alter column text set storage external")
    op.execute("create schema kb_space")
    op.execute("comment on schema kb_space is 'One table of vectors for each embedding space'")
    grant_to_writer()
    grant_to_reader()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema="kb")
    op.execute("drop schema kb_space cascade")
    for role in ("kb_writer", "kb_reader"):
        if exists(role):
            op.execute(f"alter default privileges in schema kb revoke all on tables from {role}")
            op.execute(f"alter default privileges in schema kb revoke all on sequences from {role}")
            op.execute(f"revoke all on all tables in schema kb from {role}")
            op.execute(f"revoke all on schema kb from {role}")


def exists(role: str) -> bool:
    """Say whether a role is there: a server with one role for everything needs no grants."""
    found = op.get_bind().execute(
        sa.text("select 1 from pg_roles where rolname = :role"), {"role": role}
    )
    return found.first() is not None


def grant_to_writer() -> None:
    """Rows of every table, also of those that later migrations make; tables of its own."""
    if not exists("kb_writer"):
        return
    op.execute("grant usage on schema kb to kb_writer")
    op.execute("grant usage, create on schema kb_space to kb_writer")
    op.execute("grant select, insert, update, delete on all tables in schema kb to kb_writer")
    op.execute("revoke insert, update, delete on kb.alembic_version from kb_writer")
    op.execute(
        "alter default privileges in schema kb"
        " grant select, insert, update, delete on tables to kb_writer"
    )
    # Identities reserved ahead of a COPY.
    op.execute("grant usage on all sequences in schema kb to kb_writer")
    op.execute("alter default privileges in schema kb grant usage on sequences to kb_writer")


def grant_to_reader() -> None:
    """Everything to read, also what later migrations and the writer make."""
    if not exists("kb_reader"):
        return
    for schema in ("kb", "kb_space"):
        op.execute(f"grant usage on schema {schema} to kb_reader")
        op.execute(f"grant select on all tables in schema {schema} to kb_reader")
        op.execute(
            f"alter default privileges in schema {schema} grant select on tables to kb_reader"
        )
    if exists("kb_writer"):
        require_membership("kb_writer")
        op.execute(
            "alter default privileges for role kb_writer in schema kb_space"
            " grant select on tables to kb_reader"
        )


def require_membership(role: str) -> None:
    bind = op.get_bind()
    member = sa.text("select current_user, pg_has_role(:role, 'usage')")
    user, allowed = bind.execute(member, {"role": role}).one()
    if not allowed:
        raise DatabaseRefusedError(
            f"Role {user} cannot say who reads the tables that {role} makes.",
            why=f"It is not a member of {role}.",
            fix=f"Run `grant {role} to {user}` as an administrator.",
        )


def create_tables() -> None:
    op.create_table(
        "embedding_call",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("space_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("texts", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=14, scale=8), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column(
            "called_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "outcome in ('answered', 'refused', 'failed')",
            name=op.f("embedding_call_outcome_check"),
        ),
        sa.PrimaryKeyConstraint("id", name="embedding_call_pkey"),
        schema="kb",
        comment="What was asked of embedding providers, and what it cost",
    )
    op.create_index(
        "embedding_call_run_id_idx", "embedding_call", ["run_id"], unique=False, schema="kb"
    )
    op.create_table(
        "embedding_space",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("query_prefix", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("document_prefix", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("state", sa.Text(), server_default=sa.text("'building'"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "precision in ('halfvec', 'vector')", name=op.f("embedding_space_precision_check")
        ),
        sa.CheckConstraint(
            "state in ('building', 'live', 'retired')", name=op.f("embedding_space_state_check")
        ),
        sa.CheckConstraint(
            "dimensions between 1 and 4000", name=op.f("embedding_space_dimensions_check")
        ),
        sa.PrimaryKeyConstraint("id", name="embedding_space_pkey"),
        sa.UniqueConstraint("fingerprint", name="embedding_space_fingerprint_key"),
        sa.UniqueConstraint("name", name="embedding_space_name_key"),
        schema="kb",
        comment="Provider, model, dimensions, precision and prefixes: one table of vectors each",
    )
    op.create_index(
        "embedding_space_live_idx",
        "embedding_space",
        ["state"],
        unique=True,
        schema="kb",
        postgresql_where=sa.text("state = 'live'"),
    )
    op.create_table(
        "embedding_unused",
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("input_hash", name="embedding_unused_pkey"),
        schema="kb",
        comment="Input texts that no chunk had when they were last looked at",
    )
    op.create_index(
        "embedding_unused_since_idx", "embedding_unused", ["since"], unique=False, schema="kb"
    )
    op.create_table(
        "processing_recipe",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="processing_recipe_pkey"),
        sa.UniqueConstraint("fingerprint", name="processing_recipe_fingerprint_key"),
        schema="kb",
        comment="The versions and settings of parser, splitter and input text that make a revision",
    )
    op.create_table(
        "source",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="source_pkey"),
        sa.UniqueConstraint("name", name="source_name_key"),
        schema="kb",
        comment="A named place documents come from",
    )
    op.create_table(
        "document",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("slot", sa.SmallInteger(), nullable=False),
        sa.Column("live_revision_id", sa.BigInteger(), nullable=True),
        sa.Column("pending_revision_id", sa.BigInteger(), nullable=True),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("vanished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("slot between 0 and 4095", name=op.f("document_slot_check")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["kb.source.id"], name="document_source_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="document_pkey"),
        sa.UniqueConstraint("live_revision_id", name="document_live_revision_id_key"),
        sa.UniqueConstraint("source_id", "path", name="document_source_id_path_key"),
        schema="kb",
        comment="One entry of a source, for as long as it exists there",
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "document_pending_idx",
        "document",
        ["source_id", "slot"],
        unique=False,
        schema="kb",
        postgresql_where=sa.text("pending_revision_id is not null or vanished_at is not null"),
    )
    op.create_index(
        "document_source_id_slot_idx", "document", ["source_id", "slot"], unique=False, schema="kb"
    )
    op.create_table(
        "embedding_claim",
        sa.Column("space_id", sa.Integer(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("shard_id", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column(
            "claimed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["kb.embedding_space.id"],
            name="embedding_claim_space_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("space_id", "input_hash", name="embedding_claim_pkey"),
        schema="kb",
        comment="Texts a run is paying for; void once its shard's lock is gone or its fence was raised",
    )
    op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("slot_low", sa.SmallInteger(), nullable=False),
        sa.Column("slot_high", sa.SmallInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("found_documents", sa.BigInteger(), nullable=True),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "0 <= slot_low and slot_low < slot_high and slot_high <= 4096",
            name=op.f("shard_slots_check"),
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["kb.source.id"], name="shard_source_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="shard_pkey"),
        sa.UniqueConstraint(
            "source_id", "slot_low", "slot_high", name="shard_source_id_slot_low_slot_high_key"
        ),
        schema="kb",
        comment="A range of a source's slots, the fence of its last lease, and what its listing found",
    )
    op.create_table(
        "document_revision",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("recipe_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'parsed'"), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state in ('parsed', 'chunked')", name=op.f("document_revision_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["kb.document.id"],
            name="document_revision_document_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["recipe_id"], ["kb.processing_recipe.id"], name="document_revision_recipe_id_fkey"
        ),
        sa.PrimaryKeyConstraint("id", name="document_revision_pkey"),
        sa.UniqueConstraint(
            "document_id",
            "content_hash",
            "recipe_id",
            name="document_revision_document_id_content_hash_recipe_id_key",
        ),
        schema="kb",
        comment="One state of a document's content under one recipe",
    )
    op.create_index(
        "document_revision_metadata_idx",
        "document_revision",
        ["metadata"],
        unique=False,
        schema="kb",
        postgresql_using="gin",
    )
    op.create_index(
        "document_revision_tags_idx",
        "document_revision",
        ["tags"],
        unique=False,
        schema="kb",
        postgresql_using="gin",
    )
    op.create_table(
        "document_version",
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Text(collation="C"), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("recipe_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["kb.document.id"],
            name="document_version_document_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", name="document_version_pkey"),
        schema="kb",
        comment="What a document's content was when last read; without a token it is read again",
        postgresql_with={"fillfactor": "60"},
    )
    op.create_index(
        "document_version_content_hash_idx",
        "document_version",
        ["content_hash"],
        unique=False,
        schema="kb",
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=True),
        sa.Column("space_id", sa.Integer(), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("conditions", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "first_seen",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "(stage = 'embed') = (document_id is null)", name=op.f("quarantine_document_check")
        ),
        sa.CheckConstraint(
            "(stage = 'embed') = (space_id is not null)", name=op.f("quarantine_space_check")
        ),
        sa.CheckConstraint(
            "stage in ('read', 'parse', 'split', 'embed')", name=op.f("quarantine_stage_check")
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["kb.document.id"],
            name="quarantine_document_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["kb.embedding_space.id"],
            name="quarantine_space_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="quarantine_pkey"),
        schema="kb",
        comment="What cannot be processed, and why; tried again once its conditions have changed",
    )
    op.create_index(
        "quarantine_document_idx",
        "quarantine",
        ["document_id"],
        unique=True,
        schema="kb",
        postgresql_where=sa.text("document_id is not null"),
    )
    op.create_index(
        "quarantine_text_idx",
        "quarantine",
        ["space_id", "content_hash"],
        unique=True,
        schema="kb",
        postgresql_where=sa.text("space_id is not null"),
    )
    op.create_table(
        "chunk",
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("byte_start", sa.Integer(), nullable=False),
        sa.Column("byte_end", sa.Integer(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("heading_path", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision_id"],
            ["kb.document_revision.id"],
            name="chunk_revision_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("revision_id", "ordinal", name="chunk_pkey"),
        schema="kb",
        comment="A span of a revision's text",
    )
    op.create_index("chunk_input_hash_idx", "chunk", ["input_hash"], unique=False, schema="kb")
