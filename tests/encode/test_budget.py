"""Who gets how many tokens: hand values and what must hold for all lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litee.encode.budget import TokenBudget, keep_ends, share_out
from litee.errors import ConfigError

LENGTHS = st.tuples(*[st.integers(0, 3000)] * 3)
BUDGETS = st.builds(
    lambda tokens, percent: TokenBudget(
        tokens, (percent / 100, (1 - percent / 100) / 2, (1 - percent / 100) / 2)
    ),
    st.integers(8, 4096),
    st.integers(1, 98),
)


@given(BUDGETS, LENGTHS)
def test_kept_never_exceeds_budget_or_lengths(budget, lengths):
    kept = budget.allot(lengths)
    assert sum(kept) <= budget.max_tokens
    assert all(0 <= k <= n for k, n in zip(kept, lengths, strict=True))


@given(BUDGETS, LENGTHS)
def test_exchanging_the_answers_exchanges_what_is_kept(budget, lengths):
    prompt, a, b = lengths
    kept = budget.allot((prompt, a, b))
    assert budget.allot((prompt, b, a)) == (kept[0], kept[2], kept[1])


@given(BUDGETS, LENGTHS)
def test_unused_tokens_are_handed_on(budget, lengths):
    """A text is cut only when the budget is used up, save for rounding down three shares."""
    kept = budget.allot(lengths)
    if sum(lengths) <= budget.max_tokens:
        assert kept == lengths
    else:
        assert sum(kept) > budget.max_tokens - 3


@given(BUDGETS, LENGTHS)
def test_a_text_within_its_own_share_is_never_cut(budget, lengths):
    kept = budget.allot(lengths)
    for k, n, share in zip(kept, lengths, budget.shares, strict=True):
        assert k >= min(n, int(budget.max_tokens * share - 1e-6))


@given(st.integers(0, 3000), st.integers(0, 3000), BUDGETS, st.integers(1, 500))
def test_a_longer_answer_takes_nothing_that_the_other_was_sure_of(prompt, answer, budget, more):
    """With equal answers, making B longer never leaves B with fewer tokens."""
    before = budget.allot((prompt, answer, answer))
    after = budget.allot((prompt, answer, answer + more))
    assert after[2] >= before[2]
    assert after[2] >= after[1]


def test_allotment_by_hand():
    budget = TokenBudget(100, (0.2, 0.4, 0.4))
    assert budget.allot((20, 40, 40)) == (20, 40, 40)
    assert budget.allot((0, 200, 200)) == (0, 50, 50)
    assert budget.allot((200, 200, 0)) == (33, 66, 0)  # 100 · 0.2/0.6 and 100 · 0.4/0.6
    assert budget.allot((10, 20, 200)) == (10, 20, 70)
    assert budget.allot((1000, 1000, 1000)) == (20, 40, 40)


def test_share_out_in_rounds_by_hand():
    # 12 by thirds is 4: the 2 closes; 10 by halves is 5: the 4 closes; 6 are left for the last
    assert share_out([4, 2, 50], [1, 1, 1], 12) == [4, 2, 6]
    assert share_out([50, 50], [3, 1], 9) == [6, 2]
    assert share_out([], [], 9) == []
    assert share_out([5, 5], [1, 1], 0) == [0, 0]


@given(st.lists(st.integers(), max_size=40), st.integers(0, 60))
def test_keep_ends_keeps_a_head_and_a_tail(tokens, count):
    kept = keep_ends(tokens, count)
    assert len(kept) == min(count, len(tokens))
    if count < len(tokens):
        head, tail = count - count // 2, count // 2
        assert head - tail in (0, 1)
        assert kept == tokens[:head] + tokens[len(tokens) - tail :]
    else:
        assert kept == tokens


@pytest.mark.parametrize(
    ("tokens", "shares", "words"),
    [
        (7, (0.2, 0.4, 0.4), "max_tokens = 7"),
        (100, (-0.2, 0.6, 0.6), "positive"),
        (100, (1.0, 0.0, 0.0), "positive"),
        (100, (0.2, 0.4, 0.5), "sum to 1"),
        (100, (0.2, 0.3, 0.5), "shares differ"),
        (100, (float("nan"), 0.4, 0.4), "budget shares|shares differ"),
        (100, (0.2, float("nan"), float("nan")), "budget shares|shares differ"),
    ],
)
def test_impossible_budgets_are_refused_with_a_fix(tokens, shares, words):
    with pytest.raises(ConfigError, match=words) as caught:
        TokenBudget(tokens, shares)
    assert caught.value.fix


@given(LENGTHS, st.integers(8, 4096))
def test_a_hidden_prompt_gets_nothing_and_the_answers_as_if_it_were_not_there(lengths, tokens):
    hidden = TokenBudget(tokens, (0.0, 0.5, 0.5)).allot(lengths)
    assert hidden == (0, *share_out(lengths[1:], [1, 1], tokens))
