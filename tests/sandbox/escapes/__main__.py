"""Runs the suite: ``python -m sandbox.escapes`` in ``tests/`` writes the table of verdicts.

``rows [abi=2,3] [level=confined] [user=root]`` prints some rows of the first table only;
``judge PLACE [NUMBER …]`` makes attempts here and prints the verdicts as JSON;
``control LAYER,… [NUMBER …]`` does so without these isolation layers, in a container only;
``as-nobody COMMAND …`` runs a command as an unprivileged user.
"""

import sys

from .catalogue import ATTEMPTS
from .places import go_on_as_nobody, judge_all, print_verdicts
from .rows import run_rows


def main(words: list[str]) -> None:
    """Run the command line."""
    match words:
        case ["judge", place, *numbers]:
            print_verdicts(judge_all(place, _chosen(numbers)))
        case ["control", isolation, *numbers]:
            from .without import judge_without

            print_verdicts(judge_without(frozenset(isolation.split(",")), _chosen(numbers)))
        case ["as-nobody", *command]:
            go_on_as_nobody(command)
        case ["rows", *words]:
            run_rows(words)
        case [*paths]:
            from .report import write_report

            write_report(*paths)


def _chosen(numbers):
    return [attempt for attempt in ATTEMPTS if not numbers or attempt.number in numbers]


if __name__ == "__main__":
    main(sys.argv[1:])
