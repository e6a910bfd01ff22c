"""Filters of a search, on a real database."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kb_assets.errors import SettingsError
from kb_assets.knowledge_base import KnowledgeBase
from kb_assets.retrieval.query import Filters
from kb_assets.settings import Settings

MUNICH = "M\u00fcnchen"
MUNICH_DECOMPOSED = "Mu\u0308nchen"

HEADS = {
    "guide.md": f"tags: [api, draft, {MUNICH}]\ncity: {MUNICH}\n{MUNICH}: yes",
    "100%_sure.md": "tags: api\nyear: 2026\nreviewers: [ann, bob]\nempty: null",
    "100xxsure.md": "year: '2026'\nreviewers: ann\nlarge: 18446744073709551616",
    "deep/a.md": "owner: {team: docs, lead: {name: eve}}\ndraft: true\nreviewers: []",
}


@pytest.fixture
def found(knowledge_base: KnowledgeBase, folder: Path) -> Callable[..., set[str]]:
    """Paths that a search with filters finds, among four documents."""
    (folder / "deep").mkdir()
    for path, head in HEADS.items():
        (folder / path).write_text(f"---\n{head}\n---\nAll about {path}.\n")
    knowledge_base.index()

    def search(**filters: Any) -> set[str]:
        return {hit.path for hit in knowledge_base.search("all about", **filters)}

    return search


def test_paths_and_tags(found: Callable[..., set[str]]) -> None:
    assert found() == set(HEADS)
    assert found(path_prefix="100%") == found(path_prefix="100%_") == {"100%_sure.md"}
    assert found(path_prefix="100") == {"100%_sure.md", "100xxsure.md"}
    assert found(path_prefix="deep/") == {"deep/a.md"}
    assert found(path_prefix="*") == found(path_prefix="DEEP") == set()
    assert found(tags=("api",)) == {"guide.md", "100%_sure.md"}
    assert found(tags=("api", " draft ")) == {"guide.md"}
    assert found(tags=("ap",)) == set()
    assert found(tags=(MUNICH_DECOMPOSED,)) == {"guide.md"}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"year": 2026}, {"100%_sure.md"}),
        ({"year": "2026"}, {"100xxsure.md"}),
        ({"draft": True}, {"deep/a.md"}),
        ({"empty": None}, {"100%_sure.md"}),
        ({"large": 2**64}, {"100xxsure.md"}),
        ({"reviewers": ["ann"]}, {"100%_sure.md"}),
        ({"reviewers": ["bob", "ann", "bob"]}, {"100%_sure.md"}),
        ({"reviewers": "ann"}, {"100xxsure.md"}),
        ({"reviewers": []}, {"100%_sure.md", "deep/a.md"}),
        ({"owner": {}}, {"deep/a.md"}),
        ({"owner": {"lead": {"name": "eve"}}}, {"deep/a.md"}),
        ({"owner": {"team": "sales"}}, set()),
        ({"city": MUNICH_DECOMPOSED}, {"guide.md"}),
        ({MUNICH_DECOMPOSED: True}, {"guide.md"}),
        ({"city": f"{MUNICH}\x00"}, {"guide.md"}),
        ({"city": "\ud800"}, set()),
    ],
)
def test_metadata_is_contained(
    found: Callable[..., set[str]], metadata: dict[str, Any], expected: set[str]
) -> None:
    assert found(metadata=metadata) == expected


def test_sources(make_settings: Callable[..., Settings], folder: Path, tmp_path: Path) -> None:
    sources = []
    for name in ("notes", "mail"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"All about {name}.\n")
        sources.append({"name": name, "uri": str(tmp_path / name)})
    with KnowledgeBase(make_settings(sources=sources)) as kb:
        kb.index()
        for wanted in (("notes",), ("mail",), ("notes", "mail")):
            assert {hit.source for hit in kb.search("all about", sources=wanted)} == set(wanted)


def test_a_narrow_filter_leaves_as_many_hits_as_there_are(
    knowledge_base: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        tags = "tags: rare\n" if number % 100 == 0 else ""
        # What is rare is far from the question, so that the index meets all else first.
        text = f"Wholly different things {number}" if tags else f"Secret passage {number}"
        (folder / f"{number}.md").write_text(f"---\n{tags}---\n{text}.\n")
    knowledge_base.index()
    for exact_factor in (2.0, 0.0):
        # So few are looked at one by one, unless that is ruled out.
        monkeypatch.setattr("kb_assets.retrieval.vectors._EXACT_FACTOR", exact_factor)
        for limit in (1, 4, 6, 10):
            hits = knowledge_base.search("secret passage", tags=("rare",), limit=limit)
            assert len(hits) == min(limit, 6)
            assert all(hit.tags == ("rare",) for hit in hits)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "filters",
    [
        {"path_prefix": "a\x00"},
        {"path_prefix": "\ud800"},
        {"sources": ("\x00",)},
        {"sources": ("notes", "\udfff")},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": [{"y": float("-inf")}]}},
        {"metadata": {"x": datetime.date(2026, 1, 31)}},
        {"metadata": {"x": b"bytes"}},
        {"metadata": {"x": ("a",)}},
        {"metadata": {"x": {1: "a"}}},
        {"metadata": {"x": ENDLESS}},
    ],
)
def test_what_no_document_can_have_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        Filters(**filters)
    assert refused.value.why
    assert refused.value.fix


def test_hostile_values_are_refused_by_a_search(found: Callable[..., set[str]]) -> None:
    for filters in (
        {"path_prefix": "\x00"},
        {"sources": ("\x00",)},
        {"metadata": {"x": float("inf")}},
    ):
        with pytest.raises(SettingsError):
            found(**filters)
    assert found(tags=("\x00", "\ud800")) == set()
