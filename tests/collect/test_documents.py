"""Files to documents to chunks: every kind, broken ones counted, offsets exact."""

from __future__ import annotations

import gzip
import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.collect.documents import read_documents
from litee.collect.documents_chunks import ChunkSettings, cut_documents, sentence_spans
from litee.collect.documents_knowledge import knowledge_entries
from litee.collect.documents_turns import read_grounded
from litee.errors import InputError
from litee.records import Chunk, Document

KNOWLEDGE = {
    "hotel": {
        "7": {
            "name": "ROSA'S B-AND-B",
            "faqs": {"0": {"question": "Are dogs welcome?", "answer": "Dogs stay free."}},
            "reviews": {"0": {"sentences": {"1": "Loud, though.", "0": "Clean room."}}},
        }
    },
    "train": {"*": {"name": None, "docs": {"1": {"title": "Is there Wi-Fi?", "body": "No."}}}},
}


def pdf(*lines: str) -> bytes:
    """A PDF with a line of text per page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * k} 0 R" for k in range(len(lines)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(lines)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for k, line in enumerate(lines):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents {5 + 2 * k} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        stream = f"BT /F1 12 Tf 20 100 Td ({line}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    starts = []
    for number, body in enumerate(objects, start=1):
        starts.append(out.tell())
        out.write(f"{number} 0 obj\n{body}\nendobj\n".encode())
    table = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.write("".join(f"{start:010} 00000 n \n" for start in starts).encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\n".encode())
    out.write(f"startxref\n{table}\n%%EOF\n".encode())
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/guide.md").write_text("# Lisbon guide\n\nTrams are old.", encoding="utf-8")
    (tmp_path / "b.html").write_text("<script>x()</script><p>Ferries <b>leave</b> hourly.</p>")
    (tmp_path / "c.pdf").write_bytes(pdf("Page one.", "", "Page three."))
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4 nothing more")
    (tmp_path / "e.txt").write_bytes(b"caf\xe9")
    (tmp_path / "f.txt").write_text(" \n")
    (tmp_path / "g.png").write_bytes(b"\x89PNG")
    rows = [
        {"id": "own", "text": "Row.", "title": "T"},
        {"text": 3},
        {"id": "own", "text": "Again."},
    ]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{oops\n")
    (tmp_path / "k.json.gz").write_bytes(gzip.compress(json.dumps(KNOWLEDGE).encode()))
    return tmp_path


def test_a_folder_gives_all_kinds_and_counts_what_it_cannot_use(folder):
    found = read_documents([folder])
    assert [(d.id, d.title, d.text) for d in found.documents] == [
        ("a/guide.md", "Lisbon guide", "# Lisbon guide\n\nTrams are old."),
        ("b.html", "", "Ferries leave hourly."),
        ("c.pdf/page-1", "", "Page one."),
        ("c.pdf/page-3", "", "Page three."),
        ("own", "T", "Row."),
        ("hotel/7/faq/0", "Rosa's B-And-B", "Are dogs welcome? Dogs stay free."),
        ("hotel/7/review/0", "Rosa's B-And-B", "Clean room. Loud, though."),
        ("train/*/faq/1", "Train", "Is there Wi-Fi? No."),
    ]
    assert found.dropped.counts == {
        "blank document": 2,
        "broken PDF": 1,
        "not UTF-8 text": 1,
        "unknown kind of file": 1,
        "JSON record without a text": 1,
        "id that occurred before": 1,
        "broken JSON": 1,
    }
    assert found.documents[3].source == f"{folder / 'c.pdf'}, page 3"
    assert len(found.inputs) == 8


def test_answers_can_be_had_without_their_questions(folder):
    found = read_documents([folder / "k.json.gz"], questions=False)
    assert [d.text for d in found.documents] == [
        "Dogs stay free.",
        "Clean room. Loud, though.",
        "No.",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.pdf", b"%PDF-1.4 broken", "1 × broken PDF"),
        ("x.txt", b"  ", "1 × blank document"),
        ("x.json", b"[1, 2]", "not a knowledge base"),
        ("x.json", b'{"hotel": {"1": 3}}', "holds no entities"),
        ("x.json", b"{", "broken JSON"),
        ("x.docx", b"PK", "unknown kind of file"),
    ],
)
def test_nothing_usable_is_an_error_with_reasons(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_documents([tmp_path / name])
    with pytest.raises(InputError, match="no such file"):
        read_documents([tmp_path / "missing.txt"])


@given(st.integers(0, 600), st.binary(max_size=4), st.booleans())
def test_damaged_pdfs_are_read_or_refused(tmp_path_factory, place, junk, cut):
    data = pdf("Some text.", "More text.")
    place = min(place, len(data))
    damaged = data[:place] + junk + (b"" if cut else data[place + len(junk) :])
    file = tmp_path_factory.mktemp("pdf") / "x.pdf"
    file.write_bytes(damaged)
    try:
        found = read_documents([file])
    except InputError as error:
        assert "broken PDF" in str(error) or "blank document" in str(error)
    else:
        assert found.documents


TEXTS = st.text(alphabet='ab. !?\n\t"é', min_size=1, max_size=400).filter(str.strip)


@given(TEXTS, st.integers(20, 90), st.integers(0, 60))
def test_chunks_are_verbatim_small_and_leave_nothing_out(text, size, overlap):
    settings = ChunkSettings(chunk_characters=size, chunk_overlap=overlap)
    chunks = list(cut_documents([Document("d", text, "s", "t")], settings))
    covered = set()
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert 0 < len(chunk.text) <= size
        assert (chunk.document, chunk.source, chunk.title) == ("d", "s", "t")
        covered |= set(range(chunk.start, chunk.end))
    assert all(char.isspace() for i, char in enumerate(text) if i not in covered)
    assert [c.start for c in chunks] == sorted({c.start for c in chunks})
    assert len({c.id for c in chunks}) == len(chunks)
    for one, two in pairwise(chunks):
        assert two.end > one.end
        assert one.end - two.start <= overlap


def test_overlap_repeats_whole_sentences():
    document = Document("d", "One is. Two is. Three is. Four is.")
    settings = ChunkSettings(chunk_characters=20, chunk_overlap=8)
    texts = [c.text for c in cut_documents([document], settings)]
    assert texts == ["One is. Two is.", "Two is. Three is.", "Four is."]


def test_long_words_are_cut_and_sentences_found():
    (first, second) = cut_documents([Document("d", "x" * 30)], ChunkSettings(chunk_characters=20))
    assert (len(first.text), len(second.text)) == (20, 10)
    text = 'He said "go." Then\n\nleft'
    assert [text[a:b] for a, b in sentence_spans(text)] == ['He said "go."', "Then", "left"]


def test_a_chunk_must_fit_its_offsets():
    with pytest.raises(ValueError, match="offsets"):
        Chunk("c", "d", "abc", 0, 4)
    assert Chunk("c", "d", "At Hill Inn.", 0, 12, title="hill inn").titled == "At Hill Inn."


def test_entries_keep_sentences_in_order():
    entries = {entry.id: entry for entry in knowledge_entries(KNOWLEDGE)}
    assert entries["hotel/7/review/0"].sentences == ("Clean room.", "Loud, though.")


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_turns_come_with_what_was_used(tmp_path):
    faq = {"domain": "hotel", "entity_id": 7, "doc_type": "faq", "doc_id": 0}
    sentence = {**faq, "doc_type": "review", "sent_id": 1}
    lost = {**faq, "doc_id": 9}
    labels = [
        {"target": True, "knowledge": [sentence, faq], "response": " Loud, but dogs may stay. "},
        {"target": False},
        {"target": True, "knowledge": [lost], "response": "x"},
        {"target": True, "knowledge": [faq], "response": " "},
        {"target": True, "knowledge": [{**sentence, "sent_id": 5}], "response": "x"},
        {"target": True, "knowledge": "faq", "response": "x"},
    ]
    said = [{"speaker": "U", "text": "Rosa's?"}, {"speaker": "S", "text": "Yes."}]
    logs = [[*said, {"speaker": "U", "text": "Is it quiet?"}]] * 6
    files = [write(tmp_path / f"{n}.json", v) for n, v in (("l", labels), ("g", logs))]
    base = write(tmp_path / "k.json", KNOWLEDGE)
    found = read_grounded(files[0], base, files[1])
    (turn,) = found.turns
    assert turn.answer == "Loud, but dogs may stay."
    assert turn.documents == ("hotel/7/review/0", "hotel/7/faq/0")
    assert turn.quotes[0] == ("hotel/7/review/0", "Loud, though.")
    assert [m.role for m in turn.messages] == ["user", "assistant", "user"]
    assert found.dropped.total == 5
    with pytest.raises(InputError, match="2 dialogues but 6 labels"):
        read_grounded(files[0], base, write(tmp_path / "short.json", logs[:2]))
    with pytest.raises(InputError, match="not a JSON array"):
        read_grounded(base, base)


def test_without_dialogues_the_entry_asks(tmp_path):
    label = {"domain": "train", "entity_id": "*", "doc_id": 1}
    labels = write(tmp_path / "l.json", [{"target": True, "knowledge": [label], "response": "No."}])
    (turn,) = read_grounded(labels, write(tmp_path / "k.json", KNOWLEDGE)).turns
    assert [m.text for m in turn.messages] == ["Train: Is there Wi-Fi?"]
    assert turn.dialogue == "train/*/faq/1"
