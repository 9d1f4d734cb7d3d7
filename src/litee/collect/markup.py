"""HTML of posts to Markdown: code blocks and lists stay, links lose their target, images go.

Knows nothing of where the HTML comes from.
"""

from __future__ import annotations

import importlib
import re

_HEADING = re.compile(r"<(/?)h[1-6]\b[^>]*>", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_BLANKS = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \t]+(?=\n)")
#: A link's text that is its own address says nothing once the link is gone.
_ADDRESS = re.compile(r"<?\bhttps?://\S+>?")


def to_markdown(html: str) -> str:
    r"""Text with Markdown code blocks and lists, and no other marks, links or images.

    >>> to_markdown('<p>Use <a href="x">this <b>pan</b></a>:</p><ul><li>hot</li></ul>')
    'Use this pan:\n\n- hot'
    >>> to_markdown("<pre><code>a &lt; b\n</code></pre><img src='x'>")
    '```\na < b\n```'

    Raises:
        ModuleNotFoundError: markdownify is not installed (extra `dumps`).
    """
    library = importlib.import_module("markdownify")
    text: str = library.markdownify(
        _HEADING.sub(r"<\1p>", _UNSEEN.sub("", html)),
        convert=["p", "br", "ul", "ol", "li", "pre", "code", "blockquote", "hr", "div"],
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )
    parts = _CODE.split(text)
    parts[::2] = [_prose(part) for part in parts[::2]]
    return "".join(parts).strip()


def _prose(text: str) -> str:
    """Text outside code without bare addresses, trailing spaces and runs of blank lines."""
    text = _ADDRESS.sub("", text) if "http" in text else text
    return _BLANKS.sub("\n\n", _SPACES.sub("", text))
