"""Where a document's metadata stands that its format has no place for: `<path>.meta.yaml`."""

SUFFIX = ".meta.yaml"
"""What is added to a document's path; nothing that ends so is a document itself."""

MAX_METADATA_BYTES = 64 * 1024
"""The most a sidecar, or front matter, may hold."""


def joint_token(document: str | None, sidecar: str | None) -> str | None:
    """Return the version of a document with its sidecar; None if either is not known."""
    return None if document is None or sidecar is None else f"{document}+{sidecar}"
