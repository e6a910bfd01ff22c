"""Databases without tables, on each version of PostgreSQL that is supported."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kb_assets.database.connect import DatabaseUrls
from kb_assets.database.embedded import Major


@dataclass(frozen=True)
class Unmigrated:
    """A database with pgvector and no tables; `postgres` is its superuser's URL."""

    major: Major
    urls: DatabaseUrls
    postgres: str


@pytest.fixture(params=[16, 18], ids=["postgres16", "postgres18"])
def unmigrated(request, servers) -> Iterator[Unmigrated]:
    server = servers(request.param)
    with server.new_database(template=None) as name:
        yield Unmigrated(request.param, server.urls(name), server.url(name, "postgres"))
