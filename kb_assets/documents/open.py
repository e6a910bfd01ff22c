"""From a source's settings to the source: the one place that knows which kinds there are."""

from pathlib import Path

from kb_assets.documents.files import LocalFolder
from kb_assets.documents.patterns import Patterns
from kb_assets.documents.source import DocumentSource
from kb_assets.errors import SourceError
from kb_assets.settings import SourceSettings


def open_source(settings: SourceSettings, root: Path) -> DocumentSource:
    """Return the source that the settings describe; nothing is listed or read yet.

    Args:
        settings: The source, as `kb.toml` has it.
        root: The folder that a relative `uri` starts from; `~` means the user's home.

    Raises:
        SourceError: The uri or the options are of no use.
    """
    patterns = Patterns(settings.include, settings.exclude)
    if settings.in_object_store:
        from kb_assets.documents.objects import ObjectStorePrefix

        return ObjectStorePrefix(
            settings.uri,
            patterns,
            options=settings.options,
            max_document_bytes=settings.max_document_bytes,
        )
    if "://" in settings.uri:
        raise SourceError(
            f"Source {settings.name!r} cannot be opened at {settings.uri}.",
            why="A source of files is a folder, or in s3://, gs:// or az://.",
            fix="Correct `uri` in kb.toml.",
        )
    folder = root / Path(settings.uri).expanduser()
    return LocalFolder(folder, patterns, max_document_bytes=settings.max_document_bytes)
