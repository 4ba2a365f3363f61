"""Head and tail of a long text, and the length of the omitted part."""

import pytest
from codedance.sandbox.worker.kept_text import KeptText, shortened

TEXT = "0123456789"


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (10, "0123456789"),
        (99, "0123456789"),
        (9, "01234\n… 1 characters were cut …\n6789"),
        (2, "0\n… 8 characters were cut …\n9"),
        (1, "0\n… 9 characters were cut …\n"),
    ],
)
def test_head_and_tail_are_kept_for_any_split_of_the_text(size, limit, kept):
    text = KeptText(limit)
    for start in range(0, len(TEXT), size):
        text.add(TEXT[start : start + size])
    assert text.take() == kept
    assert text.take() == ""


def test_memory_is_bounded_by_the_limit():
    text = KeptText(100)
    for _ in range(10_000):
        text.add("x" * 77)
        assert text._tail_held <= 4 * 50 + 77
        assert len(text._tail) <= 257
    assert "… 769,900 characters were cut …" in text.take()


def test_a_line_that_ends_at_the_cut_adds_no_empty_line():
    text = KeptText(6)
    text.add("ab\ncdefgh\n")
    assert text.take() == "ab\n… 4 characters were cut …\ngh\n"


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_a_pattern_split_over_two_pieces_is_cleaned(size):
    text = KeptText(40, clean=lambda words: words.replace("/secret/", ""), overlap=8)
    source = "see /secret/a and /secret/b"
    for start in range(0, len(source), size):
        text.add(source[start : start + size])
    assert text.take() == "see a and b"


def test_a_short_text_is_unchanged():
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdefghi", 6) == "abcd … 3 characters were cut … hi"
