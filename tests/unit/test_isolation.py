import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from kb_assets import isolation
from kb_assets.documents.parse import ParsedDocument
from kb_assets.errors import DocumentError, PermanentError
from kb_assets.isolated import attempt
from kb_assets.isolation import IsolatedWorker
from kb_assets.processes import kept_processes
from tests.unit.hostile_functions import behave

BEHAVE = "hostile_functions:behave"
MB = 1024 * 1024

Item = tuple[str, object]


def worker(seconds: float = 60) -> IsolatedWorker[Item, object]:
    return IsolatedWorker(BEHAVE, seconds=seconds, memory_bytes=256 * MB)


def outcomes(items: list[Item], seconds: float = 60) -> list[object]:
    with worker(seconds) as isolated:
        results = list(isolated.map(items))
    assert [item for item, _ in results] == items
    return [result.reason if isinstance(result, DocumentError) else result for _, result in results]


def children() -> set[int]:
    return {
        child.pid
        for child in psutil.Process().children()
        if "kb_assets.isolated" in " ".join(child.cmdline())
    }


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert children() == set()
    assert set(threading.enumerate()) <= threads


def test_results_come_in_order_and_from_one_other_process() -> None:
    items: list[Item] = [("echo", number) for number in range(1000)]
    assert outcomes(items) == list(range(1000))
    with worker() as isolated:
        pids = {result for _ in range(2) for _, result in isolated.map([("process", None)] * 3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize(
    ("what", "argument", "reason"),
    [
        ("sleep", None, "too_slow"),
        ("hang_in_c", None, "too_slow"),
        ("ignore_signals", None, "too_slow"),
        ("kill", int(signal.SIGKILL), "parser_died"),
        ("kill", int(signal.SIGABRT), "parser_died"),
        ("segfault", None, "parser_died"),
        ("leave", None, "parser_died"),
        ("allocate", 4 * 1024 * MB, "too_much_memory"),
        ("allocate", 300 * MB, "too_much_memory"),
        ("refuse", None, "binary"),
        ("fail", None, "parser_failed"),
        ("recurse", None, "parser_failed"),
        ("unpicklable", None, "parser_failed"),
    ],
)
def test_a_bad_item_costs_itself_and_no_other(what: str, argument: object, reason: str) -> None:
    items: list[Item] = [("echo", 1), (what, argument), ("echo", 2), (what, argument), ("echo", 3)]
    assert outcomes(items, seconds=1) == [1, reason, 2, reason, 3]


def test_memory_within_the_cap_is_granted_again_and_again() -> None:
    assert outcomes([("allocate", 150 * MB)] * 4) == [150 * MB] * 4


def test_a_kept_process_is_used_again_for_another_function_and_ends_in_time() -> None:
    with kept_processes():
        with worker() as isolated:
            ((_, first),) = isolated.map([("process", None)])
        with IsolatedWorker[object, int]("os:getpgid", seconds=60, memory_bytes=256 * MB) as other:
            ((_, group),) = other.map([first])
            assert group == os.getpgid(cast(int, first))
            assert children() == {first}
        with worker(seconds=61) as isolated:
            ((_, second),) = isolated.map([("process", None)])
        assert second != first
        with worker() as isolated, contextlib.closing(isolated.map([("process", None)] * 3)) as ids:
            assert next(ids)[1] == first
        assert children() == {second}
    assert children() == set()


def test_what_a_kept_process_imports_next_is_not_bounded_by_the_last_use() -> None:
    small = 40 * MB
    with kept_processes():
        with IsolatedWorker[int, int]("os:getpgid", seconds=60, memory_bytes=small) as first:
            list(first.map([0]))
        kept = children()
        with IsolatedWorker[object, object]("numpy:sum", seconds=60, memory_bytes=small) as then:
            assert [total for _, total in then.map([[1, 2]])] == [3]
            assert children() == kept


def test_several_processes_share_the_items_and_keep_their_order() -> None:
    items: list[Item] = [("process", None), *(("echo", number) for number in range(600))]
    items += [("kill", int(signal.SIGKILL)), ("process", None), ("echo", 1), ("process", None)]
    with IsolatedWorker[Item, object](
        BEHAVE, seconds=60, memory_bytes=256 * MB, processes=3
    ) as isolated:
        results = [result for _, result in isolated.map(items)]
        assert len(children()) == 3
    assert results[1:601] == list(range(600))
    assert isinstance(results[601], DocumentError)
    pids = {results[0], results[602], results[604]}
    assert len(pids) == 3
    assert results[603] == 1


def test_time_is_counted_for_each_item_and_not_for_all() -> None:
    items: list[Item] = [("echo", number) for number in range(50)]
    with worker(seconds=0.5) as isolated:
        seen = []
        for _, result in isolated.map(items):
            seen.append(result)
            if len(seen) == 1:
                # The caller is busy for longer than an item may take; the worker is not to blame.
                threading.Event().wait(1)
        threading.Event().wait(1)
        assert seen == list(range(50))
        assert [result for _, result in isolated.map(items)] == seen


def test_an_error_of_the_function_keeps_its_fields() -> None:
    with worker() as isolated:
        ((_, error),) = isolated.map([("refuse", None)])
    assert isinstance(error, DocumentError)
    assert (error.reason, error.what, error.why, error.fix) == (
        "binary",
        "It is not text.",
        "Because.",
        "Do.",
    )


def test_an_unexpected_exception_is_named() -> None:
    with worker() as isolated:
        ((_, error),) = isolated.map([("fail", None)])
    assert isinstance(error, DocumentError)
    assert "ZeroDivisionError: a bug" in error.why


def test_what_is_printed_does_not_mix_with_results() -> None:
    assert outcomes([("print", 1), ("print", 2), ("read_standard_input", None)]) == [1, 2, ""]


def test_large_requests_and_large_results_do_not_block_each_other() -> None:
    items: list[Item] = [("echo", bytes([number]) * 20 * MB) for number in range(4)]
    assert outcomes(items) == [item[1] for item in items]
    many: list[Item] = [("big", 1 * MB)] * 60
    assert outcomes(many) == [bytes(MB)] * 60


def test_items_are_taken_as_there_is_room() -> None:
    taken: list[int] = []

    def items(size: int) -> Iterator[Item]:
        for number in range(2000):
            taken.append(number)
            yield "echo", bytes(size)

    with worker() as isolated:
        for size, most in ((1, isolation.MAX_ITEMS_IN_FLIGHT), (MB, 17), (1, 256)):
            taken.clear()
            results = isolated.map(items(size))
            next(results)
            assert most // 2 <= len(taken) <= most + 1
            results.close()


def test_results_nobody_takes_are_not_hoarded() -> None:
    with worker() as isolated:
        results = isolated.map([("big", 8 * MB)] * 50)
        next(results)
        child = psutil.Process(next(iter(children())))
        threading.Event().wait(0.5)
        process = isolated._lanes[0]._process
        assert process is not None
        assert process._inbox._bytes <= isolation.MAX_BYTES_IN_FLIGHT + 9 * MB
        assert child.is_running()
        assert len(list(results)) == 49


def test_leaving_early_ends_the_process_and_the_worker_can_be_used_again() -> None:
    with worker() as isolated:
        for _ in isolated.map([("process", None)] * 100):
            break
        assert [result for _, result in isolated.map([("echo", 5)])] == [5]


def test_an_error_of_the_caller_s_iterable_comes_through() -> None:
    def items() -> Iterator[Item]:
        yield "echo", 1
        raise LookupError("the source is gone")

    with worker() as isolated, pytest.raises(LookupError, match="the source is gone"):
        list(isolated.map(items()))


def test_nothing_is_started_for_nothing() -> None:
    with IsolatedWorker("no_such_module:f", seconds=1, memory_bytes=256 * MB) as isolated:
        assert list(isolated.map([])) == []
        assert children() == set()


@pytest.mark.parametrize(
    "function",
    ["no_such_module:f", "hostile_functions:missing", "hostile_functions:NOT_A_FUNCTION", "x"],
)
def test_a_function_that_is_not_there_is_an_error_of_the_whole(function: str) -> None:
    isolated: IsolatedWorker[int, int] = IsolatedWorker(function, seconds=1, memory_bytes=256 * MB)
    with isolated, pytest.raises(PermanentError) as caught:
        list(isolated.map([1]))
    assert function in caught.value.what
    assert "Error" in caught.value.why


def test_two_maps_at_once_are_refused() -> None:
    with worker() as isolated:
        first = isolated.map([("echo", 1)] * 3)
        next(first)
        with pytest.raises(RuntimeError, match="one iterable at a time"):
            next(isolated.map([("echo", 2)]))
        assert len(list(first)) == 2


def test_secrets_in_the_environment_stay_with_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    assert outcomes([("variable", "OPENAI_API_KEY"), ("variable", "PATH")]) == [
        None,
        os.environ["PATH"],
    ]


def test_an_interrupt_of_the_terminal_is_left_to_the_parent() -> None:
    with worker() as isolated:
        results = isolated.map([("kill", int(signal.SIGINT)), ("echo", 1)])
        assert [result for _, result in results] == [None, 1]


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from kb_assets.isolation import IsolatedWorker\n"
            f"items = [('mark', {str(tmp_path)!r})]\n"
            f"list(IsolatedWorker({BEHAVE!r}, seconds=2, memory_bytes=2**28).map(items))",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (marks := list(tmp_path.iterdir())):
        assert parent.poll() is None
        threading.Event().wait(0.02)
    child = psutil.Process(int(marks[0].name))
    parent.kill()
    parent.wait()
    child.wait(timeout=60)


def test_documents_are_parsed_in_a_worker() -> None:
    isolated: IsolatedWorker[tuple[str, bytes, bytes | None], ParsedDocument] = IsolatedWorker(
        "kb_assets.documents.parse:parse_job", seconds=60, memory_bytes=512 * MB
    )
    page = b"<html><head><title>T</title></head><body><p>Hello</p></body></html>"
    with isolated:
        (_, text), (_, html), (_, binary) = isolated.map(
            [("a.md", b"# One", None), ("b.html", page, None), ("c.txt", b"\x89PNG", None)]
        )
    assert isinstance(text, ParsedDocument)
    assert isinstance(html, ParsedDocument)
    assert isinstance(binary, DocumentError)
    assert (text.title, html.title, html.text, binary.reason) == ("One", "T", "Hello", "binary")


@pytest.mark.parametrize("what", ["echo", "refuse", "fail", "recurse"])
def test_an_attempt_without_a_worker_comes_to_the_same(what: str) -> None:
    item: Item = (what, "argument")
    here = attempt(behave, item)
    with worker() as isolated:
        ((_, there),) = isolated.map([item])
    assert str(here) == str(there)
    assert getattr(here, "reason", None) == getattr(there, "reason", None)


def test_an_attempt_lets_a_lack_of_memory_through() -> None:
    def starve(_: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        attempt(starve, None)
