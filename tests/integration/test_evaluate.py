"""Golden questions are asked of a real index; the verdict stops what it should, and no more."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from kb_assets import KnowledgeBase
from kb_assets.errors import (
    NotFoundError,
    ProviderUnavailableError,
    QualityError,
    SettingsError,
    SpaceError,
)
from kb_assets.retrieval.measures import ANSWER, NDCG, RECALL
from kb_assets.settings import EmbeddingSettings, Settings
from tests.golden import BIRDS, corrupt_half, repair, write_birds
from tests.servers.openai_server import Fault, OpenAIServer

MakeSettings = Callable[..., Settings]
OpenAI = tuple[OpenAIServer, EmbeddingSettings]


@pytest.fixture
def questions(folder: Path) -> Path:
    return write_birds(folder)


@pytest.fixture
def kb(make_settings: MakeSettings, questions: Path) -> Iterator[KnowledgeBase]:
    """An index whose golden questions are all answered."""
    with KnowledgeBase(make_settings(quality={"questions": questions})) as opened:
        opened.index()
        yield opened


@pytest.fixture
def over_http(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    """A provider that can be told to fail, and the settings that lead there."""
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield (
            server,
            EmbeddingSettings(
                provider="openai",
                base_url=server.base_url,
                model="text-embedding-3-small",
                retries=0,
            ),
        )


def ask(folder: Path, *questions: dict[str, object]) -> Path:
    file = folder.parent / "others.yaml"
    file.write_text(yaml.safe_dump(list(questions)))
    return file


def add_space(make_settings: MakeSettings, questions: Path, dimensions: int) -> str:
    """Fill a second space, of shorter vectors, and return its name."""
    with KnowledgeBase(
        make_settings(
            quality={"questions": questions}, embedding=EmbeddingSettings(dimensions=dimensions)
        )
    ) as other:
        other.index()
        return next(one.space.name for one in other.spaces() if one.space.state == "building")


def stored(kb: KnowledgeBase) -> list[tuple[str, str]]:
    with psycopg.connect(kb.urls.writer) as connection:
        query = "select purpose, verdict from kb.evaluation order by id"
        return [tuple(row) for row in connection.execute(query)]


def test_what_is_answered_well_holds_and_is_stored(kb: KnowledgeBase) -> None:
    report = kb.evaluate()

    assert report.evaluation.verdict == "holds"
    assert report.evaluation.questions == len(BIRDS)
    for mode in ("hybrid", "vector", "lexical"):
        assert report.evaluation.metrics[mode][NDCG].mean == 1.0
        assert report.evaluation.metrics[mode][ANSWER].mean == 1.0
        assert 0 < report.evaluation.seconds[mode]["p50"] <= report.evaluation.seconds[mode]["p95"]
    assert kb.past_evaluations() == (report.evaluation,)
    assert "hash provider" in " ".join(report.notes)


def test_old_evaluations_are_forgotten_but_for_what_is_compared_with(kb: KnowledgeBase) -> None:
    held = kb.evaluate()
    again = """insert into kb.evaluation (run_id, purpose, questions_hash, questions, metrics,
            per_question, seconds, verdict)
        select 'again', 'quality', questions_hash, questions, metrics, per_question, seconds,
            'fails'
        from kb.evaluation, generate_series(1, 1002)"""
    with psycopg.connect(kb.urls.writer) as connection:
        connection.execute(again)

    corrupt_half(kb)
    failed = kb.evaluate()

    kept = stored(kb)
    assert len(kept) == 1000 + 1
    assert kept[0] == ("quality", "holds")
    assert f"{held.evaluation.evaluated_at:%F at %R}" in " ".join(failed.evaluation.reasons)


def test_the_next_run_says_how_far_it_is_from_the_last(kb: KnowledgeBase) -> None:
    first = kb.evaluate()
    corrupt_half(kb)
    second = kb.evaluate()

    assert first.differences == {}
    assert second.previous == first.evaluation
    assert second.differences["vector"][NDCG].mean < -0.1
    worst = second.worst_first()[0].text
    assert second.evaluation.per_question[worst]["hybrid"][NDCG] == min(
        scores["hybrid"][NDCG] for scores in second.evaluation.per_question.values()
    )


def test_half_of_the_vectors_mixed_up_is_red_until_they_are_repaired(kb: KnowledgeBase) -> None:
    kb.evaluate()
    corrupt_half(kb)
    red, red_again = kb.evaluate(), kb.evaluate()
    repair(kb)
    green = kb.evaluate()

    assert red.evaluation.verdict == "fails"
    assert any("of vector search" in reason for reason in red.evaluation.reasons)
    assert red_again.evaluation.verdict == "fails", "it is compared with the last that held"
    assert green.evaluation.verdict == "holds"


def test_other_questions_start_anew(kb: KnowledgeBase, questions: Path) -> None:
    kb.evaluate()
    corrupt_half(kb)
    questions.write_text(questions.read_text() + "- question: owl\n  documents: [owl.md]\n")

    report = kb.evaluate()

    assert report.previous is None
    assert report.evaluation.verdict == "holds"


def test_the_first_run_fails_below_the_least(make_settings: MakeSettings, folder: Path) -> None:
    questions = ask(folder, {"question": "owl", "documents": ["nowhere.md"]})
    (folder / "owl.md").write_text("# Owl\n\nAn owl.\n")
    quality = {"questions": questions, "min_ndcg": 0.5}
    with KnowledgeBase(make_settings(quality=quality)) as kb:
        kb.index()
        report = kb.evaluate()

    assert report.evaluation.verdict == "fails"
    assert report.evaluation.reasons == ("nDCG@10 of hybrid search is 0.000, and must be 0.500.",)


def test_documents_that_are_not_there_are_named_and_count_as_not_found(
    kb: KnowledgeBase, folder: Path
) -> None:
    file = ask(folder, {"question": "Where does the owl nest?", "documents": ["owl.md", "emu.md"]})

    report = kb.evaluate(file)

    assert report.evaluation.metrics["hybrid"][RECALL].mean == 0.5
    assert "1 documents" in report.notes[0]
    assert "emu.md" in report.notes[0]
    assert "count as not found" in report.notes[0]


@pytest.mark.parametrize("name", ["field/emu.md", "notes:field/emu.md", "field/emu", "emu", "B-7"])
def test_a_document_answers_to_its_path_its_name_and_its_id(
    kb: KnowledgeBase, folder: Path, name: str
) -> None:
    (folder / "field").mkdir()
    (folder / "field" / "emu.md").write_text("---\nid: B-7\n---\n# Emus\n\nEmus stride inland.\n")
    kb.index()

    report = kb.evaluate(ask(folder, {"question": "emus stride", "documents": [name]}))

    assert report.evaluation.metrics["vector"][NDCG].mean == 1.0
    assert not any("not in the knowledge" in note for note in report.notes)


def test_a_looser_name_counts_only_where_no_document_has_it_exactly(
    kb: KnowledgeBase, folder: Path
) -> None:
    (folder / "emu.md").write_text("# Exact\n\nSomething else altogether.\n")
    (folder / "emu.md.md").write_text("# Loose\n\nemu emu emu emu\n")
    kb.index()

    report = kb.evaluate(ask(folder, {"question": "emu emu", "documents": ["emu.md"]}))

    assert report.found["emu emu"]["vector"][0] == "notes:emu.md.md"
    assert report.evaluation.metrics["vector"][NDCG].mean < 1.0


def test_a_beir_folder_is_asked(kb: KnowledgeBase, tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "Where does the owl nest?"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\towl\t1\n")

    assert kb.evaluate(beir).evaluation.metrics["hybrid"][NDCG].mean == 1.0


def test_a_span_wants_the_passage_and_not_only_the_document(
    kb: KnowledgeBase, folder: Path
) -> None:
    file = ask(
        folder,
        {
            "question": "Where does the owl nest?",
            "spans": [{"document": "owl.md", "contains": "has always\n nested"}],
        },
        {
            "question": "What does the owl eat?",
            "spans": [{"document": "owl.md", "contains": "mice"}],
        },
    )

    scores = kb.evaluate(file).evaluation.per_question

    assert scores["Where does the owl nest?"]["hybrid"][NDCG] == 1.0
    assert scores["What does the owl eat?"]["hybrid"][NDCG] == 0.0


def test_without_questions_it_says_where_they_go(knowledge_base: KnowledgeBase) -> None:
    with pytest.raises(SettingsError, match=r"\[quality\]"):
        knowledge_base.evaluate()


def test_a_question_is_embedded_once_for_all_modes(
    make_settings: MakeSettings, questions: Path, over_http: OpenAI
) -> None:
    server, embedding = over_http
    quality = {"questions": questions}
    with KnowledgeBase(make_settings(embedding=embedding, quality=quality)) as kb:
        kb.index()
        before = len(server.answered_texts)
        kb.evaluate()
        asked = server.answered_texts[before:]

    assert len(asked) == len(set(asked)) == len(BIRDS)


def test_a_red_verdict_blocks_a_promotion_unless_forced(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path
) -> None:
    kb.evaluate()
    other = add_space(make_settings, questions, 256)
    corrupt_half(kb)
    kb.evaluate()

    with pytest.raises(SpaceError, match="while retrieval fails"):
        kb.promote_space(other)
    assert kb.promote_space(other, force=True).state == "live"


def test_a_worse_space_is_refused_unless_forced(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path
) -> None:
    other = add_space(make_settings, questions, 2)

    with pytest.raises(SpaceError, match="answers worse"):
        kb.promote_space(other)
    assert {one.space.name: one.space.state for one in kb.spaces()}[other] == "building"
    assert stored(kb) == [("comparison", "fails")]
    assert kb.promote_space(other, force=True).state == "live"


def test_a_space_as_good_is_promoted_and_can_be_taken_back(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path
) -> None:
    first = kb.spaces()[0].space.name
    other = add_space(make_settings, questions, 256)

    promoted = kb.promote_space(other)
    restored = kb.rollback_space()

    assert (promoted.name, promoted.state) == (other, "live")
    assert (restored.name, restored.state) == (first, "live")
    assert [one.space.state for one in kb.spaces()] == ["live", "retired"]


def test_going_back_is_possible_when_the_new_space_fails(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path
) -> None:
    kb.evaluate()
    kb.promote_space(add_space(make_settings, questions, 2), force=True)
    red = kb.evaluate()
    kb.rollback_space()
    green = kb.evaluate()

    assert (red.evaluation.verdict, green.evaluation.verdict) == ("fails", "holds")


def test_an_incomplete_space_is_not_gone_back_to(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path, folder: Path
) -> None:
    with pytest.raises(NotFoundError):
        kb.rollback_space()
    kb.promote_space(add_space(make_settings, questions, 256))
    (folder / "emu.md").write_text("# Emu\n\nNew since then.\n")
    with KnowledgeBase(
        make_settings(embedding=EmbeddingSettings(dimensions=256))
    ) as with_the_new_model:
        with_the_new_model.index()

    with pytest.raises(SpaceError, match="not complete"):
        kb.rollback_space()


def test_spaces_are_compared_by_quality_speed_size_and_cost(
    kb: KnowledgeBase, make_settings: MakeSettings, questions: Path
) -> None:
    other = add_space(make_settings, questions, 2)

    comparison = kb.compare_space(other)

    assert comparison.verdict == "fails"
    assert set(comparison.differences) == {"hybrid", "vector"}
    assert comparison.differences["vector"][NDCG].high < 0
    assert comparison.other.figures.vectors == comparison.live.figures.vectors == len(BIRDS)
    assert 0 < comparison.other.figures.index_bytes <= comparison.live.figures.index_bytes
    assert comparison.other.figures.tokens > 0
    assert comparison.other.seconds["vector"]["p95"] > 0
    with pytest.raises(SpaceError, match="is live"):
        kb.compare_space(comparison.live.space.name)


def test_nothing_is_published_while_retrieval_fails_and_nothing_is_lost(
    make_settings: MakeSettings, questions: Path, folder: Path
) -> None:
    quality = {"questions": questions, "block_publish": True}
    with KnowledgeBase(make_settings(quality=quality)) as kb:
        kb.index()
        kb.evaluate()
        corrupt_half(kb)
        kb.evaluate()
        kb.index()  # There is nothing to publish, and so nothing to stop.
        (folder / "emu.md").write_text("# The emu\n\nThe emu strides inland.\n")
        with pytest.raises(QualityError, match="readers keep"):
            kb.index()
        blocked = kb.status().shards[0].account
        repair_vectors(kb)
        kb.evaluate()
        kb.index()
        after = kb.status().shards[0].account

    assert (blocked.live, blocked.pending) == (len(BIRDS), 1)
    assert (after.live, after.pending) == (len(BIRDS) + 1, 0)


def repair_vectors(kb: KnowledgeBase) -> None:
    with pytest.raises(QualityError):
        repair(kb)  # The texts are embedded again; publishing is still stopped.


def test_a_red_verdict_stops_no_publishing_unless_set(
    make_settings: MakeSettings, questions: Path, folder: Path
) -> None:
    with KnowledgeBase(make_settings(quality={"questions": questions})) as kb:
        kb.index()
        kb.evaluate()
        corrupt_half(kb)
        assert kb.evaluate().evaluation.verdict == "fails"
        (folder / "emu.md").write_text("# The emu\n\nThe emu strides inland.\n")
        kb.index()

        assert kb.status().shards[0].account.live == len(BIRDS) + 1


def test_the_verdict_of_other_questions_stops_nothing(
    make_settings: MakeSettings, questions: Path, folder: Path
) -> None:
    file = ask(folder, {"question": "Where does the owl nest?", "documents": ["nowhere.md"]})
    quality = {"questions": questions, "min_ndcg": 0.5, "block_publish": True}
    with KnowledgeBase(make_settings(quality=quality)) as kb:
        kb.index()
        assert kb.evaluate(file).evaluation.verdict == "fails"
        (folder / "emu.md").write_text("# The emu\n\nThe emu strides inland.\n")
        kb.index()

        assert kb.status().shards[0].account.live == len(BIRDS) + 1
        assert stored(kb) == [("comparison", "fails")]


def test_a_question_the_provider_refuses_is_answered_by_its_words(
    make_settings: MakeSettings, questions: Path, over_http: OpenAI
) -> None:
    server, embedding = over_http
    refused = "Where does the owl nest?"
    server.refused_texts.add(refused)
    with KnowledgeBase(make_settings(embedding=embedding, quality={"questions": questions})) as kb:
        kb.index()
        report = kb.evaluate()

    scores = report.evaluation.per_question[refused]
    assert scores["vector"][NDCG] == 0.0
    assert scores["hybrid"][NDCG] == scores["lexical"][NDCG] == 1.0
    assert any("Of 1 of 60 searches" in note for note in report.notes)


def test_nothing_is_measured_while_the_provider_is_away(
    make_settings: MakeSettings, questions: Path, over_http: OpenAI
) -> None:
    """Words alone would look like a fall, and turn the verdict red."""
    server, embedding = over_http
    with KnowledgeBase(make_settings(embedding=embedding, quality={"questions": questions})) as kb:
        kb.index()
        server.always = Fault(status=503)
        with pytest.raises(ProviderUnavailableError):
            kb.evaluate()
        assert stored(kb) == []
