"""Asking a provider for many vectors: several requests at once, nothing paid for lost.

One bad text must not cost its neighbours their vectors, and one bad answer must
not quarantine good texts:

- a request refused because of a text is halved until that text is alone;
- rows that cannot be used are asked for once more, the others are kept;
- when everything is refused, it is the provider that is at fault, not the texts:
  before the first text is given up, a harmless one is tried (`PROBE`).
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy

from kb_assets.embeddings.batching import plan_batches
from kb_assets.embeddings.check import check, check_shape, faults_of, refusal
from kb_assets.embeddings.embedder import Answer, Embedder, Vectors
from kb_assets.errors import KbError, ProviderRefusedError, TextRefusedError

PROBE = "knowledge"
"""The harmless text that tells a bad text from a bad provider."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text to embed.

    Attributes:
        text: The input text, without the model's prefix.
        tokens: Its length in tokens, as nearly as is known.
    """

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """What one request gave; every row is sound.

    Attributes:
        indices: Which texts, by their place in what was passed. Empty if the request
            was answered, and so charged, but no row of it can be used.
        vectors: One row for each of `indices`, float32, shape (texts, dimensions).
        tokens: What the provider counted for the whole request.
        seconds: How long the request took, the client's own retries included.
    """

    indices: tuple[int, ...]
    vectors: Vectors
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RefusedText:
    """A text that has no usable vector.

    Attributes:
        index: Which text, by its place in what was passed.
        error: Why, with a stable `reason`.
    """

    index: int
    error: TextRefusedError


Outcome = EmbeddedBatch | RefusedText


def embed_all(
    embedder: Embedder, texts: Sequence[Text], *, in_flight: int, max_texts: int, max_tokens: int
) -> Iterator[Outcome]:
    """Embed texts, and yield what each request gave as it arrives.

    Each text is in exactly one outcome, unless an error ends the iteration. The
    model's document prefix is put before each text. At most `in_flight` requests
    are open or answered but not yet consumed: that is what a kill can cost.

    After a provider's error nothing new is sent; requests already open are waited
    for and yielded, and the error is raised last.

    Args:
        embedder: Whom to ask.
        texts: A window of a few thousand at most: their vectors are held in memory.
        in_flight: How many requests may be open at once.
        max_texts: The most texts in a request.
        max_tokens: The most tokens in a request.

    Raises:
        ProviderRefusedError: The provider refuses, or refuses every text.
        ProviderUnavailableError: The provider went on failing.
    """
    counts = [text.tokens for text in texts]
    batches = plan_batches(counts, max_texts=max_texts, max_tokens=max_tokens)
    waiting = deque(_Task(tuple(batch)) for batch in batches)
    asking = _Asking(embedder, texts)
    failure: KbError | None = None
    open_requests: set[Future[_Results]] = set()
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="embed")
    try:
        while open_requests or (waiting and failure is None):
            while waiting and failure is None and len(open_requests) < in_flight:
                open_requests.add(pool.submit(asking.ask, waiting.popleft()))
            done = wait(open_requests, return_when=FIRST_COMPLETED).done
            failure = failure or next(filter(None, (each.result().failure for each in done)), None)
            arrived = next(iter(done))
            waiting.extendleft(reversed(arrived.result().follow_up))
            yield from arrived.result().outcomes
            open_requests.remove(arrived)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if failure is not None:
        raise failure


def embed_query(embedder: Embedder, query: str) -> Vectors:
    """Return the vector of a query, shape (dimensions,), with the model's query prefix before it.

    Raises:
        TextRefusedError: The query has no usable vector.
        ProviderRefusedError: The provider refuses.
        ProviderUnavailableError: The provider went on failing.
    """
    answer = _answer(embedder, [embedder.model.query_prefix + query])
    vector: Vectors = check(answer, 1, embedder.model)[0]
    return vector


@dataclass(frozen=True, slots=True)
class _Task:
    """Texts for one request; `again` if they were asked for already and gave bad rows."""

    indices: tuple[int, ...]
    again: bool = False

    def halves(self) -> list["_Task"]:
        middle = len(self.indices) // 2
        return [_Task(self.indices[:middle]), _Task(self.indices[middle:])]


@dataclass(frozen=True, slots=True)
class _Results:
    outcomes: Sequence[Outcome] = ()
    follow_up: Sequence[_Task] = ()
    failure: KbError | None = None


class _Asking:
    """One call of `embed_all`: what its threads share."""

    def __init__(self, embedder: Embedder, texts: Sequence[Text]) -> None:
        self._embedder = embedder
        self._texts = texts
        self._prefix = embedder.model.document_prefix
        self._works = False
        self._probing = threading.Lock()

    def ask(self, task: _Task) -> _Results:
        """Make one request, and say what it gave and what is to be asked next."""
        started = time.monotonic()
        try:
            answer = _answer(self._embedder, [self._input(index) for index in task.indices])
        except TextRefusedError as error:
            return self._refused(task, error)
        except KbError as error:
            return _Results(failure=error)
        return self._received(task, answer, time.monotonic() - started)

    def _input(self, index: int) -> str:
        return self._prefix + self._texts[index].text

    def _received(self, task: _Task, answer: Answer, seconds: float) -> _Results:
        model = self._embedder.model
        try:
            check_shape(answer, len(task.indices), model)
        except TextRefusedError as error:
            paid = _nothing_usable(model.dimensions, answer.tokens, seconds)
            return self._refused(task, error, [paid])
        except ProviderRefusedError as error:
            paid = _nothing_usable(model.dimensions, answer.tokens, seconds)
            return _Results([paid], failure=error)
        faults = faults_of(answer.vectors)
        good = [row for row in range(len(task.indices)) if row not in faults]
        self._works = self._works or bool(good)
        indices = tuple(task.indices[row] for row in good)
        batch = EmbeddedBatch(indices, answer.vectors[good], answer.tokens, seconds)
        bad = {task.indices[row]: refusal(fault, model) for row, fault in faults.items()}
        if bad and not task.again:
            return _Results([batch], [_Task(tuple(bad), again=True)])
        return self._given_up(bad, [batch])

    def _refused(
        self, task: _Task, error: TextRefusedError, paid: Sequence[Outcome] = ()
    ) -> _Results:
        if len(task.indices) > 1:
            return _Results(paid, task.halves())
        if error.reason == "wrong_count" and not task.again:
            return _Results(paid, [_Task(task.indices, again=True)])
        return self._given_up({task.indices[0]: error}, paid)

    def _given_up(self, refused: dict[int, TextRefusedError], paid: Sequence[Outcome]) -> _Results:
        if refused and (failure := self._fault_of_provider()):
            return _Results(paid, failure=failure)
        texts = [RefusedText(index, error) for index, error in refused.items()]
        return _Results([*paid, *texts])

    def _fault_of_provider(self) -> KbError | None:
        """Try the harmless text, unless something was embedded already."""
        with self._probing:
            if self._works:
                return None
            try:
                check(_answer(self._embedder, [self._prefix + PROBE]), 1, self._embedder.model)
            except TextRefusedError as error:
                return ProviderRefusedError(
                    "The embedding provider refuses every text.",
                    why=f"It refused a harmless one, too: {error.what} {error.why}",
                    fix="Correct the embedding section of kb.toml; no text was quarantined.",
                )
            except KbError as error:
                return error
            self._works = True
            return None


def _answer(embedder: Embedder, texts: Sequence[str]) -> Answer:
    """Ask, and turn what a provider of one's own raises into an error of the tree."""
    try:
        answer = embedder.embed(texts)
        with numpy.errstate(over="ignore"):
            return Answer(numpy.asarray(answer.vectors, dtype=numpy.float32), int(answer.tokens))
    except KbError:
        raise
    except Exception as error:
        raise ProviderRefusedError(
            f"The embedding provider {embedder.model.provider!r} failed.",
            why=f"{type(error).__name__}: {error}",
            fix="It is an error in the provider's code: correct it there.",
        ) from error


def _nothing_usable(dimensions: int, tokens: int, seconds: float) -> EmbeddedBatch:
    return EmbeddedBatch((), numpy.zeros((0, dimensions), numpy.float32), tokens, seconds)
