"""Which texts share a request: as few requests as the provider's limits allow.

Providers limit a request both in texts and in tokens. Texts of similar length go
together, because a model pads a batch to its longest text; where that alone would
waste requests, long texts are mixed with short ones.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_OPEN_BATCHES = 64
_TOLERATED = 1.1


def plan_batches(
    token_counts: Sequence[int], *, max_texts: int, max_tokens: int
) -> list[list[int]]:
    """Return the texts of each request, as indices into `token_counts`.

    Every index is in exactly one batch, and no batch is above a limit, except that
    a text of more than `max_tokens` has a batch of its own. Where no text is longer
    than a twentieth of `max_tokens`, there are at most 1.1 times as many batches as
    the two limits make unavoidable, and one more.

    Args:
        token_counts: The length of each text in tokens.
        max_texts: The most texts in a batch, at least 1.
        max_tokens: The most tokens in a batch, at least 1.
    """
    order = sorted(range(len(token_counts)), key=lambda index: -token_counts[index])
    similar = _first_fit(order, token_counts, max_texts, max_tokens)
    fewest = max(-(-len(order) // max_texts), -(-sum(token_counts) // max_tokens))
    if len(similar) <= _TOLERATED * fewest:
        return similar
    return min(similar, _mixed(order, token_counts, max_texts, max_tokens), key=len)


@dataclass(slots=True)
class _Batch:
    texts_left: int
    tokens_left: int
    indices: list[int] = field(default_factory=list)

    def takes(self, tokens: int) -> bool:
        """Say whether a text fits; the first always does."""
        return not self.indices or (self.texts_left > 0 and tokens <= self.tokens_left)

    def add(self, index: int, tokens: int) -> None:
        self.indices.append(index)
        self.texts_left -= 1
        self.tokens_left -= tokens


def _first_fit(
    order: Sequence[int], token_counts: Sequence[int], max_texts: int, max_tokens: int
) -> list[list[int]]:
    """Put each text into the first batch it fits, the longest texts first."""
    batches: list[_Batch] = []
    still_open: deque[_Batch] = deque(maxlen=_OPEN_BATCHES)
    for index in order:
        tokens = token_counts[index]
        batch = next((batch for batch in still_open if batch.takes(tokens)), None)
        if batch is None:
            batch = _Batch(max_texts, max_tokens)
            batches.append(batch)
            still_open.append(batch)
        batch.add(index, tokens)
        if batch.texts_left == 0 or batch.tokens_left <= 0:
            still_open.remove(batch)
    return [batch.indices for batch in batches]


def _mixed(
    order: Sequence[int], token_counts: Sequence[int], max_texts: int, max_tokens: int
) -> list[list[int]]:
    """Fill batch after batch so that texts and tokens run out together."""
    left = deque(order)
    batches: list[list[int]] = []
    while left:
        batch = _Batch(max_texts, max_tokens)
        while left and (index := _next(left, batch, token_counts, max_texts, max_tokens)) >= 0:
            batch.add(index, token_counts[index])
        batches.append(batch.indices)
    return batches


def _next(
    left: deque[int],
    batch: _Batch,
    token_counts: Sequence[int],
    max_texts: int,
    max_tokens: int,
) -> int:
    """Take the longest text if there are tokens to spare, else the shortest; -1 if none fits."""
    spare_tokens = batch.tokens_left * max_texts >= batch.texts_left * max_tokens
    if spare_tokens and batch.takes(token_counts[left[0]]):
        return left.popleft()
    return left.pop() if batch.takes(token_counts[left[-1]]) else -1
