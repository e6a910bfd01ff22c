"""What `kb_assets` offers, and that offering it costs nothing."""

import subprocess
import sys

import kb_assets


def test_the_public_names_are_these() -> None:
    assert sorted(kb_assets.__all__) == [
        "Answer",
        "Embedder",
        "Hit",
        "KbError",
        "KnowledgeBase",
        "Message",
        "Model",
        "PermanentError",
        "Reply",
        "Settings",
        "TransientError",
        "Window",
    ]
    for name in kb_assets.__all__:
        assert getattr(kb_assets, name).__name__ == name


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import kb_assets, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"numpy", "psycopg", "dagster", "openai", "pydantic", "sqlalchemy"}
    assert not heavy & set(loaded)
