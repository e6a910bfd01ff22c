"""Conditions as SQL over tables s (source), d (document) and r (document revision).

Values are bound, and so are keys of metadata: nothing a caller gives becomes part of the
statement. Nothing is cast from what a document holds, so nothing can fail. What the indexes on
tags and metadata can answer is written as they need it: containment, outside of `is true`.
"""

from collections.abc import Callable
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from kb_assets.retrieval.comparison import Comparison, Scalar
from kb_assets.retrieval.conditions import And, Condition, Not, Or

_COLUMNS = {
    "source": sql.SQL("s.name"),
    "path": sql.SQL("d.path"),
    "title": sql.SQL("r.title"),
    "media_type": sql.SQL("r.media_type"),
}
_TEXT = {
    "=": sql.SQL("{column} = {value}::text"),
    "!=": sql.SQL("{column} <> {value}::text"),
    "in": sql.SQL("{column} = any({value}::text[])"),
    "contains": sql.SQL("strpos({column}, {value}::text) > 0"),
    "starts with": sql.SQL("starts_with({column}, {value}::text)"),
}
_ORDER = {"<": sql.SQL("<"), "<=": sql.SQL("<="), ">": sql.SQL(">"), ">=": sql.SQL(">=")}

_CONTAINS = sql.SQL("r.metadata @> {}")
_TEXT_HERE = sql.SQL("""({} #>> '{{}}') collate "C" """)
_IS = sql.SQL("(jsonb_typeof({here}) = {kind} and {test}) is true")

Bind = Callable[[object], sql.Placeholder]


def compile_condition(condition: Condition) -> tuple[sql.Composable, dict[str, Any]]:
    """Return a condition as SQL, and its parameters: `where_0`, `where_1` and so on."""
    named: dict[str, Any] = {}

    def bind(value: object) -> sql.Placeholder:
        name = f"where_{len(named)}"
        named[name] = value
        return sql.Placeholder(name)

    return _condition(condition, bind), named


def _condition(condition: Condition, bind: Bind) -> sql.Composable:
    match condition:
        case And(parts):
            return _joined(" and ", [_condition(part, bind) for part in parts])
        case Or(parts):
            return _joined(" or ", [_condition(part, bind) for part in parts])
        case Not(part):
            return sql.SQL("(not {})").format(_condition(part, bind))
        case Comparison(field, operator, value):
            keys = condition.keys
            compared = _metadata(keys, operator, value, bind) if keys else None
            return sql.SQL("({})").format(compared or _column(field, operator, value, bind))


def _joined(word: str, parts: list[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(word).join(parts))


def _column(field: str, operator: str, value: Any, bind: Bind) -> sql.Composable:  # noqa: ANN401
    match field, operator:
        case "tags", "has":
            return sql.SQL("r.tags @> {}::text[]").format(bind([value]))
        case "tags", _:
            return sql.SQL("cardinality(r.tags) > 0")
        case _, "exists":
            return sql.SQL("{} is not null").format(_COLUMNS[field])
    value = bind(list(value) if operator == "in" else value)
    compared = _TEXT[operator].format(column=_COLUMNS[field], value=value)
    return sql.SQL("({}) is true").format(compared) if field == "title" else compared


def _metadata(
    keys: tuple[str, ...],
    operator: str,
    value: Any,  # noqa: ANN401
    bind: Bind,
) -> sql.Composable:
    if operator == "=":
        return _CONTAINS.format(bind(_nested(keys, value)))
    if operator == "contains" and not isinstance(value, str):
        return _CONTAINS.format(bind(_nested(keys, [value])))
    # One step for each key, each as text: what is taken as a path would index lists, too.
    steps = [sql.SQL(" -> {}::text").format(bind(key)) for key in keys]
    here = sql.SQL("(r.metadata{})").format(sql.Composed(steps))
    match operator:
        case "exists":
            return sql.SQL("{} is not null").format(here)
        case "!=":
            return sql.SQL("({} <> {}) is true").format(here, bind(Jsonb(value)))
        case "in":
            values = bind([Jsonb(one) for one in value])
            return sql.SQL("({} = any({}::jsonb[])) is true").format(here, values)
        case "between":
            lowest, highest = value
            bounds = [_ordered(here, ">=", lowest, bind), _ordered(here, "<=", highest, bind)]
            return _joined(" and ", bounds)
        case "contains":
            listed = _CONTAINS.format(bind(_nested(keys, [value])))
            return _joined(" or ", [listed, _text_has(here, value, bind)])
    return _ordered(here, operator, value, bind)


def _nested(keys: tuple[str, ...], value: object) -> Jsonb:
    for key in reversed(keys):
        value = {key: value}
    return Jsonb(value)


def _text_has(here: sql.Composable, part: str, bind: Bind) -> sql.Composable:
    found = sql.SQL("strpos({}, {}::text) > 0").format(_TEXT_HERE.format(here), bind(part))
    return _IS.format(here=here, kind=sql.Literal("string"), test=found)


def _ordered(here: sql.Composable, operator: str, value: Scalar, bind: Bind) -> sql.Composable:
    """Compare numbers with numbers as JSON, which needs no cast, and texts byte by byte."""
    sign = _ORDER[operator]
    if isinstance(value, str):
        test = sql.SQL("{} {} {}::text").format(_TEXT_HERE.format(here), sign, bind(value))
        return _IS.format(here=here, kind=sql.Literal("string"), test=test)
    test = sql.SQL("{} {} {}").format(here, sign, bind(Jsonb(value)))
    return _IS.format(here=here, kind=sql.Literal("number"), test=test)
