"""From chunks to vectors: each distinct text is asked for once in each space.

Vectors are stored as they arrive, so that a run that ends early has lost only what was not
answered yet. Two shards that want the same text agree on one of them by a claim.
"""

import dataclasses
import time
from dataclasses import dataclass

from kb_assets.database.lease import Lease
from kb_assets.database.run import Run
from kb_assets.embeddings.filling import Filling, Tally
from kb_assets.embeddings.open import embedder_for, model_of
from kb_assets.embeddings.space import ShardSpace, Space, ensure_space, spaces_for
from kb_assets.embeddings.store import VectorStore, WantedTexts, release_claims
from kb_assets.errors import (
    CostLimitError,
    KbError,
    ProviderRefusedError,
    ProviderUnavailableError,
    SettingsError,
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
    started = time.monotonic()
    settings = run.settings.embedding
    # Under --verify no earlier refusal counts; those of this run do.
    conditions = embedding_conditions(settings, run.run_id if run.verify else "")
    spaces = _spaces(run, shard, conditions)
    if not any(_has_work(run, one) for one in spaces):
        return tuple(_report(one.space, started) for one in spaces)
    reports = []
    failures: list[KbError] = []
    with run.lease(shard) as lease:
        try:
            for one in spaces:
                try:
                    reports.append(_fill(run, lease, one.space, conditions))
                except KbError as error:
                    failures.append(error)
                    # What was not answered is for others to ask, while the next space is filled.
                    release_claims(run.database, lease)
        finally:
            release_claims(run.database, lease)
    if failures:
        raise failures[0]
    return tuple(reports)


def _spaces(run: Run, shard: Shard, conditions: bytes) -> list[ShardSpace]:
    """Return the space that answers and the configured one, which is made now if need be."""
    settings = run.settings.embedding
    model = model_of(settings)
    found = spaces_for(run.database, shard, model, settings.precision, conditions)
    if any(one.is_configured for one in found):
        return found
    ensure_space(run.database, model, settings.precision)
    return spaces_for(run.database, shard, model, settings.precision, conditions)


def _has_work(run: Run, one: ShardSpace) -> bool:
    return one.has_work or one.space.state == "building" or run.verify


def embedding_conditions(settings: EmbeddingSettings, attempt: str = "") -> bytes:
    """Return the fingerprint of what decides, beside text and space, whether a text is refused.

    Args:
        settings: Who is asked.
        attempt: Set, it makes conditions of its own, under which no earlier refusal counts.
    """
    named = settings.model_dump(mode="json", include={"provider", "model", "base_url"})
    return settings_fingerprint(named | {"attempt": attempt})


def _fill(run: Run, lease: Lease, space: Space, conditions: bytes) -> EmbedReport:
    started = time.monotonic()
    settings = run.settings.embedding
    failure: KbError | None = None
    tally = Tally()
    with run.database.session() as connection:
        wanted = WantedTexts(connection, lease, space, conditions)
        texts, count = wanted.find(everything=run.verify or space.state == "building")
        try:
            if count:
                store = VectorStore(run.database, lease, space, conditions)
                filling = Filling(run, store, embedder_for(space.model, settings))
                tally = filling.tally
                if not filling.is_free:
                    filling.refuse_to_overspend(wanted.count_tokens())
                filling.fill(wanted.windows(*_window_sizes(settings)))
        except _NOT_TO_BE_WAITED_FOR as error:
            if space.state != "building":
                raise
            failure = error
            run.say(f"The new space {space.name} could not be filled: {error}")
    had = max(texts - count, 0)
    return _report(space, started, tally, texts=max(texts, count), had=had, failure=failure)


def _report(
    space: Space,
    started: float,
    tally: Tally | None = None,
    *,
    texts: int = 0,
    had: int = 0,
    failure: KbError | None = None,
) -> EmbedReport:
    return EmbedReport(
        space=space.name,
        state=space.state,
        texts=texts,
        had=had,
        seconds=time.monotonic() - started,
        failure=failure,
        **dataclasses.asdict(tally or Tally()),
    )


def _window_sizes(settings: EmbeddingSettings) -> tuple[int, int]:
    """Return how many texts are planned together, at first and at most."""
    round_ = min(settings.requests_in_flight * settings.texts_per_request, MAX_WINDOW_TEXTS)
    return round_, min(WINDOW_REQUESTS * round_, MAX_WINDOW_TEXTS)
