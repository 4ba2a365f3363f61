"""Every supported model family, each on a tiny random model.

Run from the repository's root:

    $ python -m benchmarks.families
"""

from __future__ import annotations

from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Status, run_command, show


def families(json: Json = False) -> None:
    """Test every supported model family: load, generate, return images, compare, train.

    On tiny random models built locally, without a hub. Takes half a minute.
    """
    from .measuring.families import trial_lines, trial_table, try_families

    with document(json) as publish:
        with Status() as status:
            trials = []
            for trial in try_families():
                status.update(trial.name)
                trials.append(trial)
        show([trial_table(trials)], trial_lines(trials))
        publish(trials)


if __name__ == "__main__":
    run_command(families)
