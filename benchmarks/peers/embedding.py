"""An embedder that costs next to nothing, the same for every contestant, and counts its texts."""

import threading
import zlib
from collections.abc import Sequence

import numpy
import numpy.typing

DIMENSIONS = 384

_FACTORS = numpy.random.default_rng(1).integers(1, 2**32, DIMENSIONS, dtype=numpy.uint32) | 1


class TrivialEmbedder:
    """Turns texts into vectors that depend on their checksums only."""

    def __init__(self) -> None:
        self.texts = 0
        self._counting = threading.Lock()

    def embed(self, texts: Sequence[str]) -> numpy.typing.NDArray[numpy.float32]:
        """Return one vector for each text, as rows of numbers from -1 to 1."""
        with self._counting:
            self.texts += len(texts)
        sums = numpy.array([zlib.crc32(text.encode()) for text in texts], dtype=numpy.uint32)
        mixed = (sums | 1)[:, None] * _FACTORS
        return mixed.astype(numpy.float32) / 2.0**31 - 1


EMBEDDER = TrivialEmbedder()
"""The one of this process."""
