"""What becomes of messages that come in, decided without looking at anything but values.

A batch is columns of values, and not an object for each message: Python's garbage collector goes
through all that a process holds after every few thousand objects, which took longer than the rest.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date, timedelta

from kb_assets.chunks.tokens import count_tokens
from kb_assets.errors import MessageRefusedError
from kb_assets.messages.message import EARLIEST, Message

MAX_MESSAGES = 10_000
"""The most messages of one transaction."""

MAX_BYTES = 16 * 1024**2
"""The most bytes of content and metadata in one transaction; one message may have more."""

Spans = Mapping[str, tuple[int, int]]
"""The microseconds of the first and the last message of conversations, by their ids."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Batch:
    """The messages of one transaction, in columns: sorted by time, then as they came.

    Attributes:
        messages: The messages.
        places: Which ones they are of all that were handed in together.
        microseconds: When they were written, counted from 1970.
        contents: Their contents in UTF-8.
        tokens: How many tokens the contents have.
    """

    messages: list[Message] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    microseconds: list[int] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, place: int, message: Message, content: bytes) -> None:
        """Add a message at the end; tokens nobody has counted are counted."""
        counted = message.token_count
        self.messages.append(message)
        self.places.append(place)
        self.microseconds.append((message.created_at - EARLIEST) // _MICROSECOND)
        self.contents.append(content)
        self.tokens.append(count_tokens(message.content) if counted is None else counted)

    def sort(self) -> None:
        """Bring the messages into their order."""
        order = sorted(range(len(self)), key=self.microseconds.__getitem__)
        if order != list(range(len(self))):
            self._take(order)

    def leave_out(self, places: Collection[int]) -> None:
        """Remove messages by their places."""
        self._take([index for index, place in enumerate(self.places) if place not in places])

    def months(self) -> list[date]:
        """Return the first days of the messages' months, in order."""
        return sorted({month_of(message) for message in self.messages})

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return when the first and the last message of each conversation were written."""
        names = [message.conversation_id for message in self.messages]
        lasts = dict(zip(names, self.microseconds, strict=True))
        firsts = dict(zip(reversed(names), reversed(self.microseconds), strict=True))
        return {name: (firsts[name], last) for name, last in lasts.items()}

    def _take(self, indexes: list[int]) -> None:
        for column in fields(self):
            values = getattr(self, column.name)
            setattr(self, column.name, [values[index] for index in indexes])


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


@dataclass(slots=True)
class Plan:
    """What is to be done with a batch.

    Attributes:
        rows: To be stored in their months: the messages' indexes in the batch.
        ordinals: The places of those in their conversations.
        total_bytes: The running totals there, each itself included.
        total_tokens: The same for tokens.
        late: To be stored apart, since their months are closed: indexes.
        conversations: Those that change, as they are afterwards.
        repeated: How many were stored already.
        erased: How many belong to conversations that were erased.
        refused: The places of those that cannot be taken in, and why; if there are any, the
            rest of the plan is void.
    """

    rows: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    total_bytes: list[int] = field(default_factory=list)
    total_tokens: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    repeated: int = 0
    erased: int = 0
    refused: list[tuple[int, MessageRefusedError]] = field(default_factory=list)

    def add_row(self, index: int, conversation: Conversation, size: int, tokens: int) -> None:
        """Give a message the next place in its conversation, and count it there."""
        conversation.messages += 1
        conversation.bytes += size
        conversation.tokens += tokens
        self.rows.append(index)
        self.ordinals.append(conversation.messages)
        self.total_bytes.append(conversation.bytes)
        self.total_tokens.append(conversation.tokens)


def month_of(message: Message) -> date:
    """Return the first day of a message's month, in UTC."""
    return date(message.created_at.year, message.created_at.month, 1)


def batches(messages: Iterable[Message]) -> Iterator[Batch]:
    """Group messages so that each group is a transaction."""
    batch, held = Batch(), 0
    for place, message in enumerate(messages):
        content = message.content.encode()
        size = len(content) + len(message.metadata_json)
        if batch and (held + size > MAX_BYTES or len(batch) >= MAX_MESSAGES):
            batch.sort()
            yield batch
            batch, held = Batch(), 0
        batch.add(place, message, content)
        held += size
    if batch:
        batch.sort()
        yield batch


def plan(
    batch: Batch,
    conversations: Mapping[str, Conversation],
    stored: Mapping[int, str],
    closed: Collection[date],
) -> Plan:
    """Say what becomes of each message of a batch.

    Args:
        batch: The messages.
        conversations: Each of their conversations, as it is.
        stored: Which conversation a message of the same id and time is stored in, by the index in
            the batch, for those that there are.
        closed: The months that take nothing in any more.
    """
    made = Plan()
    changing = {name: replace(known) for name, known in conversations.items()}
    moment = -1
    taken: dict[str, str] = {}
    for index, message in enumerate(batch.messages):
        conversation = changing[message.conversation_id]
        if conversation.is_erased:
            made.erased += 1
            continue
        if batch.microseconds[index] != moment:
            moment, taken = batch.microseconds[index], {}
        holder = stored.get(index) or taken.get(message.id, "")
        if refusal := _refusal(message, conversation, holder):
            made.refused.append((batch.places[index], refusal))
            continue
        if not holder or (message.user_id is not None and conversation.user_id is None):
            conversation.user_id = conversation.user_id or message.user_id
            made.conversations[message.conversation_id] = conversation
        if holder:
            made.repeated += 1
            continue
        taken[message.id] = message.conversation_id
        if closed and month_of(message) in closed:
            made.late.append(index)
        else:
            size, tokens = len(batch.contents[index]), batch.tokens[index]
            made.add_row(index, conversation, size, tokens)
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
