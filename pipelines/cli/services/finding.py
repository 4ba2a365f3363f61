"""What a check of the doctor's found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; ``remedy`` says how to mend what is not well."""

    subject: str
    state: str
    is_well: bool = True
    is_needed: bool = True
    remedy: str = ""
