"""SQL in files, by name: the bridge from `queries.sql` to psycopg.

A file holds blocks such as ::

    -- name: vectors_of(hashes)
    -- Why the statement is as it is.
    select input_hash, vector from {embeddings} where input_hash = any(:hashes::bytea[]);

`:hashes` becomes the parameter `%(hashes)s`; `{embeddings}` is replaced by an identifier when
the statement is asked for. Casts `::` stay. Nothing inside quotes is touched, so `'{}'::jsonb`
and `'{a,b}'` need no care. A percent sign needs none either: run a statement that has
parameters with them, and one that has none without.

What cannot be written: an array slice `a[1:2]` (put spaces around the colon), a quote or a
colon in a comment at the end of a line (put comments on lines of their own).
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, cast

from aiosql.query_loader import QueryLoader
from aiosql.utils import VAR_REF
from psycopg.sql import SQL, Composable, Composed, Identifier

_PLACE = re.compile(
    r"""(?P<quoted>'(?:''|[^'])*'|"(?:""|[^"])*")|\{(?P<place>[a-z_][a-z0-9_]*)\}"""
)


class _Psycopg:
    """What aiosql asks of a driver: how parameters look."""

    def process_sql(self, query_name: str, op_type: object, sql: str) -> str:
        """Write parameters psycopg's way, and double percent signs where it looks for any."""
        converted = VAR_REF.sub(_parameter, sql.replace("%", "%%"))
        return (sql if converted == sql.replace("%", "%%") else converted).rstrip("; \n")


class Statements:
    """The named statements of one file."""

    def __init__(self, file: Path) -> None:
        """Read and check the file.

        Raises:
            aiosql.SQLParseException: A block's parameters are not those it names.
        """
        loader = QueryLoader(cast(Any, _Psycopg()), None)
        blocks = loader.load_query_data_from_file(file, encoding="utf-8")
        self._file = file
        self._statements = {block.query_name: _split(block.sql) for block in blocks}
        if len(self._statements) != len(blocks):
            raise ValueError(f"{file} has two statements of one name.")

    @classmethod
    def beside(cls, module_file: str) -> "Statements":
        """Return the statements of `queries.sql` in a module's folder; pass `__file__`."""
        return _of_file(Path(module_file).with_name("queries.sql"))

    @property
    def names(self) -> frozenset[str]:
        """Every statement's name."""
        return frozenset(self._statements)

    def __call__(self, name: str, /, **identifiers: str | tuple[str, ...] | Composable) -> Composed:
        """Return a statement with its identifiers in place.

        Args:
            name: What the block is called.
            identifiers: A table's or column's name for each `{place}`; a tuple is schema and name.
                Where more than a name belongs, such as a type, it is composed already.

        Raises:
            KeyError: No block has that name, or the places are not exactly the ones given.
        """
        if name not in self._statements:
            raise KeyError(f"{self._file} has no statement {name!r}.")
        pieces = self._statements[name]
        places = {place for _, place in pieces if place}
        if places != set(identifiers):
            raise KeyError(f"{name!r} needs identifiers {sorted(places)}: {sorted(identifiers)}")
        parts: list[Composable] = []
        for text, place in pieces:
            parts.append(SQL(text))
            if place:
                parts.append(_part(identifiers[place]))
        return Composed(parts)


@cache
def _of_file(file: Path) -> Statements:
    """Read a file once: several modules of a folder share it."""
    return Statements(file)


def _part(value: str | tuple[str, ...] | Composable) -> Composable:
    if isinstance(value, Composable):
        return value
    return Identifier(*((value,) if isinstance(value, str) else value))


def _parameter(match: re.Match[str]) -> str:
    if match["var_name"] is None:
        return match[0]
    return f"{match['lead']}%({match['var_name']})s"


def _split(sql: str) -> list[tuple[str, str | None]]:
    """Cut a statement at its places: pairs of text and the place that follows it."""
    pieces: list[tuple[str, str | None]] = []
    start = 0
    for match in _PLACE.finditer(sql):
        if match["place"]:
            pieces.append((sql[start : match.start()], match["place"]))
            start = match.end()
    return [*pieces, (sql[start:], None)]
