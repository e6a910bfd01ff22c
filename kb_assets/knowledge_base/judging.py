"""Measuring how well questions are answered, and choosing the space that answers."""

import uuid
from collections.abc import Iterator
from pathlib import Path

from kb_assets.embeddings.space import Space
from kb_assets.errors import SpaceError
from kb_assets.index.space import (
    SpaceReport,
    describe_spaces,
    drop_space,
    find_space,
    promote_space,
    require_promotable,
    rollback_space,
)
from kb_assets.knowledge_base.searching import Searching
from kb_assets.retrieval.compare_spaces import Comparison, compare
from kb_assets.retrieval.evaluate import EvaluationReport, evaluate, golden_questions
from kb_assets.retrieval.evaluations import Evaluation, past_evaluations
from kb_assets.retrieval.hits import Results
from kb_assets.retrieval.measurement import DEPTH, Ask, Remembering, Watch
from kb_assets.retrieval.query import Filters, Mode, Query
from kb_assets.retrieval.search import index_state
from kb_assets.retrieval.suggest import Dropped, Suggestion, suggest_questions
from kb_assets.retrieval.verdict import LEADING


class Judging(Searching):
    """Measuring how well questions are answered, and choosing the space that answers."""

    def spaces(self) -> tuple[SpaceReport, ...]:
        """Return every embedding space, oldest first, and how far it is."""
        return describe_spaces(self.reader)

    def promote_space(self, name: str, *, force: bool = False) -> Space:
        """Let a space answer from now on.

        Args:
            name: Its name or number.
            force: Whatever is said against it: it is incomplete, or answers worse.

        Raises:
            NotFoundError: There is no such space.
            SpaceError: It is not complete, has no usable index, or answers the golden questions
                worse than the one that answers now; or the last evaluation failed.
        """
        if not force:
            space = require_promotable(self.database, name)
            if space.state != "live" and self.settings.quality.questions is not None:
                self.compare_space(name).require_no_worse()
        return promote_space(self.database, name, force=force)

    def rollback_space(self) -> Space:
        """Let the space answer again that was live before.

        Raises:
            NotFoundError: No other space was ever live.
            SpaceError: It is not complete any more, or has no usable index.
        """
        return rollback_space(self.database)

    def compare_space(
        self, name: str, *, run_id: str = "", watch: Watch = lambda done, of: None
    ) -> Comparison:
        """Ask a space the golden questions, and the one that answers now, too.

        Args:
            name: Its name or number.
            run_id: Who is at work; made up if it is not given.
            watch: Told how many questions of how many were asked.

        Raises:
            SettingsError: No questions are configured, or they cannot be read.
            NotFoundError: There is no such space.
            SpaceError: It is the one that answers.
        """
        questions, _ = golden_questions(self.settings)
        live, other = self._live_space(), find_space(self.reader, name)
        if live.id == other.id:
            raise SpaceError(
                f"The space {live.name} is live.",
                why="It is what others are compared with.",
                fix="Name another one: `kb space list` shows them.",
            )
        return compare(
            self.database,
            questions,
            self._asking,
            live,
            other,
            self.settings.quality,
            run_id=run_id or f"library-{uuid.uuid4()}",
            watch=watch,
        )

    def evaluate(
        self,
        questions: Path | None = None,
        *,
        run_id: str = "",
        watch: Watch = lambda done, of: None,
    ) -> EvaluationReport:
        """Ask the golden questions, measure the answers, and store them with a verdict.

        Args:
            questions: Other questions than the configured ones; their verdict stops nothing.
            run_id: Who is at work; made up if it is not given.
            watch: Told how many questions of how many were asked.

        Raises:
            SettingsError: There are no questions, or they cannot be read.
            SpaceError: Nothing was indexed yet.
            ProviderUnavailableError: The questions could not be embedded.
        """
        asked, purpose = golden_questions(self.settings, questions)
        space = self._live_space()
        return evaluate(
            self.database,
            asked,
            self._asking(space),
            space,
            self.settings.quality,
            run_id=run_id or f"library-{uuid.uuid4()}",
            purpose=purpose,
            watch=watch,
        )

    def suggest_questions(
        self, number: int = 20, *, seed: int = 0, sources: tuple[str, ...] = ()
    ) -> Iterator[Suggestion | Dropped]:
        """Draw passages, and yield what the chat model would ask about each, as it arrives.

        Args:
            number: How many passages are drawn; each costs a request.
            seed: What decides the draw.
            sources: Only documents of these sources.

        Raises:
            SettingsError: A source does not exist.
            ProviderRefusedError: There is no key for the chat model, or it refuses.
            ProviderUnavailableError: The model cannot be reached, or broke off.
        """
        for source in sources:
            self.settings.source(source)
        wanted = sources or self._sources_to_search(index_state(self.reader))
        return suggest_questions(self.reader, self._chat, number=number, seed=seed, sources=wanted)

    def past_evaluations(self, limit: int = 30) -> tuple[Evaluation, ...]:
        """Return the last evaluations of the configured questions, newest first."""
        return past_evaluations(self.reader, limit)

    def drop_space(self, name: str) -> Space:
        """Delete a space that does not answer, with its vectors.

        Raises:
            NotFoundError: There is no such space.
            SpaceError: It is the one that answers.
        """
        return drop_space(self.database, name)

    def _asking(self, space: Space) -> Ask:
        """Return who asks a space golden questions: as readers do, past any cache and log."""
        embedder = Remembering(self._embedder(space))
        wanted = Filters(self._sources_to_search(index_state(self.reader)))

        def ask(text: str, mode: Mode) -> Results:
            # The one place where evaluation meets search.
            query = Query(text, DEPTH, wanted, mode, merge=False, rerank=mode == LEADING)
            return self._searcher(space, embedder).find(query).results

        return ask
