"""JSON knowledge bases: frequent questions and reviews by domain and entity.

The layout is that of the DSTC9 and DSTC11 knowledge tracks (Kim et al. 2020; Zhao et al. 2023):
domain → entity → `name`, `docs` or `faqs` (question and answer) and `reviews` (numbered
sentences). Knows nothing of files and chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from litee.errors import InputError

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")

_FIX = 'expected {"domain": {"entity": {"name": …, "docs": {"0": {"title": …, "body": …}}}}}'

#: A parsed JSON object.
Object = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a knowledge base.

    Attributes:
        id: `domain/entity/faq/3` or `domain/entity/review/0`.
        entity: the entity's name (capitals throughout become title case), or the domain when it
            has none.
        question: the question of an FAQ, "" for a review.
        sentences: the answer, or the review's sentences in order.
    """

    id: str
    entity: str
    question: str
    sentences: tuple[str, ...]

    @property
    def body(self) -> str:
        """The sentences, joined by a space."""
        return " ".join(self.sentences)


def parse_knowledge(raw: bytes, path: Path) -> Object:
    """The parsed file.

    Raises:
        InputError: it is no JSON object of domains.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"broken JSON: {error}", place=str(path), fix=_FIX) from error
    if not isinstance(value, dict) or not value:
        raise InputError("not a knowledge base", place=str(path), fix=_FIX)
    for domain, entities in value.items():
        if not isinstance(entities, dict) or not all(
            isinstance(e, dict) for e in entities.values()
        ):
            raise InputError(f"domain {domain!r} holds no entities", place=str(path), fix=_FIX)
    return value


def knowledge_entries(knowledge: Object) -> Iterator[Entry]:
    """All entries, FAQs of an entity before its reviews; entries without text are blank.

    >>> base = {"hotel": {"7": {"name": "HILL INN", "docs": {"0": {"title": "Dogs?", "body":
    ...     "Welcome."}}}}}
    >>> [(e.id, e.entity, e.question, e.body) for e in knowledge_entries(base)]
    [('hotel/7/faq/0', 'Hill Inn', 'Dogs?', 'Welcome.')]
    """
    for domain, entities in knowledge.items():
        for key, entity in cast(Mapping[str, Object], entities).items():
            raw = entity.get("name")
            name = _name(raw) if isinstance(raw, str) and raw.strip() else domain.title()
            faqs = entity.get("docs") or entity.get("faqs") or {}
            for number, faq in cast(Mapping[str, Mapping[str, str]], faqs).items():
                question = faq.get("title") or faq.get("question") or ""
                answer = faq.get("body") or faq.get("answer") or ""
                yield Entry(f"{domain}/{key}/faq/{number}", name, question.strip(), (answer,))
            reviews = entity.get("reviews") or {}
            for number, review in cast(Mapping[str, Object], reviews).items():
                sentences = cast(Mapping[str, str], review.get("sentences") or {})
                ordered = tuple(sentences[k] for k in sorted(sentences, key=int))
                yield Entry(f"{domain}/{key}/review/{number}", name, "", ordered)


def _name(raw: str) -> str:
    """A name as people write it: `ROSA'S B-AND-B` to `Rosa's B-And-B`, mixed case unchanged."""
    if not raw.isupper() and not raw.islower():
        return raw.strip()
    return _WORD.sub(lambda word: word[0].capitalize(), raw.strip())


def knowledge_documents(knowledge: Object, *, questions: bool) -> Iterator[tuple[str, str, str]]:
    """Entries as (id, text, title); `questions` puts an FAQ's question before its answer."""
    for entry in knowledge_entries(knowledge):
        body = entry.body
        text = f"{entry.question} {body}" if questions and entry.question and body else body
        yield entry.id, text, entry.entity
