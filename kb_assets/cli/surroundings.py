"""What `kb doctor` looks at around a knowledge base: variables, Dagster, backups, disks, ports.

A run works without any of it, so most of what is not right is a warning.
"""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from kb_assets.cli.finding import Finding, Level
from kb_assets.cli.output import ago, size
from kb_assets.database.connect import DatabaseUrls
from kb_assets.settings import Settings
from kb_assets.settings.mistakes import unknown_variables

DAGSTER_HOME = "DAGSTER_HOME"
UI_PORT = 3000

_LITTLE_DISK_BYTES = 1_000_000_000
_NO_DISK_BYTES = 100_000_000
_SILENT_FOR = timedelta(minutes=5)
"""A daemon reports twice a minute."""

_STORAGE = "kb_assets.defs.storage"
_DEFINITIONS = "kb_assets.definitions"


def variables(settings: Settings) -> Iterator[Finding]:
    """Look for variables that nobody reads, and for what settings name that is not there."""
    for name, meant in unknown_variables(Settings).items():
        fix = f"Did you mean {meant}?" if meant else "Look at its name, or unset it."
        yield Finding("variables", "warn", f"{name} is set, and there is no such setting", fix)
    questions = settings.quality.questions
    if questions is not None and not (settings.root / questions).exists():
        fix = "Correct questions under [quality] in kb.toml."
        yield Finding("quality", "warn", f"there is no {settings.root / questions}", fix)


def disks(settings: Settings) -> Iterator[Finding]:
    """Look how much room there is where files are written."""
    backups = settings.backup.uri
    places = {"disk": settings.home_folder}
    if "://" not in backups:
        places["disk of backups"] = settings.root.resolve() / backups
    seen = set[int]()
    for name, place in places.items():
        folder = next(one for one in (place, *place.parents) if one.exists())
        if folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        free = shutil.disk_usage(folder).free
        level: Level = "ok" if free > _LITTLE_DISK_BYTES else "warn"
        level = "fail" if free < _NO_DISK_BYTES else level
        fix = "" if level == "ok" else "Free some, or name a folder on a larger disk."
        yield Finding(name, level, f"{size(free)} free at {place}", fix)
    unfinished = settings.home_folder / "postgres" / "data.unfinished"
    if unfinished.exists():
        words = f"{unfinished} is left from a first start that was interrupted."
        yield Finding("leftovers", "warn", words, "The next start removes it.")


def dagster_files(settings: Settings) -> Iterator[Finding]:
    """Look whether Dagster is set up for this knowledge base."""
    folder = Path(os.environ.get(DAGSTER_HOME) or settings.root)
    for name, is_sane, words, fix in (
        (
            "dagster.yaml",
            _is_stored_here,
            "runs are kept elsewhere: the UI does not show those of `kb index`",
            f"Let storage.custom.module be {_STORAGE}, as `kb init` writes it.",
        ),
        (
            "workspace.yaml",
            _loads_us,
            f"it loads neither {_DEFINITIONS} nor a server of it",
            "Copy the one that `kb init` writes.",
        ),
    ):
        file = folder / name
        if not file.is_file():
            fix = "`kb dev` needs it: run `kb init` in an empty folder, and copy it from there."
            yield Finding(name, "warn", f"there is no {file}", fix)
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            told = " ".join(str(error).split())
            yield Finding(name, "fail", f"{file} is not YAML: {told}", "Correct it.")
            continue
        if is_sane(content):
            yield Finding(name, "ok", str(file))
        else:
            yield Finding(name, "warn", f"{file}: {words}", fix)


def _is_stored_here(content: Any) -> bool:  # noqa: ANN401
    try:
        return bool(content["storage"]["custom"]["module"] == _STORAGE)
    except (KeyError, TypeError):
        return False


def _loads_us(content: Any) -> bool:  # noqa: ANN401
    try:
        places = content["load_from"]
        return any(
            "grpc_server" in place
            or place.get("python_module") == _DEFINITIONS
            or place["python_module"]["module_name"] == _DEFINITIONS
            for place in places
        )
    except (KeyError, TypeError, AttributeError):
        return False


def ui_port() -> Iterator[Finding]:
    """Look who listens where `kb dev` does by default."""
    address = f"http://127.0.0.1:{UI_PORT}"
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=2) as answer:
            version = json.load(answer)["dagster_version"]
    except ConnectionRefusedError:
        version = ""
    except urllib.error.URLError as error:
        version = "" if isinstance(error.reason, ConnectionRefusedError) else None
    except (OSError, ValueError, KeyError, TypeError):
        version = None
    if version is None:
        words = f"something else than Dagster listens on port {UI_PORT}"
        yield Finding("UI", "warn", words, "`kb dev --port` takes another one.")
    elif version:
        yield Finding("UI", "ok", f"Dagster {version} at {address}")
    else:
        yield Finding("UI", "ok", f"port {UI_PORT} is free for `kb dev`")


def automation(settings: Settings, urls: DatabaseUrls) -> Iterator[Finding]:
    """Look whether schedules and sensors are at work.

    Raises:
        psycopg.Error: Dagster's database cannot be asked.
    """
    from kb_assets.knowledge_base.health.looks import look_at_automation

    reported_at, stopped = look_at_automation(urls.dagster)
    if not settings.schedule.enabled:
        words = "schedule.enabled is false: indexing starts when it is switched on in the UI"
        yield Finding("automation", "warn", words, "Remove it from kb.toml if that is not meant.")
    if stopped:
        words = f"switched off: {', '.join(stopped)}"
        yield Finding("automation", "warn", words, "The UI's page Automation switches them on.")
    if reported_at is None or datetime.now(UTC) - reported_at > _SILENT_FOR:
        last = f"last reported {ago(reported_at)}" if reported_at else "never reported"
        words = f"Dagster's daemon {last}: no schedule starts anything"
        yield Finding("automation", "warn", words, "Run `kb dev`, or start the service of it.")
    elif not stopped and settings.schedule.enabled:
        yield Finding("automation", "ok", f"the daemon reported {ago(reported_at)}")


def alerts() -> Iterator[Finding]:
    """Look whether anybody is told when a run fails; nothing is sent."""
    from kb_assets.defs.webhook import WEBHOOK_VARIABLE, webhook_url

    url = webhook_url()
    parts = urlsplit(url)
    if not url:
        fix = f"Set {WEBHOOK_VARIABLE}: docs/alerts.md says how."
        yield Finding("alerts", "ok", "nobody is told when a run fails", fix)
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        fix = "It must start with https:// and name a host."
        yield Finding("alerts", "fail", f"{WEBHOOK_VARIABLE} is no address of a webhook", fix)
    else:
        yield Finding("alerts", "ok", f"a webhook at {parts.hostname} is told")


def backups(settings: Settings) -> Iterator[Finding]:
    """Look how old the newest backup is, and whether a drill proved it."""
    from kb_assets.knowledge_base import KnowledgeBase
    from kb_assets.knowledge_base.health import begun, ended
    from kb_assets.knowledge_base.health.concerns import backup_concerns
    from kb_assets.knowledge_base.health.looks import look_at_backups

    unknown = dict[str, str]()
    with KnowledgeBase(settings) as kb:
        found = ended(begun(lambda: look_at_backups(kb.backup_place)), "backup", unknown)
    if found is None:
        fix = "Look at [backup] in kb.toml, and at the credentials of the store."
        yield Finding("backup", "warn", unknown["backup"], fix)
        return
    concerns = list(backup_concerns(found, settings.backup, datetime.now(UTC)))
    for one in concerns:
        yield Finding("backup", "warn", one.words, one.fix)
    if not concerns:
        yield Finding("backup", "ok", f"{found.newest}, {ago(found.made_at)}; proven by a drill")
