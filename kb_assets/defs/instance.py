"""Dagster's instance for a run in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy.exc
from dagster._core.instance.ref import InstanceRef
from dagster_postgres.utils import DagsterPostgresException

from kb_assets.errors import DatabaseUnavailableError
from kb_assets.knowledge_base import KnowledgeBase

CONFIG = "dagster.yaml"


@contextmanager
def dagster_instance(knowledge_base: KnowledgeBase) -> Iterator[dg.DagsterInstance]:
    """Lend the instance that keeps a knowledge base's runs; the UI shows the same ones.

    What the console shows stays the caller's: Dagster's own capture of it is off.

    Raises:
        DatabaseUnavailableError: Its database cannot be reached.
    """
    settings = knowledge_base.settings
    root, state = settings.root.resolve(), settings.home_folder / "dagster"
    state.mkdir(parents=True, exist_ok=True)
    beside = root if (root / CONFIG).is_file() else state
    with storage_must_answer():
        reference = InstanceRef.from_dir(
            str(state),
            config_dir=str(beside),
            overrides=_overrides(knowledge_base.config_file, state),  # type: ignore[arg-type]
        )
        instance = dg.DagsterInstance.from_ref(reference)
    with instance:
        yield instance


@contextmanager
def storage_must_answer() -> Iterator[None]:
    """Tell that Dagster's database is out of reach as `DatabaseUnavailableError`.

    Raises:
        DatabaseUnavailableError: It is.
    """
    try:
        yield
    except (sqlalchemy.exc.DBAPIError, DagsterPostgresException) as error:
        cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
        raise DatabaseUnavailableError(
            "The database that keeps Dagster's runs could not be reached.",
            why=str(getattr(cause, "orig", None) or cause or error).strip(),
            fix="See whether the server runs and has a database `dagster`, or set "
            "KB_DAGSTER_DATABASE_URL.",
        ) from error
