"""One field of documents, compared with a value.

What can be asked of a field is a closed list:

=============  ===================================================================
`source`       `=`, `!=`, `in`
`media_type`   `=`, `!=`, `in`
`path`         `=`, `!=`, `in`, `contains`, `starts with`
`title`        `=`, `!=`, `in`, `contains`, `starts with`, `exists`
`tags`         `has`, `exists`
`metadata.…`   `=`, `!=`, `in`, `<`, `<=`, `>`, `>=`, `between`, `contains`, `exists`
=============  ===================================================================

A comparison is true or false, and never unknown: it is false of a document that does not have
the key, and `<` and the like are false where there is a value of another type. So
`not metadata.year >= 2024` is true of documents without a year.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import regex

from kb_assets.documents.front_matter import plain_int
from kb_assets.documents.normalise import normalise
from kb_assets.errors import SettingsError

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = Scalar | tuple[Scalar, ...]

MAX_VALUES = 1000

QUOTED = r""""(?:[^"\\]|\\.|"")*"|'(?:[^'\\]|\\.|'')*'"""
"""Text in quotes, as a pattern; a quote within is doubled, or follows a backslash."""

WORD = r"[\w\p{M}-]+"
"""A name without quotes, as a pattern for `regex`."""

_TEXT_OPERATORS = ("=", "!=", "in")
OPERATORS = {
    "source": _TEXT_OPERATORS,
    "media_type": _TEXT_OPERATORS,
    "path": (*_TEXT_OPERATORS, "contains", "starts with"),
    "title": (*_TEXT_OPERATORS, "contains", "starts with", "exists"),
    "tags": ("has", "exists"),
    "metadata": (*_TEXT_OPERATORS, "<", "<=", ">", ">=", "between", "contains", "exists"),
}
_ORDERING = frozenset(("<", "<=", ">", ">=", "between"))

_MOST_KEYS = 32
_MOST_BITS = 4096
_KEY = regex.compile(rf"\.(?:(?P<plain>{WORD})|(?P<quoted>{QUOTED}))", regex.DOTALL)
_PLAIN = regex.compile(WORD)
_ESCAPE = re.compile(r"""\\([\\"'])""")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared with a value.

    Attributes:
        field: `source`, `path`, `title`, `media_type`, `tags`, or `metadata` with a key, or with
            keys that lead into objects: `metadata.owner.team`. A key that is more than a word
            stands in quotes: `metadata."due date"`.
        operator: One of those that the field has.
        value: Text, a finite number, True, False or None; for `in` any number of them, for
            `between` the lowest and the highest, for `exists` nothing. It becomes what such a
            value is in documents (Unicode NFC, no control characters).

    Raises:
        SettingsError: The field does not exist, or cannot be compared so.
    """

    field: str
    operator: str
    value: Value = None

    def __post_init__(self) -> None:
        head, keys = _split(self.field)
        if self.operator not in OPERATORS[head]:
            raise SettingsError(
                f"`{head}` cannot be compared by {shown(self.operator)}.",
                why=f"Its operators are {', '.join(OPERATORS[head])}.",
                fix="Use one of these.",
            )
        object.__setattr__(self, "field", ".".join((head, *map(_key_text, keys))))
        object.__setattr__(self, "value", _checked(head, self.operator, self.value))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of metadata that lead to the value; none for another field."""
        return _split(self.field)[1]


def unquoted(text: str) -> str:
    """Return what stands in quotes."""
    quote = text[0]
    pieces = _ESCAPE.split(text[1:-1])
    pieces[::2] = (piece.replace(quote * 2, quote) for piece in pieces[::2])
    return "".join(pieces)


def require_storable(text: str) -> None:
    """Refuse what no name of a source and no path can be.

    Raises:
        SettingsError: It has a null character, or half a character.
    """
    if _NOT_STORABLE.search(text):
        raise SettingsError(
            f"{text!a} cannot be filtered by.",
            why="It has a null character, or half a character: no source or path has.",
            fix="Give the name or the path as `kb status` shows it.",
        )


def shown(value: object) -> str:
    """Return the start of a value, or its type, for a message."""
    if value is None or isinstance(value, str | bool | float):
        return ascii(value)[:100]
    return f"a value of type {type(value).__name__}"


def _split(field: object) -> tuple[str, tuple[str, ...]]:
    """Return which field it is, and the keys of metadata that follow."""
    text = field if isinstance(field, str) else ""
    head = text.partition(".")[0]
    keys: list[str] = []
    at = len(head)
    while found := _KEY.match(text, at):
        keys.append(normalise(found["plain"] or unquoted(found["quoted"])))
        at = found.end()
    if head not in OPERATORS or at < len(text) or (head == "metadata") != bool(keys):
        raise SettingsError(
            f"There is no field {shown(field)}.",
            why=f"Fields are {', '.join(OPERATORS)}; a key of metadata follows after a dot.",
            fix="""Write metadata.year, metadata.owner.team or metadata."due date".""",
        )
    if len(keys) > _MOST_KEYS:
        raise SettingsError(
            f"{len(keys)} keys of metadata in a row cannot be filtered by.",
            why=f"No metadata is nested more than {_MOST_KEYS} deep.",
            fix="Give the keys of a document, as `kb search --json` prints them.",
        )
    return head, tuple(keys)


def _key_text(key: str) -> str:
    if _PLAIN.fullmatch(key):
        return key
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(head: str, operator: str, value: Any) -> Value:  # noqa: ANN401
    """Return a value as documents have it, if the operator takes it."""
    if operator == "exists":
        if value is not None:
            raise _not_comparable(head, operator, value, "It takes no value.")
        return None
    if operator not in ("in", "between"):
        return _scalar(head, operator, value)
    if not isinstance(value, list | tuple):
        raise _not_comparable(head, operator, value, "It takes a list of values.")
    if len(value) > MAX_VALUES:
        why = f"It has {len(value):,} values; {MAX_VALUES:,} can be asked for."
        raise _not_comparable(head, operator, value, why)
    values = tuple(_scalar(head, operator, item) for item in value)
    kinds = {isinstance(one, str) for one in values}
    if operator == "between" and (len(values), len(kinds)) != (2, 1):
        why = "It takes two values, both text or both numbers."
        raise _not_comparable(head, operator, value, why)
    return values


def _scalar(head: str, operator: str, value: Any) -> Scalar:  # noqa: ANN401
    match value:
        case str() if head in ("source", "path"):
            require_storable(value)
            return value
        case str():
            return normalise(value).strip() if head == "tags" else normalise(value)
        case _ if head != "metadata":
            raise _not_comparable(head, operator, value, "It takes text.")
        case None | bool():
            if operator in _ORDERING:
                raise _not_comparable(head, operator, value, "It takes text or a number.")
            return value
        case int() if operator not in _ORDERING:
            return plain_int(value)
        case int() if value.bit_length() <= _MOST_BITS:
            return value
        case float() if math.isfinite(value):
            return value
    why = "It takes text, finite numbers, true, false and null."
    raise _not_comparable(head, operator, value, why)


def _not_comparable(head: str, operator: str, value: object, why: str) -> SettingsError:
    return SettingsError(
        f"`{head}` cannot be compared by `{operator}` with {shown(value)}.",
        why=why,
        fix="Give what documents have there; of a date, its text such as '2026-01-31'.",
    )
