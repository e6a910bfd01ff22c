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
from collections.abc import Generator, Iterable, Iterator, Sequence
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
        input_hash: The key of its vector.
        text: The input text, without the model's prefix.
        tokens: Its length in tokens, as nearly as is known.
    """

    input_hash: bytes
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """What one request gave; every row is sound.

    Attributes:
        texts: The texts embedded. Empty if the request was answered, and so charged, but no
            row of it can be used.
        vectors: One row for each of `texts`, float32, shape (texts, dimensions).
        tokens: What the provider counted for the whole request.
        seconds: How long the request took, the client's own retries included.
    """

    texts: tuple[Text, ...]
    vectors: Vectors
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RefusedText:
    """A text that has no usable vector.

    Attributes:
        text: The text refused.
        error: Why, with a stable `reason`.
    """

    text: Text
    error: TextRefusedError


Outcome = EmbeddedBatch | RefusedText


def embed_all(
    embedder: Embedder,
    windows: Iterable[Sequence[Text]],
    *,
    in_flight: int,
    max_texts: int,
    max_tokens: int,
) -> Generator[list[Outcome], None, None]:
    """Embed texts, and yield what the requests gave: each time all that has arrived by then.

    Each text is in exactly one outcome, unless an error ends the iteration. The
    model's document prefix is put before each text. At most `in_flight` requests
    are open or answered but not yet consumed: that is what a kill can cost.

    After an error nothing new is sent; requests already open are waited for and
    yielded, and the error is raised last.

    Args:
        embedder: Whom to ask.
        windows: The texts, as many at a time as are planned together; the next ones are taken
            when the last request of a window is open.
        in_flight: How many requests may be open at once.
        max_texts: The most texts in a request.
        max_tokens: The most tokens in a request.

    Raises:
        ProviderRefusedError: The provider refuses, or refuses every text.
        ProviderUnavailableError: The provider went on failing.
        KbError: `windows` raised it.
    """
    asking = _Asking(embedder)
    waiting = _Waiting(iter(windows), max_texts, max_tokens)
    open_requests: set[Future[_Results]] = set()
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="embed")
    try:
        while True:
            while len(open_requests) < in_flight and (task := waiting.next()):
                open_requests.add(pool.submit(asking.ask, task))
            if not open_requests:
                break
            arrived = wait(open_requests, return_when=FIRST_COMPLETED).done
            results = [request.result() for request in arrived]
            waiting.take_note(results)
            yield [outcome for result in results for outcome in result.outcomes]
            open_requests -= arrived
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if waiting.failure is not None:
        raise waiting.failure


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

    texts: tuple[Text, ...]
    again: bool = False

    def halves(self) -> list["_Task"]:
        middle = len(self.texts) // 2
        return [_Task(self.texts[:middle]), _Task(self.texts[middle:])]


@dataclass(frozen=True, slots=True)
class _Results:
    outcomes: Sequence[Outcome] = ()
    follow_up: Sequence[_Task] = ()
    failure: KbError | None = None


class _Waiting:
    """What is still to be asked: nothing more once something has failed."""

    def __init__(self, windows: Iterator[Sequence[Text]], max_texts: int, max_tokens: int) -> None:
        self.failure: KbError | None = None
        self._windows = windows
        self._max_texts = max_texts
        self._max_tokens = max_tokens
        self._tasks: deque[_Task] = deque()

    def next(self) -> _Task | None:
        """Return the next request, planned now if need be; None if there is none."""
        while self.failure is None and not self._tasks:
            try:
                window = next(self._windows, None)
            except KbError as error:
                self.failure = error
                break
            if window is None:
                break
            self._plan(window)
        return None if self.failure or not self._tasks else self._tasks.popleft()

    def take_note(self, results: Sequence[_Results]) -> None:
        """Put what is to be asked next before everything else, unless something failed."""
        for result in results:
            self.failure = self.failure or result.failure
            self._tasks.extendleft(reversed(result.follow_up))

    def _plan(self, window: Sequence[Text]) -> None:
        counts = [text.tokens for text in window]
        for batch in plan_batches(counts, max_texts=self._max_texts, max_tokens=self._max_tokens):
            self._tasks.append(_Task(tuple(window[index] for index in batch)))


class _Asking:
    """One call of `embed_all`: what its threads share."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._prefix = embedder.model.document_prefix
        self._works = False
        self._probing = threading.Lock()

    def ask(self, task: _Task) -> _Results:
        """Make one request, and say what it gave and what is to be asked next."""
        started = time.monotonic()
        try:
            answer = _answer(self._embedder, [self._prefix + text.text for text in task.texts])
        except TextRefusedError as error:
            return self._refused(task, error)
        except KbError as error:
            return _Results(failure=error)
        return self._received(task, answer, time.monotonic() - started)

    def _received(self, task: _Task, answer: Answer, seconds: float) -> _Results:
        model = self._embedder.model
        try:
            check_shape(answer, len(task.texts), model)
        except TextRefusedError as error:
            paid = _nothing_usable(model.dimensions, answer.tokens, seconds)
            return self._refused(task, error, [paid])
        except ProviderRefusedError as error:
            paid = _nothing_usable(model.dimensions, answer.tokens, seconds)
            return _Results([paid], failure=error)
        faults = faults_of(answer.vectors)
        good = [row for row in range(len(task.texts)) if row not in faults]
        self._works = self._works or bool(good)
        texts = tuple(task.texts[row] for row in good) if faults else task.texts
        vectors = answer.vectors[good] if faults else answer.vectors
        batch = EmbeddedBatch(texts, vectors, answer.tokens, seconds)
        bad = [(task.texts[row], refusal(fault, model)) for row, fault in faults.items()]
        if bad and not task.again:
            return _Results([batch], [_Task(tuple(text for text, _ in bad), again=True)])
        return self._given_up(bad, [batch])

    def _refused(
        self, task: _Task, error: TextRefusedError, paid: Sequence[Outcome] = ()
    ) -> _Results:
        if len(task.texts) > 1:
            return _Results(paid, task.halves())
        if error.reason == "wrong_count" and not task.again:
            return _Results(paid, [_Task(task.texts, again=True)])
        return self._given_up([(task.texts[0], error)], paid)

    def _given_up(
        self, refused: Sequence[tuple[Text, TextRefusedError]], paid: Sequence[Outcome]
    ) -> _Results:
        if refused and (failure := self._fault_of_provider()):
            return _Results(paid, failure=failure)
        return _Results([*paid, *(RefusedText(text, error) for text, error in refused)])

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
