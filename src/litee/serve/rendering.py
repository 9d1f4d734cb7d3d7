"""Markdown from models to HTML that can do no harm: no scripts, no outside images, no forms.

Raw HTML in an answer is shown as text. Knows nothing of the page around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

#: Longer texts are shown as they are: Markdown of that size costs seconds.
MAX_MARKDOWN = 100_000
#: Longer code is not coloured.
MAX_COLOURED = 10_000

_TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "s", "blockquote", "a", "div"),
    *("ul", "ol", "li", "pre", "code", "span"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "div": {"class", "tabindex", "role", "aria-label"},
    "pre": {"class", "tabindex", "role", "aria-label"},
    "span": {"class"},
}
_SCROLL = 'tabindex="0" role="group" aria-label="{}"'
_SHIFT = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6"}


@lru_cache(maxsize=4096)
def to_html(text: str) -> str:
    r"""A model's Markdown as safe HTML; headings begin at level 3, under those of the page.

    >>> to_html("**yes** <script>alert(1)</script>")
    '<p><strong>yes</strong> &lt;script&gt;alert(1)&lt;/script&gt;</p>\n'
    >>> "href" in to_html("[x](javascript:alert(1))")
    False
    """
    if not text.strip():
        return '<p class="empty">(no answer)</p>'
    if len(text) > MAX_MARKDOWN:
        return f'<pre class="plain" {_SCROLL.format("long text")}>{escape(text)}</pre>'
    made = _MARKDOWN.render(text)
    return nh3.clean(
        made,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _code(code: str, language: str, _: str) -> str:
    """Coloured code; the tags around it are made by `_fence`."""
    if not language or len(code) > MAX_COLOURED:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language[:40])
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _fence(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[idx]
    language = token.info.strip().split(" ")[0] if token.info else ""
    label = _SCROLL.format("code")
    return f'<pre class="code" {label}><code>{_code(token.content, language, "")}</code></pre>\n'


def _image(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
) -> str:
    """A link in place of the picture: nothing is loaded from elsewhere."""
    source = str(tokens[idx].attrGet("src") or "")
    words = self.renderInlineAsText(tokens[idx].children or [], options, env)
    return f'<a href="{escape(source)}">[image: {escape(words or source)}]</a>'


def _table_open(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
) -> str:
    return f'<div class="scroll" {_SCROLL.format("table")}><table>\n'


def _table_close(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
) -> str:
    return "</table></div>\n"


def _heading(
    self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
) -> str:
    tag = _SHIFT.get(tokens[idx].tag, "h6")
    return f"<{tag}>" if tokens[idx].nesting > 0 else f"</{tag}>\n"


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    markdown.enable(["table", "strikethrough"])
    rules = {
        "fence": _fence,
        "code_block": _fence,
        "image": _image,
        "table_open": _table_open,
        "table_close": _table_close,
        "heading_open": _heading,
        "heading_close": _heading,
    }
    for name, rule in rules.items():
        markdown.add_render_rule(name, rule)
    return markdown


_MARKDOWN = _markdown()
