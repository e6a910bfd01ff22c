"""Objects in a bucket or a folder: put once, proved, fetched and deleted."""

from kb_assets.object_store.store import ObjectStore

__all__ = ["ObjectStore"]
