"""From measurements to medians, ratios and targets, in `results/peers-<corpus>.json`."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.peers.run import OPERATIONS, Measurement
from benchmarks.record import Row, record

TARGETS = {
    "first load": 7,
    "nothing changed": 20,
    "every file touched": 8,
    "2% of the files edited": 12,
    "real edit": 10,
    "10% of the files deleted": 5,
}
"""How many times as fast as the fastest peer this project is to be."""

MOST_FLOORS = 2.5
"""How many times as long as the floor the first load may take."""

PEERS = ("LangChain", "LlamaIndex", "CocoIndex")
"""Who counts as a peer; of what else is measured, the times are shown beside."""

FLOOR, OWN = "floor", "kb_assets"
WORDS = "words"
WITHOUT_WORDS = ", without the lexical index"


@dataclass(frozen=True, slots=True)
class Session:
    """What was measured.

    Attributes:
        name: Of the corpus.
        files: In it, at first.
        bytes: In them.
        versions: Of everybody's packages, by contestant.
        server: Versions of PostgreSQL and pgvector.
        missing: Why who is missing is missing.
        rounds: How often everything was measured.
    """

    name: str
    files: int
    bytes: int
    versions: dict[str, str]
    server: str
    missing: dict[str, str]
    rounds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All turns of one contestant at one operation: their seconds, in order, and medians."""

    seconds: list[float]
    cpu_seconds: float
    server_cpu_seconds: float
    texts_embedded: int
    texts_new: int
    chunk_texts: int
    distinct_texts: int
    parts: dict[str, float]
    flaw: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


Summaries = dict[str, dict[str, Summary]]
"""By operation and contestant."""


def summarise(measured: Sequence[Measurement]) -> Summaries:
    """Put the rounds together; one flaw spoils all of them."""
    found: Summaries = {}
    for operation in OPERATIONS:
        turns: dict[str, list[Measurement]] = {}
        for one in measured:
            if one.operation == operation.name:
                turns.setdefault(one.contestant, []).append(one)
        found[operation.name] = {name: _summary(of) for name, of in turns.items()}
    return found


def _summary(turns: Sequence[Measurement]) -> Summary:
    median = statistics.median
    parts = [turn.parts or {} for turn in turns]
    return Summary(
        seconds=sorted(turn.seconds for turn in turns),
        cpu_seconds=median(turn.cpu_seconds for turn in turns),
        server_cpu_seconds=median(turn.server_cpu_seconds for turn in turns),
        texts_embedded=round(median(turn.texts_embedded for turn in turns)),
        texts_new=round(median(turn.texts_new for turn in turns)),
        chunk_texts=round(median(turn.chunk_texts for turn in turns)),
        distinct_texts=round(median(turn.distinct_texts for turn in turns)),
        parts={part: median(one.get(part, 0.0) for one in parts) for part in parts[0]},
        flaw=next((turn.flaw for turn in turns if turn.flaw), ""),
    )


def verdicts(summaries: Summaries) -> list[Row]:
    """Compare this project with the fastest peer that was right, and with the floor."""
    own = {operation: of[OWN] for operation, of in summaries.items() if OWN in of}
    if flaw := next((summary.flaw for summary in own.values() if summary.flaw), ""):
        return [Row("beside its peers", "failed", "a right result", False, flaw)]
    rows = [
        row
        for name, mine in own.items()
        for seconds, words in _with_and_without_words(mine)
        for row in [_beside_peers(name, words, seconds, summaries[name])]
    ]
    return [*rows, *_beside_the_floor(summaries), _texts(own)] if own else []


def _with_and_without_words(own: Summary) -> list[tuple[float, str]]:
    """Return the median, and what is left of it without the lexical index, which no peer makes."""
    words = own.parts.get(WORDS, 0.0)
    whole = [(own.median, "")]
    return [*whole, (own.median - words, WITHOUT_WORDS)] if words else whole


def _beside_peers(operation: str, words: str, seconds: float, of: dict[str, Summary]) -> Row:
    target = TARGETS[operation]
    name = operation + words
    wanted = f"≥ {target} x the fastest peer"
    right = {name: of[name].median for name in PEERS if name in of and not of[name].flaw}
    if not right:
        return Row(name, "no peer to compare with", wanted, False, f"{seconds:.3f} s")
    fastest = min(right, key=lambda name: right[name])
    ratio = right[fastest] / seconds
    return Row(
        name,
        f"{ratio:.1f} x as fast as {fastest}",
        wanted,
        ratio >= target,
        f"{seconds:.3f} s, {fastest} {right[fastest]:.3f} s",
    )


def _beside_the_floor(summaries: Summaries) -> list[Row]:
    own, floor = (summaries["first load"].get(name) for name in (OWN, FLOOR))
    if own is None or floor is None or floor.flaw:
        return []
    return [
        Row(
            f"first load, beside the floor{words}",
            f"{seconds / floor.median:.1f} x",
            f"≤ {MOST_FLOORS} x the floor",
            seconds / floor.median <= MOST_FLOORS,
            f"{seconds:.2f} s, floor {floor.median:.2f} s",
        )
        for seconds, words in _with_and_without_words(own)
    ]


def _texts(own: dict[str, Summary]) -> Row:
    sent = sum(summary.texts_embedded for summary in own.values())
    new = sum(summary.texts_new for summary in own.values())
    return Row(
        "texts sent to the embedder",
        f"{sent:,}",
        f"{new:,}, the distinct ones never seen before",
        sent == new,
        "; ".join(f"{name} {summary.texts_embedded:,}" for name, summary in own.items()),
    )


def save(session: Session, measured: Sequence[Measurement]) -> None:
    """Write everything down, and print the verdicts."""
    summaries = summarise(measured)
    record(
        f"peers-{session.name}",
        f"Beside its peers: {session.name}",
        verdicts(summaries),
        session=asdict(session),
        operations={
            operation: {name: asdict(summary) for name, summary in of.items()}
            for operation, of in summaries.items()
        },
    )
