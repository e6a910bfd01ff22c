"""Measure this project beside its peers and the floor.

    python -m benchmarks.peers [BEFORE AFTER] [--rounds 3] [--only floor,kb_assets]

Without folders it generates them. Fails if a peer cannot be installed, or if anybody fails or
stores what is not in the folder.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import corpus
from benchmarks.peers.environments import CACHE, CannotInstallError, python_of, version_of
from benchmarks.peers.protocol import markdown_files
from benchmarks.peers.results import FLOOR, OWN, Session, save
from benchmarks.peers.run import Contestant, measure, running_server
from kb_assets import __version__

_LLAMA_INDEX = ("llama-index-core", "llama-index-vector-stores-postgres")
PEERS = {
    "LangChain": ("langchain", ("langchain_index",), ("langchain-core", "langchain-postgres")),
    "LlamaIndex": ("llama_index", ("llama_index_pipeline",), _LLAMA_INDEX),
    "LlamaIndex with a docstore file": (
        "llama_index",
        ("llama_index_pipeline", "--file"),
        _LLAMA_INDEX,
    ),
    "CocoIndex": ("cocoindex", ("cocoindex_flow",), ("cocoindex",)),
}
"""By name: the environment, the module with its arguments, and the packages that matter."""


def contestants(only: set[str]) -> tuple[list[Contestant], dict[str, str]]:
    """Return who takes part, in order, and who cannot, with the reason."""
    module = "benchmarks.peers.kb_assets_index"
    own = {OWN: (module,), f"{OWN} with defaults": (module, "--default")}
    here = {FLOOR: ("benchmarks.peers.floor",), **own}
    chosen = [
        Contestant(name, (sys.executable, "-m", *command), f"kb_assets {__version__}")
        for name, command in here.items()
        if not only or name in only
    ]
    missing = {}
    for name, (environment, (module, *arguments), packages) in PEERS.items():
        if only and name not in only:
            continue
        try:
            command = (python_of(environment), "-m", f"benchmarks.peers.{module}", *arguments)
            chosen.append(Contestant(name, command, version_of(environment, packages)))
        except CannotInstallError as failure:
            missing[name] = str(failure)
    return chosen, missing


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
    (CACHE / "log").unlink(missing_ok=True)
    chosen, missing = contestants(options.only)
    with tempfile.TemporaryDirectory(prefix="kb-peers-corpus-") as made, running_server() as server:
        before, after = options.before, options.after
        if before is None:
            before, after = Path(made, "before"), Path(made, "after")
            corpus.generate(before, after)
        session = Session(
            name="generated" if options.before is None else before.resolve().name,
            files=len(markdown_files(before)),
            bytes=sum((before / path).stat().st_size for path in markdown_files(before)),
            versions={one.name: one.versions for one in chosen},
            server=server.versions(),
            missing=missing,
            rounds=options.rounds,
        )
        measured = list(measure(server, before, after, chosen, options.rounds))
    save(session, measured)
    flaws = {f"{one.contestant} failed: {one.flaw}" for one in measured if one.flaw}
    failures = flaws | {f"{name} could not be installed: {why}" for name, why in missing.items()}
    if failures:
        sys.exit("\n".join(sorted(failures)))


if __name__ == "__main__":
    main()
