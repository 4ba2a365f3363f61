"""Schedules of deployments. One that can never fire is refused when flows.yaml is read."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from .strict_model import StrictModel

LONGEST_SECONDS = 10 * 366 * 86_400
Interval = Annotated[float, Field(ge=1.0, le=LONGEST_SECONDS)]

_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
    ("second", 0, 59),  # a sixth field, as in Prefect
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "month": {name: str(number) for number, name in enumerate(_MONTHS, 1)},
    "day of the week": {name: str(number) for number, name in enumerate(_WEEKDAYS)},
}
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_RANGE = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,4}))?")
_SPECIAL = {"day": re.compile("l"), "day of the week": re.compile(r"l[0-7]|[0-7]#([1-5]|l)")}
_EXAMPLE = 'such as "0 3 * * *" (minute, hour, day, month, day of the week)'

_ANCHOR = datetime(2020, 1, 1)  # noqa: DTZ001 - Prefect's start without a DTSTART
_CYCLE_BEGINS = 9600
"""First year of the last 400-year cycle of the calendar that Python's datetime can represent."""
_SLOWEST_TO_WALK = 3  # dateutil's DAILY: more frequent rules have too many dates to iterate over
_MOST_WALKED = 200_000
_RULE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)


class Schedule(StrictModel):
    """A deployment's schedule: one of cron, interval (seconds) and rrule."""

    cron: str | None = None
    interval: Interval | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: str | None = None
    active: bool = True
    slug: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])

    @field_validator("cron")
    @classmethod
    def _cron_fires(cls, text: str | None) -> str | None:
        if text is None:
            return None
        check_cron(text)
        return text.strip()

    @field_validator("rrule")
    @classmethod
    def _rule_fires(cls, text: str | None) -> str | None:
        if text is not None:
            check_rrule(text)
        return text

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str | None) -> str | None:
        if name is not None:
            check_timezone(name)
        return name

    @field_validator("anchor_date")
    @classmethod
    def _anchor_is_a_date(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                datetime.fromisoformat(text)
            except ValueError:
                raise ValueError('not a date: write one such as "2026-01-31T03:00:00"') from None
        return text

    @model_validator(mode="after")
    def _says_when(self) -> Schedule:
        """Refuse a schedule without exactly one kind, or with an anchor date and no interval."""
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"one of cron, interval and rrule is needed, found {found}")
        if self.anchor_date is not None and self.interval is None:
            raise ValueError("anchor_date belongs to an interval: leave it out")
        return self


def check_cron(text: str) -> None:
    """Refuse an invalid cron expression, and one whose days occur in none of its months.

    Raises:
        ValueError: The expression is invalid or never fires; the message names the wrong field.
    """
    if text.strip().lower() in _ALIASES:
        return
    parts = text.lower().split()
    if len(parts) not in (5, 6):
        raise ValueError(f"{len(parts)} fields instead of 5: write a cron expression {_EXAMPLE}")
    if len(parts) == 6 and "7" in re.findall(r"(?<![/\d])\d+", parts[4]):
        raise ValueError("day of the week 7: with a sixth field Prefect expects 0 for Sunday")
    values = [_cron_values(part, *field) for part, field in zip(parts, _FIELDS, strict=False)]
    days, months = values[2], values[3]
    if days and months and all(min(days) > _DAYS_IN_MONTH[month - 1] for month in months):
        raise ValueError(f"it never fires: no such month has a day {min(days)}; name another day")


def _cron_values(part: str, name: str, lowest: int, highest: int) -> set[int] | None:
    """Return the values that match a field; None where they depend on the month."""
    if part == "?" and name.startswith("day"):
        part = "*"
    values: set[int] = set()
    is_special = False
    for text in part.split(","):
        item = _in_numbers(text, name)
        if name in _SPECIAL and _SPECIAL[name].fullmatch(item):
            is_special = True
        else:
            values |= _cron_range(text, name, lowest, highest)
    return None if is_special else values


def _cron_range(item: str, name: str, lowest: int, highest: int) -> set[int]:
    found = _RANGE.fullmatch(_in_numbers(item, name))
    if found is None:
        raise ValueError(f"{name} {item!r} is not a value, range or list; write cron {_EXAMPLE}")
    first, last, step = found.groups()
    begin = lowest if first is None else int(first)
    end = highest if first is None or (step and last is None) else int(last or first)
    if not all(lowest <= one <= highest for one in (begin, end)) or step == "0":
        raise ValueError(f"{name} {item!r} is not within {lowest} to {highest}")
    if begin > end:  # wraps around the hour, the day or the week
        return {*range(begin, highest + 1), *range(lowest, end + 1)}
    return set(range(begin, end + 1, int(step or 1)))


def _in_numbers(item: str, name: str) -> str:
    """Return an item of a field with names of months and days replaced by numbers."""
    names = _NAMES.get(name, {})
    return re.sub("[a-z]{3}", lambda found: names.get(found.group(), found.group()), item)


def check_rrule(text: str) -> None:
    """Refuse an invalid recurrence rule (RFC 5545), and one without a future date.

    Raises:
        ValueError: The rule is invalid or never fires.
    """
    from dateutil.rrule import rruleset, rrulestr

    if "EXRULE" in text.upper():
        raise ValueError("EXRULE is no longer part of RFC 5545: exclude dates with EXDATE")
    for zone in re.findall(r"TZID=([^:;]+)", text):
        check_timezone(zone)
    try:
        rule: Any = rrulestr(text, dtstart=None if "DTSTART" in text.upper() else _ANCHOR)
        is_set = isinstance(rule, rruleset)
        parts, dates = _parts_of(rule, is_set=is_set)
        if any(part._interval < 1 for part in parts):
            raise ValueError("INTERVAL must be at least 1")
        fires = any(map(_fires, parts)) or any(map(_is_to_come, dates))
        fires = fires and (not is_set or _comes(rule))
    except _RULE_ERRORS as error:
        example = "write one such as FREQ=MONTHLY;BYDAY=1MO"
        raise ValueError(f"not a recurrence rule ({error}): {example}") from None
    if not fires:
        raise ValueError(
            "it never fires: no future date matches its BY… parts, INTERVAL, UNTIL and COUNT "
            "(counted from DTSTART, else from 2020)"
        )


def _parts_of(rule: Any, *, is_set: bool) -> tuple[list[Any], list[datetime]]:  # noqa: ANN401
    """Return the rules and the single dates of a dateutil rule or set of rules."""
    return (rule._rrule, rule._rdate) if is_set else ([rule], [])


def _fires(rule: Any) -> bool:  # noqa: ANN401 - dateutil has no types
    """Return whether a rule has a future date; a whole calendar cycle is searched."""
    if rule._until is not None and not _is_to_come(rule._until):
        return False
    now = datetime.now(rule._dtstart.tzinfo)
    is_slow = rule._freq <= _SLOWEST_TO_WALK
    if rule._interval > 1 and is_slow:  # its years, months, weeks or days are counted from DTSTART
        return rule.after(now) is not None
    begun = rule._dtstart.replace(year=_CYCLE_BEGINS, tzinfo=None)
    if next(iter(rule.replace(dtstart=begun, until=None, count=None)), None) is None:
        return False
    if is_slow and (rule._until is not None or rule._count is not None):
        return rule.after(now) is not None
    return rule._count is None or _comes(rule)


def _comes(rule: Any) -> bool:  # noqa: ANN401 - dateutil has no types
    """Return whether any date of a rule or set of rules is in the future.

    Beyond `_MOST_WALKED` dates the answer is taken to be yes.
    """
    return any(_is_to_come(when) or number > _MOST_WALKED for number, when in enumerate(rule))


def _is_to_come(when: datetime) -> bool:
    return when > datetime.now(when.tzinfo)


def check_timezone(name: str) -> None:
    """Refuse a time zone that is not in the IANA database.

    Raises:
        ValueError: There is no such time zone; the message has the nearest names.
    """
    known = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    if name in known.values():
        return
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.7)
    hint = f"did you mean {' or '.join(known[one] for one in near)}?" if near else ""
    example = "name a place, such as Europe/Berlin or America/Los_Angeles"
    raise ValueError(f"not a time zone in the IANA database; {hint or example}")
