"""A role of its own archives and erases messages, where there is one; the writer deletes none."""

from alembic import op

from kb_assets.database.message_rights import separate_archiver, unite_archiver
from kb_assets.database.months import define_functions, verbatim

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute = verbatim(op.get_bind())
    define_functions(execute)
    separate_archiver(execute)


def downgrade() -> None:
    unite_archiver(verbatim(op.get_bind()))
