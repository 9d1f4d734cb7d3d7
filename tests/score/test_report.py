from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_votes import make_votes, noisy

from litee.records import Dropped, Score
from litee.rundir import Receipt
from litee.score.evaluation import evaluate
from litee.score.figures import depth_plot, weights_bar, whiskers
from litee.score.floors import floor_systems
from litee.score.report import (
    DepthCurve,
    MemberLine,
    ReportInput,
    Truncation,
    headline,
    render_report,
    write_report,
)
from litee.score.table import evaluation_table

EVIL = "<script>alert(1)</script>\"'&$x$"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects ids, outside references and text, and checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "xlink:href", "data", "action"} and value[:1] != "#":
                self.outside.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.text += data


NO_SCORE = Score(None, reason="stopped early")


@pytest.fixture(scope="module")
def evaluation():
    training, _, _ = make_votes(100, 1)
    voted, true, groups = make_votes(150, 2)
    systems = {"judge": noisy(true, 0.3, 0), EVIL: np.eye(3)[true.argmax(axis=1)]}
    systems |= floor_systems(training, [v.pair for v in voted])
    swapped = {"judge": systems["judge"]}
    return evaluate(systems, voted, groups, main="judge", seed=3, swapped=swapped, resamples=100)


@pytest.fixture(scope="module")
def full(evaluation):
    return ReportInput(
        evaluation,
        title=f"Report {EVIL}",
        command=f"litee fit {EVIL}",
        split=f"Trained on {EVIL}.",
        members=(
            MemberLine(EVIL, 0.7, Score(1.01, 1.0, 1.02), Score(0.98), Score(-0.02)),
            MemberLine("probe", 0.3, NO_SCORE, Score(0.97), Score(-0.013, -0.02, -0.01)),
        ),
        depths=(DepthCurve(EVIL, ((4, 1.02), (20, 0.96))), DepthCurve("gemma", ((3, 1.0),))),
        dropped=Dropped({EVIL: 1234}, {EVIL: (f"votes.csv {EVIL}, row 2",)}),
        noticed=Dropped(),
        truncation=Truncation(EVIL, 200, 50, 10000, 250),
        receipt=Receipt(
            seconds=50,
            tokens=100000,
            peak_rss_mb=812.4,
            peak_gpu_mb=2048,
            device=EVIL,
            threads=2,
            seed=3,
            versions={"torch": "2.6"},
            inputs={EVIL: "ab" * 32},
            stages={"encode": 40.0, "fit": 10.0},
        ),
        notes=(EVIL,),
    )


@pytest.fixture(scope="module")
def page(full):
    return render_report(full)


def test_page_is_well_formed_and_asks_nobody(page):
    found = Page(page)
    assert found.outside == []
    assert len(found.ids) == len(set(found.ids))
    assert "url(http" not in page and "@import" not in page
    assert page.count("<svg ") == 6 and page.count('role="img" aria-label="') == 6


def test_the_ensemble_without_a_member_is_only_in_the_members_table(full):
    training, _, _ = make_votes(100, 1)
    voted, true, groups = make_votes(60, 2)
    systems = {"judge": noisy(true, 0.3, 0), "without probe": noisy(true, 0.5, 1)}
    systems |= floor_systems(training, [v.pair for v in voted])
    found = evaluate(
        systems, voted, groups, main="judge", seed=3, ablations=["without probe"], resamples=20
    )
    assert found.system("without probe").role == "ablation"
    page = render_report(replace(full, evaluation=found))
    assert "without probe" not in page and "With minus without" in page and "-0.013" in page
    assert evaluation_table(found).row_count == len(systems)  # the last row is people's


def test_every_string_is_escaped(page):
    assert "<script" not in page
    assert "script" not in Page(page).tags
    assert page.count("&lt;script&gt;") > 12


def test_page_tells_what_was_given(page, evaluation):
    text = Page(page).text
    for shown in (
        "1,234",
        "25.0 %",
        "2.5 %",
        "2,000 per second",
        "812 MB, GPU 2,048 MB",
        "encode 40 s, fit 10 s",
        "ab" * 32,
        "torch 2.6",
        "of verdicts change",
        "looks at the order",
        f"{evaluation.score('judge', 'log_loss').value:.3f} [",
    ):
        assert shown in text, shown
    assert 'title="stopped early"' in page


def test_bare_evaluation_leaves_sections_out(evaluation):
    page = render_report(ReportInput(evaluation))
    ids = Page(page).ids
    assert "systems" in ids and not {"members", "depth", "receipt"} & set(ids)


def test_one_source_without_repeats_or_floors():
    voted, true, groups = make_votes(60, 2, sources=("only",))
    single = [replace(v, shares=(0.0, 1.0, 0.0), votes=1, winners=()) for v in voted]
    page = render_report(
        ReportInput(evaluate({"judge": true}, single, groups, main="judge", seed=0, resamples=20))
    )
    found = Page(page)
    assert "sources" not in found.ids
    assert "no pair has two votes" in found.text and "Best floor" not in found.text


def test_headline(evaluation):
    text = headline(evaluation)
    assert text.startswith(
        f"On {evaluation.votes:,} votes over {evaluation.groups} prompt groups, judge has"
    )
    assert "below the best floor (length bins)" in text and "two people agree in" in text


def test_report_is_written_once_and_the_same_again(full, page, tmp_path):
    write_report(full, tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == page
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_svg_is_xml_with_words_and_variables():
    plot = whiskers(
        "loss",
        {"judge": Score(0.9, 0.8, 1.0), "hard": Score(None, reason="none"), "prior": Score(1.07)},
        label="log loss",
        main="judge",
        quiet=("prior",),
        line=(0.5, "people"),
    )
    svg = plot.svg()
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == (
        "log loss: judge 0.900 (0.800 to 1.000); prior 1.070; people 0.500."
    )
    assert "viewBox" in root.attrib and "width" not in root.attrib
    assert "var(--blue, #0072b2)" in svg and "<metadata" not in svg
    labels = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {"judge", "prior", "people", "log loss"} <= labels and "hard" not in labels


def test_nothing_to_draw():
    assert whiskers("x", {"a": Score(None, reason="no")}, label="l", main="a") is None


def test_png(tmp_path):
    depth_plot({"m": [(1, 1.0), (2, 0.9)]}).png(tmp_path / "depth.png", dpi=50)
    weights_bar({"a": 1.0}).png(tmp_path / "weights.png", dpi=50)
    for name in ("depth.png", "weights.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
