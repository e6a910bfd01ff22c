"""Postings are written by publishing alone; checking a foreign key cost more than storing them."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAME = "lexical_posting_source_id_fkey"


def upgrade() -> None:
    op.drop_constraint(_NAME, "lexical_posting", schema="kb", type_="foreignkey")


def downgrade() -> None:
    op.execute(
        "delete from kb.lexical_posting p where not exists"
        " (select from kb.lexical_source s where s.source_id = p.source_id)"
    )
    op.create_foreign_key(
        _NAME,
        "lexical_posting",
        "lexical_source",
        ["source_id"],
        ["source_id"],
        source_schema="kb",
        referent_schema="kb",
        ondelete="CASCADE",
    )
