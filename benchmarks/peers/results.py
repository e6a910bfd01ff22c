"""From measurements to medians, ratios and targets, in `results/peers-<corpus>.json`."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.machine import Machine, this_machine
from benchmarks.peers.run import OPERATIONS, Measurement
from benchmarks.record import RESULTS, Row

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

NOT_PEERS = ("floor", "kb_assets", "kb_assets, defaults")


@dataclass(frozen=True, slots=True)
class Session:
    """What was measured, and where."""

    name: str
    command: str
    files: int
    bytes: int
    versions: dict[str, str]
    missing: dict[str, str]
    rounds: int
    machine: Machine = field(default_factory=this_machine)


@dataclass(frozen=True, slots=True)
class Summary:
    """All turns of one contestant at one operation; numbers that are not seconds are medians."""

    seconds: list[float]
    cpu_seconds: float
    server_cpu_seconds: float
    texts_embedded: int
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
        chunk_texts=round(median(turn.chunk_texts for turn in turns)),
        distinct_texts=round(median(turn.distinct_texts for turn in turns)),
        parts={part: median(one.get(part, 0.0) for one in parts) for part in parts[0]},
        flaw=next((turn.flaw for turn in turns if turn.flaw), ""),
    )


def verdicts(summaries: Summaries) -> list[Row]:
    """Compare this project with the fastest peer that was right, and with the floor."""
    rows = []
    for operation, of in summaries.items():
        own = of.get("kb_assets")
        peers = {name: s.median for name, s in of.items() if name not in NOT_PEERS and not s.flaw}
        if own is None or own.flaw or not peers:
            continue
        fastest = min(peers, key=lambda name: peers[name])
        ratio, target = peers[fastest] / own.median, TARGETS[operation]
        texts = "; ".join(f"{name} {s.texts_embedded:,}" for name, s in of.items())
        rows.append(
            Row(
                operation,
                f"{ratio:.1f} x as fast as {fastest}",
                f"≥ {target} x",
                ratio >= target,
                f"{own.median:.3f} s, {fastest} {peers[fastest]:.3f} s; embedded: {texts}",
            )
        )
    return rows + _beside_the_floor(summaries)


def _beside_the_floor(summaries: Summaries) -> list[Row]:
    own, floor = (summaries["first load"].get(name) for name in ("kb_assets", "floor"))
    if own is None or floor is None or own.flaw:
        return []
    ratio = own.median / floor.median
    publishing = own.parts.get("publish", 0.0)
    detail = (
        f"{own.median:.2f} s, floor {floor.median:.2f} s; {publishing:.2f} s of it publishing and"
        f" the lexical index, without which it is {(own.median - publishing) / floor.median:.1f} x"
    )
    row = Row(
        "first load, beside the floor",
        f"{ratio:.1f} x the floor",
        f"≤ {MOST_FLOORS} x",
        ratio <= MOST_FLOORS,
        detail,
    )
    return [row]


def save(session: Session, measured: Sequence[Measurement]) -> None:
    """Write everything down, and print the verdicts."""
    summaries = summarise(measured)
    rows = verdicts(summaries)
    found = {
        "title": f"Beside its peers: {session.name}",
        "rows": [asdict(row) for row in rows],
        "session": asdict(session),
        "operations": {
            operation: {name: asdict(summary) for name, summary in of.items()}
            for operation, of in summaries.items()
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"peers-{session.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(f"{'met   ' if row.met else 'MISSED'}  {row.name}: {row.measured} ({row.target})")
        print(f"        {row.detail}")
