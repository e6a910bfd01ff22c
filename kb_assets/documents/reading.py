"""From candidates to what their contents call for: read, compared, and parsed where needed."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from kb_assets.documents.batch import Batch, Parsed, Read, Refused
from kb_assets.documents.moves import Moves
from kb_assets.documents.parse import ParsedDocument, parse_job
from kb_assets.documents.plan import Candidate, Decision, State, batches, decide
from kb_assets.documents.source import Content, DocumentSource
from kb_assets.errors import DocumentError, SourceUnavailableError
from kb_assets.fingerprints import content_hash
from kb_assets.isolated import attempt
from kb_assets.isolation import IsolatedWorker, processes_worth_having
from kb_assets.settings import LimitSettings, SourceSettings

MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_DOCUMENTS = 500
READS_AT_ONCE = 8
"""How many objects are asked for at once; a local folder is read one file at a time."""

_WORTH_A_WORKER_BYTES = 1024 * 1024
_WORTH_A_WORKER_DOCUMENTS = 300
"""Below both, starting a worker takes longer than parsing does."""

_TRUSTED = (".md", ".markdown", ".txt", ".rst")
"""Formats whose parsing takes time and memory in proportion to the size; others are caged."""


_Job = tuple[str, bytes, bytes | None]
"""What the worker is given: path, content, sidecar."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch of which some documents are still being parsed."""

    batch: Batch
    reads: list[Read]
    results: Iterable[ParsedDocument | DocumentError]

    def finish(self) -> Batch:
        for read, parsed in zip(self.reads, self.results, strict=True):
            if isinstance(parsed, DocumentError):
                self.batch.refused.append(Refused(read.candidate, read, parsed))
            else:
                self.batch.parsed.append(Parsed(read, parsed))
        return self.batch


class Reader:
    """Reads and parses candidates; many of them, and formats that can hang or swell, in a cage.

    Attributes:
        bytes_read: Bytes of content read so far, sidecars left out.
    """

    def __init__(
        self,
        source: DocumentSource,
        settings: SourceSettings,
        limits: LimitSettings,
        recipe_id: int,
        moves: Moves | None = None,
    ) -> None:
        self._source = source
        self._recipe_id = recipe_id
        self._moves = moves or Moves(())
        self._threads = ThreadPoolExecutor(READS_AT_ONCE) if settings.in_object_store else None
        self._worker = IsolatedWorker[_Job, ParsedDocument](
            "kb_assets.documents.parse:parse_job",
            seconds=limits.parse_seconds,
            memory_bytes=limits.parse_memory_bytes,
            processes=processes_worth_having(),
        )
        self._started = False
        self.bytes_read = 0

    def __enter__(self) -> "Reader":
        self._worker.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._worker.__exit__(*exception)

    def read(self, candidates: Iterable[Candidate]) -> Iterator[Batch]:
        """Read candidates, and parse what is not what it was; a batch fits in memory.

        A batch is yielded while the next one is being parsed.

        Raises:
            SourceUnavailableError: The source cannot be reached. What was read before is yielded.
        """
        before: _Begun | None = None
        for group in batches(
            candidates, max_bytes=MAX_BATCH_BYTES, max_documents=MAX_BATCH_DOCUMENTS
        ):
            try:
                begun = self._begin(group)
            except SourceUnavailableError:
                if before is not None:
                    yield before.finish()
                raise
            if before is not None:
                yield before.finish()
            before = begun
        if before is not None:
            yield before.finish()

    def _begin(self, group: list[Candidate]) -> _Begun:
        batch = Batch()
        to_parse: list[tuple[Read, Content]] = []
        for candidate, content in self._contents(group):
            if isinstance(content, DocumentError):
                batch.refused.append(Refused(candidate, None, content))
                continue
            self.bytes_read += len(content.content)
            state = State(content_hash(content.content, content.sidecar), self._recipe_id)
            read = Read(candidate, content.token, state)
            known = self._moves.take(candidate, state)
            if known is not None:
                batch.moved.append((read, known))
                continue
            match decide(candidate, state):
                case Decision.TOUCH:
                    batch.touched.append(read)
                case Decision.REVERT:
                    batch.reverted.append(read)
                case Decision.PARSE:
                    to_parse.append((read, content))
        return self._begin_parsing(batch, to_parse)

    def _begin_parsing(self, batch: Batch, rows: list[tuple[Read, Content]]) -> _Begun:
        size_bytes = sum(len(content.content) for _, content in rows)
        many = len(rows) >= _WORTH_A_WORKER_DOCUMENTS or size_bytes >= _WORTH_A_WORKER_BYTES
        if many and not self._started:
            # While the processes come up, there is time to parse these here.
            self._worker.start()
            self._started, many = True, False
        here = [row for row in rows if not many and _is_trusted(row[0].candidate)]
        away = [row for row in rows if many or not _is_trusted(row[0].candidate)]
        parsed_away = self._worker.begin(_job(*row) for row in away)
        parsed_here = [attempt(parse_job, _job(*row)) for row in here]
        reads = [read for read, _ in (*here, *away)]
        return _Begun(batch, reads, chain(parsed_here, parsed_away))

    def _contents(
        self, group: list[Candidate]
    ) -> Iterable[tuple[Candidate, Content | DocumentError]]:
        if self._threads is None:
            return ((candidate, self._content(candidate)) for candidate in group)
        return zip(group, self._threads.map(self._content, group), strict=True)

    def _content(self, candidate: Candidate) -> Content | DocumentError:
        try:
            return self._source.read(candidate.entry)
        except DocumentError as error:
            return error


def _is_trusted(candidate: Candidate) -> bool:
    return candidate.entry.path.lower().endswith(_TRUSTED)


def _job(read: Read, content: Content) -> _Job:
    return read.candidate.entry.path, content.content, content.sidecar
