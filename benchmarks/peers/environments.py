"""The environment of each peer: made when it is first needed, kept in `.bench`, pinned."""

import hashlib
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
CACHE = Path(__file__).parents[2] / ".bench"


class CannotInstallError(Exception):
    """A peer's packages are not to be had here."""


def python_of(peer: str) -> str:
    """Return the interpreter of a peer's environment.

    Raises:
        CannotInstallError: pip failed; the end of what it said is in the message.
    """
    pins = REQUIREMENTS / f"{peer}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    environment = CACHE / f"{peer}-{digest}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, done = environment / "bin" / "python", environment / "complete"
    if not done.exists():
        print(f"Installing {peer} into {environment} ...", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
        _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(pins)])
        done.touch()
    return str(python)


def version_of(peer: str, packages: tuple[str, ...]) -> str:
    """Return the pinned versions of the packages that matter."""
    lines = (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines)
    return ", ".join(f"{package} {pinned[package]}" for package in packages)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotInstallError((done.stderr or done.stdout).strip()[-300:])
