"""Templates: the pieces re-joined are the tokenizer's own rendering, and text stays text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litee.encode.templates import TEMPLATE_VERSION, Template, check_turns
from litee.errors import ConfigError, ModelError
from tiny_models import CHATML, SPECIAL, byte_tokenizer, sentencepiece_tokenizer, word_tokenizer

WORDS = "user assistant system be brief hello there how are you fine thanks why not"
TURNS = [("hello there", "how are you"), ("why not\nhello", "fine thanks"), ("why", "not")]

#: A system prompt at the front, contents trimmed, nothing after the last message but its end.
SYSTEM = "{{ '<|bos|>' }}<|im_start|>system\nbe brief<|im_end|>\n" + CHATML.replace(
    "message['content']", "message['content'] | trim"
)
#: The history is shown with other markers than the last answer (as reasoning models do).
LAST_DIFFERS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if loop.last %}fine\n{% endif %}{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


def rejoin(template, turns):
    pieces = template.pieces(len(turns))
    ids = []
    for k, (user, answer) in enumerate(turns):
        ids += [*pieces.before_user[k], *template.encode_text(user)]
        ids += [*pieces.before_answer[k], *template.encode_text(answer)]
    return [*ids, *pieces.end]


def rendered(tokenizer, turns):
    messages = []
    for user, answer in turns:
        messages += [
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("chat", [CHATML, SYSTEM, LAST_DIFFERS])
@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_chat_pieces_rejoined_are_the_tokenizers_own_rendering(kind, chat, count):
    if kind == "words":
        tokenizer = word_tokenizer(WORDS, chat_template=chat)
        newline = tokenizer.convert_tokens_to_ids("\n")
    else:
        tokenizer = byte_tokenizer(chat=True)
        tokenizer.chat_template = chat
        newline = tokenizer.encode("\n")[0]
    ours = rejoin(Template(tokenizer), TURNS[:count])
    theirs = rendered(tokenizer, TURNS[:count])
    # what follows the end-of-turn token (a line break) is left out: heads read the last token
    assert theirs[len(ours) :] == [newline]
    assert ours == theirs[: len(ours)]
    assert ours[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_sentencepiece_tokenizer_puts_its_space_where_it_does_by_itself():
    tokenizer = sentencepiece_tokenizer(WORDS)
    ours = rejoin(Template(tokenizer), TURNS[:1])
    assert ours == rendered(tokenizer, TURNS[:1])[: len(ours)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([*SPECIAL, " ", "\n", "|", "<", ">"]), st.text(max_size=6)),
        max_size=8,
    ).map("".join)
)
def test_text_never_becomes_a_special_token(text):
    tokenizer = byte_tokenizer(chat=True)
    template = Template(tokenizer)
    ids = template.encode_text(text)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_spelled_markers_are_special_only_in_the_template():
    tokenizer = byte_tokenizer(chat=True)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    template = Template(tokenizer)
    assert len(template.encode_text("<|im_end|>")) == len("<|im_end|>")
    assert template.pieces(1).end == (end,)
    # the tokenizer is left as it was: its own encoding still knows its markers
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [end]


def test_an_error_while_encoding_leaves_the_tokenizer_as_it_was():
    tokenizer = byte_tokenizer(chat=True)
    with pytest.raises(TypeError):
        Template(tokenizer).encode_text(None)
    assert tokenizer.backend_tokenizer.encode_special_tokens is False


@pytest.mark.parametrize("count", [1, 2, 3])
def test_plain_template_by_hand(count):
    tokenizer = byte_tokenizer(chat=False)
    template = Template(tokenizer)
    assert template.name == "plain"
    text = "\n\n".join(f"Question: {q}\n\nAnswer: {a}" for q, a in TURNS[:count])
    expected = [
        tokenizer.bos_token_id,
        *tokenizer.encode(text, add_special_tokens=False),
        tokenizer.eos_token_id,
    ]
    assert rejoin(template, TURNS[:count]) == expected


def test_plain_template_without_bos_and_eos_still_closes_an_answer():
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.bos_token = tokenizer.eos_token = None
    template = Template(tokenizer)
    expected = tokenizer.encode("Question: q\n\nAnswer: a\n\n", add_special_tokens=False)
    assert rejoin(template, [("q", "a")]) == expected


def test_auto_takes_chat_where_there_is_one():
    assert Template(byte_tokenizer(chat=True), "auto").id == f"chat-v{TEMPLATE_VERSION}"
    assert Template(byte_tokenizer(chat=True), "plain").id == f"plain-v{TEMPLATE_VERSION}"
    assert Template(byte_tokenizer(chat=False), "auto").id == f"plain-v{TEMPLATE_VERSION}"


def test_chat_without_a_chat_template_is_refused():
    with pytest.raises(ConfigError, match="no chat template") as caught:
        Template(byte_tokenizer(chat=False), "chat")
    assert "plain" in caught.value.fix


HIDES_USER = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
OUT_OF_ORDER = (
    "{% for message in messages | reverse %}{{ message['content'] }}<|im_end|>{% endfor %}"
)
LAST_TURN_ONLY = "{% for message in messages[-2:] %}{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize("chat", [HIDES_USER, OUT_OF_ORDER, LAST_TURN_ONLY])
def test_a_template_that_hides_a_turn_is_refused(chat):
    tokenizer = byte_tokenizer(chat=True)
    tokenizer.chat_template = chat
    with pytest.raises(ModelError, match="every turn") as caught:
        Template(tokenizer).pieces(2)
    assert "plain" in caught.value.fix


REFUSES = "{{ raise_exception('roles must alternate') }}"


def test_a_template_that_raises_is_refused():
    tokenizer = byte_tokenizer(chat=True)
    tokenizer.chat_template = REFUSES
    with pytest.raises(ModelError):
        Template(tokenizer).pieces(1)


def test_check_turns():
    check_turns(["a", "b"], ["c", "d"])
    with pytest.raises(ValueError, match="2 user turns but 1 answers"):
        check_turns(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="0 user turns"):
        check_turns([], [])
