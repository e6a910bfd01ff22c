"""Why a document of a source cannot be read: one stable word each, and how it is said."""

from kb_assets.errors import DocumentError

_SAID = {
    "outside_root": ("leads out of the source", "Replace the link by what it leads to."),
    "broken_link": ("is a link that leads nowhere", "Remove the link or mend it."),
    "not_a_file": ("is a pipe, a socket or a device", "Remove it or exclude it."),
    "name_not_utf8": ("has a name that is not UTF-8", "Rename it."),
    "unreadable": ("cannot be opened", "Let the user or key that reads the source read it."),
    "vanished_while_reading": ("was listed, and is gone", "Nothing: the next run lists again."),
    "too_large": ("is too large", "Raise max_document_bytes, or exclude it."),
}
_SIDECAR = "sidecar_"


def refusal(reason: str, path: str, why: str = "") -> DocumentError:
    """Return the error for a document that cannot be read.

    Args:
        reason: A stable word; `sidecar_` before it puts it down to the sidecar.
        path: The document's path.
        why: What is known of the cause.
    """
    what, fix = _SAID[reason.removeprefix(_SIDECAR)]
    of = f"The sidecar of {path}" if reason.startswith(_SIDECAR) else path
    return DocumentError(reason, f"{of} {what}.", why=why, fix=fix)


def too_large(path: str, size_bytes: int, limit: int) -> DocumentError:
    """Return the error for a document of more bytes than are allowed."""
    return refusal("too_large", path, f"It has {size_bytes:,} bytes; {limit:,} are allowed.")


def blame_sidecar(error: DocumentError, path: str) -> DocumentError:
    """Return a sidecar's error as that of its document."""
    if error.reason == "too_large":
        return DocumentError(
            "sidecar_too_large", error.what, why=error.why, fix="Say less in the sidecar."
        )
    return refusal(_SIDECAR + error.reason, path, error.why)
