"""The viewer in a real browser: its contents, its keys, and hostile text as plain text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from codedance.pipelines.viewer import make_viewer

from ..chromium import find_chromium, open_browser
from ..makers import make_task, make_trajectory
from .viewed import HOSTILE, begin_pipeline, fill, hostile_run

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")


CAPTIONED = "[...document.querySelectorAll('.detail .size')].every((one) => one.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1400, 1000)
        yield page


@pytest.fixture
def page(browser):
    browser.complaints.clear()
    browser.requests.clear()
    yield browser
    assert browser.complaints == []
    assert all(address.startswith(("file:", "data:", "about:")) for address in browser.requests)


@pytest.fixture
def address(session, run, tmp_path):
    return make_viewer(session.store, session.home, [run], tmp_path).html.as_uri()


def chip(name):
    return f"button.chip[data-key={json.dumps(name, ensure_ascii=False)}]"


def shown(page):
    return page.evaluate("document.querySelector('.count').textContent")


def selected(page):
    return page.evaluate("new URLSearchParams(location.hash.slice(1)).get('id')")


def wait_for(page, text, selector=".detail"):
    page.wait(f"(document.querySelector({selector!r})?.innerText ?? '').includes({text!r})")


def test_filters_narrow_the_list_and_are_cleared(page, address):
    page.open(address)
    assert shown(page) == "16 trajectories"
    page.click(chip("outcome wrong"))
    assert shown(page) == "7 of 16"
    page.click(chip("phase grpo · train"))
    assert shown(page) == "4 of 16"
    assert "f.outcome=wrong" in page.evaluate("location.hash")
    page.press("c")
    assert shown(page) == "16 trajectories"
    page.click(chip("outcome infrastructure"))
    assert shown(page) == "1 of 16"
    page.press("c")
    page.click(chip("tool no code"))
    assert shown(page) == "4 of 16"


def test_counts_beside_values_match_the_filtered_list(page, address):
    page.open(address)
    page.click(chip("outcome right"))
    count = page.evaluate(
        f"document.querySelector({chip('difficulty easy')!r} + ' small').textContent"
    )
    page.click(chip("difficulty easy"))
    assert shown(page) == f"{count} of 16"


def test_reward_range_and_sorting_affect_the_list(page, address):
    page.open(address + "#r.reward=0.5~")
    assert shown(page) == "4 of 16"
    page.open(address + "#sort=advantage-down")
    advantages = "[...document.querySelectorAll('.row')].map((row) => row.innerText)"
    order = page.evaluate(advantages)
    assert "A +" in order[0]
    page.open(address + "#sort=advantage-up")
    assert "A −" in page.evaluate(advantages)[0]


def test_search_finds_answers_and_output_of_code(page, address):
    page.open(address)
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.write("nameerror")
    page.wait("document.querySelector('.count').textContent === '4 of 16'")
    page.press("Escape")
    page.wait("document.querySelector('.count').textContent === '16 trajectories'")


def test_an_empty_result_is_reported_and_can_be_reset(page, address):
    page.open(address + "#q=no+such+words")
    assert "Nothing matches" in page.text(".listing .empty")
    page.click(".listing .empty button")
    assert shown(page) == "16 trajectories"


def test_a_run_without_trajectories_is_reported(page, session, tmp_path):
    pipeline, _, _ = begin_pipeline(session.store)
    page.open(make_viewer(session.store, session.home, [pipeline], tmp_path).html.as_uri())
    assert "No trajectories yet" in page.text(".listing .empty")


def test_keys_navigate_the_list_and_the_views(page, address):
    page.open(address)
    first = selected(page)
    page.press("j")
    second = selected(page)
    assert second != first
    page.press("ArrowDown")
    page.press("k")
    assert selected(page) == second
    page.press("ArrowUp")
    assert selected(page) == first
    page.press("t")
    wait_for(page, "on this task")
    page.press("Escape")
    wait_for(page, "Turn 1")
    page.press("?")
    assert page.evaluate("document.querySelector('.help').open")
    page.press("Escape")
    page.wait("!document.querySelector('.help').open")


def test_an_episode_shows_thought_code_output_error_image_and_reward(page, address):
    page.open(address + "#f.tool=a+block+failed&f.phase=grpo+%C2%B7+train")
    wait_for(page, "NameError: x, line 1")
    detail = page.text(".detail")
    assert "How many dots are there?" in detail
    assert "tool_sequence" in detail
    assert "tool_turn −0.10" in detail
    assert page.evaluate("document.querySelector('.py-builtin').textContent") == "print"
    page.wait("document.querySelector('.opening img').naturalWidth === 24")


def test_an_image_opens_at_full_size_and_zooms(page, address):
    page.open(address)
    page.wait("document.querySelector('.opening img')?.naturalWidth === 24")
    page.press("z")
    page.wait("document.querySelector('.zoom').open")
    page.press("1")
    assert page.evaluate("document.querySelector('.canvas img').style.width") == "24px"
    page.press("+")
    assert page.evaluate("document.querySelector('.canvas img').style.width") == "36px"
    page.press("Escape")
    page.wait("!document.querySelector('.zoom').open")


def test_a_zoom_requested_before_the_image_is_loaded_is_kept(page, address):
    page.open(address)
    page.wait("document.querySelector('.opening img')?.naturalWidth === 24")
    keys = "[['body', 'z'], ['.canvas', '+'], ['.canvas', '+']]"
    event = "new KeyboardEvent('keydown', { key, bubbles: true })"
    send = f"document.querySelector(place).dispatchEvent({event})"
    page.evaluate(f"for (const [place, key] of {keys}) {send}")
    page.wait("document.querySelector('.canvas img').style.width === '54px'")
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert page.evaluate("document.querySelector('.canvas img').style.width") == "54px"
    page.press("0")
    assert page.evaluate("document.querySelector('.canvas img').style.width") == "192px"


def test_siblings_are_side_by_side_with_their_advantages(page, address):
    page.open(address + "#f.phase=grpo+%C2%B7+train")
    page.press("g")
    page.wait("document.querySelectorAll('.column').length === 4")
    assert "2 of 4 right" in page.text(".summary")
    assert page.evaluate("document.querySelectorAll('.strip .stick').length") == 4
    assert "view=group" in page.evaluate("location.hash")


def test_tokens_are_shaded_by_probability_and_by_advantage(page, address):
    page.open(address + "#f.phase=grpo+%C2%B7+train&sort=advantage-down")
    wait_for(page, "Turn 1")
    page.press("s")
    page.wait("document.querySelectorAll('.tokens .token').length > 0")
    titles = "[...document.querySelectorAll('.tokens .token')].map((token) => token.title)"
    assert "log -0.500" in page.evaluate(titles)[0]
    page.press("s")
    page.wait("document.querySelector('.tokens [class*=up]') !== null")


def test_an_address_restores_the_view(page, address):
    page.open(address + "#f.outcome=wrong&sort=calls-down")
    page.press("j")
    page.press("g")
    wait_for(page, "sibling")
    page.wait(CAPTIONED)
    seen, place = page.text(".detail"), page.evaluate("location.hash")
    page.open(address + place)
    wait_for(page, "sibling")
    page.wait(CAPTIONED)
    assert page.text(".detail") == seen
    assert page.evaluate("location.hash") == place


def test_files_beside_the_page_are_loaded_on_demand(page, session, run, tmp_path):
    page.open(make_viewer(session.store, session.home, [run], tmp_path, inline=0).html.as_uri())
    wait_for(page, "Turn 1")
    assert any(address.endswith(".mjs") for address in page.requests)


def test_a_separate_page_says_where_the_rest_is(browser, session, run, tmp_path):
    made = make_viewer(session.store, session.home, [run], tmp_path, inline=9000)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "viewer.html").write_bytes(made.html.read_bytes())
    browser.open((alone / "viewer.html").as_uri() + "#f.place=in+files+beside+it")
    wait_for(browser, "is in a file beside the page")
    browser.click(".detail .empty button")
    browser.open((alone / "viewer.html").as_uri() + "#f.place=in+this+page")
    wait_for(browser, "Turn 1")


def test_two_runs_are_distinguished_on_the_same_task(page, session, run, tmp_path):
    other, grpo, evaluate = begin_pipeline(session.store)
    fill(session.store, grpo, evaluate, better="sft")
    page.open(
        make_viewer(session.store, session.home, [run, other], tmp_path).html.as_uri()
        + "#f.change=gained"
    )
    page.press("t")
    wait_for(page, "of both runs")
    detail = page.text(".detail")
    assert "sft/greedy: A 0 of 1 right, B 1 of 1 right" in detail
    assert "A · #1" in detail
    assert "B · #1" in detail


@pytest.mark.parametrize("inline", [0, 10**6])
def test_nothing_written_by_a_model_is_executed(page, session, tmp_path, inline):
    pipeline, _, evaluate = begin_pipeline(session.store, HOSTILE)
    hostile_run(session.store, evaluate)
    page.open(
        make_viewer(session.store, session.home, [pipeline], tmp_path, inline=inline).html.as_uri()
    )
    wait_for(page, "onerror=")
    page.press("s")
    for key in ("g", "t", "e", "?"):
        page.press(key)
    page.press("Escape")
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert page.evaluate("document.title") == pipeline.id
    assert page.evaluate("document.querySelectorAll('script:not([type]), svg, iframe').length") == 1
    sources = page.evaluate("[...document.images].map((image) => image.getAttribute('src') ?? '')")
    assert all(source == "" or source.startswith("data:image/png;base64,") for source in sources)


def test_markup_injected_into_the_page_is_blocked(browser, address, tmp_path):
    text = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    attack = "<script>document.title = 1</script><img src=x onerror='document.title = 2'>"
    (tmp_path / "owned.html").write_text(text.replace("<noscript>", attack + "<noscript>"))
    browser.open((tmp_path / "owned.html").as_uri())
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert browser.evaluate("document.title") not in ("1", "2")
    assert any("Content Security Policy" in text for text in browser.complaints)
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        browser.evaluate("document.body.innerHTML = '<b>text as markup</b>'")


def test_dark_mode_follows_the_system_and_the_switch(page, address):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.prefer("dark")
    page.open(address)
    dark = page.evaluate(paper)
    page.prefer("light")
    light = page.evaluate(paper)
    assert dark != light
    page.press("d")
    assert page.evaluate(paper) == dark
    page.press("d")
    assert page.evaluate(paper) == light


def test_every_control_has_an_accessible_name(page, address):
    page.open(address)
    wait_for(page, "Turn 1")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, dialog, [role=listbox], img')]"
        ".filter((one) => !(one.innerText?.trim() || one.getAttribute('aria-label') || one.alt"
        " || one.placeholder || one.closest('dialog:not([open])'))).map((one) => one.outerHTML)"
    )
    assert nameless == []
    row = "document.getElementById(document.querySelector('.list')"
    assert page.evaluate(f"{row}.getAttribute('aria-activedescendant')).ariaSelected") == "true"


def test_two_thousand_trajectories_stay_responsive(page, session, tmp_path, record_property):
    pipeline, _, evaluate = begin_pipeline(session.store)
    tasks = [make_task(n % 50, family=f"f{n % 7}", id=f"toy/{n}") for n in range(2000)]
    given = [make_trajectory(t, calls=n % 3, accuracy=float(n % 2)) for n, t in enumerate(tasks)]
    given = [replace(one, reward_terms={}) for one in given]
    session.store.add_trajectories(tasks, given, stage_run=evaluate.id, phase="toy/greedy")
    page.open(make_viewer(session.store, session.home, [pipeline], tmp_path).html.as_uri())
    assert shown(page) == "2,000 trajectories"
    page.click(chip("family f3"))
    page.press("/")
    page.write("toy/10")
    count = sum(str(n).startswith("10") for n in range(3, 2000, 7))
    page.wait(f"document.querySelector('.count').textContent === '{count} of 2,000'")
    milliseconds = float(page.evaluate("document.body.dataset.filterMilliseconds"))
    record_property("filter_milliseconds", milliseconds)
    page.press("Escape")
    page.press("Escape")
    page.press("c")
    page.evaluate("document.querySelector('.list').scrollTop = 1e9")
    page.wait("document.querySelector('#row-1999') !== null")
    assert page.evaluate("document.querySelectorAll('.row').length") < 60
