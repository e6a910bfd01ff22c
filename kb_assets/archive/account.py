"""Where a month's messages are, and why they stay there; and what they look like, unread."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from kb_assets.archive.plan import is_due, window_of
from kb_assets.archive.relation import MESSAGES
from kb_assets.archive.store import Segment, find_months, find_segments
from kb_assets.database.connect import Database
from kb_assets.database.names import SCHEMA
from kb_assets.database.statements import Statements

SAMPLE_ROWS = 5

_OLDEST_ROWS = Statements(Path(__file__).with_name("account.sql"))(
    "oldest_rows", table=(SCHEMA, MESSAGES.name), late=(SCHEMA, MESSAGES.late)
)


@dataclass(frozen=True, slots=True)
class Unread:
    """A message without what it says.

    Attributes:
        id_hash: SHA-256 of its id, in hexadecimal digits.
        conversation_hash: The same of its conversation's id.
        role: Who speaks.
        created_at: When.
        content_bytes: How much they say.
        token_count: The same in tokens.
    """

    id_hash: str
    conversation_hash: str
    role: str
    created_at: datetime
    content_bytes: int
    token_count: int


def oldest_messages(database: Database, month: date) -> tuple[Unread, ...]:
    """Return a month's first messages that are in the database."""
    window = window_of(month)
    named = {"low": window.low, "high": window.high, "limit": SAMPLE_ROWS}
    with database.transaction() as connection:
        return tuple(Unread(*row) for row in connection.execute(_OLDEST_ROWS, named))


def cold_segments(database: Database, month: date) -> tuple[Segment, ...]:
    """Return what a month is archived in."""
    with database.transaction() as connection:
        return tuple(find_segments(connection, [month]))


def reason_to_wait(database: Database, month: date, now: datetime, retention_days: int) -> str:
    """Say why a month that is not due stays as it is."""
    with database.transaction() as connection:
        states = {one.month: one for one in find_months(connection)}
    state = states.get(month)
    if state is not None and state.hold_until is not None and state.hold_until > now:
        return f"It was restored, and is held until {state.hold_until:%F %R} UTC."
    if not is_due(month, now, retention_days):
        due_at = window_of(month).high + timedelta(days=retention_days)
        return f"It is not old enough: it is due from {due_at:%F}, {retention_days} days after."
    return "There is nothing of it in the database."
