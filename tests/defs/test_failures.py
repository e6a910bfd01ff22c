"""Which errors Dagster tries again, which it does not, and what it is told."""

from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import pytest

from kb_assets.defs.failures import MAX_RETRIES, failure_of, retry_of
from kb_assets.defs.metadata import cell, table
from kb_assets.defs.resources import KnowledgeBaseResource, Observer
from kb_assets.errors import (
    LeaseLostError,
    ProviderUnavailableError,
    ShardBusyError,
    SourceError,
    TransientError,
)
from kb_assets.settings import Settings
from tests.defs.conftest import write_config


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(write_config(tmp_path, wiki=1))


def context(retries: int = 0) -> Mock:
    return Mock(retry_number=retries)


def test_a_permanent_error_is_final_and_says_what_to_do(settings: Settings) -> None:
    error = SourceError("There is no folder.", why="It was moved.", fix="Correct the uri.")

    with (
        pytest.raises(dg.Failure) as failure,
        KnowledgeBaseResource(settings).told_as_dagster_wants(context()),
    ):
        raise error

    assert failure.value.allow_retries is False
    assert failure.value.description == str(error)
    assert failure.value.metadata["fix"].value == "Correct the uri."


def test_what_may_pass_is_tried_again_later_and_later(settings: Settings) -> None:
    error = ProviderUnavailableError("It does not answer.")

    waits = [retry_of(error, retries) for retries in range(MAX_RETRIES + 1)]

    assert [wait and wait.seconds_to_wait for wait in waits] == [10.0, 30.0, 90.0, None]
    with (
        pytest.raises(dg.RetryRequested),
        KnowledgeBaseResource(settings).told_as_dagster_wants(context()),
    ):
        raise error


def test_who_is_watching_is_told_at_once(settings: Settings) -> None:
    observer = Observer(say=lambda _: None)
    error = ProviderUnavailableError("It does not answer.")

    with (
        pytest.raises(dg.Failure),
        KnowledgeBaseResource(settings, observer=observer).told_as_dagster_wants(context()),
    ):
        raise error

    assert observer.failures == [error]


@pytest.mark.parametrize("error", [ShardBusyError("busy"), LeaseLostError("lost")])
def test_what_another_run_does_is_not_tried_again(error: TransientError) -> None:
    assert retry_of(error, 0) is None


def test_a_failure_leaves_out_what_is_not_known() -> None:
    assert set(failure_of(SourceError("Gone.")).metadata) == {"what", "error"}


@pytest.mark.parametrize(
    "hostile",
    [
        "a|b",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "![x](http://evil/p.png)",
        "`code`",
        "line\nbreak",
        "nul\x00",
        "\u202eevil",
    ],
)
def test_a_cell_renders_nothing(hostile: str) -> None:
    shown = cell(hostile)

    assert not set(shown) & set("|<>[]`\n\x00\u202e")
    assert "](" not in shown


def test_a_cell_is_cut_before_it_is_escaped() -> None:
    assert cell("|" * 500) == "&#124;" * 79 + "…"


def test_a_table_without_rows_says_so() -> None:
    assert table(["a"], []).value == "none"
