"""The names of the schemas, for those who need nothing else of `schema.py`.

They stand alone because SQLAlchemy, which declares the tables, is slow to import, and no search
needs it.
"""

SCHEMA = "kb"
"""Where the tables are that migrations make."""

SPACE_SCHEMA = "kb_space"
"""Where the tables of vectors are, one for each embedding space."""
