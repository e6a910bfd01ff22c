"""`run_index`: what `kb index` calls."""

import json
import os
import signal
import subprocess
import sys

import dagster as dg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.database.connect import DAGSTER_VARIABLE
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.launch import run_index
from kb_assets.errors import CostLimitError, DatabaseUnavailableError, SourceError
from kb_assets.index.account import account_for
from kb_assets.index.checks import Soundness
from tests.defs.conftest import index, write_config, write_documents
from tests.defs.test_definitions import REPOSITORY

STALL = """
import sys, time
from kb_assets import KnowledgeBase
import kb_assets.defs.chunks as chunks
from kb_assets.defs.launch import run_index

def stall(run, shard):
    print("stalled", flush=True)
    time.sleep(60)

chunks.chunk_documents = stall
with KnowledgeBase.open() as kb:
    try:
        run_index(kb, kb.settings.shards, on_event=lambda _: None)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def materializations(kb: KnowledgeBase, asset: str) -> dict[str | None, dict[str, object]]:
    """Return the metadata of each partition's newest materialization."""
    with dagster_instance(kb) as instance:
        records = instance.fetch_materializations(dg.AssetKey(asset), limit=50).records
    found: dict[str | None, dict[str, object]] = {}
    for record in records:
        made = record.asset_materialization
        assert made is not None
        values = {name: value.value for name, value in made.metadata.items()}
        found.setdefault(made.partition, values)
    return found


def statuses(kb: KnowledgeBase) -> list[dg.DagsterRunStatus]:
    with dagster_instance(kb) as instance:
        return [run.status for run in instance.get_runs()]


def test_a_run_brings_all_shards_up_to_date_and_says_so(
    kb: KnowledgeBase, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    done = run_index(kb, kb.settings.shards, on_event=said.append)

    assert capfd.readouterr() == ("", ""), "the console is the caller's"

    assert done.succeeded
    assert done.error is None
    assert done.failed_checks == ()
    assert kb.status().is_settled
    assert kb.search("lighthouses")
    keys = {shard.key for shard in kb.settings.shards}
    assert set(done.reports["published_documents"]) == keys
    assert sum(one["added"] for one in done.reports["raw_documents"].values()) == 12
    assert json.loads(json.dumps(done.reports)) == done.reports
    assert any("wiki-03-of-04" in sentence for sentence in said)


def test_people_see_what_was_done_in_the_catalogue(kb: KnowledgeBase) -> None:
    (kb.settings.root / "wiki" / "bad|<b>.pdf").write_bytes(b"not a PDF")
    index(kb)

    read = materializations(kb, "raw_documents")
    assert sum(one["found"] for one in read.values()) == 13  # type: ignore[misc]
    assert sum(one["dagster/row_count"] for one in read.values()) == 13  # type: ignore[misc]
    shown = " ".join(f"{one['newest_documents']} {one['quarantine']}" for one in read.values())
    assert "document-3.md" in shown.replace("&#45;", "-")
    assert "<b>" not in shown and "bad|" not in shown
    chunks = materializations(kb, "document_chunks")
    assert sum(one["dagster/row_count"] for one in chunks.values()) > 12  # type: ignore[misc]
    embedded = materializations(kb, "chunk_embeddings")
    assert {"tokens", "cost_usd", "cache_hits", "seconds"} <= set(embedded["wiki-01-of-04"])
    published = materializations(kb, "published_documents")
    assert sum(one["dagster/row_count"] for one in published.values()) == 12  # type: ignore[misc]
    assert materializations(kb, "vector_index")[None]["dagster/row_count"] > 0  # type: ignore[operator]
    assert "lexical_sources_merged" in materializations(kb, "vector_index")[None]


def test_old_questions_are_forgotten(kb: KnowledgeBase) -> None:
    with kb.database.transaction() as connection:
        connection.execute(
            "insert into kb.query_log (asked_at, question, mode, seconds, hits)"
            " select now() - make_interval(days => age), age::text, 'hybrid', '{}', '[]'"
            " from unnest(array[29, 31]) age"
        )
    index(kb)
    with kb.database.transaction() as connection:
        assert connection.execute("select question from kb.query_log").fetchall() == [("29",)]


def test_some_shards_of_several_sources_in_one_go(kb: KnowledgeBase) -> None:
    file = write_config(kb.settings.root, wiki=4, handbook=1)
    write_documents(kb.settings.root / "handbook", 3)
    with KnowledgeBase.open(file) as both:
        shards = tuple(both.settings.shards[place] for place in (4, 0, 2, 3))

        done = run_index(both, shards, on_event=lambda _: None)

        assert done.succeeded
        assert len(done.run_ids) == 4, "two stretches of wiki, handbook, and the index"
        assert set(done.reports["raw_documents"]) == {shard.key for shard in shards}
        assert done.reports["vector_index"]
        assert account_for(both.database, both.settings.shards[1]).listed is None


def test_a_source_that_fails_keeps_no_other_from_being_indexed(kb: KnowledgeBase) -> None:
    file = write_config(kb.settings.root, gone=1, wiki=4)
    (kb.settings.root / "gone").rmdir()
    with KnowledgeBase.open(file) as both:
        done = index(both)

        assert not done.succeeded
        assert isinstance(done.error, SourceError)
        assert done.run_id == done.run_ids[0]
        assert account_for(both.database, both.settings.source("wiki").all_shards[0]).is_settled
        assert both.search("lighthouses")


def test_an_error_is_told_in_dagsters_history_and_is_final(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CostLimitError("It costs too much.", why="It is dear.", fix="Pay.")

    monkeypatch.setattr("kb_assets.embeddings.filling.Filling.refuse_to_overspend", refuse)

    done = index(kb)

    assert not done.succeeded
    assert isinstance(done.error, CostLimitError)
    with dagster_instance(kb) as instance:
        (failure,) = [
            record.event_log_entry.dagster_event.step_failure_data
            for record in instance.get_records_for_run(
                done.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
            ).records
            if record.event_log_entry.dagster_event is not None
        ]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == "It costs too much. It is dear. Pay."
    assert {"what", "why", "fix"} <= set(failure.user_failure_data.metadata)


def test_unsound_vectors_are_not_published(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsound = Soundness(waiting=9, waiting_unsound=1, stored=0, stored_unsound=0)
    monkeypatch.setattr("kb_assets.defs.checks.soundness", lambda *_: unsound)

    done = index(kb)

    assert not done.succeeded
    assert done.failed_checks == ("vectors_are_sound",)
    assert done.error is None
    assert kb.search("lighthouses").hits == ()


def test_deletes_are_withheld_until_they_are_confirmed(kb: KnowledgeBase) -> None:
    index(kb)
    for file in (kb.settings.root / "wiki").glob("*.md"):
        file.unlink()

    done = index(kb)
    confirmed = index(kb, confirm_deletes=True)

    assert done.succeeded
    assert set(done.failed_checks) == {
        "no_document_vanished_by_accident",
        "every_document_is_accounted_for",
    }
    assert confirmed.failed_checks == ()
    assert kb.search("lighthouses").hits == ()


def test_a_bug_is_not_taken_for_an_error_of_the_users(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("kb_assets.defs.documents.read_documents", broken)

    with pytest.raises(ZeroDivisionError, match="a bug"):
        index(kb)


def test_dagsters_database_out_of_reach_is_told_clearly(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DAGSTER_VARIABLE, "postgresql://someone:secret@127.0.0.1:9/nothing")

    with pytest.raises(DatabaseUnavailableError, match="Dagster") as caught:
        index(kb)

    assert "secret" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def stalled(kb: KnowledgeBase) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STALL],
        cwd=kb.settings.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stalled\n"
    return process


def test_ctrl_c_cancels_the_run(kb: KnowledgeBase) -> None:
    process = stalled(kb)

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 130
    assert statuses(kb) == [dg.DagsterRunStatus.CANCELED]


def test_a_run_whose_process_was_killed_is_ended_by_the_next(kb: KnowledgeBase) -> None:
    process = stalled(kb)
    process.kill()
    process.wait(30)
    assert statuses(kb) == [dg.DagsterRunStatus.STARTED]

    done = index(kb)

    assert done.succeeded
    assert statuses(kb) == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
