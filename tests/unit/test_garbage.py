import gc
from contextlib import ExitStack

from kb_assets.knowledge_base.garbage import seldom_collected


def test_the_collector_is_as_it_was_after_the_last_of_overlapping_runs() -> None:
    before = gc.get_threshold()
    first, second = ExitStack(), ExitStack()
    first.enter_context(seldom_collected())
    during = gc.get_threshold()
    second.enter_context(seldom_collected())
    first.close()
    assert gc.get_threshold() == during != before
    second.close()
    assert gc.get_threshold() == before
