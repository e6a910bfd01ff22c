"""Getting vectors for the texts that wait: claimed ahead, asked for, stored as they arrive.

While some texts are embedded the next are claimed by another thread, so that the provider
need not wait for the database.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy

from kb_assets.database.run import Run
from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.request import EmbeddedBatch, Outcome, RefusedText, Text, embed_all
from kb_assets.embeddings.store import Call, VectorStore
from kb_assets.errors import (
    CostLimitError,
    ProviderRefusedError,
    ProviderUnavailableError,
    ShardBusyError,
)

_PATIENCE_SECONDS = 0.25
"""How often to look whether another shard has the vectors it claimed."""

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """What came of it so far; see `EmbedReport`."""

    embedded: int = 0
    elsewhere: int = 0
    quarantined: int = 0
    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A window of texts: those to embed, those others are paying for, and how many have theirs."""

    mine: Sequence[Text]
    theirs: Sequence[Text]
    answered: int


class Filling:
    """Fills a space with the wanted texts of one shard."""

    def __init__(self, run: Run, store: VectorStore, embedder: Embedder) -> None:
        self.tally = Tally()
        self._run = run
        self._settings = run.settings.embedding
        self._store = store
        self._embedder = embedder
        self._claimed_elsewhere: list[Text] = []
        self._unanswered_tokens = 0

    @property
    def is_free(self) -> bool:
        """Whether nothing is charged."""
        return self._embedder.usd_per_million_tokens == 0

    def refuse_to_overspend(self, tokens: int) -> None:
        """Stop if so many tokens would cost more than the run may spend.

        Raises:
            CostLimitError: They would.
        """
        if self.is_free or self._run.confirm_cost:
            return
        limit = self._run.settings.limits.max_cost_per_run_usd
        expected, already = self._price(tokens), self._store.spent_usd()
        if already + expected <= limit:
            return
        raise CostLimitError(
            f"Embedding would cost about {expected:.2f} USD.",
            why=f"A run may spend {limit:.2f} USD, and this one has spent {already:.2f}.",
            fix="Run `kb index --confirm-cost`, or raise limits.max_cost_per_run_usd.",
        )

    def fill(self, windows: Iterator[Sequence[Text]]) -> None:
        """Embed those texts that nobody else is paying for, and wait for the others.

        Raises:
            CostLimitError: It has cost more than was expected.
            ProviderRefusedError: The provider refuses. What was answered before is stored.
            ProviderUnavailableError: The provider went on failing. What was answered is stored.
            ShardBusyError: What others claimed was not answered within the time allowed.
            LeaseLostError: Another run took the shard over.
        """
        with closing(_one_ahead(map(self._claim, windows))) as claimed:
            self._embed(claimed)
        self._wait_for_others()

    def _claim(self, window: Sequence[Text]) -> _Claimed:
        ours = self._store.claim([text.input_hash for text in window])
        mine = [text for text in window if text.input_hash in ours]
        theirs = [text for text in window if text.input_hash not in ours]
        if not theirs:
            return _Claimed(mine, (), 0)
        done = self._store.answered_elsewhere([text.input_hash for text in theirs])
        left = [text for text in theirs if text.input_hash not in done]
        return _Claimed(mine, left, len(done))

    def _wait_for_others(self) -> None:
        """Wait until the texts that others claimed have vectors; take over from the dead."""
        if self._claimed_elsewhere:
            count = len(self._claimed_elsewhere)
            self._run.say(f"Waiting for {count} texts that another shard embeds.")
        patience = self._run.settings.limits.lease_wait_seconds
        give_up = time.monotonic() + patience
        while self._claimed_elsewhere:
            waiting, self._claimed_elsewhere = self._claimed_elsewhere, []
            self._embed([self._claim(waiting)])
            if self._claimed_elsewhere and time.monotonic() > give_up:
                raise ShardBusyError(
                    f"{len(self._claimed_elsewhere)} texts are claimed by another shard.",
                    why=f"It did not embed them within {patience:g} seconds.",
                    fix="Let it finish, or end it: its claims are void once its process is gone.",
                )
            if self._claimed_elsewhere:
                time.sleep(_PATIENCE_SECONDS)

    def _embed(self, claimed: Iterable[_Claimed]) -> None:
        answers = embed_all(
            self._embedder,
            self._ours(claimed),
            in_flight=self._settings.requests_in_flight,
            max_texts=self._settings.texts_per_request,
            max_tokens=self._settings.tokens_per_request,
        )
        try:
            with closing(answers):
                for outcomes in answers:
                    self._keep(outcomes)
        except (ProviderRefusedError, ProviderUnavailableError):
            self._store.record(Call(0, 0, 0.0, 0.0, "failed"))
            raise

    def _ours(self, claimed: Iterable[_Claimed]) -> Iterator[Sequence[Text]]:
        """Yield the texts of each window that are to be embedded, if that may be paid for."""
        for window in claimed:
            self.tally.elsewhere += window.answered
            self._claimed_elsewhere += window.theirs
            if window.mine:
                self._unanswered_tokens += sum(text.tokens for text in window.mine)
                self.refuse_to_overspend(self._unanswered_tokens)
                yield window.mine

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        batches = [each for each in outcomes if isinstance(each, EmbeddedBatch)]
        refused = [each for each in outcomes if isinstance(each, RefusedText)]
        if batches:
            self._store.add(
                [text.input_hash for batch in batches for text in batch.texts],
                numpy.concatenate([batch.vectors for batch in batches]),
                *map(self._call, batches),
            )
        if refused:
            self._store.refuse([(each.text.input_hash, each.error) for each in refused])
        self._count(batches, refused)

    def _call(self, batch: EmbeddedBatch) -> Call:
        cost = self._price(batch.tokens)
        return Call(len(batch.texts), batch.tokens, cost, batch.seconds, "answered")

    def _count(self, batches: Sequence[EmbeddedBatch], refused: Sequence[RefusedText]) -> None:
        for batch in batches:
            self._unanswered_tokens -= sum(text.tokens for text in batch.texts)
            self.tally.embedded += len(batch.texts)
            self.tally.requests += 1
            self.tally.tokens += batch.tokens
            self.tally.cost_usd += self._price(batch.tokens)
        self._unanswered_tokens -= sum(each.text.tokens for each in refused)
        self.tally.quarantined += len(refused)

    def _price(self, tokens: int) -> float:
        return tokens * self._embedder.usd_per_million_tokens / 1_000_000


def _one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield items, while the next one is made in another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="embed-ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
