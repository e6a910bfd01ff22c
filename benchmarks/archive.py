"""What it takes to archive a month of messages, to read one conversation back, and to append.

    python -m benchmarks.archive [months] [query] [append] [--messages N] [--many N] [--cold N]
                                 [--busy N] [--appended N]

- months: a whole month, copied, verified and committed, against a binary COPY of its partition to
  nowhere; then as many rows that came late for that month, which are deleted one by one; then a
  month of many more. Each archive is made by a new process that has archived a small month before;
- query: one conversation among 24 archived months, the last a busy one, with nothing in the local
  cache; those are asked for that lie in the most objects, and some others;
- append: with running totals, against one binary COPY of ready bytes into the same table.

Everything is on the embedded server and in a local folder, as it comes by default. A time counts
once the Parquet files, read by DuckDB, hold exactly what the tables held, which then hold nothing.
"""

import argparse
import itertools
import shutil
import statistics
from collections.abc import Callable, Iterator
from datetime import date
from json import loads
from pathlib import Path

import psycopg

from benchmarks.archive_months import (
    Archived,
    Months,
    add_month,
    asked_of,
    contents,
    contents_of,
    following,
    load,
    moment,
    objects,
    settle,
)
from benchmarks.components import opened, seconds
from benchmarks.generated_messages import COLUMNS, GeneratedMessage, Prose, encoded, generated
from benchmarks.record import Row, record
from kb_assets import KnowledgeBase
from kb_assets.database.bulk import copy_encoded
from kb_assets.messages.message import Message

MESSAGES, MANY = 1_000_000, 5_000_000
COLD, COLD_MONTHS, BUSY = 480_000, 24, 600_000
APPENDED = 200_000
ROUNDS = 3
ASKED = 24
LEAST_GZIP_RATIO = 0.38
"""English prose becomes 0.36 to 0.42 of its size, as books go."""

ARCHIVE = "[archive]\n"


def months(options: argparse.Namespace) -> list[Row]:
    prose, whole, late = Prose(), [], []
    with opened(ARCHIVE) as kb:
        made = Months(kb, prose)
        for _ in range(ROUNDS):
            month = made.next()
            whole.append(made.archive(month, options.messages))
            late.append(made.archive(month, options.messages, late=True))
        many = made.archive(made.next(), options.many)
    ratio = made.gzip.value
    assert ratio >= LEAST_GZIP_RATIO, f"gzip makes the text {ratio:.3f} of its size"
    text = (
        f"text of {prose.bits_per_character:.2f} bits a character, which gzip -6 makes"
        f" {ratio:.3f} of its size"
    )
    return [
        _against_copy("archiving a whole month", whole, 6, "of a partition that is dropped"),
        _against_copy("archiving rows that came late", late, 12, "for a month with as many there"),
        _memory([max(whole, key=lambda one: one.peak), many]),
        _size(whole, text),
    ]


def _against_copy(name: str, archived: list[Archived], most: float, what: str) -> Row:
    copy = statistics.median(one.copy for one in archived)
    whole = statistics.median(one.whole for one in archived)
    return Row(
        name,
        f"{whole / copy:.2f} x a COPY to nowhere",
        f"≤ {most} x",
        whole <= most * copy,
        f"{archived[0].rows:,} messages {what}, copied, verified and committed in"
        f" {archived[0].objects} objects: {whole:.1f} s, COPY {copy:.2f} s;"
        f" median of {len(archived)}",
    )


def _memory(archived: list[Archived]) -> Row:
    most = max(one.peak for one in archived)
    return Row(
        "memory of an archive's run",
        f"{most / 1e6:.0f} MB",
        "< 500 MB",
        most < 500e6,
        "; ".join(
            f"{one.rows:,} messages: {one.peak / 1e6:.0f} MB in {one.whole:.1f} s"
            for one in archived
        ),
    )


def _size(archived: list[Archived], text: str) -> Row:
    parquet = sum(one.parquet_bytes for one in archived)
    table = sum(one.table_bytes for one in archived)
    rows = sum(one.rows for one in archived)
    return Row(
        "size of the archive",
        f"{parquet / table:.3f} of the table",
        "≤ 0.35",
        parquet <= 0.35 * table,
        f"{parquet / rows:.0f} bytes a message, {table / rows:.0f} in heap and TOAST; {text}",
    )


def query(options: argparse.Namespace) -> list[Row]:
    with opened(ARCHIVE) as kb:
        months = [date(2023 + number // 12, number % 12 + 1, 1) for number in range(COLD_MONTHS)]
        for month in months:
            add_month(kb, month)
        load(kb, _cold(options, months))
        before = contents(kb, "message")
        kb.archive_messages()
        files = [file for month in months for file in objects(kb, month, "month")]
        assert contents_of(files) == before
        asked = _conversations(files)
        wanted: dict[str, list[tuple[str, str]]] = {one: [] for one in asked}
        for message in itertools.chain.from_iterable(_cold(options, months)):
            if message.conversation_id in wanted:
                wanted[message.conversation_id].append((message.id, message.content))
        found = [_ask(kb, conversation, wanted[conversation]) for conversation in asked]
    most = max(fetched for fetched, _, _ in found)
    cold, warm = (statistics.median(one[place] for one in found) for place in (1, 2))
    apart = sum(count > 1 for count in asked.values())
    return [
        Row(
            f"objects fetched for one conversation among {len(months)} months",
            f"{most}",
            "≤ 2",
            most <= 2,
            f"the most of {len(asked)} conversations, {apart} of which lie in more than one object;"
            f" {before.rows:,} messages in {len(files)} objects; {cold * 1000:.0f} ms with nothing"
            f" in the cache, {warm * 1000:.0f} ms with the objects there; median",
        )
    ]


def _cold(options: argparse.Namespace, months: list[date]) -> Iterator[list[GeneratedMessage]]:
    """Yield messages of all months, and more of the last, which becomes several objects."""
    prose, end = Prose(), following(months[-1])
    yield from generated(options.cold, months[0], end, 1, prose)
    yield from generated(options.busy, months[-1], end, 2, prose)


def _conversations(files: list[Path]) -> dict[str, int]:
    """Return those in the most objects, then some more, and in how many objects each is."""
    found = asked_of(
        files,
        "select conversation_id, count(distinct filename) from files group by 1 order by 2 desc, 1",
    )
    half, rest = found[: ASKED // 2], found[ASKED // 2 :]
    return dict(half + rest[:: -(-len(rest) // len(half))])


def _ask(kb: KnowledgeBase, asked: str, wanted: list[tuple[str, str]]) -> tuple[int, float, float]:
    """Return how many objects were fetched, and the seconds without and with a cache."""
    shutil.rmtree(kb.settings.home_folder / "archive-cache", ignore_errors=True)
    sql = f"select id, content from messages where conversation_id = '{asked}'"  # noqa: S608
    results = []

    def ask() -> None:
        results.append(kb.query_messages(sql))

    taken = [seconds(ask) for _ in range(2)]
    for result in results:
        assert sorted(result.rows) == sorted(wanted)
    return results[0].fetched_objects, taken[0], taken[1]


def append(options: argparse.Namespace) -> list[Row]:
    low = date(2025, 1, 1)
    made = generated(options.appended, low, following(low), 2, Prose())
    rows = sorted((one for batch in made for one in batch), key=lambda one: one.created_at)
    binary = [b"".join(map(encoded, rows[at : at + 10_000])) for at in range(0, len(rows), 10_000)]
    messages = [as_message(row) for row in rows]
    times: dict[str, list[float]] = {"raw": [], "append": []}
    with opened(ARCHIVE) as kb:

        def raw() -> None:
            with kb.database.transaction() as connection:
                copy_encoded(connection, ("kb", "message"), COLUMNS, binary)

        def product() -> None:
            assert kb.messages.append(messages).added == len(rows)

        kb.messages.append(messages[:100])
        found = set()
        for _ in range(ROUNDS):
            for name, work in (("raw", raw), ("append", product)):
                _empty(kb)
                times[name].append(seconds(work))
                found.add(contents(kb, "message"))
        assert len(found) == 1, found
    floor, own = (statistics.median(times[name]) for name in ("raw", "append"))
    return [
        Row(
            "appending with running totals",
            f"{floor / own:.2f} x a raw COPY",
            "≥ 0.35 x",
            floor / own >= 0.35,
            f"{len(rows):,} messages in the order of time: {own:.2f} s"
            f" ({len(rows) / own:,.0f} a second), with their conversations; one COPY of ready"
            f" bytes {floor:.2f} s; median of {ROUNDS}, interleaved",
        )
    ]


def as_message(row: GeneratedMessage) -> Message:
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        created_at=moment(row.created_at),
        role=row.role,
        content=row.content,
        user_id=row.user_id,
        language=row.language,
        intent=row.intent,
        metadata=loads(row.metadata),
        token_count=row.token_count,
    )


def _empty(kb: KnowledgeBase) -> None:
    with psycopg.connect(kb.urls.migrator) as connection:
        connection.execute("truncate kb.message, kb.conversation")
    settle(kb)


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], list[Row]]]] = {
    "months": ("Archiving messages", months),
    "query": ("One conversation from the archive", query),
    "append": ("Appending messages", append),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--cold", type=int, default=COLD)
    parser.add_argument("--busy", type=int, default=BUSY)
    parser.add_argument("--appended", type=int, default=APPENDED)
    options = parser.parse_args()
    for part in options.parts or PARTS:
        title, measure = PARTS[part]
        record(f"archive-{part}", title, measure(options))


if __name__ == "__main__":
    main()
