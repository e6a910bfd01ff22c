"""kill -9 at every step of the archive's protocol: nothing is lost, and the next run goes on."""

import pytest

from tests.faults.archiving import ALL_BUT_COMMITTED, STEPS, ArchivingProcess, Shelf


@pytest.fixture
def late(shelf: Shelf) -> Shelf:
    """The month is cold; new messages and repeated ones have come for it."""
    shelf.archive()
    assert shelf.append(*range(4, 12)).late == 8
    assert shelf.append(3, content="Said otherwise.").late == 1
    return shelf


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("source", ["month", "late"])
def test_a_killed_run_loses_nothing(source: str, step: str, request: pytest.FixtureRequest) -> None:
    shelf: Shelf = request.getfixturevalue("shelf" if source == "month" else "late")
    shelf.oracle.check()
    with ArchivingProcess(shelf.kb.settings, shelf.months, step) as process:
        assert process.wait() == "stopped"
        if step != ALL_BUT_COMMITTED:
            shelf.oracle.check()
        process.kill()
    shelf.oracle.check()
    if step == "committed":
        assert shelf.states()[-1] == "committed"
    shelf.settle()
    assert "copying" not in shelf.states()


def test_a_month_that_was_closed_by_a_killed_run_takes_messages_apart(shelf: Shelf) -> None:
    with ArchivingProcess(shelf.kb.settings, shelf.months, "closed") as process:
        assert process.wait() == "stopped"
        assert shelf.append(4, 8).repeated == 1
        process.kill()
    assert shelf.late() == {"m8"}
    shelf.oracle.check()
    assert shelf.append(8, 9).repeated == 1
    shelf.settle()


def test_a_run_can_be_killed_again_and_again(shelf: Shelf) -> None:
    for number, step in enumerate(("copied", "uploaded", "proven", "being committed")):
        shelf.append(8 + number)
        with ArchivingProcess(shelf.kb.settings, shelf.months, step) as process:
            assert process.wait() == "stopped"
            process.kill()
        shelf.oracle.check()
    shelf.settle()
    assert shelf.states() == ["stale"] * 3 + ["committed"] * 2
