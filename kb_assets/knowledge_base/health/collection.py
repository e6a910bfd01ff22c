"""Everything that is known of a knowledge base, in a second."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

import psycopg

from kb_assets.errors import KbError
from kb_assets.knowledge_base.health import concerns as told
from kb_assets.knowledge_base.health import looks
from kb_assets.knowledge_base.health.facts import Concern, Health

if TYPE_CHECKING:
    from kb_assets.knowledge_base.knowledge_base import KnowledgeBase
    from kb_assets.settings import Settings

Found = TypeVar("Found")

PATIENCE_SECONDS = 10.0
"""How long the place of backups may take: a bucket that is away takes a minute to give up."""

BACKUP, HISTORY = "backup", "Dagster's database"


def collect(kb: "KnowledgeBase") -> Health:
    """Return how a knowledge base is; what cannot be looked at keeps nothing else from being told.

    Raises:
        SettingsError: The settings cannot be used.
        SchemaError: The database's schema is not this code's.
        DatabaseUnavailableError: The database cannot be reached.
        DatabaseRefusedError: It cannot serve us.
    """
    started, now, settings = time.monotonic(), datetime.now(UTC), kb.settings
    reader, unknown = kb.reader, dict[str, str]()
    backups = begun(lambda: looks.look_at_backups(kb.backup_place))
    history = begun(lambda: looks.last_looks(kb.urls.dagster, settings))
    chunks, is_exact = looks.about_chunks(reader)
    versions = looks.find_versions(reader)
    spaces = looks.look_at_spaces(reader, is_exact=is_exact)
    quality = looks.look_at_quality(reader)
    retention_days = settings.archive.retention_days if settings.archive else None
    archive = looks.look_at_archive(reader, retention_days, now)
    looked = ended(history, HISTORY, unknown) or {}
    shards = looks.look_at_shards(reader, settings, looked, is_exact=is_exact)
    if is_exact:
        chunks = sum(one.contents.chunks for one in shards if one.contents)
    vectors = sum(one.vectors for one in spaces if one.space.state == "live")
    health = Health(
        looked_at=now,
        seconds=0.0,
        versions=versions,
        shards=shards,
        spaces=spaces,
        chunks=chunks,
        is_exact=is_exact,
        quality=quality,
        backup=ended(backups, BACKUP, unknown),
        archive=archive,
        spending=looks.look_at_spending(reader, max(0, chunks - vectors)),
        unknown=unknown,
        concerns=(),
    )
    found = sorted(_concerns(health, settings), key=lambda one: not one.is_urgent)
    return replace(health, concerns=tuple(found), seconds=time.monotonic() - started)


def _concerns(health: Health, settings: "Settings") -> Iterator[Concern]:
    now, hours = health.looked_at, settings.schedule.max_age_hours
    yield from chain.from_iterable(told.shard_concerns(one, hours, now) for one in health.shards)
    yield from told.space_concerns(health.spaces)
    yield from told.quality_concerns(health.quality, settings)
    if health.backup is not None:
        yield from told.backup_concerns(health.backup, settings.backup, now)
    if health.archive is not None:
        yield from told.archive_concerns(health.archive)
    yield from told.unknown_concerns(health.unknown)
    yield from told.refusal_concerns(health.shards)


def begun(look: Callable[[], Found]) -> "Future[Found]":
    """Look in a thread that nobody waits for at the end; `ended` returns what was seen.

    Args:
        look: What looks.
    """
    future = Future[Found]()

    def work() -> None:
        try:
            future.set_result(look())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="kb-health", daemon=True).start()
    return future


def ended(future: "Future[Found]", about: str, unknown: dict[str, str]) -> Found | None:
    """Return what was seen, or note why nothing was.

    Args:
        future: What was begun.
        about: What it is about.
        unknown: Where it is noted.
    """
    try:
        return future.result(PATIENCE_SECONDS)
    except TimeoutError:
        unknown[about] = f"it did not answer within {PATIENCE_SECONDS:.0f} seconds."
    except KbError as error:
        unknown[about] = " ".join(filter(None, (error.what, error.why)))
    except psycopg.Error as error:
        unknown[about] = str(error).strip()
    return None
