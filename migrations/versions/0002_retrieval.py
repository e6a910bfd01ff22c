"""What retrieval needs: postings, evaluations, the query log, a cache; rows protected by caller."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kb_assets.database.row_security import CALLER, protect_rows, protect_vectors

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# In the order they can be dropped in.
TABLES = (
    "evaluation",
    "query_log",
    "search_cache",
    "index_state",
    "lexical_posting",
    "lexical_document",
    "lexical_source",
)
PROTECTED = ("source", "document", "document_revision", "chunk")


def upgrade() -> None:
    op.add_column(
        "document",
        sa.Column("live_tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        schema="kb",
    )
    op.execute(
        "update kb.document d set live_tags = r.tags from kb.document_revision r"
        " where r.id = d.live_revision_id and r.tags <> '{}'"
    )
    create_tables()
    for column in ("ordinals", "counts", "lengths"):
        op.execute(f"alter table kb.lexical_posting alter column {column} set storage external")
    # Not from 0: answers cached for a database that was here before must stay out of reach.
    op.execute(
        "insert into kb.index_state (generation)"
        " values ((extract(epoch from clock_timestamp()) * 1000000)::bigint)"
    )
    execute = op.get_bind().exec_driver_sql
    protect_rows(execute)
    for table in vector_tables():
        protect_vectors(execute, table)


def downgrade() -> None:
    for table in (*(f"kb.{name}" for name in PROTECTED), *vector_tables()):
        for policy in ("everything", "caller"):
            op.execute(f"drop policy if exists {policy} on {table}")
        op.execute(f"alter table {table} no force row level security")
        op.execute(f"alter table {table} disable row level security")
        if exists(CALLER):
            op.execute(f"revoke all on {table} from {CALLER}")
    for table in TABLES:
        op.drop_table(table, schema="kb")
    op.drop_column("document", "live_tags", schema="kb")
    if exists(CALLER):
        op.execute(f"revoke all on all tables in schema kb from {CALLER}")
        op.execute(f"revoke all on schema kb, kb_space from {CALLER}")


def exists(role: str) -> bool:
    found = op.get_bind().execute(
        sa.text("select 1 from pg_roles where rolname = :role"), {"role": role}
    )
    return found.first() is not None


def vector_tables() -> list[str]:
    spaces = op.get_bind().execute(sa.text("select id from kb.embedding_space order by id"))
    return [f"kb_space.embedding_{space_id}" for (space_id,) in spaces]


def create_tables() -> None:
    op.create_table(
        "lexical_source",
        sa.Column("source_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("analyser", sa.Text(), nullable=False),
        sa.Column("chunks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_ordinal", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("merged_generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("base_generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("base_ordinal", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["kb.source.id"],
            name="lexical_source_source_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source_id", name="lexical_source_pkey"),
        schema="kb",
        comment="What BM25 needs to know of a source as a whole; exact, changed by publishing",
    )
    op.create_table(
        "lexical_document",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("first_ordinal", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("is_dead", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["kb.lexical_source.source_id"],
            name="lexical_document_source_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source_id", "first_ordinal", name="lexical_document_pkey"),
        sa.UniqueConstraint("revision_id", name="lexical_document_revision_id_key"),
        schema="kb",
        comment="Which ordinals of its source the chunks of a published revision have",
    )
    op.create_index(
        "lexical_document_dead_idx",
        "lexical_document",
        ["source_id"],
        schema="kb",
        postgresql_where=sa.text("is_dead"),
    )
    op.create_table(
        "lexical_posting",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("ordinals", sa.LargeBinary(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("lengths", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["kb.lexical_source.source_id"],
            name="lexical_posting_source_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "source_id", "term", "block", "generation", name="lexical_posting_pkey"
        ),
        schema="kb",
        comment="Where a term occurs: little-endian arrays of uint16, uint8 and uint16",
    )
    op.create_table(
        "index_state",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("index_state_singleton_check")),
        sa.PrimaryKeyConstraint("singleton", name="index_state_pkey"),
        schema="kb",
        comment="Grows with everything that changes what a search may find",
    )
    op.create_table(
        "search_cache",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="search_cache_pkey"),
        schema="kb",
        comment="Answers to repeated searches, for those who have no Redis",
        prefixes=["UNLOGGED"],
    )
    op.create_index("search_cache_expires_at_idx", "search_cache", ["expires_at"], schema="kb")
    op.create_table(
        "query_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("caller", sa.Text(), nullable=True),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("space", sa.Text(), nullable=True),
        sa.Column(
            "filters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("seconds", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("notes", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="query_log_pkey"),
        schema="kb",
        comment="What was asked and found, for as long as search.log_days says",
    )
    op.create_index("query_log_asked_at_idx", "query_log", ["asked_at"], schema="kb")
    op.create_table(
        "evaluation",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "evaluated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("space_id", sa.Integer(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("questions_hash", sa.LargeBinary(), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("per_question", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seconds", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reasons", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint(
            "purpose in ('quality', 'comparison')", name=op.f("evaluation_purpose_check")
        ),
        sa.CheckConstraint("verdict in ('holds', 'fails')", name=op.f("evaluation_verdict_check")),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["kb.embedding_space.id"],
            name="evaluation_space_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="evaluation_pkey"),
        schema="kb",
        comment="How well golden questions were answered, and the verdict on it",
    )
    op.create_index("evaluation_evaluated_at_idx", "evaluation", ["evaluated_at"], schema="kb")
