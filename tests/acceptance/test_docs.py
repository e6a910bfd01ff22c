"""The pages of docs/, done as a reader would: what they show is what happens."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kb_assets.cli.main import kb
from tests.acceptance.command_line import REPOSITORY, CommandLine

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(kb [^`]+)`")


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [body for language, body in BLOCK.findall(text) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Return each `kb …` that a page shows, in a block or in a sentence."""
    for body in blocks(page, "sh", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|.*[\s;|&/(])(?<!-n )(?<!space )kb ([a-z-].*)$", line):
                yield _words(found[1])
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for found in INLINE.findall(text):
        yield _words(found.removeprefix("kb "))


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&<>"):
            break
        words.append(word.strip("[]"))
    return words


def refusal(words: list[str]) -> str | None:
    """Return why `kb` has no such command or option; None if it has."""
    command: click.Command = kb
    context = click.Context(command, info_name="kb")
    for place, word in enumerate(words):
        if isinstance(command, click.Group) and not word.startswith("-"):
            inner = command.get_command(context, word)
            if inner is None:
                return f"kb has no command {word!r}" if re.fullmatch(r"[a-z-]+", word) else None
            command, context = inner, click.Context(inner, parent=context, info_name=word)
        elif word.startswith("-") and word not in ("-", "--", "--help"):
            known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
            if word.split("=")[0] not in known:
                return f"kb {' '.join(words[:place])} has no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_a_page_names_exists(page: Path) -> None:
    refused = {" ".join(words): why for words in commands(page) if (why := refusal(words))}
    assert not refused


def test_a_command_that_does_not_exist_is_found_out() -> None:
    assert refusal(["backup", "run"]) is None
    assert refusal(["backup", "fly"]) == "kb has no command 'fly'"
    assert refusal(["index", "--backwards"]) == "kb index has no option --backwards"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    near = {target for target in targets if "://" not in target}
    assert {target for target in near if not (page.parent / target).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_commands_is_a_shell_script(page: Path) -> None:
    for body in blocks(page, "sh"):
        done = subprocess.run(["sh", "-n"], input=body, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{body}\n{done.stderr}"


@pytest.mark.parametrize("name", ["first-corpus"])
def test_a_page_works_from_its_first_command_to_its_last(
    name: str, fresh: CommandLine, tmp_path: Path
) -> None:
    script = "".join(blocks(REPOSITORY / "docs" / f"{name}.md", "sh"))
    program = tmp_path / "kb"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m kb_assets.cli "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    environment = fresh.environment()
    done = subprocess.run(
        ["sh", "-eux", "-c", script],
        cwd=fresh.folder,
        env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
