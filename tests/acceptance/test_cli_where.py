"""Conditions on the command line."""

from tests.acceptance.command_line import CommandLine, write
from tests.acceptance.test_cli_errors import assert_told


def paths(kb: CommandLine, *arguments: str) -> set[str]:
    return {hit["path"] for hit in kb.must("search", "owls", *arguments)["hits"]}


def test_only_documents_of_which_it_is_true(kb: CommandLine) -> None:
    write(kb.folder / "documents", gulls="---\ntags: [api]\nyear: 2024\n---\nGulls and owls.")
    kb.must("index")
    assert paths(kb, "--where", 'tags has "api" and metadata.year >= 2024') == {"gulls.md"}
    everywhere = paths(kb, "--where", "not metadata.year >= 2025")
    assert everywhere == paths(kb) >= {"gulls.md", "owls.md"}
    as_json = '{"not": {"field": "metadata.year", "operator": "exists"}}'
    both = ("--where", as_json, "--where", "path contains 'owl'")
    assert paths(kb, *both) == {"owls.md"}
    assert paths(kb, *both, "--tag", "api") == set()


def test_conditions_that_cannot_be_used(kb: CommandLine) -> None:
    for where, words in (
        ("metadata.year > > 3", "at character 17: metadata.year > \u25b6> 3"),
        ("", "Expected a field"),
        ("year = 3", "There is no field"),
        ('{"and": [', "not JSON"),
        ('{"and": []}', "has no parts"),
    ):
        assert_told(kb, 3, "search", "owls", "--where", where, words=words)
