"""From candidates to what their contents call for: read, compared, and parsed where needed."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from kb_assets.documents.batch import Batch, Parsed, Read, Refused
from kb_assets.documents.parse import ParsedDocument, parse_job
from kb_assets.documents.plan import Candidate, Decision, State, batches, decide
from kb_assets.documents.source import Content, DocumentSource
from kb_assets.errors import DocumentError
from kb_assets.fingerprints import content_hash
from kb_assets.isolated import attempt
from kb_assets.isolation import IsolatedWorker
from kb_assets.settings import LimitSettings, SourceSettings

MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_BATCH_DOCUMENTS = 1000
READS_AT_ONCE = 8
"""How many objects are asked for at once; a local folder is read one file at a time."""

_WORTH_A_WORKER = 100
"""Below so many documents, starting a worker takes longer than parsing does."""

_TRUSTED = (".md", ".markdown", ".txt", ".rst")
"""Formats whose parsing takes time and memory in proportion to the size; others are caged."""


_Job = tuple[str, bytes, bytes | None]
"""What the worker is given: path, content, sidecar."""


def batches_to_read(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Group candidates so that the contents of a group fit in memory."""
    return batches(candidates, max_bytes=MAX_BATCH_BYTES, max_documents=MAX_BATCH_DOCUMENTS)


class Reader:
    """Reads and parses groups of candidates; formats that can hang or swell, in a cage.

    Attributes:
        bytes_read: Bytes of content read so far, sidecars left out.
    """

    def __init__(
        self,
        source: DocumentSource,
        settings: SourceSettings,
        limits: LimitSettings,
        recipe_id: int,
    ) -> None:
        self._source = source
        self._recipe_id = recipe_id
        self._threads = ThreadPoolExecutor(READS_AT_ONCE) if settings.in_object_store else None
        self._worker = IsolatedWorker[_Job, ParsedDocument](
            "kb_assets.documents.parse:parse_job",
            seconds=limits.parse_seconds,
            memory_bytes=limits.parse_memory_bytes,
        )
        self.bytes_read = 0

    def __enter__(self) -> "Reader":
        self._worker.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._worker.__exit__(*exception)

    def read(self, group: list[Candidate]) -> Batch:
        """Read a group, and parse what is not what it was.

        Raises:
            SourceUnavailableError: The source cannot be reached.
        """
        batch = Batch()
        to_parse: list[tuple[Read, Content]] = []
        for candidate, content in self._contents(group):
            if isinstance(content, DocumentError):
                batch.refused.append(Refused(candidate, None, content))
                continue
            self.bytes_read += len(content.content)
            state = State(content_hash(content.content, content.sidecar), self._recipe_id)
            read = Read(candidate, content.token, state)
            match decide(candidate, state):
                case Decision.TOUCH:
                    batch.touched.append(read)
                case Decision.REVERT:
                    batch.reverted.append(read)
                case Decision.PARSE:
                    to_parse.append((read, content))
        for read, parsed in self._parse(to_parse):
            if isinstance(parsed, DocumentError):
                batch.refused.append(Refused(read.candidate, read, parsed))
            else:
                batch.parsed.append(Parsed(read, parsed))
        return batch

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

    def _parse(
        self, rows: list[tuple[Read, Content]]
    ) -> Iterator[tuple[Read, ParsedDocument | DocumentError]]:
        many = len(rows) >= _WORTH_A_WORKER
        caged: list[tuple[Read, Content]] = []
        for read, content in rows:
            if many or not read.candidate.entry.path.lower().endswith(_TRUSTED):
                caged.append((read, content))
            else:
                yield read, attempt(parse_job, _job(read, content))
        results = self._worker.map(_job(*row) for row in caged)
        for (read, _), (_, parsed) in zip(caged, results, strict=True):
            yield read, parsed


def _job(read: Read, content: Content) -> _Job:
    return read.candidate.entry.path, content.content, content.sidecar
