"""`kb init`: a new knowledge base."""

import json
import os
import re
from importlib.resources import files
from pathlib import Path

import click

from kb_assets.cli.session import KbCommand, Session, pass_session
from kb_assets.errors import SettingsError, SourceError

_FILES = {
    "dagster.yaml": "dagster.yaml",
    "workspace.yaml": "workspace.yaml",
    ".env.example": "env.example",
    ".gitignore": "gitignore",
}
"""What is written beside kb.toml, unless it is there, and from which template."""


@click.command(cls=KbCommand, short_help="Start a knowledge base: write kb.toml.")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--source", help="The folder of the documents, or s3://…  [default: documents]")
@click.option("--name", help="What the source is called, for ever.  [default: from its folder]")
@pass_session
def init(session: Session, folder: Path, source: str | None, name: str | None) -> int:
    """Start a knowledge base in FOLDER: write kb.toml and its companions."""
    target = folder.absolute() / "kb.toml"
    if target.exists():
        raise SettingsError(
            f"There is a knowledge base already: {target}.",
            why="`kb init` overwrites nothing.",
            fix="Edit that file, or give another folder.",
        )
    uri, made = _uri(folder.absolute(), source)
    name = name or _name_of(uri if uri != "." else folder.absolute().name)
    _require_sound(name, uri)
    folder.mkdir(parents=True, exist_ok=True)
    written = [target.name, *_write_companions(folder)]
    if made:
        (folder / uri).mkdir()
    settings = _template("kb.toml").replace("{name}", json.dumps(name))
    target.write_text(
        settings.replace("{uri}", json.dumps(uri, ensure_ascii=False)), encoding="utf-8"
    )
    _tell(session, folder, written, {"name": name, "uri": uri, "created": made})
    return 0


def _uri(folder: Path, source: str | None) -> tuple[str, bool]:
    """Return how kb.toml names the source, and whether its folder must be made."""
    if source is None:
        return "documents", not (folder / "documents").exists()
    if "://" in source:
        return source, False
    place = Path(source).expanduser().absolute()
    if not place.is_dir():
        raise SourceError(
            f"There is no folder {place}.",
            why="--source names a folder that exists, or a prefix such as s3://bucket/docs.",
            fix="Create it, or give another one.",
        )
    below = os.path.relpath(place, folder)
    return (str(place) if below.startswith("..") else below), False


def _name_of(uri: str) -> str:
    last = uri.rstrip("/").rsplit("/", 1)[-1].lower()
    slug = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:63]
    return slug if re.match(r"[a-z]", slug) else "documents"


def _require_sound(name: str, uri: str) -> None:
    from pydantic import ValidationError

    from kb_assets.documents.open import open_source
    from kb_assets.settings import SourceSettings

    try:
        settings = SourceSettings(name=name, uri=uri)
    except ValidationError as error:
        why = "; ".join(problem["msg"] for problem in error.errors())
        raise SettingsError(
            f"{name!r} cannot be a source's name.", why=why, fix="Use --name."
        ) from error
    if not settings.in_object_store:
        open_source(settings, Path())


def _write_companions(folder: Path) -> list[str]:
    """Write what is not there yet, and return its names."""
    missing = [name for name in _FILES if not (folder / name).exists()]
    for name in missing:
        (folder / name).write_text(_template(_FILES[name]), encoding="utf-8")
    return missing


def _template(name: str) -> str:
    return (files("kb_assets.cli") / "templates" / name).read_text(encoding="utf-8")


def _tell(session: Session, folder: Path, written: list[str], source: dict[str, object]) -> None:
    from kb_assets.cli.output import console, print_json

    first = [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]
    if session.as_json:
        document = {"folder": folder.absolute(), "written": written, "source": source}
        print_json({**document, "next": [*first, "kb index"]})
        return
    out = console()
    out.print(f"A knowledge base in {folder.absolute()}: {', '.join(written)}.", soft_wrap=True)
    out.print(f"Its documents come from {source['uri']} (source {source['name']}).", soft_wrap=True)
    if source["created"]:
        out.print(f"Put some there: {folder / str(source['uri'])}", soft_wrap=True)
    out.print("\nNext:")
    for command in (*first, "kb index", 'kb search "…"'):
        out.print(f"  {command}", style="cyan")
