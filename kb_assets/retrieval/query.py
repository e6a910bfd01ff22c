"""What a search is asked: a text and typed filters, turned into bound conditions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from psycopg import sql
from psycopg.types.json import Jsonb

from kb_assets.documents.front_matter import JSON, plain_int
from kb_assets.documents.normalise import normalise
from kb_assets.errors import SettingsError
from kb_assets.retrieval.comparison import require_storable
from kb_assets.retrieval.condition_sql import compile_condition
from kb_assets.retrieval.conditions import Condition

Mode = Literal["hybrid", "vector", "lexical"]

MAX_HITS = 1000
MAX_QUERY_CHARACTERS = 32_000

_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Filters:
    """What hits must have; empty means anything.

    Attributes:
        sources: They come from one of these.
        path_prefix: Their path starts with this.
        tags: They have all of these.
        metadata: They contain this: a key with a text, number, truth value or None has exactly
            that; one with a list has a list with at least these items, in any order; one with
            an object has an object that contains that one, so that `{}` is any object.
        where: This is true of them.

    Tags and metadata are normalised as those of documents are.

    Raises:
        SettingsError: No document can be asked for this: a name or path with a null character
            or half a character, or metadata that is not JSON.
    """

    sources: tuple[str, ...] = ()
    path_prefix: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    where: Condition | None = None

    def __post_init__(self) -> None:
        for text in (*self.sources, self.path_prefix):
            require_storable(text)
        object.__setattr__(self, "tags", _tags(self.tags))
        object.__setattr__(self, "metadata", _json(self.metadata))

    @property
    def look_at_documents(self) -> bool:
        """Whether more must be known of a document than its source."""
        return bool(self.path_prefix or self.tags or self.metadata or self.where is not None)

    def condition(self) -> tuple[sql.Composable, dict[str, Any]]:
        """Return the condition over tables s, d and r, and its parameters; all values are bound."""
        parts: list[sql.Composable] = []
        named: dict[str, Any] = {}
        if self.sources:
            parts.append(sql.SQL("s.name = any(%(sources)s)"))
            named["sources"] = list(self.sources)
        if self.path_prefix:
            parts.append(sql.SQL("starts_with(d.path, %(path_prefix)s)"))
            named["path_prefix"] = self.path_prefix
        if self.tags:
            parts.append(sql.SQL("r.tags @> %(tags)s::text[]"))
            named["tags"] = list(self.tags)
        if self.metadata:
            parts.append(sql.SQL("r.metadata @> %(metadata)s"))
            named["metadata"] = Jsonb(self.metadata)
        if self.where is not None:
            condition, values = compile_condition(self.where)
            parts.append(condition)
            named |= values
        return (sql.SQL(" and ").join(parts) if parts else sql.SQL("true")), named


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a search is made, when it is not for everybody; the database enforces it.

    Tags are normalised as those of documents are.

    Attributes:
        sources: Only documents of these sources; none named means of all.
        tags: Only documents with at least one of these tags; none named means with any or none.
        name: Who it is, for the query log.
    """

    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", _tags(self.tags))


@dataclass(frozen=True, slots=True)
class Query:
    """One search.

    Attributes:
        text: What is looked for; not blank.
        limit: The most hits wanted, 1 to 1000.
        filters: What hits must have.
        mode: `hybrid`, `vector` or `lexical`.
        per_document: The most hits from one document; 0 sets no bound.
        min_score: Only hits with at least this score; None sets no bound.
        merge: Whether chunks that stand side by side and are both found become one passage.
        rerank: Whether the reranker is asked, if there is one.
        caller: For whom; None sees everything.

    Raises:
        SettingsError: It cannot be searched for.
    """

    text: str
    limit: int = 10
    filters: Filters = field(default_factory=Filters)
    mode: Mode = "hybrid"
    per_document: int = 0
    min_score: float | None = None
    merge: bool = True
    rerank: bool = True
    caller: Caller | None = None

    def __post_init__(self) -> None:
        cleaned = self.text.replace("\x00", "").encode(errors="replace").decode().strip()
        object.__setattr__(self, "text", cleaned)
        if not cleaned:
            raise SettingsError("There is nothing to search for.", fix="Give a question.")
        if len(cleaned) > MAX_QUERY_CHARACTERS:
            raise SettingsError(
                f"The query has {len(cleaned)} characters.",
                why=f"At most {MAX_QUERY_CHARACTERS} can be searched for.",
                fix="Shorten it.",
            )
        if not 1 <= self.limit <= MAX_HITS:
            raise SettingsError(
                f"{self.limit} hits cannot be returned.",
                why=f"The limit is 1 to {MAX_HITS}.",
                fix="Ask for a number of hits between them.",
            )
        if self.per_document < 0:
            raise SettingsError(
                f"{self.per_document} hits per document cannot be returned.",
                why="It is a number of hits, or 0 for no bound.",
                fix="Ask for 0 or more.",
            )
        if self.mode not in get_args(Mode):
            raise SettingsError(
                f"There is no mode {self.mode!r}.", fix=f"Use {', '.join(get_args(Mode))}."
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise SettingsError("The least score is not a number.", fix="Give one, such as 0.3.")


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalise(tag).strip() for tag in tags)


def _json(value: Any, depth: int = 0) -> JSON:  # noqa: ANN401
    """Return a value as documents' metadata would hold it."""
    if depth > _DEEPEST:
        raise _not_json(f"It is nested more than {_DEEPEST} deep, as no metadata is.")
    match value:
        case None | bool():
            return value
        case str():
            return normalise(value)
        case int():
            return plain_int(value)
        case float() if math.isfinite(value):
            return value
        case list():
            return [_json(item, depth + 1) for item in value]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {normalise(key): _json(item, depth + 1) for key, item in value.items()}
    raise _not_json(f"It holds {ascii(value)[:100]}, of type {type(value).__name__}.")


def _not_json(why: str) -> SettingsError:
    return SettingsError(
        "The metadata cannot be filtered by.",
        why=why,
        fix="Give keys that are text, and values that are text, finite numbers, true, false, "
        "null, lists or objects; of a date, its text such as 2026-01-31.",
    )
