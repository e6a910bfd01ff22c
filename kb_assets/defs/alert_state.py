"""What the alerts' cursor remembers: which events were told, and which checks are red."""

import json
from dataclasses import dataclass, field
from typing import Literal

from kb_assets.defs.partitions import (
    RANGE_END_TAG,
    RANGE_START_TAG,
    runs_of,
    shards_of_run,
)
from kb_assets.settings import Settings

WHOLE = frozenset({""})
"""What a check is about whose asset has no shards."""

Level = Literal["WARN", "ERROR"]


@dataclass(slots=True)
class AlertState:
    """What was told. A check may be red for some shards only: each run looks at its own.

    Attributes:
        after: The last event that was dealt with.
        until: The last event there was in the tick before. What is newer waits for the next
            one: an event with a lower number may still be on its way into the database.
        red: By check and level, the shards it is red for.
    """

    after: int
    until: int
    red: dict[tuple[str, Level], set[str]] = field(default_factory=dict)

    def turns_red(self, check: str, level: Level, scope: frozenset[str]) -> bool:
        """Note that a check is red, and say whether that is news."""
        known = self.red.setdefault((check, level), set())
        is_news = not scope <= known
        known |= scope
        if level == "ERROR":
            self.red.setdefault((check, "WARN"), set()).update(scope)
        return is_news

    def turns_green(self, check: str, scope: frozenset[str]) -> bool:
        """Note that a check is green, and say whether that is news."""
        is_news = False
        levels: tuple[Level, ...] = ("WARN", "ERROR")
        for level in levels:
            known = self.red.get((check, level), set())
            is_news |= bool(known & scope)
            known -= scope
        return is_news

    def as_cursor(self, settings: Settings) -> str:
        """Return the state as text; neighbouring shards take no more room than two."""
        red = [[*key, *_ranges(settings, scope)] for key, scope in self.red.items() if scope]
        return json.dumps({"after": self.after, "until": self.until, "red": red})

    @classmethod
    def of_cursor(cls, settings: Settings, cursor: str) -> "AlertState":
        """Return the state that a text describes; sources that are gone are forgotten."""
        stored = json.loads(cursor)
        red = {(check, level): _shards(settings, rest) for check, level, *rest in stored["red"]}
        return cls(stored["after"], stored["until"], red)


def _ranges(settings: Settings, scope: set[str]) -> list[list[str]]:
    shards = [shard for shard in settings.shards if shard.key in scope]
    pairs = [[run[0].key, run[-1].key] for run in runs_of(settings, shards)]
    return [*pairs, *([["", ""]] if "" in scope else [])]


def _shards(settings: Settings, ranges: list[list[str]]) -> set[str]:
    keys = {""} if ["", ""] in ranges else set[str]()
    for first, last in ranges:
        tags = {RANGE_START_TAG: first, RANGE_END_TAG: last}
        keys |= {shard.key for shard in shards_of_run(settings, tags)}
    return keys
