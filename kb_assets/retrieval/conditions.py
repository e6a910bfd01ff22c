"""Conditions on documents, as values: comparisons, put together with and, or and not.

As JSON::

    {"and": [
        {"field": "tags", "operator": "has", "value": "api"},
        {"not": {"field": "metadata.owner", "operator": "exists"}},
        {"or": [...]}
    ]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kb_assets.errors import SettingsError
from kb_assets.retrieval.comparison import MAX_VALUES, Comparison, shown

__all__ = ["And", "Comparison", "Condition", "Not", "Or", "condition_from_json", "to_json"]

MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class _Several:
    parts: "tuple[Condition, ...]"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise SettingsError(
                f"`{type(self).__name__.lower()}` has no parts.",
                why="Nothing is said of documents.",
                fix="Put at least one condition in, or leave it out.",
            )
        _require_bounded(self.parts)


class And(_Several):
    """All parts are true.

    Raises:
        SettingsError: There is no part, or there is too much in all.
    """

    __slots__ = ()


class Or(_Several):
    """At least one part is true.

    Raises:
        SettingsError: There is no part, or there is too much in all.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Not:
    """The part is false.

    Raises:
        SettingsError: There is too much in all.
    """

    part: "Condition"

    def __post_init__(self) -> None:
        _require_bounded((self.part,))


Condition: TypeAlias = Comparison | And | Or | Not


def to_json(condition: Condition) -> dict[str, Any]:
    """Return a condition as JSON, as `condition_from_json` reads it."""
    match condition:
        case And(parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case Comparison(field, "exists"):
            return {"field": field, "operator": "exists"}
        case Comparison(field, operator, tuple() as values):
            return {"field": field, "operator": operator, "value": list(values)}
        case Comparison(field, operator, value):
            return {"field": field, "operator": operator, "value": value}


def condition_from_json(value: object) -> Condition:
    """Return the condition that a JSON value says.

    Raises:
        SettingsError: It says none, or one that cannot be used.
    """
    return _from_json(value, 1)


def too_deep() -> SettingsError:
    """Return the error of a condition that is nested too deep."""
    return SettingsError(
        "The condition is too deep.",
        why=f"More than {MAX_DEPTH} of and, or, not and parentheses stand in each other.",
        fix="Write it flatter: a and (b and (c and d)) is a and b and c and d.",
    )


def _from_json(value: object, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise too_deep()
    match value if isinstance(value, Mapping) and len(value) <= 3 else None:
        case {"and": [*parts]} if len(value) == 1:  # type: ignore[arg-type]
            return And(tuple(_from_json(part, depth + 1) for part in parts))
        case {"or": [*parts]} if len(value) == 1:  # type: ignore[arg-type]
            return Or(tuple(_from_json(part, depth + 1) for part in parts))
        case {"not": part, **rest} if not rest:
            return Not(_from_json(part, depth + 1))
        case {"field": field, "operator": "exists", **rest} if not rest:
            return Comparison(field, "exists")
        case {"field": field, "operator": operator, "value": compared, **rest} if not rest:
            return Comparison(field, operator, compared)
    raise SettingsError(
        f"This is no condition: {shown(value)}.",
        why='A condition is {"and": [...]}, {"or": [...]}, {"not": ...}, or a comparison.',
        fix='Write comparisons as {"field": "metadata.year", "operator": ">=", "value": 2024}.',
    )


def _require_bounded(parts: tuple[Any, ...]) -> None:
    """Refuse parts that are no conditions, and more than a statement should hold."""
    values = sum(_values(part, 2) for part in parts)
    if values > MAX_VALUES:
        raise SettingsError(
            "The condition is too large.",
            why=f"It compares with {values:,} values; {MAX_VALUES:,} can be asked for.",
            fix="Ask for a tag or a key that these documents have in common.",
        )


def _values(condition: object, depth: int) -> int:
    """Return with how many values a condition compares."""
    if depth > MAX_DEPTH:
        raise too_deep()
    match condition:
        case And(parts) | Or(parts):
            return sum(_values(part, depth + 1) for part in parts)
        case Not(part):
            return _values(part, depth + 1)
        case Comparison(value=tuple() as values):
            return max(1, len(values))
        case Comparison():
            return 1
    raise SettingsError(
        f"This is no condition: {shown(condition)}.",
        why="It is put together from Comparison, And, Or and Not.",
        fix="Give text with conditions to `search(where=...)`.",
    )
