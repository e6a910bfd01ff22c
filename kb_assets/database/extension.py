"""The extension that vectors need, brought to the version that the server offers."""

import re
from dataclasses import dataclass

import psycopg

from kb_assets.database.connect import conninfo, unavailable_when_lost

_ASK = (
    "select e.extversion, a.default_version from pg_extension e"
    " join pg_available_extensions a on a.name = e.extname where e.extname = 'vector'"
)


@dataclass(frozen=True, slots=True)
class ExtensionVersions:
    """Which versions of pgvector there are.

    Attributes:
        installed: In the database.
        offered: By the server.
    """

    installed: str
    offered: str

    @property
    def is_due(self) -> bool:
        """Whether an update would change something."""
        return _numbers(self.installed) < _numbers(self.offered)


def extension_versions(url: str) -> ExtensionVersions | None:
    """Return the versions of pgvector; None if it is not installed in the database.

    Raises:
        DatabaseUnavailableError: The server cannot be reached.
    """
    with (
        unavailable_when_lost(),
        psycopg.connect(conninfo(url, "kb_upgrade"), autocommit=True) as connection,
    ):
        row = connection.execute(_ASK).fetchone()
    return None if row is None else ExtensionVersions(*row)


def update_extension(url: str) -> bool:
    """Update pgvector, and return whether we may: on most servers only an administrator may.

    Raises:
        DatabaseUnavailableError: The server cannot be reached.
    """
    try:
        with (
            unavailable_when_lost(),
            psycopg.connect(conninfo(url, "kb_upgrade"), autocommit=True) as connection,
        ):
            connection.execute("alter extension vector update")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
