"""Quality in Dagster: an asset with plots, checks that turn red, and what a red one stops."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.defs.build import build_definitions
from kb_assets.errors import SpaceError
from kb_assets.settings import Settings
from tests.defs.conftest import evaluate, index, job, write_config
from tests.defs.images import image_of
from tests.golden import BIRDS, corrupt_half, repair, table_of, write_birds

QUALITY = dg.AssetKey("retrieval_quality")


@pytest.fixture
def kb(environment: None, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """An index of one source, and golden questions about it."""
    file = write_config(tmp_path, birds=1)
    questions = write_birds(tmp_path / "birds")
    with file.open("a") as config:
        config.write(f'[quality]\nquestions = "{questions.name}"\n')
    with KnowledgeBase.open(file) as opened:
        opened.index()
        yield opened


def measure(
    kb: KnowledgeBase, instance: dg.DagsterInstance | None = None, **tags: str
) -> tuple[dg.AssetMaterialization, dg.AssetCheckEvaluation]:
    """Materialize the asset with its check."""
    result = job(kb, dg.AssetSelection.assets(QUALITY)).execute_in_process(
        raise_on_error=False, instance=instance, tags=tags
    )
    (made,) = result.asset_materializations_for_node("retrieval_quality")
    (checked,) = result.get_asset_check_evaluations()
    return made, checked


def spoil_the_graph(kb: KnowledgeBase) -> None:
    """Put an index over many random vectors that links each of them to next to nothing."""
    table = table_of(kb)
    with psycopg.connect(kb.urls.writer, autocommit=True) as connection:
        index_name = f"{table}_hnsw"
        for statement in (
            f"drop index {index_name}",
            f"insert into {table} select sha256(n::text::bytea), (select array_agg(random() - 0.5)"
            f" from generate_series(1, 384) where n > 0)::halfvec from generate_series(1, 4000) n",
            f"create index {index_name.split('.')[1]} on {table}"
            " using hnsw (vector halfvec_cosine_ops) with (m = 2, ef_construction = 4)",
        ):
            connection.execute(statement.encode())


def image(made: dg.AssetMaterialization, name: str) -> ElementTree.Element:
    return image_of(made.metadata[name].value)


def test_the_asset_is_there_only_where_questions_are(settings: Settings, kb: KnowledgeBase) -> None:
    without = build_definitions(settings).resolve_asset_graph()
    with_questions = build_definitions(kb.settings).resolve_asset_graph()

    assert not without.has(QUALITY)
    assert with_questions.has(QUALITY)
    assert dg.AssetCheckKey(QUALITY, "retrieval_quality_holds") in with_questions.asset_check_keys


def test_it_says_what_it_is_as_the_others_do(kb: KnowledgeBase) -> None:
    specs = build_definitions(kb.settings).resolve_all_asset_specs()
    (spec,) = (one for one in specs if one.key == QUALITY)

    assert spec.description and len(spec.description) > 80
    assert spec.owners == ["team:docs"]
    assert spec.group_name == "quality"
    assert {"postgres"} <= spec.kinds
    assert all(one.description for one in spec.metadata["dagster/column_schema"].columns)


def test_measures_are_numbers_dagster_can_plot_and_tables_people_can_read(
    kb: KnowledgeBase,
) -> None:
    made, checked = measure(kb)

    for mode in ("hybrid", "vector", "lexical"):
        for name in ("ndcg_at_10", "recall_at_5", "mrr_at_10", "answer_at_5"):
            assert made.metadata[f"{mode}_{name}"] == dg.FloatMetadataValue(1.0)
        assert made.metadata[f"{mode}_p95_milliseconds"].value > 0
    assert made.metadata["questions"].value == len(BIRDS)
    assert "| nDCG&#64;10 | vector | 1.000 | 1.000 to 1.000 |" in made.metadata["measures"].value
    assert "owl.md" not in made.metadata["worst_questions"].value or len(BIRDS) > 10
    assert checked.passed


def test_the_plots_are_whole_images(kb: KnowledgeBase) -> None:
    kb.evaluate()
    made, _ = measure(kb)

    lines = [one for one in image(made, "history").iter() if one.tag.endswith("polyline")]
    bars = [one for one in image(made, "plot").iter() if one.tag.endswith("rect")]

    assert [len(line.attrib["points"].split()) for line in lines] == [2, 2, 2]
    assert len(bars) == 1 + 3 + 4 * 3, "the ground, the legend, four measures of three modes"


def test_half_of_the_vectors_mixed_up_turns_it_red_and_blocks_a_promotion(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(kb)
    monkeypatch.setenv("KB_EMBEDDING__DIMENSIONS", "256")
    with KnowledgeBase.open(kb.settings.root / "kb.toml") as other:
        assert index(other).succeeded
    monkeypatch.delenv("KB_EMBEDDING__DIMENSIONS")
    name = next(one.space.name for one in kb.spaces() if one.space.state == "building")

    corrupt_half(kb)
    made, red = measure(kb)
    with pytest.raises(SpaceError, match="while retrieval fails"):
        kb.promote_space(name)
    repair(kb)
    _, green = measure(kb)
    promoted = kb.promote_space(name)

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert not red.blocking
    assert "of vector search" in (red.description or "")
    assert made.metadata["verdict"].value == "fails"
    assert green.passed
    assert promoted.state == "live"


def test_the_check_sees_what_kb_eval_found(kb: KnowledgeBase) -> None:
    nothing = evaluate(kb, "retrieval_quality", "retrieval_quality_holds")
    kb.evaluate()
    held = evaluate(kb, "retrieval_quality", "retrieval_quality_holds")
    corrupt_half(kb)
    kb.evaluate()
    failed = evaluate(kb, "retrieval_quality", "retrieval_quality_holds")

    assert [one.passed for one in (nothing, held, failed)] == [False, True, False]


def test_quality_follows_the_index_and_once(kb: KnowledgeBase) -> None:
    definitions = build_definitions(kb.settings)
    made = dg.AssetMaterialization(dg.AssetKey("vector_index"))
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
        instance.report_runless_asset_event(made)
        second = dg.evaluate_automation_conditions(
            defs=definitions, instance=instance, cursor=first.cursor
        )
        instance.report_runless_asset_event(dg.AssetMaterialization(QUALITY))
        third = dg.evaluate_automation_conditions(
            defs=definitions, instance=instance, cursor=second.cursor
        )

    assert [run.get_num_requested(QUALITY) for run in (first, second, third)] == [0, 1, 0]
    sensor = definitions.resolve_sensor_def("after_publishing")
    targets = sensor.asset_selection.resolve(definitions.resolve_asset_graph())
    assert {key.to_user_string() for key in targets} == {"vector_index", "retrieval_quality"}


def test_what_did_not_change_is_not_measured_again_by_itself(kb: KnowledgeBase) -> None:
    folder, search = kb.settings.root, kb.settings.search
    by_itself = {"dagster/from_automation_condition": "true"}
    evaluations = []

    with dg.DagsterInstance.ephemeral() as instance:

        def follow(**tags: str) -> dg.AssetMaterialization:
            made, checked = measure(kb, instance, **tags)
            assert checked.passed
            evaluations.append(len(kb.past_evaluations()))
            return made

        follow(**by_itself)
        again = follow(**by_itself)
        follow()
        (folder / "birds" / "dodo.md").write_text("# The dodo\n\nIt is gone.\n")
        kb.index()
        follow(**by_itself)
        (folder / "questions.yaml").write_text(
            (folder / "questions.yaml").read_text().replace("Where does", "Where, then, does", 1)
        )
        follow(**by_itself)
        kb.settings = kb.settings.model_copy(
            update={"search": search.model_copy(update={"vector_weight": 0.3})}
        )
        follow(**by_itself)
        follow(**by_itself)

    assert evaluations == [1, 1, 2, 3, 4, 5, 5]
    assert again.metadata["unchanged"].value is True


def test_kb_index_does_not_measure(kb: KnowledgeBase) -> None:
    assert index(kb).succeeded
    assert kb.past_evaluations() == ()


def test_an_index_that_finds_its_neighbours_is_green(kb: KnowledgeBase) -> None:
    green = evaluate(kb, "vector_index", "index_recall_holds")

    assert green.passed
    assert green.metadata["recall"].value == 1.0
    assert green.metadata["vectors_asked"].value == len(BIRDS)


def test_an_index_that_loses_them_is_red(kb: KnowledgeBase) -> None:
    spoil_the_graph(kb)

    red = evaluate(kb, "vector_index", "index_recall_holds")

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert red.metadata["recall"].value < 0.8
    assert red.metadata["vectors_asked"].value == 50


def test_few_vectors_and_no_usable_index_are_nothing_to_compare(kb: KnowledgeBase) -> None:
    with psycopg.connect(kb.urls.writer, autocommit=True) as connection:
        connection.execute(f"drop index {table_of(kb)}_hnsw".encode())
    without_index = evaluate(kb, "vector_index", "index_recall_holds")
    for bird in BIRDS[5:]:
        (kb.settings.root / "birds" / f"{bird}.md").unlink()
    kb.index(run=kb.run(confirm_deletes=True))
    with psycopg.connect(kb.urls.writer, autocommit=True) as connection:
        connection.execute(
            f"delete from {table_of(kb)} t where not exists"
            " (select from kb.chunk c where c.input_hash = t.input_hash)".encode()
        )
    few = evaluate(kb, "vector_index", "index_recall_holds")

    assert without_index.passed
    assert few.passed
    assert "nothing to compare" in (few.description or "")
