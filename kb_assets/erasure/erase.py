"""Erasing: what would go, hiding it at once, finishing, and doing it again after a restore."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from kb_assets.archive.clean import KEPT
from kb_assets.database.connect import Database
from kb_assets.database.run import Run
from kb_assets.database.statements import Statements
from kb_assets.erasure.conversations import count_hot, find_conversations, hide_conversations
from kb_assets.erasure.documents import count_document, find_document, hide_document
from kb_assets.erasure.ledger import (
    Erasure,
    Request,
    add_to_receipt,
    conversations_of,
    document_of,
    entry_of,
    find_erasures,
    find_last,
    find_unfinished,
    is_known,
    receipt_of,
)
from kb_assets.erasure.rewrite import rewrite_archive
from kb_assets.erasure.subject import Subject
from kb_assets.index.collect import collect_unused_vectors
from kb_assets.index.merge import drop_dead_postings
from kb_assets.object_store import ObjectStore

_statements = Statements(Path(__file__).with_name("erasing.sql"))


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What an erasure would be about.

    Attributes:
        subject: Who or what.
        counts: What the database has of it, counted.
        segments: Segments of the archive that would be looked through; some are rewritten.
        segment_bytes: The size of their objects.
        earlier: Its last erasure, if there is nothing to erase since.
    """

    subject: Subject
    counts: Mapping[str, int]
    segments: int = 0
    segment_bytes: int = 0
    earlier: Erasure | None = None


def plan_erasure(database: Database, subject: Subject) -> ErasurePlan:
    """Say what an erasure would be about; nothing is changed.

    Raises:
        NotFoundError: Nothing is known of the subject, and nothing of it was erased.
    """
    with database.transaction() as connection:
        if subject.scope == "document":
            found = find_document(connection, *subject.source_and_path)
            if found is not None and found.document_id is not None:
                return ErasurePlan(subject, count_document(connection, found))
        elif ids := find_conversations(connection, subject):
            counts = {"conversations": len(ids), **count_hot(connection, ids)}
            named = {"conversation_ids": ids}
            cold = connection.execute(_statements("find_cold"), named).fetchall()
            return ErasurePlan(subject, counts, len(cold), sum(row[3] for row in cold))
        return ErasurePlan(subject, {}, earlier=_earlier(connection, subject))


def erase(
    run: Run, store: ObjectStore | None, subject: Subject, *, ledger: ObjectStore | None = None
) -> Erasure:
    """Erase a subject for good, and return the ledger's entry with its receipt.

    It is hidden, and gone from what is hot, before anything else is done. Ended by whatever
    after that, the erasure is unfinished, and finished by the next one, by the next run of the
    archive, or by `finish_erasures`. Unfinished ones are finished on the way.

    Args:
        run: Who erases.
        store: The archive's destination, if there is an archive.
        subject: Who or what.
        ledger: Where the ledger is kept outside of the database, if not in the archive.

    Raises:
        NotFoundError: Nothing is known of the subject, and nothing of it was erased.
        KbError: See `rewrite_archive`; the subject is hidden all the same.
    """
    plan = plan_erasure(run.database, subject)
    if plan.earlier is not None:
        id_ = plan.earlier.id
    elif subject.scope == "document":
        id_ = hide_document(run, Request.of(subject), *subject.source_and_path)
    else:
        with run.database.transaction() as connection:
            ids = find_conversations(connection, subject)
        id_ = hide_conversations(run, Request.of(subject), ids)
    done = _finish(run, store, ledger or store, id_)
    finish_erasures(run, store, ledger=ledger)
    return done


def finish_erasures(
    run: Run, store: ObjectStore | None, *, ledger: ObjectStore | None = None
) -> tuple[Erasure, ...]:
    """Finish what earlier runs left unfinished, oldest first; safe to run again.

    Args:
        run: Who works.
        store: The archive's destination, if there is an archive.
        ledger: Where the ledger is kept outside of the database, if not in the archive.

    Raises:
        KbError: See `rewrite_archive`.
    """
    ledger = ledger or store
    with run.database.transaction() as connection:
        ids = find_unfinished(connection, has_store=ledger is not None)
    return tuple(_finish(run, store, ledger, id_) for id_ in ids)


def hide_again(run: Run, requests: Iterable[Request]) -> int:
    """Hide again what a ledger tells of and the database does not; safe to repeat.

    What is hidden is gone from what is hot; `finish_erasures` does the rest.

    Args:
        run: Who works.
        requests: What ledgers outside of the database tell of.

    Returns:
        How many erasures the database did not know.

    Raises:
        ArchiveBusyError: A run that is at work in a month did not finish in time.
        ShardBusyError: A run that is at work in a document's shard did not finish in time.
    """
    hidden = 0
    for request in sorted(requests, key=lambda one: one.requested_at or datetime.max):
        with run.database.transaction() as connection:
            if is_known(connection, request):
                continue
        if request.scope == "document":
            hide_document(run, request, *request.document)
        else:
            hide_conversations(run, request, request.conversations)
        hidden += 1
    return hidden


def _earlier(connection: psycopg.Connection[Any], subject: Subject) -> Erasure:
    earlier = find_last(connection, subject)
    if earlier is None:
        raise subject.not_found()
    return earlier


def _finish(run: Run, store: ObjectStore | None, ledger: ObjectStore | None, id_: int) -> Erasure:
    """Do what is left of an erasure, each step once it is known that the one before is done.

    Its entry comes first: a backup that is restored must know of all that was hidden.
    """
    erasure = _find(run, id_)
    if ledger is not None and "ledger" not in erasure.receipt:
        with run.database.transaction() as connection:
            entry = entry_of(connection, erasure)
        ledger.put_bytes(erasure.ledger_key, entry)
        _note(run, erasure, {"ledger": erasure.ledger_key})
    if "finished_at" not in erasure.receipt:
        if erasure.scope == "document":
            _drop_what_is_left(run, erasure)
        else:
            rewrite_archive(run, store, erasure.id)
        _note(run, erasure, _last_facts(run, erasure))
    erasure = _find(run, id_)
    # One is there already if an earlier backup was restored.
    if ledger is not None and ledger.size(erasure.receipt_key) is None:
        ledger.put_bytes(erasure.receipt_key, receipt_of(erasure))
    with run.database.transaction() as connection:
        connection.execute(_statements("finish"), {"id": id_})
    return _find(run, id_)


def _find(run: Run, id_: int) -> Erasure:
    with run.database.transaction() as connection:
        (erasure,) = find_erasures(connection, id_)
    return erasure


def _drop_what_is_left(run: Run, erasure: Erasure) -> None:
    """Drop a document's words, and vectors that nothing uses: some may be of what it once was."""
    with run.database.transaction() as connection:
        document = document_of(connection, erasure.id)
    if document is not None:
        drop_dead_postings(run.database, document[0])
    collect_unused_vectors(run.database, grace_seconds=0)


def _last_facts(run: Run, erasure: Erasure) -> dict[str, Any]:
    facts: dict[str, Any] = {"finished_at": datetime.now(UTC).isoformat()}
    if erasure.scope != "document":
        with run.database.transaction() as connection:
            named = {"conversation_ids": conversations_of(connection, erasure.id), "kept": KEPT}
            rows = connection.execute(_statements("find_kept"), named).fetchall()
        facts["kept_objects"] = [{"key": key, "until": until.isoformat()} for key, until in rows]
    return facts


def _note(run: Run, erasure: Erasure, facts: Mapping[str, Any]) -> None:
    with run.database.transaction() as connection:
        add_to_receipt(connection, erasure.id, facts)
