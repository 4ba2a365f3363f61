"""Result of a check by ``codedance doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; ``remedy`` describes the fix of a failed check."""

    subject: str
    state: str
    is_well: bool = True
    is_needed: bool = True
    remedy: str = ""
