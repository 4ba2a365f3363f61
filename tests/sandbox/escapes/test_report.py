"""The rows of the table, and the table of distributions' kernels."""

import pytest
from codedance.sandbox.host.machine import _kernel_version
from codedance.sandbox.worker import landlock

from .distributions import DISTRIBUTIONS, HEADINGS, kernels_table
from .report import DOCS
from .rows import Row, rows

BY_NAME = {one.name: one for one in DISTRIBUTIONS}


@pytest.mark.parametrize(
    ("name", "abi", "full", "confined"),
    [
        ("Debian 11", 0, "stands, without landlock", "refused: no landlock"),
        ("Debian 12", 2, "stands", "stands; none is truncated by name"),
        ("Debian 13", 6, "stands", "stands"),
        ("Ubuntu 20.04", 0, "stands, without landlock", "refused: no landlock"),
        (
            "Ubuntu 22.04",
            1,
            "stands",
            "stands; no file moves between folders, none is truncated by name",
        ),
        ("Ubuntu 24.04", 4, "with the AppArmor profile of `codedance doctor`", "stands"),
        (
            "RHEL 8",
            0,
            "refused: no handles of processes",
            "refused: no handles of processes",
        ),
        ("RHEL 9.0 to 9.5", 0, "stands, without landlock", "refused: no landlock"),
        ("RHEL 10", 6, "stands", "stands"),
    ],
)
def test_each_kernel_has_the_levels_that_its_version_allows(name, abi, full, confined):
    one = BY_NAME[name]
    assert (one.landlock, one.full, one.confined) == (abi, full, confined)


def test_the_docs_hold_the_table_of_kernels():
    assert "\n".join(kernels_table()) in DOCS.read_text(encoding="utf-8")
    assert len(HEADINGS) == kernels_table()[0].count("|") - 1


def test_this_kernel_answers_as_the_table_of_versions_says():
    """A newer kernel may have a newer landlock; a distribution may leave it out."""
    known = [one.landlock for one in DISTRIBUTIONS if one.version <= _kernel_version()]
    assert landlock.abi() == 0 or landlock.abi() >= max(known, default=0)


def test_rows_are_chosen_by_landlock_level_and_user():
    newest = landlock.abi()
    assert {(row.level, row.abi) for row in rows()} >= {("full", newest), ("confined", 0)}
    chosen = rows(["abi=0", "level=confined", "user=nobody"])
    assert [row.place for row in chosen] == ["confined" if newest == 0 else "confined@0"]
    assert Row("full", newest, "root").place == "full"
    with pytest.raises(ValueError, match=r"no rows 'abi=99'.*there are abi=0"):
        rows(["abi=99"])
    with pytest.raises(ValueError, match="no rows 'kernel=6'"):
        rows(["kernel=6"])
