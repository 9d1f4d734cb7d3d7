"""Voter and owner in headless Chromium: keys, phone, two people, reload, lost network, axe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from hostile_requests import Echo
from litee.collect.votes import load_votes
from litee.records import Outcome, Pair
from litee.serve.ballots import ActIn

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)

#: Milliseconds; a test that passes never waits so long, even on a busy machine.
WAIT = 10_000
UNSENT = """Object.entries(localStorage).filter(([name]) => name.startsWith('litee-outbox'))
    .reduce((sum, [, acts]) => sum + JSON.parse(acts).length, 0)"""
expect.set_options(timeout=WAIT)
PHONE = {"viewport": {"width": 375, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address as somebody of their own; script errors fail the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def go(address: str, **options: object) -> Page:
        context = browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []


def start(page: Page) -> None:
    page.locator("#start").click()
    expect(page.locator(".sheet")).to_be_visible()


def shown(page: Page) -> str:
    return str(page.locator(".sheet").get_attribute("data-ballot"))


def judge(page: Page, key: str) -> str:
    """Press a key and wait for the next sheet or the end; the ballot that was judged."""
    ballot = shown(page)
    page.wait_for_timeout(260)
    page.keyboard.press(key)
    expect(page.locator(f".sheet[data-ballot='{ballot}']")).to_have_count(0)
    return ballot


def arrived(page: Page, done: int) -> None:
    """Wait until the server knows of this many acts and the outbox is empty."""
    # the page counts an act when it is in the outbox, which is empty before that, too
    expect(page.locator("#status")).to_contain_text(f"{done} done")
    for _ in range(200):
        if page.evaluate(UNSENT) == 0:
            break
        page.wait_for_timeout(50)
    assert page.evaluate(UNSENT) == 0


def serious(page: Page, *rules: str) -> list[str]:
    """What axe finds, by all rules or by some."""
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else None
    found = Axe().run(page, options=options).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found]


def in_both_themes(page: Page) -> list[str]:
    """What axe finds; in the dark only colours differ."""
    found = serious(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    found += serious(page, "color-contrast")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    return found


def test_a_person_votes_with_keys_alone(served, visit, tmp_path):
    site = served(5, ahead=2)
    page = visit(site.link("Ana"))
    assert "p0-" not in page.url
    page.keyboard.press("Tab")  # skip link, help, theme, start
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".sheet")).to_be_visible()
    ballots = [judge(page, key) for key in "1234"]
    page.keyboard.press("d")
    page.keyboard.press("Space")  # the first tag of A
    page.locator("textarea").focus()
    page.keyboard.type("Why 1 and 2?")  # digits in a comment are no votes
    page.keyboard.press("Escape")
    ballots.append(judge(page, "1"))
    expect(page.locator("#done")).to_be_visible()
    arrived(page, 5)
    page.keyboard.press("u")
    expect(page.locator(f".sheet[data-ballot='{ballots[-1]}']")).to_be_visible()
    page.keyboard.press("d")
    page.locator("textarea").fill("Second thoughts")
    page.keyboard.press("Escape")
    judge(page, "2")
    arrived(page, 5)
    by_id = {v.id: v for v in load_votes([tmp_path / "votes.db"]).votes}
    sides = [site.campaign.desk.ballots[b].swapped for b in ballots]
    left = [Outcome.B if swapped else Outcome.A for swapped in sides]
    wanted = [left[0], left[1].swapped, Outcome.TIE, Outcome.BOTH_BAD, left[4].swapped]
    assert [by_id[b].winner for b in ballots] == wanted
    assert by_id[ballots[4]].reason == "Second thoughts"


def test_votes_survive_a_lost_network(served, visit, tmp_path):
    site = served(8, ahead=4)
    page = visit(site.link("Ana"))
    start(page)
    judge(page, "1")
    arrived(page, 1)
    page.context.set_offline(True)
    for key in "12":
        judge(page, key)
    expect(page.locator("#banner")).to_contain_text("2 votes are kept in this browser")
    page.keyboard.press("u")
    judge(page, "3")
    expect(page.locator("#status")).to_contain_text("3 done")
    assert len(load_votes([tmp_path / "votes.db"]).votes) == 1
    page.context.set_offline(False)
    arrived(page, 3)
    expect(page.locator("#banner")).to_be_hidden()
    votes = load_votes([tmp_path / "votes.db"]).votes
    assert len(votes) == 3
    assert votes[-1].winner is Outcome.TIE


def test_votes_that_were_not_sent_survive_a_reload(served, visit, tmp_path):
    site = served(6, ahead=3)
    page = visit(site.link("Ana"))
    start(page)
    page.route("**/api/votes", lambda route: route.abort())
    judged = [judge(page, "1"), judge(page, "2")]
    page.reload()
    expect(page.locator(".sheet")).to_have_count(1)
    if page.locator("#start").is_visible():
        start(page)
    assert shown(page) not in judged
    page.unroute("**/api/votes")
    page.reload()
    arrived(page, 2)
    assert {v.id for v in load_votes([tmp_path / "votes.db"]).votes} == set(judged)


def test_an_answer_that_got_lost_does_not_double_the_vote(served, visit, tmp_path):
    site = served(6, ahead=3)
    page = visit(site.link("Ana"))
    start(page)
    calls = []

    def lose(route) -> None:
        calls.append(route.request.post_data)
        route.fetch()  # the server stores it …
        route.abort()  # … and the answer never arrives

    page.route("**/api/votes", lose, times=1)
    judge(page, "1")
    arrived(page, 1)
    assert calls
    assert len(load_votes([tmp_path / "votes.db"]).votes) == 1


def test_reload_and_back_show_the_same_ballot(served, visit):
    site = served(4)
    page = visit(site.link("Ana"))
    start(page)
    first = judge(page, "1")
    arrived(page, 1)
    ballot = shown(page)
    page.reload()
    assert shown(page) == ballot
    page.goto(site.url + "/healthz")
    page.go_back()
    assert shown(page) == ballot != first


def test_two_people_vote_at_once_and_two_windows_count_once(served, visit, tmp_path):
    site = served(3, people_per_pair=2, ahead=2)
    ana, ben = visit(site.link("Ana")), visit(site.link("Ben"))
    start(ana)
    start(ben)
    for _ in range(3):
        judge(ana, "1")
        judge(ben, "2")
    arrived(ana, 3)
    arrived(ben, 3)
    assert len(load_votes([tmp_path / "votes.db"]).votes) == 6
    site.campaign.add_pairs([Pair("late", ("q",), ("x",), ("y",))])
    page = visit(site.link("Ana"))
    other = page.context.new_page()
    other.goto(site.url + "/vote")
    assert shown(page) == shown(other)
    judge(page, "1")
    arrived(page, 4)
    page.evaluate("localStorage.clear()")
    other.wait_for_timeout(260)
    other.keyboard.press("2")
    expect(other.locator("#done")).to_be_visible()
    arrived(other, 4)
    votes = load_votes([tmp_path / "votes.db"]).votes
    assert [v.annotator for v in votes if v.pair.id == "late"] == ["Ana"]


def test_a_phone_shows_everything_and_votes_by_touch(served, visit):
    site = served(3)
    page = visit(site.link("Ana"), **PHONE)
    start(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 375
    for name in ("A is better", "B is better", "Tie", "Both bad"):
        button = page.get_by_role("button", name=re.compile(f"^{name}"))
        expect(button).to_be_in_viewport()
        assert button.bounding_box()["height"] >= 44
    ballot = shown(page)
    page.wait_for_timeout(260)
    page.get_by_role("button", name=re.compile("^A is better")).tap()
    expect(page.locator(f".sheet[data-ballot='{ballot}']")).to_have_count(0)
    arrived(page, 1)
    assert serious(page) == []


def test_a_second_press_of_the_same_key_is_no_second_vote(served, visit, tmp_path):
    page = visit(served(5).link("Ana"))
    start(page)
    page.wait_for_timeout(260)
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.wait_for_timeout(120)
    page.keyboard.press("1")
    arrived(page, 1)
    assert len(load_votes([tmp_path / "votes.db"]).votes) == 1


def test_grades_with_keys(served, visit, tmp_path):
    site = served(2, mode="grade")
    page = visit(site.link("Ana"))
    start(page)
    ballot = shown(page)
    page.wait_for_timeout(260)
    page.keyboard.press("3")
    page.keyboard.press("2")
    expect(page.locator(f".sheet[data-ballot='{ballot}']")).to_have_count(0)
    arrived(page, 1)
    (vote,) = load_votes([tmp_path / "votes.db"]).votes
    swapped = site.campaign.desk.ballots[ballot].swapped
    assert vote.winner is (Outcome.B if swapped else Outcome.A)
    assert vote.reason == ("a: pass; b: excellent" if swapped else "a: excellent; b: pass")


def test_turns_can_be_judged_apart(served, visit, tmp_path):
    site = served(0, ratings=True)
    site.campaign.add_pairs([Pair("m", ("one?", "two?"), ("1a", "2a"), ("1b", "2b"), "x", "y")])
    page = visit(site.link("Ana"))
    start(page)
    assert serious(page) == []
    page.locator(".per-turn").nth(1).get_by_text("Tie").click()
    page.locator("summary").click()
    page.locator("input[name='left-stars'] + span").nth(4).click()
    swapped = next(iter(site.campaign.desk.ballots.values())).swapped
    page.get_by_role("button", name=re.compile("^A is better")).click()
    arrived(page, 1)
    (vote,) = load_votes([tmp_path / "votes.db"]).votes
    assert vote.reason == f"{'b' if swapped else 'a'}: 5/5; turns: -, tie"


def test_the_form_works_without_script(served, visit, tmp_path):
    site = served(2)
    page = visit(site.link("Ana"), java_script_enabled=False)
    page.locator("#start").click()
    page.locator("button[value=tie]").click()
    page.locator("button[value=skip]").click()
    expect(page.locator("#done")).to_be_visible()
    read = load_votes([tmp_path / "votes.db"])
    assert [v.winner for v in read.votes] == [Outcome.TIE]
    assert read.dropped.counts == {"skipped by the voter": 1}


def test_a_question_of_ones_own_is_answered_and_judged(served, visit, tmp_path):
    site = served(0, systems=Echo("zebra-7b", "yak-13b"))
    page = visit(site.link("Ana"))
    page.locator("#question").fill("'; DROP TABLE")  # one of the two fails
    page.keyboard.press("Enter")
    expect(page.locator("#banner")).to_have_text(re.compile("did not answer"))
    assert page.locator("#question").input_value() == "'; DROP TABLE"
    assert in_both_themes(page) == []
    page.locator("#question").fill("1 <script>window.hacked=1</script>")
    page.keyboard.press("Enter")
    expect(page.locator(".sheet .prompt")).to_contain_text("1 <script>")
    assert not re.search("zebra|yak", page.content())
    judge(page, "2")
    expect(page.locator("#question")).to_be_focused()
    arrived(page, 1)
    expect(page.locator("#status")).to_have_text("1 done")
    page.get_by_role("button", name="Take the last vote back").click()
    judge(page, "3")
    arrived(page, 1)
    (vote,) = load_votes([tmp_path / "votes.db"]).votes
    assert (vote.winner, vote.pair.source) == (Outcome.TIE, "live")
    assert {vote.pair.model_a, vote.pair.model_b} == {"zebra-7b", "yak-13b"}
    assert page.evaluate("window.hacked") is None


def test_nothing_in_an_answer_runs_or_loads(served, visit):
    bad = (
        "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
        "[x](javascript:window.hacked=3) ![y](https://evil.example/pixel.png)"
        "<style>body{display:none}</style></script></form><iframe src='//evil.example'></iframe>"
    )
    site = served(0)
    site.campaign.add_pairs([Pair("<b>", (bad,), (bad,), ("```html\n" + bad + "\n```",))])
    page = visit(site.link("<script>window.hacked=4</script>"))
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    page.reload()
    start(page)
    for link in page.locator(".text a").all():
        assert str(link.get_attribute("href")).startswith("https://")
    assert page.evaluate("window.hacked") is None
    assert page.locator("iframe, .text img, .text script, .text style").count() == 0
    assert all(address.startswith(site.url) for address in outside)
    assert "<script>window.hacked=1</script>" in page.locator(".prompt").inner_text()


def test_the_owner_sees_figures_and_manages_people(served, visit, tmp_path):
    site = served(6, people_per_pair=3)
    for name in ("Ben", "Chi"):
        person = site.campaign.person(name)
        while sheets := site.campaign.act_now(person.number).sheets:
            act = ActIn(ballot=sheets[0].ballot, revision=1, choice="left", seconds=1.0)
            site.campaign.act_now(person.number, [act])
    page = visit(site.owner)
    expect(page.locator("#panel")).to_contain_text("of 18 votes")
    expect(page.locator("#panel")).to_contain_text("zebra-7b")
    assert serious(page) == []
    page.locator("textarea[name=names]").fill("Ana\nDora")
    page.get_by_role("button", name="Make links").click()
    link = page.locator("tr", has_text="Ana").locator("code").inner_text()
    voter = visit(link)
    start(voter)
    judge(voter, "1")
    arrived(voter, 1)
    page.get_by_role("button", name="Exclude Ben").click()
    expect(page.get_by_role("button", name="Include Ben")).to_be_visible()
    page.get_by_role("button", name="New link for Ana").click()
    expect(page.locator("code", has_text=link)).to_have_count(0)
    voter.reload()
    expect(voter.locator("main")).to_contain_text("opens by a personal link")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^JSON lines")).click()
    download.value.save_as(tmp_path / "out.jsonl")
    assert len(load_votes([tmp_path / "out.jsonl"]).votes) == 7
    new = '{"prompt": "new?", "response_a": "x", "response_b": "y"}\n'
    file = {"name": "more.jsonl", "mimeType": "text/plain", "buffer": new.encode()}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".banner")).to_have_text("Added 1 pairs and 0 votes")
    page.locator("#theme").click()
    assert serious(page, "color-contrast") == []


def test_axe_finds_nothing_on_the_voters_screens(served, visit):
    site = served(0, ratings=True)
    code = Pair("c", ("q",), ("```python\nx = [1]  # one\n```",), ("|a|b|\n|-|-|\n|1|2|",))
    site.campaign.add_pairs([code])
    page = visit(site.link("Ana"))
    assert in_both_themes(page) == []
    start(page)
    page.locator("summary").click()
    assert in_both_themes(page) == []
    judge(page, "1")
    expect(page.locator("#done")).to_be_visible()
    assert in_both_themes(page) == []
    page.keyboard.press("?")
    assert in_both_themes(page) == []
    page.goto(site.url + "/owner")
    assert in_both_themes(page) == []


def test_the_dark_theme_of_the_system_is_the_dark_theme_of_the_button(served, visit):
    page = visit(served(1).link("Ana"), color_scheme="dark")
    look = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(look)
    page.locator("#theme").click()
    assert page.evaluate(look) != dark
    page.reload()
    page.locator("#theme").click()
    assert page.evaluate(look) == dark
