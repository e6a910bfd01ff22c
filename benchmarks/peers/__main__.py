"""Measure this project beside its peers and the floor.

    python -m benchmarks.peers [BEFORE AFTER] [--rounds 3] [--only floor,kb_assets]

Without folders it generates them. Fails if what this project stored is not what it should be.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import corpus
from benchmarks.peers.environments import CACHE, CannotInstallError, python_of, version_of
from benchmarks.peers.protocol import markdown_files
from benchmarks.peers.results import Session, save
from benchmarks.peers.run import Contestant, measure
from kb_assets import __version__

OWN = ("kb_assets", "kb_assets, defaults")
PEERS = {
    "LangChain": ("langchain", "langchain_index", ("langchain-core", "langchain-postgres")),
    "LlamaIndex": (
        "llama_index",
        "llama_index_pipeline",
        ("llama-index-core", "llama-index-vector-stores-postgres"),
    ),
    "CocoIndex": ("cocoindex", "cocoindex_flow", ("cocoindex",)),
}


def contestants(only: set[str]) -> tuple[list[Contestant], dict[str, str]]:
    """Return who takes part, in order, and who cannot, with the reason."""
    own = (sys.executable, "-m", "benchmarks.peers.kb_assets_index")
    floor = (sys.executable, "-m", "benchmarks.peers.floor")
    chosen = [
        Contestant("floor", floor, ""),
        Contestant("kb_assets", own, f"kb_assets {__version__}"),
    ]
    missing = {}
    for name, (peer, module, packages) in PEERS.items():
        if only and name not in only:
            continue
        try:
            command = (python_of(peer), "-m", f"benchmarks.peers.{module}")
            chosen.append(Contestant(name, command, version_of(peer, packages)))
        except CannotInstallError as failure:
            missing[name] = str(failure)
    chosen.append(Contestant("kb_assets, defaults", (*own, "--default"), chosen[1].versions))
    return [one for one in chosen if not only or one.name in only], missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("after", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda names: set(names.split(",")), default=set())
    options = parser.parse_args()
    if (options.before is None) != (options.after is None):
        parser.error("give both folders, or none")
    CACHE.mkdir(exist_ok=True)
    chosen, missing = contestants(options.only)
    with tempfile.TemporaryDirectory(prefix="kb-peers-corpus-") as made:
        before, after = options.before, options.after
        if before is None:
            before, after = Path(made, "before"), Path(made, "after")
            corpus.generate(before, after)
        session = Session(
            name="generated" if options.before is None else before.resolve().name,
            command=shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
            files=len(markdown_files(before)),
            bytes=sum((before / path).stat().st_size for path in markdown_files(before)),
            versions={one.name: one.versions for one in chosen},
            missing=missing,
            rounds=options.rounds,
        )
        measured = list(measure(before, after, chosen, options.rounds))
    save(session, measured)
    if flaws := {one.flaw for one in measured if one.contestant in OWN and one.flaw}:
        sys.exit("What kb_assets stored is wrong: " + "; ".join(sorted(flaws)))


if __name__ == "__main__":
    main()
