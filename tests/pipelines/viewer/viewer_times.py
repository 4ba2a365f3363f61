"""Times of the viewer's page in a real browser: ``python -m pipelines.viewer.viewer_times PAGE``.

PAGE is a run's ``viewer.html``. Prints medians over five openings: until the list is rendered, of a
filter, of a search through all texts, and until a trajectory selected at the list's end is shown.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from ..chromium import open_browser

ROUNDS = 5
FILTERS = "Number(document.body.dataset.filterMilliseconds)"
SHOW_ROW = """
new Promise((done) => {
  const said = () => document.querySelector(".detail").innerText;
  const before = said(), begun = performance.now();
  const look = () => said() !== before && said().includes("Turn 1")
    ? done(performance.now() - begun) : requestAnimationFrame(look);
  document.querySelector("ROW").click();
  look();
})
"""


def open_page(page, path):
    """Return the milliseconds until the page's script has rendered the list, polled every 50."""
    started = time.perf_counter()
    page.open(path.as_uri())
    return 1000 * (time.perf_counter() - started)


def filter_rows(page):
    """Select the first family; return the milliseconds until the list is updated."""
    page.evaluate("document.querySelector('.chip').click()")
    return page.evaluate(FILTERS)


def search(page):
    """Search for a word; return the milliseconds to search the text of every row."""
    page.press("c")
    page.press("/")
    page.write("count")
    time.sleep(0.5)  # the page waits until typing has stopped
    taken = page.evaluate(FILTERS)
    page.press("Escape")
    page.press("Escape")
    page.press("c")
    return taken


def walk_to_the_end(page):
    """Go to the list's end; return the milliseconds from a click to the next trajectory."""
    count = int("".join(filter(str.isdigit, page.text(".count"))))
    last = f"#row-{count - 1}"
    page.evaluate("document.querySelector('.list').scrollTop = 1e9")
    page.wait(f"document.querySelector('{last}') !== null")
    return page.evaluate(SHOW_ROW.replace("ROW", last))


def main(place):
    """Print the table."""
    path = Path(place).resolve()
    steps = {"load": lambda page: open_page(page, path), "filter": filter_rows}
    steps |= {"search": search, "show the last one": walk_to_the_end}
    taken = {name: [] for name in steps}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        open_browser(Path(folder)) as page,
    ):
        page.resize(1400, 1000)
        for _ in range(ROUNDS):
            for name, step in steps.items():
                taken[name].append(step(page))
        said = page.text(".count")
    sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {said}\n")
    for name, values in taken.items():
        sys.stdout.write(f"{name:<18} {statistics.median(values):7.1f} ms\n")


if __name__ == "__main__":
    main(sys.argv[1])
