"""Conditions as people write them.

::

    tags has "api" and metadata.year >= 2024
    not (path starts with "people/" or source in ("a", "b"))
    metadata.owner exists and metadata.year between 2020 and 2024

`not` binds more tightly than `and`, and `and` more tightly than `or`. Keywords can be written
large or small. Text stands in quotes of either kind; a quote within is doubled, or follows a
backslash, as a backslash does before one of these.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from kb_assets.errors import SettingsError
from kb_assets.retrieval.comparison import OPERATORS, QUOTED, WORD, Scalar, Value, unquoted
from kb_assets.retrieval.conditions import (
    MAX_DEPTH,
    And,
    Comparison,
    Condition,
    Not,
    Or,
    condition_from_json,
    too_deep,
)

_TOKEN = regex.compile(
    rf"""\s*(?:(?P<text>{QUOTED})
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w\p{{M}}.-]))
    |(?P<word>{WORD}(?:\.(?:{WORD}|{QUOTED}))*)
    |(?P<sign>[<>!]=|[=<>(),])
    |(?P<end>\Z)
    |(?P<unknown>.))""",
    regex.VERBOSE | regex.DOTALL,
)
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_SYMBOLS = frozenset(("=", "!=", "<", "<=", ">", ">="))
_WORDS = frozenset(("in", "between", "exists", "contains", "has"))
_ANY_OPERATOR = (*sorted(_SYMBOLS | _WORDS), "starts with")
_LONGEST_NUMBER = 1000
_EXCERPT = 40
_MARK = "\u25b6"
"""Stands in an error's excerpt before the place it is about."""


def parse_where(text: str) -> Condition:
    """Return the condition that a text says.

    Raises:
        SettingsError: It says none; the error shows the place, and what was expected there.
    """
    parser = _Parser(text)
    condition = parser.any_of(1)
    if parser.token.kind != "end":
        raise parser.refused("`and`, `or` or the end")
    return condition


def as_condition(where: "str | Mapping[str, Any] | Condition") -> Condition:
    """Return the condition that a text, JSON, or JSON in a text says.

    Raises:
        SettingsError: It says none.
    """
    if isinstance(where, Condition):
        return where
    if not isinstance(where, str):
        return condition_from_json(where)
    if not where.lstrip().startswith("{"):
        return parse_where(where)
    try:
        value = json.loads(where)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            "The condition is not JSON that can be read.",
            why=str(error),
            fix="""Mend it, or write it as text: 'tags has "api" and metadata.year >= 2024'.""",
        ) from error
    return condition_from_json(value)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """A keyword as it is written here; empty for what cannot be one."""
        return self.text.lower() if self.kind == "word" else ""


class _Parser:
    """Reads a text from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.token = self._read(0)

    def any_of(self, depth: int) -> Condition:
        """Read conditions with `or` between them."""
        parts = [self._all_of(depth)]
        while self._took("or"):
            parts.append(self._all_of(depth))
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def _all_of(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise too_deep()
        if self._took("not"):
            return Not(self._one(depth + 1))
        if self._took("("):
            condition = self.any_of(depth + 1)
            self._require(")")
            return condition
        return self._comparison()

    def _comparison(self) -> Comparison:
        field = self.token
        if field.kind != "word":
            raise self.refused("a field such as tags or metadata.year, `not` or `(`")
        self._next()
        operator = self._operator(field)
        value: Value = None
        match operator:
            case "exists":
                pass
            case "in":
                value = self._list()
            case "between":
                lowest = self._value()
                self._require("and")
                value = (lowest, self._value())
            case _:
                value = self._value()
        try:
            return Comparison(field.text, operator, value)
        except SettingsError as error:
            where = f"In the condition at {self._place(field.start)}"
            why = f"{error.why} {where}"
            raise SettingsError(error.what, why=why, fix=error.fix) from error

    def _operator(self, field: _Token) -> str:
        token = self.token
        if token.text in _SYMBOLS or token.word in _WORDS:
            self._next()
            return token.word or token.text
        if self._took("starts"):
            self._require("with")
            return "starts with"
        head = field.text.partition(".")[0]
        known = OPERATORS.get(head, _ANY_OPERATOR)
        raise self.refused(f"one of {', '.join(known)}")

    def _list(self) -> tuple[Scalar, ...]:
        self._require("(")
        if self._took(")"):
            return ()
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._require(")")
        return tuple(values)

    def _value(self) -> Scalar:
        token = self.token
        value: Scalar
        if token.kind == "text":
            value = unquoted(token.text)
        elif token.kind == "number" and len(token.text) <= _LONGEST_NUMBER:
            value = float(token.text) if set(token.text) & set(".eE") else int(token.text)
        elif token.word in _CONSTANTS:
            value = _CONSTANTS[token.word]
        else:
            raise self.refused("text in quotes, a number, true, false or null")
        self._next()
        return value

    def _took(self, expected: str) -> bool:
        """Step over a keyword or a sign if it stands here."""
        here = self.token.text if self.token.kind == "sign" else self.token.word
        if here != expected:
            return False
        self._next()
        return True

    def _require(self, expected: str) -> None:
        if not self._took(expected):
            raise self.refused(f"`{expected}`")

    def _next(self) -> None:
        self.token = self._read(self.token.end)

    def _read(self, at: int) -> _Token:
        found = _TOKEN.match(self._text, at)
        kind = found.lastgroup
        return _Token(kind, found[kind], found.start(kind), found.end())

    def refused(self, expected: str) -> SettingsError:
        """Return the error that something else should stand here."""
        if self.token.kind == "unknown" and self.token.text in "\"'":
            expected = f"a second {self.token.text} that ends the text"
        return SettingsError(
            "The condition cannot be read.",
            why=f"Expected {expected} at {self._place(self.token.start)}",
            fix="""Write it as in: tags has "api" and not metadata.year < 2024""",
        )

    def _place(self, at: int) -> str:
        before, after = self._text[max(0, at - _EXCERPT) : at], self._text[at : at + _EXCERPT]
        return f"character {at + 1}: {_printable(before)}{_MARK}{_printable(after)}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
