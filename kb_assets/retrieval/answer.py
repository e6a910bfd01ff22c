"""Answers: what the passages found say, in the words of a chat model, with its sources."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kb_assets.retrieval.chat import Chat, Completion, Tokens
from kb_assets.retrieval.hits import Hit, Results
from kb_assets.retrieval.prompt import fence

NOT_FOUND = "This is not in the knowledge base."
"""What an answer says when there is none; the model is told to say exactly this."""

_INSTRUCTION = """\
You answer questions from a knowledge base.

{rule}

Answer only from the passages, not from what you know besides. After each statement, cite the \
passages it rests on by their numbers, like [1] or [2][3]. Be brief, and answer in the language of \
the question. If the passages do not hold the answer, reply with exactly this sentence and \
nothing else, untranslated: {not_found}"""

_CITED = re.compile(r"[\[【]\s*([0-9]{1,6}(?:\s*,\s*[0-9]{1,6})*)\s*[\]】]")
_FRINGE = " \t\r\n\"'`*."


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that an answer cites.

    Attributes:
        number: How the answer calls it: `[1]`.
        source: The source's name.
        path: The document's path in it.
        heading_path: The headings above the passage, outermost first.
        byte_start: Where it starts in the revision's text, in UTF-8 bytes.
        byte_end: Where it ends.
        title: The document's title, if its content has one.
    """

    number: int
    source: str
    path: str
    heading_path: tuple[str, ...]
    byte_start: int
    byte_end: int
    title: str | None


class Reply:
    """An answer. Iterate over it to read while it is written; all else waits for its end.

    If the model breaks off, iterating raises after what had arrived, and everything but `hits`
    raises the same again: part of an answer is never given as the whole.

    Attributes:
        hits: The passages the model was shown, best first: `[1]` is the first of them.
    """

    def __init__(self, results: Results, written: Iterable[str]) -> None:
        self.hits = results.hits
        self._notes = results.notes
        self._written = written
        self._parts: list[str] = []
        self._pieces = self._read()
        self._is_whole = False
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        """Return what is written from now on; nothing, when all was read."""
        return self._pieces

    def _read(self) -> Iterator[str]:
        try:
            for piece in self._written:
                self._parts.append(piece)
                yield piece
        except Exception as error:
            self._failure = error
            raise
        self._is_whole = True

    def _wait(self) -> None:
        for _ in self._pieces:
            pass
        if self._failure is not None:
            raise self._failure
        if not self._is_whole:
            raise RuntimeError("The reply was closed before its end.")

    @property
    def text(self) -> str:
        """The whole answer.

        Raises:
            ProviderUnavailableError: The model broke off.
        """
        self._wait()
        return "".join(self._parts)

    @property
    def answered(self) -> bool:
        """Whether it is an answer, rather than the word that there is none."""
        said = self.text.strip(_FRINGE).casefold()
        return said not in ("", NOT_FOUND.strip(_FRINGE).casefold())

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The passages it cites, in the order in which it first does."""
        return tuple(
            _citation(number, self.hits[number - 1])
            for number in self._cited
            if number in self._shown
        )

    @property
    def unknown_citations(self) -> tuple[int, ...]:
        """Numbers it cites that no passage has: the model made them up."""
        return tuple(number for number in self._cited if number not in self._shown)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not as it should be, in sentences."""
        self._wait()
        own: list[str] = []
        if isinstance(self._written, Completion) and self._written.cut_off:
            own.append("The answer was cut off at answer.max_tokens.")
        if self.answered and not self.citations:
            own.append("The answer cites no passage: nothing shows where it is from.")
        if self.unknown_citations:
            numbers = ", ".join(map(str, self.unknown_citations))
            own.append(f"The answer cites passages that do not exist: {numbers}.")
        return (*self._notes, *own)

    @property
    def tokens(self) -> Tokens | None:
        """What the server counted, if it did, and if the model was asked."""
        self._wait()
        return self._written.tokens if isinstance(self._written, Completion) else None

    @property
    def _shown(self) -> range:
        return range(1, len(self.hits) + 1)

    @property
    def _cited(self) -> tuple[int, ...]:
        found = (int(one) for many in _CITED.findall(self.text) for one in many.split(","))
        return tuple(dict.fromkeys(found))


def answer(question: str, results: Results, chat: Chat) -> Reply:
    """Return the model's answer from what a search found; without asking it if that is too little.

    Args:
        question: What is asked.
        results: What was found for it, best first.
        chat: The model.

    Raises:
        ProviderRefusedError: The model will never answer this request.
        ProviderUnavailableError: The model cannot be reached.
    """
    best = max((hit.fused_score or 0.0 for hit in results), default=-1.0)
    if best < chat.settings.min_score:
        return Reply(results, [NOT_FOUND])
    fenced = fence([(_where(hit), hit.text) for hit in results], question)
    instruction = _INSTRUCTION.format(rule=fenced.rule, not_found=NOT_FOUND)
    return Reply(results, chat.ask(instruction, f"{fenced.text}\n\nQuestion: {question}"))


def _citation(number: int, hit: Hit) -> Citation:
    where = (hit.source, hit.path, hit.heading_path, hit.byte_start, hit.byte_end, hit.title)
    return Citation(number, *where)


def _where(hit: Hit) -> str:
    headings = " > ".join(hit.heading_path) or hit.title or ""
    return f"{hit.source}:{hit.path}" + (f" ({headings})" if headings else "")
