"""LIMA's rules for what makes an answer a good demonstration: length, first person, references.

Source: Zhou et al. (2023), "LIMA: Less Is More for Alignment", section 2.1. The paper names
examples of words, not the lists; the lists here are this project's reading. Knows nothing of
files and sites.
"""

from __future__ import annotations

import re

SHORT = "answer too short"
LONG = "answer too long"
FIRST_PERSON = "answer in the first person"
REFERENCE = "answer refers to other posts"
LOW_SCORE = "answer's score too low"
NOT_ALONE = "title is no question that stands alone"

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_FIRST_PERSON = re.compile(r"\b(?:I(?:'(?:m|ve|d|ll))?|[Mm]y|[Mm]yself|[Mm]ine|[Mm]e)\b(?!\.\w)")
_REFERENCE = re.compile(
    r"\bas (?:mentioned|stated|noted|pointed out|others|suggested|said)\b"
    r"|\b(?:other|previous|above|accepted|existing) (?:answers?|posts?|repl(?:y|ies)|comments?)\b"
    r"|\banswers? (?:above|below)\b|\bstack ?(?:exchange|overflow)\b|\bsee (?:also )?(?:this|my)\b"
    r"|\bthe (?:OP|asker|comments?)\b|\b(?:duplicate|related) (?:of|question)\b|(?:^|\s)@\w{2,}",
    re.IGNORECASE,
)
_POINTING = re.compile(r"\b(?:this|these|those|following|below|above|here|my)\b", re.IGNORECASE)


def written(text: str) -> str:
    """The text without code, where words such as `I` and `@name` mean something else.

    >>> written("Set `I = 1`, then run.")
    'Set  , then run.'
    """
    return _CODE.sub(" ", text.replace("’", "'"))


def first_person(text: str) -> bool:
    """Whether the writer speaks of themselves; code is not looked at.

    >>> first_person("I would stir it."), first_person("Stir it with `my_spoon`.")
    (True, False)
    >>> first_person("World War I ended in 1918.")
    False
    """
    plain = re.sub(r"\b(?:War|Part|Type|Phase|Class|Volume|Chapter) I\b", " ", written(text))
    return _FIRST_PERSON.search(plain) is not None


def refers(text: str) -> bool:
    """Whether the answer leans on other posts; code is not looked at.

    >>> refers("As mentioned, use butter."), refers("Use butter.")
    (True, False)
    """
    return _REFERENCE.search(written(text)) is not None


def stands_alone(title: str) -> bool:
    """Whether a title alone is a question: four words or more, a question mark, no pointing word.

    >>> stands_alone("Why does bread rise in the oven?"), stands_alone("What is this thing here?")
    (True, False)
    """
    words = title.split()
    return len(words) >= 4 and title.rstrip().endswith("?") and not _POINTING.search(title)


def length_fault(text: str, low: int, high: int) -> str:
    """`SHORT`, `LONG` or "" for a text's number of characters.

    >>> length_fault("abc", 4, 9), length_fault("abcd", 4, 9)
    ('answer too short', '')
    """
    return SHORT if len(text) < low else LONG if len(text) > high else ""
