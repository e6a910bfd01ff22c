"""Memory that is given back: a month is copied in pieces, to take no more than one at a time.

Allocators keep what was freed for the next time. Arrow, DuckDB and the driver each have their own
habits, and what they keep adds up to several times what they need at once.
"""

import ctypes

import pyarrow as pa

from kb_assets.errors import DiskError

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU C library; others give memory back by themselves, or not at all."""


class TooLargeError(DiskError):
    """So many rows at once do not fit into the memory that they may take."""


def share_allocator() -> None:
    """Let Arrow take memory from where everything else in the process does."""
    pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Return what was freed to the operating system."""
    if _trim is not None:
        _trim(0)
