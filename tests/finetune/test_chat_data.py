"""Conversations as ids and labels: masks, ends of turns, cuts, held-out prompts."""

from __future__ import annotations

import pytest

from litee.errors import ConfigError, InputError
from litee.finetune.chat_data import (
    IGNORED,
    LIMA_TEMPLATE,
    ChatEncoder,
    encode_demonstrations,
    hold_out,
)
from litee.records import Demonstration, Message
from tiny_models import byte_tokenizer, word_tokenizer


def talk(*texts, system=None):
    roles = ("user", "assistant") * len(texts)
    messages = [Message(r, t) for r, t in zip(roles, texts, strict=False)]
    return ([Message("system", system)] if system else []) + messages


def words(tokenizer, ids):
    return " ".join("…" if k == IGNORED else tokenizer.convert_ids_to_tokens(k) for k in ids)


def test_labels_lie_on_answers_and_ends_of_turns_only():
    tokenizer = word_tokenizer("user assistant system hi hello bye so long")
    encoder = ChatEncoder(tokenizer, 100)
    row = encoder.encode(talk("hi", "hello", "bye", "so long"))
    assert words(tokenizer, row.ids).replace("\n", "/") == (
        "<|im_start|> user / hi <|im_end|> / <|im_start|> assistant / hello <|im_end|> / "
        "<|im_start|> user / bye <|im_end|> / <|im_start|> assistant / so long <|im_end|>"
    )
    assert words(tokenizer, row.labels) == (
        "… … … … … … … … … hello <|im_end|> … … … … … … … … … … so long <|im_end|>"
    )
    assert row.cut == 0


def test_a_system_message_is_context():
    tokenizer = word_tokenizer("user assistant system hi hello be kind")
    row = ChatEncoder(tokenizer, 100).encode(talk("hi", "hello", system="be kind"))
    assert words(tokenizer, row.ids).startswith("<|im_start|> system \n be kind <|im_end|>")
    assert [k for k in row.labels if k != IGNORED] == list(row.ids[-2:])


def test_limas_own_form_ends_every_utterance():
    tokenizer = word_tokenizer("hi hello bye <eot>", chat_template=None)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<eot>"]})
    tokenizer.chat_template = LIMA_TEMPLATE.replace("{BOS}", "<|bos|>").replace("{EOT}", "<eot>")
    row = ChatEncoder(tokenizer, 100).encode(talk("hi", "hello", "bye", "hello"))
    assert words(tokenizer, row.ids) == "<|bos|> hi <eot> hello <eot> bye <eot> hello <eot>"
    assert words(tokenizer, row.labels) == "… … … hello <eot> … … hello <eot>"


def test_the_prompt_is_what_the_row_begins_with():
    encoder = ChatEncoder(byte_tokenizer(chat=True), 200)
    messages = talk("Hi", "Hello", "And?", "Yes.")
    prompt = encoder.prompt(messages[:-1])
    row = encoder.encode(messages)
    assert row.ids == (*prompt, *encoder.answer("Yes."))


def test_text_that_spells_a_special_token_stays_text():
    tokenizer = byte_tokenizer(chat=True)
    row = ChatEncoder(tokenizer, 200).encode(talk("q", "a<|im_end|>b"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert [k for k in row.labels if k == end] == [end]
    assert row.labels[-1] == end


def test_a_long_row_loses_its_end_and_is_counted():
    encoder = ChatEncoder(byte_tokenizer(chat=True), 40)
    demos = [
        Demonstration("short", tuple(talk("q", "a"))),
        Demonstration("long", tuple(talk("q", "a" * 60))),
        Demonstration("prompt", tuple(talk("q" * 90, "a"))),
    ]
    data = encode_demonstrations(demos, encoder)
    assert [len(r.ids) for r in data.rows][1] == 40
    assert data.rows[1].labels[-1] == encoder.encode_text("a")[0]
    assert data.dropped.counts == {"no answer within 40 tokens": 1}
    assert data.noticed.total == 1
    assert data.tokens == sum(len(r.ids) for r in data.rows)
    with pytest.raises(InputError, match="none of 1"):
        encode_demonstrations(demos[2:], encoder)


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(ConfigError, match="no chat template"):
        ChatEncoder(byte_tokenizer(chat=False), 10)


def test_held_out_prompts_are_not_trained_on():
    demos = [Demonstration(str(k), tuple(talk(f"Prompt {k % 10}", f"a{k}"))) for k in range(40)]
    train, dev = hold_out(demos, 6, seed=1)
    assert len(train) + len(dev) == 40
    assert 6 <= len(dev) <= 9
    assert not {d.messages[0].text for d in train} & {d.messages[0].text for d in dev}
    assert hold_out(demos, 6, seed=1) == (train, dev)
    assert hold_out(demos, 6, seed=2)[1] != dev
    assert hold_out(demos, 0, seed=1) == (demos, [])
