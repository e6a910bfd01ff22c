"""Metadata: front matter in a document's head, and sidecars beside it. YAML, and untrusted.

libyaml's parser is fast and does not recurse; its composer does, and a page of brackets
ends the process. So the parser's events are looked through first: no aliases (a few lines of
them grow to gigabytes), and no deep nesting. What comes out is safe for `jsonb`.
"""

import base64
import datetime
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import yaml

from kb_assets.documents.normalise import decode, normalise
from kb_assets.documents.sidecar import MAX_METADATA_BYTES, SUFFIX
from kb_assets.errors import DocumentError

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

_FENCED = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELDS = re.compile(r"\s*((?:^:[^:\n]+:[ \t]+\S[^\n]*(?:\n|\Z))+)", re.MULTILINE)
_FIELD = re.compile(r"^:([^:\n]+):[ \t]+(\S[^\n]*)", re.MULTILINE)
_DEEPEST = 32
_LARGEST_INT_BITS = 64
_LARGEST_DECIMAL_BITS = 4096

# What `!!bool`, `!!int` and the like raise before a value that is none is no YAMLError.
_YAML_FAILS = (
    *(yaml.YAMLError, ValueError, TypeError, OverflowError, LookupError, AttributeError),
)


class _NotUsableError(ValueError):
    """Why metadata cannot be used."""


def split_front_matter(text: str) -> tuple[dict[str, JSON], str]:
    """Return the metadata in the head of a normalised text, and the text after it.

    A text that does not start with a line `---`, or has no line `---` or `...` to match it,
    has no front matter.

    Raises:
        DocumentError: `front_matter`: it is not YAML, is no mapping, or is over 64 KB.
    """
    fenced = _FENCED.match(text) if text.startswith("---") else None
    if fenced is None:
        return {}, text
    try:
        return _load(fenced[1]), text[fenced.end() :]
    except _NotUsableError as error:
        raise DocumentError(
            "front_matter",
            "The front matter cannot be used.",
            why=str(error),
            fix="Mend the YAML between the lines ---; if it is none, start with an empty line.",
        ) from error


def read_sidecar(content: bytes) -> dict[str, JSON]:
    """Return the metadata in a sidecar.

    Raises:
        DocumentError: `sidecar`: it is not YAML, is no mapping, or is over 64 KB.
    """
    try:
        return _load(normalise(decode(content)))
    except _NotUsableError as error:
        raise DocumentError(
            "sidecar",
            f"The document's {SUFFIX} cannot be used.",
            why=str(error),
            fix="Mend its YAML: keys and values.",
        ) from error


def rst_fields(text: str, at: int) -> dict[str, JSON]:
    """Return the lines `:name: value` that stand at a place in a reStructuredText.

    Numbers, dates and truth values are what they would be in YAML; all else is text.
    """
    fields = _FIELDS.match(text, at)
    found = _FIELD.findall(fields[1][:MAX_METADATA_BYTES]) if fields else []
    return {name.strip(): _scalar(value.strip()) for name, value in found}


def _scalar(text: str) -> JSON:
    try:
        value = _load(f"value: {text}")["value"]
    except (_NotUsableError, KeyError):
        return text
    return text if value is None or isinstance(value, list | dict) else value


def _load(text: str) -> dict[str, JSON]:
    if len(text) > MAX_METADATA_BYTES:
        raise _NotUsableError(f"It is over {MAX_METADATA_BYTES // 1024} KB.")
    try:
        _require_plain(text)
        loaded = yaml.load(text, Loader=yaml.CSafeLoader)
    except _NotUsableError:
        raise
    except _YAML_FAILS as error:
        said = " ".join(str(error).split())
        raise _NotUsableError(said or "It is not YAML that can be read.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise _NotUsableError("It is YAML, but holds no keys.")
    return {_key(key): _json(value) for key, value in loaded.items()}


def _require_plain(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _NotUsableError("It has aliases (*name), which are not followed.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise _NotUsableError(f"It is nested more than {_DEEPEST} deep.")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _json(value: Any) -> JSON:  # noqa: ANN401
    match value:
        case None | bool():
            return value
        case str():
            return normalise(value)
        case int():
            return plain_int(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime.date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {_key(key): _json(item) for key, item in value.items()}
        case set():
            return [*sorted(_key(item) for item in value)]
        case list() | tuple():
            return [_json(item) for item in value]
    return normalise(str(value))


def plain_int(value: int) -> int | str:
    """Return a whole number as metadata holds it: one of more than 64 bits is text."""
    if value.bit_length() < _LARGEST_INT_BITS:
        return value
    return str(value) if value.bit_length() < _LARGEST_DECIMAL_BITS else hex(value)


def _key(key: Any) -> str:  # noqa: ANN401
    match _json(key):
        case str() as text:
            return text
        case None:
            return "null"
        case bool() as truth:
            return str(truth).lower()
        case plain:
            return str(plain)
