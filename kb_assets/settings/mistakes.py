"""What is wrong with settings, where it is written, and what was meant."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from kb_assets.errors import SettingsError
from kb_assets.settings.lines import Path as Keys
from kb_assets.settings.lines import lines_of

PREFIX, DELIMITER = "KB_", "__"
"""How variables are named: `KB_EMBEDDING__PROVIDER`."""

_NEEDS_LIST = ("tuple_type", "list_type")
_NEEDS_SECTION = ("model_type", "model_attributes_type", "dict_type")
_KINDS = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "string_type": "a text, in quotation marks",
}


def explain(
    problems: Sequence[ErrorDetails], file: Path, settings: type[BaseModel]
) -> SettingsError:
    """Return the error that names every mistake: its line or variable, and what was meant.

    Values are not repeated: one could be a secret in the wrong place.

    Args:
        problems: What pydantic found.
        file: The `kb.toml`.
        settings: What it must fit.
    """
    lines = lines_of(file.read_text(encoding="utf-8"))
    told = sorted(
        (_number(problem, lines), f"{_place(problem, file, lines)}: {_words(problem, settings)}")
        for problem in problems
    )
    what = "The settings have a mistake."
    if len(told) > 1:
        what = f"The settings have {len(told)} mistakes."
    why = "\n".join(dict.fromkeys(words for _, words in told))
    return SettingsError(what, why=why, fix="Correct what is named, and run `kb doctor`.")


def explain_syntax(error: ValueError, file: Path) -> SettingsError:
    """Return the error of a file that is not TOML."""
    line = re.search(r"line (\d+)", str(error))
    return SettingsError(
        f"{file} is not TOML.",
        why=f"{file}:{line[1]}: {error}" if line else str(error),
        fix="Look at that line: texts need quotation marks, lists need [ ], a section is named "
        "once, true and false are written small.",
    )


def explain_variable(error: ValueError) -> SettingsError:
    """Return the error of a variable whose value should be JSON, and is not."""
    field = re.search(r'field "(\w+)"', str(error))
    name = f"{PREFIX}{field[1]}".upper() if field else f"A variable {PREFIX}*"
    return SettingsError(
        f"{name} is no JSON.",
        why="A variable that stands for a list or a whole section is written as JSON.",
        fix=f"Correct it, or set one key of it: {name}{DELIMITER}….",
    )


def unknown_variables(settings: type[BaseModel]) -> dict[str, str]:
    """Return the variables that are set, look like settings, and are none; and what was meant."""
    known = list(_variables(settings))
    sections = [name.upper() for name in settings.model_fields]
    found = dict[str, str]()
    for name in os.environ:
        if not name.startswith(PREFIX) or name in known:
            continue
        section, delimiter, key = name.removeprefix(PREFIX).partition(DELIMITER)
        if near := get_close_matches(name, known, 1, 0.85):
            found[name] = near[0]
        elif delimiter and section not in sections:
            near = get_close_matches(section, sections, 1, 0.7)
            found[name] = f"{PREFIX}{near[0]}{DELIMITER}{key}" if near else ""
    return found


def _variables(settings: type[BaseModel]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        yield f"{PREFIX}{name}".upper()
        section = _section(field.annotation)
        for key in section.model_fields if section else ():
            yield f"{PREFIX}{name}{DELIMITER}{key}".upper()


def _keys(problem: ErrorDetails) -> Keys:
    """Return what a problem is about; a check of a whole list says which of it in `at`."""
    inside: Keys = problem.get("ctx", {}).get("at", ())
    return (*problem["loc"], *inside)


def _number(problem: ErrorDetails, lines: Mapping[Keys, int]) -> int:
    """Return the line of the innermost thing that is written; 0 if nothing of it is."""
    keys = _keys(problem)
    return next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), 0)


def _place(problem: ErrorDetails, file: Path, lines: Mapping[Keys, int]) -> str:
    if variable := _variable(_keys(problem)):
        return variable
    number = _number(problem, lines)
    return f"{file}:{number}" if number else str(file)


def _variable(keys: Keys) -> str:
    """Return the variable that says what is at some keys; empty if none does."""
    for depth in range(len(keys), 0, -1):
        name = f"{PREFIX}{DELIMITER.join(map(str, keys[:depth]))}".upper()
        said = os.environ.get(name)
        if said is not None and (depth == len(keys) or _says(said, keys[depth])):
            return name
    return ""


def _says(value: str, key: str | int) -> bool:
    try:
        said = json.loads(value)
    except ValueError:
        return True
    return isinstance(said, list) or (isinstance(said, dict) and key in said)


def _words(problem: ErrorDetails, settings: type[BaseModel]) -> str:
    keys = _keys(problem)
    name = ".".join(key for key in keys if isinstance(key, str))
    match problem["type"]:
        case "extra_forbidden":
            return f"{name} is not known. {_meant(keys, settings)}"
        case "missing":
            return f"{name} is missing."
        case "literal_error":
            expected = problem.get("ctx", {})["expected"]
            return f"{name} must be {expected}.{_nearest(problem['input'], expected)}"
        case "value_error":
            return f"{name}: {problem.get('ctx', {})['error']}."
    if problem["type"] in _KINDS:
        return f"{name} must be {_KINDS[problem['type']]}."
    section = _section_at(keys, settings)
    if section and problem["type"] in _NEEDS_LIST:
        return f"{name} must be a list: write its header as [[{name}]], once for each."
    if section and problem["type"] in _NEEDS_SECTION:
        return f"{name} must be a section: write its header as [{name}], once."
    return f"{name}: {problem['msg'].replace('Input should', 'it must')}."


def _nearest(said: object, expected: str) -> str:
    """Return which of the values that are allowed was meant."""
    allowed = re.findall(r"'(.+?)'", expected)
    near = get_close_matches(said.lower(), allowed, 1) if isinstance(said, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""


def _meant(keys: Keys, settings: type[BaseModel]) -> str:
    """Say where an unknown key belongs, or which was meant."""
    name, section = str(keys[-1]), _section_at(keys[:-1], settings)
    known = (section or settings).model_fields
    if section and name in settings.model_fields and not _section_at((name,), settings):
        return "It belongs above the first section."
    for other in settings.model_fields:
        inside = _section_at((other,), settings)
        if inside and name in inside.model_fields:
            return f"It belongs to the section {other}."
    if near := get_close_matches(name.lower(), known, 1):
        return f"Did you mean {near[0]}?"
    return f"Known here: {', '.join(sorted(known))}."


def _section_at(keys: Keys, settings: type[BaseModel]) -> type[BaseModel] | None:
    """Return what a section, or each of a list of sections, must fit; None for other settings."""
    field = settings.model_fields.get(str(keys[0])) if keys else None
    return _section(field.annotation) if field else None


def _section(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
