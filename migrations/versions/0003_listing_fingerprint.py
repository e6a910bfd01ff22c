"""What a shard's listing was when all of it had been read: an equal one needs no looking into."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "shard", sa.Column("listing_fingerprint", sa.LargeBinary(), nullable=True), schema="kb"
    )


def downgrade() -> None:
    op.drop_column("shard", "listing_fingerprint", schema="kb")
