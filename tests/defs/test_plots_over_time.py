"""What the catalogue plots over time, and of how long chunks are."""

import dagster as dg
import psycopg
import pytest

from kb_assets import KnowledgeBase
from kb_assets.defs.instance import dagster_instance
from kb_assets.defs.whole import HISTORY, MOST_POINTS, Whole, whole_metadata
from tests.defs.conftest import index, write_documents
from tests.defs.images import image_of, lines_of, words_of

NOTHING = Whole(
    documents=0,
    live_chunks=0,
    distinct_texts=0,
    paid_tokens=0,
    paid_usd=0.0,
    saved_usd=0.0,
    saved_tokens=0,
)


def last_shown(kb: KnowledgeBase, asset: str, partition: str | None = None) -> dict[str, object]:
    """Return the metadata of the newest materialization."""
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey(asset), asset_partitions=None if partition is None else [partition]
    )
    with dagster_instance(kb) as instance:
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return {name: one.value for name, one in record.asset_materialization.metadata.items()}


def test_growth_has_a_point_for_each_change_and_none_for_a_run_that_found_nothing(
    kb: KnowledgeBase,
) -> None:
    index(kb)
    first = last_shown(kb, "vector_index")
    index(kb)
    unchanged = last_shown(kb, "vector_index")
    write_documents(kb.settings.root / "wiki", 20)
    index(kb)
    grown = last_shown(kb, "vector_index")

    assert (first["documents"], grown["documents"]) == (12, 20)
    assert unchanged[HISTORY] == first[HISTORY]
    assert [len(points) for points in lines_of(first["growth"])] == [1, 1, 1]
    (documents, chunks, texts) = lines_of(grown["growth"])
    assert [len(points) for points in (documents, chunks, texts)] == [2, 2, 2]
    assert documents[1][1] < documents[0][1], "the second point stands higher"
    assert grown["live_chunks"] == sum(one.contents.chunks for one in kb.status().shards)


def test_texts_that_chunks_share_are_counted_as_saved(kb: KnowledgeBase) -> None:
    for number in range(30):
        (kb.settings.root / "wiki" / f"same-{number}.md").write_text("# Tides\n\nTwice a day.\n")
    index(kb)
    shown = last_shown(kb, "vector_index")

    with psycopg.connect(kb.urls.writer) as connection:
        counted = connection.execute(
            "select count(*), count(distinct c.input_hash) from kb.document d"
            " join kb.chunk c on c.revision_id = d.live_revision_id"
        ).fetchone()
    assert counted is not None
    chunks, texts = counted
    assert (shown["live_chunks"], shown["distinct_texts"]) == (chunks, texts)
    assert chunks > texts
    assert shown["saved_tokens"] > 0  # type: ignore[operator]
    assert shown["paid_usd"] == 0.0
    assert "paid tokens" in words_of(shown["spending"])


def test_a_shard_shows_its_chunk_sizes_and_where_its_source_is(kb: KnowledgeBase) -> None:
    index(kb)
    key = kb.settings.shards[0].key
    bars = [
        float(one.attrib["height"])
        for one in image_of(last_shown(kb, "document_chunks", key)["chunk_sizes"]).iter()
        if one.tag.endswith("rect") and "fill-opacity" in one.attrib
    ]

    assert len(bars) == 24
    assert 0 < sum(height > 0 for height in bars) < 24
    assert last_shown(kb, "raw_documents", key)["source"] == str(kb.settings.root / "wiki")


def test_money_is_plotted_once_there_is_any() -> None:
    before = whole_metadata(NOTHING, {})
    paid = Whole(**{**_numbers(NOTHING), "paid_usd": 3.2, "saved_usd": 0.4})
    shown = whole_metadata(paid, before)

    assert {"paid usd", "saved usd", "5"} <= set(words_of(shown["spending"].value))
    assert [len(points) for points in lines_of(shown["spending"].value)] == [2, 2]


def test_the_points_stay_few_and_the_first_and_last_stay() -> None:
    shown: dict[str, dg.MetadataValue] = {}
    for documents in range(3 * MOST_POINTS):
        shown = whole_metadata(Whole(**{**_numbers(NOTHING), "documents": documents}), shown)
        kept = [one["documents"] for one in shown[HISTORY].value]  # type: ignore[union-attr,index,call-overload]
        assert len(kept) <= MOST_POINTS
        assert kept == sorted(kept)
        assert (kept[0], kept[-1]) == (0, documents)


@pytest.mark.parametrize("kept", ["", [], {"points": 1}, [{"at": "now"}], [1]])
def test_points_of_another_version_are_left_behind(kept: object) -> None:
    shown = whole_metadata(NOTHING, {HISTORY: dg.MetadataValue.json(kept)})  # type: ignore[arg-type]

    assert len(shown[HISTORY].value) == 1  # type: ignore[arg-type]


def _numbers(whole: Whole) -> dict[str, float]:
    return {name: getattr(whole, name) for name in Whole.__dataclass_fields__}
