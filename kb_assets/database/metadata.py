"""What all declared tables share."""

from sqlalchemy import Column, DateTime, MetaData, func

from kb_assets.database.names import SCHEMA

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)


def now(name: str) -> Column[object]:
    """Return a column that says when a row was made."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())
