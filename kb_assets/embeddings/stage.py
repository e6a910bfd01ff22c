"""From chunks to vectors: each distinct text is asked for once in each space.

Vectors are stored as they arrive, so that a run that ends early has lost only what was not
answered yet. Two shards that want the same text agree on one of them by a claim.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kb_assets.database.lease import Lease
from kb_assets.database.run import Run
from kb_assets.embeddings.embedder import Embedder
from kb_assets.embeddings.open import embedder_for, model_of
from kb_assets.embeddings.request import EmbeddedBatch, RefusedText, Text, embed_all
from kb_assets.embeddings.space import Space, ensure_space, live_space
from kb_assets.embeddings.store import Call, VectorStore, WantedText, WantedTexts
from kb_assets.errors import (
    CostLimitError,
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
    ShardBusyError,
)
from kb_assets.fingerprints import Shard, settings_fingerprint
from kb_assets.settings import EmbeddingSettings

WINDOW_REQUESTS = 4
"""How many rounds of requests are planned at once: more pack better, and take more memory."""

MAX_WINDOW_TEXTS = 16_384

_NOT_TO_BE_WAITED_FOR = (
    CostLimitError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
)
"""What keeps a new space from being filled, and must not keep readers from what is new."""

_PATIENCE_SECONDS = 0.25
"""How often to look whether another shard has the vectors it claimed."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What came of embedding one shard's texts in one space.

    Attributes:
        space: The space's name.
        state: The space's state.
        texts: Distinct texts that wait in the shard.
        had: Those among them that had their vectors already.
        embedded: Texts that got theirs by this run.
        elsewhere: Texts that another run got meanwhile.
        quarantined: Texts refused.
        requests: Requests that were answered.
        tokens: Tokens the provider counted.
        cost_usd: What that costs.
        seconds: How long it took.
        failure: Why a space that is building could not be filled. It is no error of the stage:
            what waits can be published into the space that answers.
    """

    space: str
    state: str
    texts: int
    had: int
    embedded: int
    elsewhere: int
    quarantined: int
    requests: int
    tokens: int
    cost_usd: float
    seconds: float
    failure: KbError | None = None


@dataclass(slots=True)
class _Tally:
    embedded: int = 0
    elsewhere: int = 0
    quarantined: int = 0
    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


def embed_chunks(run: Run, shard: Shard) -> tuple[EmbedReport, ...]:
    """Embed the texts of a shard that have no vectors, in the space that answers and the new one.

    The space that answers needs what waits to be published; a space that is building needs
    what is published, too. A space that is building and cannot be filled says so in its report:
    readers of the other one need not wait for it.

    Raises:
        CostLimitError: It would cost more than a run may spend; nothing was asked for.
        ProviderRefusedError: The provider refuses. What was answered before is stored.
        ProviderUnavailableError: The provider went on failing. What was answered is stored.
        ShardBusyError: Another run holds the shard.
        LeaseLostError: Another run took the shard over.
    """
    settings = run.settings.embedding
    configured = ensure_space(run.database, model_of(settings), settings.precision)
    live = live_space(run.database)
    spaces = [configured] if live is None or live.id == configured.id else [live, configured]
    reports = []
    failures: list[KbError] = []
    with run.lease(shard) as lease:
        for space in spaces:
            try:
                reports.append(_fill(run, lease, space))
            except KbError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return tuple(reports)


def embedding_conditions(settings: EmbeddingSettings, attempt: str = "") -> bytes:
    """Return the fingerprint of what decides, beside text and space, whether a text is refused.

    Args:
        settings: Who is asked.
        attempt: Set, it makes conditions of its own, under which no earlier refusal counts.
    """
    named = settings.model_dump(mode="json", include={"provider", "model", "base_url"})
    return settings_fingerprint(named | {"attempt": attempt})


def _fill(run: Run, lease: Lease, space: Space) -> EmbedReport:
    started = time.monotonic()
    settings = run.settings.embedding
    # Under --verify no earlier refusal counts; those of this run do.
    conditions = embedding_conditions(settings, run.run_id if run.verify else "")
    store = VectorStore(run.database, lease, space, conditions)
    store.drop_void_claims()
    filling = _Filling(run, store)
    failure: KbError | None = None
    with run.database.session() as connection:
        wanted = WantedTexts(connection, lease, space, conditions)
        count, tokens = wanted.find(everything=run.verify or space.state == "building")
        texts = wanted.count_all()
        try:
            if count:
                filling.start(embedder_for(space.model, settings), tokens)
                for window in wanted.windows(_window_size(settings)):
                    filling.fill(window)
                filling.wait_for_others()
        except _NOT_TO_BE_WAITED_FOR as error:
            if space.state != "building":
                raise
            failure = error
            run.say(f"The new space {space.name} could not be filled: {error}")
    return EmbedReport(
        space=space.name,
        state=space.state,
        texts=max(texts, count),
        had=max(texts - count, 0),
        seconds=time.monotonic() - started,
        failure=failure,
        **dataclasses.asdict(filling.tally),
    )


def _window_size(settings: EmbeddingSettings) -> int:
    round_ = settings.requests_in_flight * settings.texts_per_request
    return min(WINDOW_REQUESTS * round_, MAX_WINDOW_TEXTS)


class _Filling:
    """Fills a space with the wanted texts of one shard."""

    def __init__(self, run: Run, store: VectorStore) -> None:
        self.tally = _Tally()
        self._run = run
        self._settings = run.settings.embedding
        self._store = store
        self._embedder: Embedder
        self._claimed_elsewhere: list[WantedText] = []

    def start(self, embedder: Embedder, tokens: int) -> None:
        """Say who is asked, unless so many tokens would cost more than the run may spend."""
        self._embedder = embedder
        self._refuse_to_overspend(tokens)

    def _refuse_to_overspend(self, tokens: int) -> None:
        limit = self._run.settings.limits.max_cost_per_run_usd
        expected, already = self._price(tokens), self._store.spent_usd()
        if self._run.confirm_cost or already + expected <= limit:
            return
        raise CostLimitError(
            f"Embedding would cost about {expected:.2f} USD.",
            why=f"A run may spend {limit:.2f} USD, and this one has spent {already:.2f}.",
            fix="Run `kb index --confirm-cost`, or raise limits.max_cost_per_run_usd.",
        )

    def fill(self, window: Sequence[WantedText]) -> None:
        """Embed those texts of a window that nobody else is paying for."""
        ours = self._store.claim([text.input_hash for text in window])
        mine = [text for text in window if text.input_hash in ours]
        theirs = [text for text in window if text.input_hash not in ours]
        if theirs:
            done = self._store.answered_elsewhere([text.input_hash for text in theirs])
            self.tally.elsewhere += len(done)
            self._claimed_elsewhere += [text for text in theirs if text.input_hash not in done]
        if mine:
            self._embed(mine)

    def wait_for_others(self) -> None:
        """Wait until the texts that others claimed have vectors; take over from the dead.

        Raises:
            ShardBusyError: They were not answered within the time allowed.
        """
        if self._claimed_elsewhere:
            count = len(self._claimed_elsewhere)
            self._run.say(f"Waiting for {count} texts that another shard embeds.")
        patience = self._run.settings.limits.lease_wait_seconds
        give_up = time.monotonic() + patience
        while self._claimed_elsewhere:
            waiting, self._claimed_elsewhere = self._claimed_elsewhere, []
            self.fill(waiting)
            if self._claimed_elsewhere and time.monotonic() > give_up:
                raise ShardBusyError(
                    f"{len(self._claimed_elsewhere)} texts are claimed by another shard.",
                    why=f"It did not embed them within {patience:g} seconds.",
                    fix="Let it finish, or end it: its claims are void once its process is gone.",
                )
            if self._claimed_elsewhere:
                time.sleep(_PATIENCE_SECONDS)

    def _embed(self, texts: Sequence[WantedText]) -> None:
        unanswered = {text.input_hash for text in texts}
        try:
            self._refuse_to_overspend(sum(text.tokens for text in texts))
        except CostLimitError:
            self._store.release(sorted(unanswered))
            raise
        outcomes = embed_all(
            self._embedder,
            [Text(text.text, text.tokens) for text in texts],
            in_flight=self._settings.requests_in_flight,
            max_texts=self._settings.texts_per_request,
            max_tokens=self._settings.tokens_per_request,
        )
        try:
            for outcome in outcomes:
                if isinstance(outcome, EmbeddedBatch):
                    unanswered -= self._keep(texts, outcome)
                else:
                    unanswered -= self._refuse(texts, outcome)
        except (ProviderRefusedError, ProviderUnavailableError):
            self._store.record(Call(0, 0, 0.0, 0.0, "failed"))
            raise
        finally:
            if unanswered:
                self._store.release(sorted(unanswered))

    def _keep(self, texts: Sequence[WantedText], batch: EmbeddedBatch) -> set[bytes]:
        hashes = [texts[index].input_hash for index in batch.indices]
        cost = self._price(batch.tokens)
        self._store.add(
            hashes,
            batch.vectors,
            Call(len(hashes), batch.tokens, cost, batch.seconds, "answered"),
        )
        self.tally.embedded += len(hashes)
        self.tally.requests += 1
        self.tally.tokens += batch.tokens
        self.tally.cost_usd += cost
        return set(hashes)

    def _refuse(self, texts: Sequence[WantedText], refused: RefusedText) -> set[bytes]:
        hash_ = texts[refused.index].input_hash
        self._store.refuse([(hash_, refused.error)])
        self.tally.quarantined += 1
        return {hash_}

    def _price(self, tokens: int) -> float:
        return tokens * self._embedder.usd_per_million_tokens / 1_000_000
