"""The columns behind an asset, as Dagster's catalogue shows them: types from the schema."""

from collections.abc import Mapping

import dagster as dg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from kb_assets.database import message_tables, schema
from kb_assets.database.names import SPACE_SCHEMA

_DOCUMENT = {
    "id": "The document, for as long as its source has it",
    "source_id": "The source it comes from",
    "path": "Where it is in its source",
    "slot": "Hash of the path modulo 4096; says which shard it belongs to, for ever",
    "live_revision_id": "The revision readers see",
    "pending_revision_id": "The revision that waits to be published",
    "live_tags": "Tags of the revision readers see, by which callers may be limited",
    "missing_since": "When it was first missed, while the mass-delete guard keeps it",
    "vanished_at": "When it was seen to be gone; it leaves at the next publish",
    "created_at": "When it was first listed",
}
_REVISION = {
    "id": "The revision",
    "document_id": "The document whose content it is",
    "content_hash": "SHA-256 of the content's bytes, and of its sidecar's",
    "recipe_id": "Versions and settings of parser, splitter and input text",
    "title": "The title the content gives itself",
    "text": "The normalised text",
    "metadata": "Front matter or sidecar, without title and tags",
    "tags": "Tags from front matter or sidecar",
    "media_type": "What the content was",
    "state": "`parsed`, or `chunked` once it is split",
    "run_id": "The run that read it",
    "created_at": "When it was read",
}
_CHUNK = {
    "revision_id": "The revision it is a span of",
    "ordinal": "Its place in the revision, from 0",
    "source_id": "The source it comes from",
    "input_hash": "SHA-256 of the text that is embedded for it: the key of its vector",
    "byte_start": "Where it starts in the revision's text, in UTF-8 bytes",
    "byte_end": "Where it ends",
    "token_count": "Tokens in it: exact if chunks are measured in tokens, else estimated",
    "heading_path": "The headings it stands under, outermost first",
    "text": "The span itself",
}
_EVALUATION = {
    "id": "Grows with each evaluation",
    "evaluated_at": "When it was stored",
    "run_id": "The run that asked",
    "space_id": "The space that was asked",
    "purpose": "`quality` stops things if it fails; `comparison` is of other spaces or questions",
    "questions_hash": "What the set of questions is known by",
    "questions": "How many were asked",
    "metrics": "Means and 95% intervals, by mode and measure",
    "per_question": "The measures of each question, by question, mode and measure",
    "seconds": "How long a search took, by mode: `p50` and `p95`",
    "verdict": "`holds` or `fails`",
    "reasons": "Why it fails, in sentences",
}
_MESSAGE = {
    "id": "What the client calls it; with `created_at` it is what a message is known by",
    "conversation_id": "The conversation it is a turn of; files are sorted by it, then by time",
    "created_at": "When it was said; decides its month, and never changes",
    "role": "Who speaks: `system`, `developer`, `user`, `assistant` or `tool`",
    "content": "What is said",
    "language": "As the client names it",
    "intent": "As the client names it",
    "metadata": "JSON; in Parquet the text that PostgreSQL prints",
    "token_count": "Tokens of the content",
    "ordinal": "Its place in the conversation, in order of intake; null if it came late",
    "total_bytes": "Bytes of content of the conversation up to it, itself included",
    "total_tokens": "The same in tokens",
}
_DESCRIPTIONS: Mapping[str, Mapping[str, str]] = {
    "document": _DOCUMENT,
    "document_revision": _REVISION,
    "chunk": _CHUNK,
    "evaluation": _EVALUATION,
    "message": _MESSAGE,
}


def document_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of `kb.document`."""
    return _of(schema.document)


def revision_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of `kb.document_revision`."""
    return _of(schema.document_revision)


def chunk_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of `kb.chunk`."""
    return _of(schema.chunk)


def evaluation_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of `kb.evaluation`."""
    return _of(schema.evaluation)


def message_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of `kb.message`, and of the files that it becomes."""
    return _of(message_tables.message)


def vector_columns() -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    """Return what the catalogue says of a space's table of vectors, which is made at run time."""
    columns = [
        dg.TableColumn(
            "input_hash",
            "bytea",
            "SHA-256 of the input text, shared by all chunks that have it",
            dg.TableColumnConstraints(nullable=False, unique=True),
        ),
        dg.TableColumn(
            "vector",
            "halfvec(n) or vector(n)",
            "The text's vector, of exactly the model's length",
            dg.TableColumnConstraints(nullable=False),
        ),
    ]
    return {
        "dagster/table_name": f"{SPACE_SCHEMA}.embedding_<space>",
        "dagster/column_schema": dg.TableSchema(columns),
    }


def _of(table: Table) -> dict[str, dg.MetadataValue | dg.TableSchema | str]:
    described = _DESCRIPTIONS[table.name]
    columns = [
        dg.TableColumn(
            column.name,
            column.type.compile(dialect=postgresql.dialect()).lower(),  # type: ignore[no-untyped-call]
            described[column.name],
            dg.TableColumnConstraints(
                nullable=bool(column.nullable),
                # One of several columns of a key is not unique by itself.
                unique=bool(column.unique or table.primary_key.columns.keys() == [column.name]),
            ),
        )
        for column in table.columns
    ]
    return {
        "dagster/table_name": f"{table.schema}.{table.name}",
        "dagster/column_schema": dg.TableSchema(columns),
    }
