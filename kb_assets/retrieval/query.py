"""What a search is asked: a text and typed filters, turned into bound conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from kb_assets.errors import SettingsError

MAX_HITS = 1000
MAX_QUERY_CHARACTERS = 32_000


@dataclass(frozen=True, slots=True)
class Filters:
    """What hits must have; empty means anything.

    Attributes:
        sources: They come from one of these.
        path_prefix: Their path starts with this.
        tags: They have all of these.
        metadata: They have all of these keys with exactly these values.
    """

    sources: tuple[str, ...] = ()
    path_prefix: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
            named["metadata"] = Jsonb(dict(self.metadata))
        return (sql.SQL(" and ").join(parts) if parts else sql.SQL("true")), named


@dataclass(frozen=True, slots=True)
class Query:
    """One search.

    Attributes:
        text: What is looked for; not blank.
        limit: The most hits wanted, 1 to 1000.
        filters: What hits must have.

    Raises:
        SettingsError: It cannot be searched for.
    """

    text: str
    limit: int = 10
    filters: Filters = field(default_factory=Filters)

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
                f"{self.limit} hits cannot be returned.", why=f"The limit is 1 to {MAX_HITS}."
            )
