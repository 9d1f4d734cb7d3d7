"""Personal data out of posts: user names, mail addresses, phone numbers.

Rules find forms, not people: a name in running text stays. Knows nothing of posts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: What is found → what stands there instead. Order matters: links to profiles before user names.
_RULES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "mail address": (
        re.compile(r"\b(?:mailto:)?[\w.+%-]+@[\w-]+(?:\.[\w-]+)+\b", re.IGNORECASE),
        "[mail]",
    ),
    "user name": (
        re.compile(
            r"(?:https?://)?(?:\w+\.)?reddit\.com/(?:u|user)/[\w-]+/?"
            r"|(?<![\w/.])/?(?:u|user)/[\w-]{2,}"
            r"|(?<![\w@/.])@[A-Za-z_][\w.]{1,29}\b(?!\.\w)",
            re.IGNORECASE,
        ),
        "[user]",
    ),
    "phone number": (
        # an international number, or three groups as in (415) 555-0100; years and prices are not
        re.compile(
            r"(?<![\w+./-])(?:\+\d{1,3}[\s.-]?(?:\(\d{1,4}\)[\s.-]?)?\d[\d\s.-]{5,13}\d"
            r"|\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4})(?![\w-])"
        ),
        "[phone]",
    ),
}


def scrub(text: str) -> tuple[str, dict[str, int]]:
    """The text with marks in place of personal data, and how many of each kind there were.

    >>> scrub("Ask u/some_one, mail me@home.org or call +44 20 7946 0000.")[0]
    'Ask [user], mail [mail] or call [phone].'
    >>> scrub("In 2019 and 2020 it was 1,200 a night.")
    ('In 2019 and 2020 it was 1,200 a night.', {})
    """
    counts: dict[str, int] = {}
    for kind, (pattern, mark) in _RULES.items():
        text, count = pattern.subn(mark, text)
        if count:
            counts[kind] = count
    return text, counts
