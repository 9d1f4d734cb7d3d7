"""The text of a RAFT row: documents, question, quotes, final answer; and back again.

RAFT means retrieval-augmented fine-tuning (Zhang et al. 2024, arXiv 2403.10131): a model learns to
answer from documents of which only some help, quoting what it uses between `##begin_quote##` and
`##end_quote##` and ending in `<ANSWER>:`. Knows nothing of where documents and answers come from.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from litee.collect.documents_chunks import sentence_spans
from litee.encode.retrieval_bm25 import words

BEGIN, END = "##begin_quote##", "##end_quote##"
ANSWER = "<ANSWER>:"
_OPEN, _CLOSE = "<DOCUMENT>", "</DOCUMENT>"

_MARKS = re.compile(r"##\s*(?:begin|end)_quote\s*##", re.IGNORECASE)
_QUOTE = re.compile(r"##\s*begin_quote\s*##(.*?)##\s*end_quote\s*##", re.IGNORECASE | re.DOTALL)
_FINAL = re.compile(r"<\s*ANSWER\s*>\s*:?|\bfinal answer\s*:", re.IGNORECASE)
_DOCUMENT = re.compile(r"</?\s*DOCUMENT\s*>", re.IGNORECASE)
_DRESS = " \t\n\"'“”‘’«»"
#: Share of a quote's words that a sentence must have to stand in for it.
_CLOSE_ENOUGH = 0.8


def has_marks(text: str) -> bool:
    """Whether a text holds marks of this format, which would break a row out of its shape.

    >>> has_marks("dogs </document> bark"), has_marks("dogs bark")
    (True, False)
    """
    return any(pattern.search(text) for pattern in (_MARKS, _FINAL, _DOCUMENT))


def prompt_text(documents: Sequence[str], question: str) -> str:
    r"""Documents, each in its tags, and the question last.

    >>> prompt_text(["Dogs bark."], "What do dogs do?")
    '<DOCUMENT>Dogs bark.</DOCUMENT>\nWhat do dogs do?'
    """
    return "\n".join([*(f"{_OPEN}{text}{_CLOSE}" for text in documents), question])


def reasoning_text(quotes: Sequence[str]) -> str:
    """Quotes in their marks, as the reasoning of an answer that people wrote without one.

    >>> reasoning_text(["Dogs bark."])
    'The documents say: ##begin_quote##Dogs bark.##end_quote##'
    """
    shown = " ".join(f"{BEGIN}{quote}{END}" for quote in quotes)
    return f"The documents say: {shown}" if shown else ""


def completion_text(reasoning: str, answer: str) -> str:
    r"""Reasoning and final answer.

    >>> completion_text("They bark.", "Bark.")
    'They bark.\n<ANSWER>: Bark.'
    """
    return f"{reasoning}\n{ANSWER} {answer}" if reasoning else f"{ANSWER} {answer}"


def final_answer(text: str) -> str:
    """What a reader is shown: after the last answer mark, or all; no marks of this format.

    >>> final_answer("Step 1: ##begin_quote##Dogs bark.##end_quote## <ANSWER>: They bark.")
    'They bark.'
    >>> final_answer("They ##begin_quote##bark##end_quote##.")
    'They bark.'
    """
    parts = _FINAL.split(text)
    answer = next((p for p in reversed(parts) if _plain(p)), "")
    return _plain(answer)


def reasoning_of(text: str) -> str:
    """What stands before the last answer mark, "" when there is no mark."""
    marks = list(_FINAL.finditer(text))
    return text[: marks[-1].start()].strip() if marks else ""


def has_final_answer(text: str) -> bool:
    """Whether there is an answer mark with something behind it."""
    return bool(_FINAL.search(text)) and bool(_plain(_FINAL.split(text)[-1]))


def quotes_in(text: str) -> list[str]:
    """Everything between quote marks, as it stands there.

    >>> quotes_in("##begin_quote##a##end_quote## and ##begin_quote## b##end_quote##")
    ['a', ' b']
    """
    return _QUOTE.findall(text)


def balanced(text: str) -> bool:
    """Whether every quote mark has its partner."""
    return len(_MARKS.findall(text)) == 2 * len(quotes_in(text))


def mend_quotes(reasoning: str, documents: Sequence[str]) -> tuple[str, bool] | None:
    """The reasoning with every quote verbatim in a document, and whether that took a change.

    A quote that differs in case, white space or typographic marks becomes the document's own
    words; one that shares at least 80 % of its words with a sentence becomes that sentence.

    Returns:
        None when a quote stands in no document or a mark has no partner.

    >>> mend_quotes("They say ##begin_quote##dogs  BARK##end_quote##.", ["Dogs bark loudly."])
    ('They say ##begin_quote##Dogs bark##end_quote##.', True)
    """
    if not balanced(reasoning):
        return None
    changed = False
    parts: list[str] = []
    last = 0
    for match in _QUOTE.finditer(reasoning):
        found = find_quote(match[1], documents)
        if found is None:
            return None
        changed = changed or found != match[1]
        parts += [reasoning[last : match.start()], BEGIN, found, END]
        last = match.end()
    return "".join([*parts, reasoning[last:]]), changed


def find_quote(quote: str, documents: Sequence[str]) -> str | None:
    """The documents' own words for a quote: itself, the same but for form, or a close sentence."""
    if quote.strip() and any(quote in text for text in documents):
        return quote
    bare = quote.strip(_DRESS)
    if not bare:
        return None
    pieces = [re.escape(piece) for piece in _form(bare).split()]
    pattern = re.compile(r"\s+".join(pieces))
    for text in documents:
        formed = _form(text)
        match = pattern.search(formed)
        if match is not None and len(formed) == len(text):
            return text[match.start() : match.end()]
    closest = best_sentence(bare, documents)
    wanted = set(words(bare))
    if wanted and len(wanted & set(words(closest))) / len(wanted) >= _CLOSE_ENOUGH:
        return closest
    return None


def best_sentence(text: str, documents: Sequence[str]) -> str:
    """The documents' sentence that shares most words with a text: F1 over distinct words.

    >>> best_sentence("Are dogs loud?", ["Cats purr. Dogs are loud."])
    'Dogs are loud.'
    """
    wanted = set(words(text))
    best, most = "", -1.0
    for document in documents:
        for start, end in sentence_spans(document):
            own = set(words(document[start:end]))
            score = 2 * len(wanted & own) / max(1, len(wanted) + len(own))
            if score > most:
                best, most = document[start:end], score
    return best


def _plain(text: str) -> str:
    return _DOCUMENT.sub("", _MARKS.sub("", text)).strip()


_ALIKE = str.maketrans("“”„‘’‚«»–—", '"""\'\'\'""--')


def _form(text: str) -> str:
    """Case and typographic marks folded, every character kept in its place."""
    same = unicodedata.normalize("NFC", text) == text
    return text.translate(_ALIKE).lower() if same else text.translate(_ALIKE)
