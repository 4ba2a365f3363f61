"""Texts by which a model could control a terminal, forge a line of a log, or break a page."""

HOSTILE = (
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # sets the clipboard
    "\x1b]8;;https://example.org\x1b\\here\x1b]8;;\x1b\\",  # a link
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b[6n\x1bZ\x05",  # questions, whose answers are typed at the prompt
    "\x1bP+q544e\x1b\\",  # the same by a device control string
    "\x1b_Ga=T,f=100;AAAA\x1b\\",  # an image of the kitty protocol
    "\x9b31m \x9d0;title\x9c \x90q",  # C1 controls
    "right\rwrong",
    "wrong\b\b\b\b\bright",
    "\x0b\x0c\x0e\x0f\x7f\x00",
    "\u202eright\u2066 to left",
    "\u2028a line\u2029a paragraph\x85a next line",
    "\ud800 half",
    "\U000e0041\U000e0042 invisible tags",
    "\ufeff\u00ad\u200e\u200f",
    "[link=https://example.org]markup[/link] [/] [bold",
    "</script><script>alert(1)</script>",
)
CONTROLS = {chr(n) for n in (*range(32), *range(0x7F, 0xA0))} - {"\n", "\t"}
CONTROLS |= set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\u200e\u200f")


def controls_in(text):
    """Return the characters of ``text`` that a terminal acts on."""
    return sorted(CONTROLS & set(text))
