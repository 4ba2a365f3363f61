"""Synonyms of units, for options such as ``2 cm``."""

from __future__ import annotations

_SAME: dict[str, str] = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram gramme",
    "kg": "kilogram kilo",
    "lb": "lbs pound",
    "ml": "milliliter millilitre",
    "l": "liter litre",
    "s": "sec second",
    "min": "minute mins",
    "h": "hr hrs hour",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr yrs",
    "%": "percent",
    "°": "degree deg",
    "°c": "celsius",
    "°f": "fahrenheit",
    "$": "dollar usd",
    "€": "euro eur",
    "£": "gbp",
    "¢": "cent",
    "hz": "hertz",
    "v": "volt",
    "w": "watt",
    "n": "newton",
    "j": "joule",
    "kw": "kilowatt",
    "ha": "hectare",
    "px": "pixel",
}
_CAPITALS = frozenset("LVWNJ")
_UNIT_OF = {
    name: unit
    for unit, names in _SAME.items()
    for word in (unit, *names.split())
    for name in (word, f"{word}s" if len(word) > 2 else word)
}


def unit_of(word: str) -> str | None:
    """Return the short name of a unit with its power; None for other words.

    >>> unit_of("centimetres"), unit_of("cm^2"), unit_of("cats")
    ('cm', 'cm2', None)
    """
    if len(word) == 1 and word.isupper() and word not in _CAPITALS:
        return None  # 4G and 3D are not grams and days
    name = word.casefold().replace("^", "")
    power = name[len(name.rstrip("0123456789+-")) :]
    unit = _UNIT_OF.get(name[: len(name) - len(power)])
    return None if unit is None else unit + power
