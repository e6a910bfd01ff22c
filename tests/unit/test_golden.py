"""Golden sets of every kind are read, and what is wrong with one is said with its line."""

import re
from pathlib import Path

import pytest

from kb_assets.errors import SettingsError
from kb_assets.retrieval.golden import Question, Span, load_questions, questions_hash
from kb_assets.retrieval.hits import Hit
from kb_assets.retrieval.ranking import answers_of, has_answer, ranked

SAMPLES = Path(__file__).parents[2] / "samples"


def yaml_file(folder: Path, text: str) -> Path:
    file = folder / "questions.yaml"
    file.write_text(text)
    return file


def files(folder: Path, **contents: str) -> Path:
    """Write files; two underscores stand for a folder, one for the dot."""
    for name, text in contents.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def hit(path: str, text: str = "", *, source: str = "notes", ordinal: int = 0) -> Hit:
    return Hit(source, path, (), 0, len(text), 1.0, text, None, ordinal=ordinal)


QUERIES = '{"_id": "q1", "text": "Who hunts at night?"}\n{"_id": "q2", "text": "Who waits?"}\n'


def test_the_samples_are_read() -> None:
    questions = load_questions(SAMPLES / "questions.yaml")

    assert len(questions) >= 40
    assert all(one.documents and one.answer_contains for one in questions)


def test_documents_have_grades_or_the_grade_one(tmp_path: Path) -> None:
    file = yaml_file(
        tmp_path,
        "- question: one\n  documents: [a.md, notes:b.md]\n"
        "- question: two\n  documents: {a.md: 2, b.md: 1}\n  answer_contains: at night\n",
    )

    assert load_questions(file) == (
        Question("one", {"a.md": 1, "notes:b.md": 1}),
        Question("two", {"a.md": 2, "b.md": 1}, answer_contains="at night"),
    )


def test_spans_name_a_document_and_a_phrase(tmp_path: Path) -> None:
    file = yaml_file(
        tmp_path, "- question: one\n  spans: [{document: a.md, contains: 'at  night'}]\n"
    )

    assert load_questions(file) == (Question("one", spans=(Span("a.md", "at  night"),)),)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", 1, "list"),
        ("question: one", 1, "list"),
        ("- question: one\n  documents: [a.md\n", 3, "expected"),
        ("- question: one\n  documents: [a.md]\n- documents: [a.md]\n", 3, "`question`"),
        ("- question: one\n", 1, "either"),
        ("- question: a\n  documents: [a]\n  spans: [{document: a, contains: b}]\n", 1, "either"),
        ("- question: one\n  documents: []\n", 1, "`documents`"),
        ("- question: one\n  documents: [1]\n", 1, "`documents`"),
        ("- question: one\n  documents: {a.md: good}\n", 1, "grade of a.md"),
        ("- question: one\n  documents: {a.md: 0}\n", 1, "grade of a.md"),
        ("- question: one\n  documents: {a.md: true}\n", 1, "grade of a.md"),
        ("- question: one\n  spans: [{document: a.md}]\n", 1, "a span has"),
        ("- question: one\n  documents: [a.md]\n  answer_contains: 14\n", 1, "quotes"),
        ("- question: one\n  documents: [a.md]\n  answer: b\n", 1, "no `answer`"),
        ("- question: one\n  documents: [a]\n- question: one\n  documents: [b]\n", 3, "twice"),
        ('- question: "a\\0b"\n  documents: [a.md]\n', 1, "`question`"),
    ],
)
def test_a_bad_question_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, word: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(word)) as caught:
        load_questions(yaml_file(tmp_path, text))

    assert f"Line {line}: " in caught.value.why


def test_no_file_is_a_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"quality\.questions"):
        load_questions(tmp_path / "nothing.yaml")


def test_a_beir_folder_is_read(tmp_path: Path) -> None:
    folder = files(
        tmp_path,
        queries_jsonl=QUERIES + '{"_id": "q3", "text": "Never judged"}\n',
        qrels__test_tsv="query-id\tcorpus-id\tscore\nq1\towls\t2\nq1\tbats\t0\nq2\therons\t1\n",
        qrels__train_tsv="query-id\tcorpus-id\tscore\nq3\towls\t1\n",
    )

    assert load_questions(folder) == (
        Question("Who hunts at night?", {"owls": 2}),
        Question("Who waits?", {"herons": 1}),
    )


def test_the_only_judgements_of_a_beir_folder_need_not_be_called_test(tmp_path: Path) -> None:
    folder = files(
        tmp_path,
        queries_jsonl=QUERIES,
        qrels__dev_tsv="query-id\tcorpus-id\tscore\nq1\towls\t1\n",
    )

    assert [one.documents for one in load_questions(folder)] == [{"owls": 1}]


@pytest.mark.parametrize("qrels", ["set.qrels", "qrels.trec", "qrels-test.txt"])
def test_trec_queries_and_qrels_are_read(tmp_path: Path, qrels: str) -> None:
    (tmp_path / "queries.tsv").write_text("1\tWho hunts  at night?\n2\tWho waits?\n")
    (tmp_path / qrels).write_text("1 0 owls 3\n1 0 bats -1\n2 0 herons 1\n")

    by_folder = load_questions(tmp_path)
    by_file = load_questions(tmp_path / qrels)

    assert by_folder == by_file
    assert by_folder[0] == Question("Who hunts at night?", {"owls": 3})
    assert by_folder[1].documents == {"herons": 1}


def test_a_query_asked_twice_is_one_question(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("1\tWho?\n2\tWho?\n")
    (tmp_path / "qrels.trec").write_text("1 0 owls 1\n2 0 owls 2\n2 0 bats 1\n")

    assert load_questions(tmp_path) == (Question("Who?", {"owls": 2, "bats": 1}),)


@pytest.mark.parametrize(
    ("queries", "qrels", "said"),
    [
        ("1 no tab\n", "1 0 owls 1\n", "Line 1: there is no tab"),
        ("1\tWho?\n", "1 0 owls 1\n2 0 owls 1\n", "Line 2: queries.tsv has no query '2'"),
        ("1\tWho?\n", "\n1 owls\n", "Line 2: it has 2 columns"),
        ("1\tWho?\n", "1 0 owls much\n", "Line 1: 'much' is not a whole number"),
        ("1\tWho?\n", "1 0 owls 0\n", "no query has a document"),
        ("1\t \n", "1 0 owls 1\n", "Line 1: the query has no text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, queries: str, qrels: str, said: str) -> None:
    (tmp_path / "queries.tsv").write_text(queries)
    (tmp_path / "qrels.trec").write_text(qrels)

    with pytest.raises(SettingsError, match=re.escape(said)):
        load_questions(tmp_path)


def test_a_folder_without_queries_or_with_two_judgements_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no queries"):
        load_questions(tmp_path)
    files(tmp_path, queries_jsonl=QUERIES, a_qrels="q1 0 owls 1\n", b_qrels="q1 0 owls 1\n")
    with pytest.raises(SettingsError, match=r"a\.qrels, b\.qrels"):
        load_questions(tmp_path)
    assert len(load_questions(tmp_path / "a.qrels")) == 1


def test_a_set_is_known_by_its_questions_whatever_their_order() -> None:
    one, two = Question("one", {"a": 1}), Question("two", {"a": 1})

    assert questions_hash([one, two]) == questions_hash([two, one])
    assert questions_hash([one, two]) != questions_hash([one, Question("two", {"a": 2})])


def test_a_document_ranks_where_its_best_passage_does() -> None:
    question = Question("q", {"owls.md": 1})
    hits = [hit("bats.md"), hit("owls.md"), hit("bats.md", ordinal=1), hit("owls.md", ordinal=2)]
    names = {("notes", "owls.md"): frozenset({"owls.md"})}

    assert ranked(question, hits, names) == ["notes:bats.md", "owls.md"]


def test_a_span_is_answered_by_a_passage_with_the_phrase_and_not_by_its_document() -> None:
    question = Question("q", spans=(Span("owls.md", "at night"),))
    names = {("notes", "owls.md"): frozenset({"owls.md"})}
    hits = [
        hit("owls.md", "They turn their heads."),
        hit("bats.md", "Bats fly at night.", ordinal=1),
        hit("owls.md", "They hunt at\n  night.", ordinal=2),
    ]

    found = ranked(question, hits, names)

    assert list(answers_of(question)) == found[2:]
    assert len(set(found)) == 3


def test_an_answer_counts_in_the_first_five_passages_however_it_is_wrapped() -> None:
    question = Question("q", {"owls.md": 1}, answer_contains="at  night")
    others = [hit(f"{number}.md", "nothing") for number in range(5)]

    assert has_answer(question, [*others[:4], hit("owls.md", "hunt at\nnight")]) == 1.0
    assert has_answer(question, [*others, hit("owls.md", "hunt at\nnight")]) == 0.0


def test_drafts_that_nobody_has_accepted_are_left_out(tmp_path: Path) -> None:
    draft = '- question: "{}"\n  documents: ["a.md"]\n  accepted: {}\n'
    file = tmp_path / "questions.yaml"
    file.write_text(draft.format("Whose?", "false") + draft.format("When?", "true"))
    assert [question.text for question in load_questions(file)] == ["When?"]
    file.write_text(draft.format("Whose?", "false"))
    with pytest.raises(SettingsError, match="none of these drafts is accepted"):
        load_questions(file)
