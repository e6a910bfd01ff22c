"""Messages come in, and are read in windows: what `KnowledgeBase.messages` is."""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from psycopg import Connection, errors

from kb_assets.database.connect import Database
from kb_assets.errors import DatabaseUnavailableError, MessageRefusedError, SettingsError
from kb_assets.messages.message import Message
from kb_assets.messages.plan import Batch, Plan, batches, plan
from kb_assets.messages.store import (
    Overtaken,
    add_months,
    find_stored,
    hold_conversations,
    hold_months,
    save,
)
from kb_assets.messages.window import Window, read_window

OnRefused = Callable[[int, MessageRefusedError], None]
"""Told the place of a message that was left out, and why."""

_ATTEMPTS = 4
_PAUSE_SECONDS = 0.05
_OVERTAKEN = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)


@dataclass(slots=True)
class Appended:
    """What became of messages.

    Attributes:
        added: Stored now, late ones included.
        repeated: Stored already, under the same id and time.
        late: Of those added, how many are for a month that is closed; they have no place in
            their conversation's windows.
        erased: Not taken in, because their conversation was erased.
    """

    added: int = 0
    repeated: int = 0
    late: int = 0
    erased: int = 0

    def __iadd__(self, other: "Appended") -> "Appended":
        self.added += other.added
        self.repeated += other.repeated
        self.late += other.late
        self.erased += other.erased
        return self


class _RefusedError(Exception):
    """Messages of a batch cannot be taken in: nothing of it was written."""

    def __init__(self, refused: list[tuple[int, MessageRefusedError]]) -> None:
        super().__init__(f"{len(refused)} refused")
        self.refused = refused


class Messages:
    """The conversations of a knowledge base.

    Safe to use from several threads; so are many writers in as many processes.
    """

    def __init__(self, database: Database) -> None:
        """Remember where messages are.

        Args:
            database: Where runs write.
        """
        self._database = database
        self._months: set[date] = set()

    def append(self, batch: Iterable[Message], *, on_refused: OnRefused | None = None) -> Appended:
        """Store messages that are not stored yet, by their id and time together.

        Sorted by time, then as they come, they get their places behind all that their
        conversations had before. Each 10,000 messages, or 16 MB, are a transaction: after an
        error, append all of them again.

        Args:
            batch: Any number of messages.
            on_refused: Told which messages were left out, and why; without it, a message that
                must be left out is an error, and nothing of its transaction is stored.

        Raises:
            MessageRefusedError: A message names another user than its conversation has
                (`other_user`), or its id and time are those of a message in another conversation
                (`id_taken`).
            DatabaseUnavailableError: The database was lost, or other writers were in the way.
        """
        appended = Appended()
        for each in batches(batch):
            appended += self._append(each, on_refused)
        return appended

    def window(
        self,
        conversation_id: str,
        *,
        max_tokens: int | None = None,
        max_bytes: int | None = None,
    ) -> Window:
        """Return the newest messages of a conversation that fit together, oldest first.

        The newest are those that came in last. What has gone to the archive takes its room, but
        is not returned; late messages have no place in windows.

        Args:
            conversation_id: The conversation.
            max_tokens: How many tokens their contents may have; or else
            max_bytes: how many bytes.

        Raises:
            SettingsError: Not exactly one limit is given, or it is negative.
            NotFoundError: There is no such conversation, or it was erased.
        """
        limits = [limit for limit in (max_tokens, max_bytes) if limit is not None]
        if len(limits) != 1 or limits[0] < 0:
            raise SettingsError(
                "A window needs one limit.", fix="Say how many tokens, or how many bytes."
            )
        with self._database.transaction() as connection:
            return read_window(connection, conversation_id, max_tokens, max_bytes)

    def _append(self, batch: Batch, on_refused: OnRefused | None) -> Appended:
        while batch:
            try:
                return self._insist(batch)
            except _RefusedError as error:
                if on_refused is None:
                    raise error.refused[0][1] from None
                for place, why in error.refused:
                    on_refused(place, why)
                batch.leave_out({place for place, _ in error.refused})
        return Appended()

    def _insist(self, batch: Batch) -> Appended:
        """Store a batch, again if other writers are in the way."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._store(batch)
            except Overtaken as error:
                why = str(error.__cause__ or error).strip()
                self._months.clear()
            time.sleep(random.uniform(0, _PAUSE_SECONDS) * 2**attempt)
        raise DatabaseUnavailableError(
            "Messages could not be stored: other writers were in the way each time.",
            why=why,
            fix="Append them again; what is stored already is not stored twice.",
        )

    def _store(self, batch: Batch) -> Appended:
        months = batch.months()
        if new := set(months) - self._months:
            add_months(self._database, new)
            self._months |= new
        with self._database.transaction() as connection:
            try:
                made = _store(connection, batch, months)
            except _OVERTAKEN as error:
                raise Overtaken from error
        return Appended(len(made.rows) + len(made.late), made.repeated, len(made.late), made.erased)


def _store(connection: Connection, batch: Batch, months: list[date]) -> Plan:
    """Plan a batch with all held that the plan relies on, and do what it says."""
    closed = hold_months(connection, months)
    spans = batch.spans()
    conversations = hold_conversations(connection, spans)
    made = plan(batch, conversations, find_stored(connection, batch), closed)
    if made.refused:
        raise _RefusedError(made.refused)
    save(connection, batch, made, spans)
    return made
