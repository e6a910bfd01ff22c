"""When something is done: cron expressions and time zones, as settings name them."""

import re
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_SHORT = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", re.ASCII)
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def require_cron(cron: str) -> str:
    """Return a cron expression of five fields: numbers, names, `*`, ranges, steps and lists.

    Raises:
        ValueError: It is none, or never comes true.
    """
    if cron in _SHORT:
        return cron
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            "a cron has five fields (minute, hour, day of the month, month, day of the week) "
            f"such as 0 3 * * *, this one has {len(fields)}"
        )
    values = [_values(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
    last = max(_LONGEST_MONTH.get(month, 31) for month in values[3])
    if min(values[2]) > last:
        raise ValueError("there is no such day in these months")
    return cron


def _values(text: str, name: str, least: int, most: int, names: tuple[str, ...]) -> set[int]:
    values = set[int]()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(f"{part!r} is no {name}")
        first, end, step = found.groups()
        if first == "*":
            low, high = least, most
        else:
            low = _number(first, name, names)
            high = _number(end, name, names) if end else most if step else low
        if not least <= low <= high <= most or step == "0" or (first == "*" and end):
            raise ValueError(f"{part!r} is no {name}: it goes from {least} to {most}")
        values.update(range(low, high + 1, int(step or 1)))
    return values


def _number(text: str, name: str, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if names is _MONTHS else 0)
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no {name}")
    return int(text)


def require_timezone(name: str) -> str:
    """Return the IANA name of a time zone.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        near = get_close_matches(name.lower(), _zones(), 1, 0.7)
        like = _zones()[near[0]] if near else "Europe/Berlin or UTC"
        raise ValueError(f"there is no time zone {name!r}; write it like {like}") from None
    return name


@cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in sorted(available_timezones())}
