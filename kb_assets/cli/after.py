"""Run one of Dagster's programs once a socket is listened on.

    python -m kb_assets.cli.after SOCKET MODULE [ARGUMENT ...]

They import for seconds, which is done meanwhile, and would give up at once if the code server
is not there.
"""

import importlib
import runpy
import socket
import sys
import time
from pathlib import Path


def listens(at: Path) -> bool:
    """Say whether anybody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(at)) == 0


def main() -> None:
    """Wait, and do what the program does."""
    at, module, *arguments = sys.argv[1:]
    importlib.import_module(f"{module}.cli")
    while not listens(Path(at)):
        time.sleep(0.05)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
