"""Memory that is shared: a month is copied in pieces, to take no more than a few at a time.

Allocators keep what was freed for the next time. Arrow, DuckDB, the driver and each thread have
their own, and what they keep adds up to several times what they need at once.
"""

import ctypes

import pyarrow as pa

from kb_assets.errors import DiskError

_MOST_ARENAS = -8
"""What `mallopt` calls M_ARENA_MAX."""


class TooLargeError(DiskError):
    """So many rows at once do not fit into the memory that they may take."""


def share_allocator() -> None:
    """Let Arrow take memory from where everything else does, and every thread from one place.

    Otherwise each thread keeps what it freed to itself. Of the GNU C library; others manage.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    options = getattr(ctypes.CDLL(None), "mallopt", None)
    if options is not None:
        options(_MOST_ARENAS, 1)
