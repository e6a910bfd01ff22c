"""Whether the capacity model (`benchmarks.capacity`) foretells what is measured.

    python -m benchmarks.scale [--chunks 5000 20000 80000]

Knowledge bases of several sizes are made, measured and thrown away; workers index shards against a
provider that takes its time, with and without a limit. For each quantity the model's number is
divided by the measured one. Fails where that is off by more than the factor that is stated:
little for sizes, more for times, to which everything else on the machine adds: leave it alone
meanwhile.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from benchmarks.capacity import (
    Corpus,
    bytes_of,
    graph_bytes,
    load_cost,
    search_milliseconds,
    seconds_of,
)
from benchmarks.fleet import Fleet, bounds, simulated_seconds
from benchmarks.record import RESULTS, Row, record
from benchmarks.scale_points import (
    CHUNKS_PER_DOCUMENT,
    Point,
    fleet_seconds,
    graph_seconds,
    measure,
)

CHUNKS = (5_000, 20_000, 80_000)
ROUNDS = 2
"""Of times the least counts: whatever else happens only adds."""

FLEET_CHUNKS = 10_000
FLEETS = (
    (Fleet(1, 8, 2, requests_in_flight=2, texts_per_request=64), 0),
    (Fleet(2, 8, 2, requests_in_flight=2, texts_per_request=64), 0),
    (Fleet(2, 8, 2, requests_in_flight=2, texts_per_request=64), 700),
)
"""With what the provider allows: texts in a second."""

GRAPHS = ((10_000, 384), (10_000, 1536))

WITHIN = {"size": 1.25, "stage": 2.0, "search": 2.0, "fleet": 1.5, "recorded": 1.5}
"""By what factor the model may be off, by kind of quantity."""

SECONDS_OF_STARTING = 0.2
"""A stage that starts processes may take so much longer, whatever it does."""

Compared = tuple[str, float, float]
"""Of which size; what the model says; what was measured."""


def least(points: Iterable[Point]) -> Point:
    """Return the least times of several rounds."""
    first, *rest = points
    for other in rest:
        first = replace(
            first,
            seconds={name: min(first.seconds[name], other.seconds[name]) for name in first.seconds},
            milliseconds={
                mode: min(first.milliseconds[mode], other.milliseconds[mode])
                for mode in first.milliseconds
            },
        )
    return first


def _row(kind: str, name: str, unit: str, compared: list[Compared]) -> Row:
    ratios = [model / measured for _, model, measured in compared]
    factor = WITHIN[kind]
    told = "; ".join(
        f"{size}: {model:,.3g} {unit}, measured {measured:,.3g}"
        for size, model, measured in compared
    )
    return Row(
        f"{kind}: {name}",
        ", ".join(f"{ratio:.2f}" for ratio in ratios) + " of the measured",
        f"within a factor of {factor:g}",
        all(
            1 / factor <= model / measured <= factor
            or (kind == "stage" and unit == "s" and abs(model - measured) < SECONDS_OF_STARTING)
            for _, model, measured in compared
        ),
        told,
    )


def point_rows(points: list[Point]) -> Iterator[Row]:
    """Compare sizes, stages and searches."""

    def compared(quantity: str, name: str, model: object, per: float) -> list[Compared]:
        return [
            (f"{one.corpus.chunks:,} chunks", model(one.corpus)[name] / per,
             getattr(one, quantity)[name] / per)
            for one in points
        ]  # fmt: skip

    for name in points[0].bytes:
        yield _row("size", name, "MB", compared("bytes", name, bytes_of, 1e6))
    for name in points[0].seconds:
        yield _row("stage", name, "s", compared("seconds", name, stages_of, 1))
    for name in points[0].milliseconds:
        yield _row("search", name, "ms", compared("milliseconds", name, search_milliseconds, 1))


def stages_of(corpus: Corpus) -> dict[str, float]:
    """Return the model's seconds by the stages that are told apart from outside."""
    found = seconds_of(corpus)
    return {
        "reading": found["reading"],
        "splitting": found["splitting"],
        "storing vectors": found["storing vectors"],
        "publishing": found["analysing words"] + found["publishing"],
        "under the publish lock": found["publishing"],
        "HNSW index": found["HNSW index"],
    }


def fleet_rows() -> Iterator[Row]:
    """Compare fleets: by the largest bound, and by events."""
    for fleet, texts_per_second in FLEETS:
        chunks, measured = fleet_seconds(FLEET_CHUNKS, fleet, texts_per_second)
        corpus = Corpus(chunks, CHUNKS_PER_DOCUMENT, 1204, 339, 384)
        fleet = replace(fleet, tokens_per_minute=60 * texts_per_second * corpus.tokens)
        cost = load_cost(corpus)
        found = bounds(chunks, cost, fleet)
        decides = max(found, key=lambda name: found[name])
        limit = f", {texts_per_second} texts/s" if texts_per_second else ""
        name = f"{fleet.workers} of {fleet.shards} shards at once{limit}"
        yield _row(
            "fleet", name, "s",
            [
                ("by events", simulated_seconds(chunks, cost, fleet), measured),
                (f"by arithmetic ({decides})", found[decides], measured),
            ],
        )  # fmt: skip


def graph_row() -> Row:
    """Compare what more dimensions cost a build; both are of the same size and moment."""
    times: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for vectors, dimensions in GRAPHS:
            times.setdefault(dimensions, []).append(graph_seconds(vectors, dimensions))
    (small, low), (large, high) = ((min(found), of) for of, found in times.items())
    vectors = GRAPHS[0][0]
    of = {each: seconds_of(Corpus(vectors, dimensions=each))["HNSW index"] for each in (low, high)}
    compared = [(f"{high} dimensions against {low}", of[high] / of[low], large / small)]
    return _row("stage", f"HNSW index of {vectors:,} vectors", "x", compared)


def recorded_rows() -> Iterator[Row]:
    """Compare with what other benchmarks recorded, where no constant comes from."""
    million = 1e6 * graph_bytes(384) / 1e9
    yield _row("recorded", "HNSW index", "GB", [("a million chunks", million, 1.17)])
    found = json.loads((RESULTS / "growth.json").read_text())["sizes"][-1]
    corpus = Corpus(found["vectors"], found["vectors"] / found["files"], 1240, 300, 384)
    stages, first = stages_of(corpus), found["first"]
    measured = first["listing"] + first["splitting"] + first["publishing"]
    model = stages["reading"] + stages["splitting"] + stages["publishing"]
    compared = [(f"{found['files']:,} documents", model, measured)]
    yield _row("recorded", "reading, splitting, publishing", "s", compared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS)
    sizes = parser.parse_args().chunks
    points = [least(measure(size) for _ in range(ROUNDS)) for size in sizes]
    rows = [*point_rows(points), graph_row(), *fleet_rows(), *recorded_rows()]
    record("scale", "The capacity model", rows, points=[asdict(one) for one in points])
    missed = [row.name for row in rows if not row.met]
    if missed:
        sys.exit(f"The model is off: {', '.join(missed)}")


if __name__ == "__main__":
    main()
