"""What becomes of messages that come in, decided without looking at anything but values.

Values are tuples, as in `documents/plan.py`: there are several for each message.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import NamedTuple

from kb_assets.chunks.tokens import count_tokens
from kb_assets.errors import MessageRefusedError
from kb_assets.messages.message import EARLIEST, Message, metadata_json

MAX_MESSAGES = 10_000
"""The most messages of one transaction."""

MAX_BYTES = 16 * 1024**2
"""The most bytes of content and metadata in one transaction; one message may have more."""

Spans = Mapping[str, tuple[int, int]]
"""The microseconds of the first and the last message of conversations, by their ids."""

_MICROSECOND = timedelta(microseconds=1)


class Incoming(NamedTuple):
    """A message, as it is stored.

    Attributes:
        microsecond: When it was written, counted from 1970.
        place: Which one it is of all that were handed in together.
        message: The message.
        content: Its content in UTF-8.
        metadata: Its metadata as JSON.
        tokens: How many tokens the content has.
    """

    microsecond: int
    place: int
    message: Message
    content: bytes
    metadata: bytes
    tokens: int

    @property
    def month(self) -> date:
        """The first day of its month."""
        return month_of(self.message)


@dataclass(slots=True)
class Conversation:
    """What a conversation has had in all.

    Attributes:
        user_id: Whose it is, if that is known.
        messages: How many messages have a place in it; late ones have none.
        bytes: How many bytes their contents have.
        tokens: How many tokens their contents have.
        is_erased: Nothing is taken in for it any more.
    """

    user_id: str | None = None
    messages: int = 0
    bytes: int = 0
    tokens: int = 0
    is_erased: bool = False


class Row(NamedTuple):
    """A message, its place in its conversation, and the running totals, itself included."""

    incoming: Incoming
    ordinal: int
    total_bytes: int
    total_tokens: int


@dataclass(slots=True)
class Plan:
    """What is to be done with a batch.

    Attributes:
        rows: To be stored in their months.
        late: To be stored apart, since their months are closed.
        conversations: Those that change, as they are afterwards.
        repeated: How many were stored already.
        erased: How many belong to conversations that were erased.
        refused: The places of those that cannot be taken in, and why; if there are any, the
            rest of the plan is void.
    """

    rows: list[Row] = field(default_factory=list)
    late: list[Incoming] = field(default_factory=list)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    repeated: int = 0
    erased: int = 0
    refused: list[tuple[int, MessageRefusedError]] = field(default_factory=list)


def month_of(message: Message) -> date:
    """Return the first day of a message's month, in UTC."""
    return date(message.created_at.year, message.created_at.month, 1)


def prepare(batch: Iterable[Message]) -> Iterator[Incoming]:
    """Yield messages as they are stored; tokens nobody has counted are counted."""
    for place, message in enumerate(batch):
        content = message.content.encode()
        tokens = message.token_count
        yield Incoming(
            (message.created_at - EARLIEST) // _MICROSECOND,
            place,
            message,
            content,
            metadata_json(message.metadata),
            count_tokens(message.content) if tokens is None else tokens,
        )


def groups(incoming: Iterable[Incoming]) -> Iterator[list[Incoming]]:
    """Group messages so that each group is a transaction; each is sorted by time, then place."""
    group: list[Incoming] = []
    held = 0
    for one in incoming:
        size = len(one.content) + len(one.metadata)
        if group and (held + size > MAX_BYTES or len(group) >= MAX_MESSAGES):
            yield sorted(group)
            group, held = [], 0
        group.append(one)
        held += size
    if group:
        yield sorted(group)


def spans(batch: Sequence[Incoming]) -> dict[str, tuple[int, int]]:
    """Return when the first and the last message of each conversation in a batch were written.

    Args:
        batch: The messages, sorted.
    """
    lasts = {one.message.conversation_id: one.microsecond for one in batch}
    firsts = {one.message.conversation_id: one.microsecond for one in reversed(batch)}
    return {name: (firsts[name], last) for name, last in lasts.items()}


def plan(
    batch: Sequence[Incoming],
    conversations: Mapping[str, Conversation],
    stored: Mapping[int, str],
    closed: Collection[date],
) -> Plan:
    """Say what becomes of each message of a batch.

    Args:
        batch: The messages, sorted.
        conversations: Each of their conversations, as it is.
        stored: Which conversation a message of the same id and time is stored in, by the index in
            the batch, for those that there are.
        closed: The months that take nothing in any more.
    """
    made = Plan()
    changing = {name: replace(known) for name, known in conversations.items()}
    taken: dict[tuple[int, str], str] = {}
    for index, one in enumerate(batch):
        message = one.message
        name = message.conversation_id
        conversation = changing[name]
        if conversation.is_erased:
            made.erased += 1
            continue
        key = (one.microsecond, message.id)
        holder = stored.get(index) or taken.get(key, "")
        if refusal := _refusal(message, conversation, holder):
            made.refused.append((one.place, refusal))
            continue
        if message.user_id is not None and conversation.user_id is None:
            conversation.user_id = message.user_id
            made.conversations[name] = conversation
        if holder:
            made.repeated += 1
            continue
        taken[key] = name
        made.conversations[name] = conversation
        if closed and one.month in closed:
            made.late.append(one)
        else:
            made.rows.append(_placed(one, conversation))
    return made


def _refusal(
    message: Message, conversation: Conversation, holder: str
) -> MessageRefusedError | None:
    """Return why a message cannot be taken in, if it cannot.

    Args:
        message: The message.
        conversation: The one it names.
        holder: Which conversation has a message of the same id and time, if one has.
    """
    if message.user_id is not None and conversation.user_id not in (None, message.user_id):
        return MessageRefusedError(
            "other_user",
            f"Conversation {message.conversation_id!r} is another user's.",
            why=f"Message {message.id!r} names {message.user_id!r}; a conversation has one user.",
            fix="Give it to a conversation of that user.",
        )
    if holder and holder != message.conversation_id:
        return MessageRefusedError(
            "id_taken",
            f"There is a message {message.id!r} of {message.created_at.isoformat()} already.",
            why=f"It is in conversation {holder!r}, not in {message.conversation_id!r}.",
            fix="Give every message an id of its own.",
        )
    return None


def _placed(one: Incoming, conversation: Conversation) -> Row:
    """Return a message with its place, and count it."""
    conversation.messages += 1
    conversation.bytes += len(one.content)
    conversation.tokens += one.tokens
    return Row(one, conversation.messages, conversation.bytes, conversation.tokens)
