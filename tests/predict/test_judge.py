"""The judge: its members pooled by hand, both orders, any chunking, and only sound folders."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_judge import ALL_MEMBERS, EXIT, PAIRS, SCALING, by_hand, encoder, joined, write_judge
from torch.nn.attention import flex_attention as torch_flex

from litee.errors import ModelError, ResourceError
from litee.finetune.trunk import lay_out
from litee.predict import judge as judge_module
from litee.predict import runner as runner_module
from litee.predict.artifact import FORMAT_VERSION, load_judge_file, save_judge_file
from litee.predict.calibration import Calibration
from litee.predict.judge import Judge
from litee.records import Outcome, Pair, Prediction
from tiny_models import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """A judge with a member of every kind."""
    weights = [0.1, 0.2, 0.1, 0.1, 0.2, 0.2, 0.1]
    return write_judge(tmp_path_factory.mktemp("judge"), tiny("llama"), weights=weights)


@pytest.fixture(scope="module")
def judge(written):
    return Judge.from_pretrained(written.folder)


def table(predictions):
    return np.array([p.probabilities for p in predictions])


# predictions


def test_every_member_is_what_plain_sequences_say(written, judge):
    expected = by_hand(written, PAIRS)
    found = judge.member_outputs(PAIRS)
    assert list(found) == list(ALL_MEMBERS)
    for name, output in found.items():
        np.testing.assert_allclose(output.probabilities, expected[name], atol=1e-5, err_msg=name)
        assert (output.rewards is None) == name.startswith("joint")
        # members differ, so that a mix-up would show
        others = [v for k, v in expected.items() if k != name]
        assert min(abs(expected[name] - o).max() for o in others) > 1e-3


def test_a_prediction_is_its_members_pooled_by_hand(written, judge):
    found = judge.predict(PAIRS)
    expected = joined(written.file, by_hand(written, PAIRS))
    np.testing.assert_allclose(table(found), expected, atol=1e-5)
    np.testing.assert_allclose(table(found).sum(1), 1, atol=1e-9)
    assert [p.pair_id for p in found] == ["1", "2", "3", "4", "5"]
    assert all(isinstance(p, Prediction) for p in found)


def test_exchanging_the_answers_exchanges_the_prediction(judge):
    there = judge.predict(PAIRS)
    back = judge.predict([p.swapped() for p in PAIRS])
    np.testing.assert_allclose(table(there), table(back)[:, [1, 0, 2]], atol=1e-5)
    for one, two in zip(there, back, strict=True):
        assert one.reward_a == pytest.approx(two.reward_b, abs=1e-4)
        assert one.tokens_cut == (two.tokens_cut[0], two.tokens_cut[2], two.tokens_cut[1])


def test_equal_answers_have_equal_chances(judge):
    equal = judge.predict(PAIRS)[4]
    assert equal.probabilities[0] == pytest.approx(equal.probabilities[1], abs=1e-6)
    assert equal.reward_a == pytest.approx(equal.reward_b, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_chunks_change_nothing(judge, monkeypatch, size):
    whole = judge.predict(PAIRS)
    outputs = judge.member_outputs(PAIRS)
    monkeypatch.setattr(judge_module, "CHUNK_PAIRS", size)
    np.testing.assert_allclose(table(judge.predict(PAIRS)), table(whole), atol=1e-5)
    for name, output in judge.member_outputs(PAIRS).items():
        np.testing.assert_allclose(output.probabilities, outputs[name].probabilities, atol=1e-5)
        np.testing.assert_array_equal(output.cut, outputs[name].cut)
        if output.rewards is not None:
            np.testing.assert_allclose(output.rewards, outputs[name].rewards, atol=1e-4)


def test_a_stream_takes_no_more_pairs_than_it_needs(judge, monkeypatch):
    monkeypatch.setattr(judge_module, "CHUNK_PAIRS", 2)
    taken = []

    def source():
        for pair in PAIRS:
            taken.append(pair.id)
            yield pair

    stream = judge.stream(source())
    next(stream)
    assert taken == ["1", "2"]
    assert len(list(stream)) == 4
    assert judge.predict([]) == ()


def test_small_packs_change_nothing(judge, monkeypatch):
    whole = judge.predict(PAIRS)
    monkeypatch.setattr(runner_module, "pack_tokens", lambda device: 50)
    monkeypatch.setattr(runner_module, "pass_tokens", lambda device: 100)
    np.testing.assert_allclose(table(judge.predict(PAIRS)), table(whole), atol=1e-5)


def test_a_gpu_that_is_not_there_is_named(written, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="device = 'cuda'"):
        Judge.from_pretrained(written.folder, device="cuda")
    assert Judge.from_pretrained(written.folder, device="cpu").file == written.file


def test_the_attention_of_a_gpu_gives_the_same_predictions(judge, monkeypatch):
    here = table(judge.predict(PAIRS))
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(runner_module, "lay_out", partial(lay_out, flex=True))
    np.testing.assert_allclose(table(judge.predict(PAIRS)), here, atol=1e-5)


def test_the_order_of_pairs_does_not_matter(judge):
    there, back = judge.predict(PAIRS), judge.predict(PAIRS[::-1])[::-1]
    np.testing.assert_allclose(table(there), table(back), atol=1e-5)
    assert [p.pair_id for p in back] == [p.id for p in PAIRS]


def test_cut_tokens_are_the_largest_over_members(written, judge):
    cuts = [p.tokens_cut for p in judge.predict(PAIRS)]
    assert cuts == [encoder(written, "tree").encode(p).cut for p in PAIRS]
    assert cuts[0] == (0, 0, 0)
    assert cuts[3] == (37, 64, 0)  # of 60 tokens B takes its 20; P and A share 40 as 1 to 2


def test_layers_above_the_exit_are_not_loaded(judge):
    assert [r.backbone.trunk.depth for r in judge._runners] == [EXIT]


# attention pooling


@pytest.fixture(scope="module")
def attending(tiny, tmp_path_factory):
    """Branches with a query and branches without one, which share their passes."""
    members = ("probe", "lora", "attending")
    return write_judge(tmp_path_factory.mktemp("attending"), tiny("llama"), members)


@pytest.mark.parametrize("flex", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_branches_pool_with_their_own_queries(attending, monkeypatch, flex, small):
    if small:
        monkeypatch.setattr(runner_module, "pack_tokens", lambda device: 50)
        monkeypatch.setattr(runner_module, "pass_tokens", lambda device: 100)
    if flex:
        monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        monkeypatch.setattr(runner_module, "lay_out", partial(lay_out, flex=True))
    found = Judge.from_pretrained(attending.folder)
    outputs, expected = found.member_outputs(PAIRS), by_hand(attending, PAIRS)
    for name, output in outputs.items():
        np.testing.assert_allclose(output.probabilities, expected[name], atol=1e-5, err_msg=name)


def test_exchanged_answers_with_attention(attending):
    found = Judge.from_pretrained(attending.folder)
    there, back = found.predict(PAIRS), found.predict([p.swapped() for p in PAIRS])
    np.testing.assert_allclose(table(there), table(back)[:, [1, 0, 2]], atol=1e-5)
    assert there[0].reward_a == pytest.approx(back[0].reward_b, abs=1e-4)


def test_judges_of_before_have_no_queries(attending, tmp_path):
    folder = Path(shutil.copytree(attending.folder, tmp_path / "judge"))
    expected = Judge.from_pretrained(folder).member_outputs(PAIRS)["lora"].probabilities
    change(folder, lambda raw: [m.pop("branch_pooling") for m in raw["members"]])
    old = Judge.from_pretrained(folder)
    assert {m.branch_pooling for m in old.file.members} == {"states"}
    found = old.member_outputs(PAIRS)
    np.testing.assert_allclose(found["lora"].probabilities, expected, atol=1e-5)
    change(folder, lambda raw: raw["members"][2].update(branch_pooling="attention"))
    assert Judge.from_pretrained(folder).file == attending.file
    for number, wrong in ((0, {"branch_pooling": "attention"}), (2, {"pooling": "last"})):
        description = (folder / "judge.json").read_text()
        change(folder, lambda raw, k=number, new=wrong: raw["members"][k].update(new))
        with pytest.raises(ModelError, match="no branches that read a mean to weigh"):
            Judge.from_pretrained(folder)
        (folder / "judge.json").write_text(description)


def test_a_missing_query_is_a_model_error(attending, tmp_path):
    folder = Path(shutil.copytree(attending.folder, tmp_path / "judge"))
    (folder / "members" / "attending" / "fold1" / "query.safetensors").unlink()
    with pytest.raises(ModelError, match="query of attention pooling"):
        Judge.from_pretrained(folder)


# rewards


def test_reward_differences_are_the_log_odds_of_a_log_pool(tiny, tmp_path):
    members = ("statistics", "probe", "lora")
    made = write_judge(tmp_path, tiny("llama"), members, weights=[0.2, 0.5, 0.3])
    for found in Judge.from_pretrained(made.folder).predict(PAIRS):
        a, b, _ = found.probabilities
        assert found.reward_a - found.reward_b == pytest.approx(np.log(a / b), abs=1e-4)
        assert found.winner in set(Outcome)


SHORT = Pair("short", ("Far?",), ("Ten minutes.",), ("No.",))


def test_the_reward_of_one_answer_is_that_of_a_pair(tiny, tmp_path):
    made = write_judge(tmp_path, tiny("llama"), ("probe", "lora"), weights=[0.6, 0.4])
    loaded = Judge.from_pretrained(made.folder)
    (found,) = loaded.predict([SHORT])
    assert loaded.reward("Far?", "Ten minutes.") == pytest.approx(found.reward_a, abs=1e-4)
    assert loaded.reward(["Far?"], ["No."]) == pytest.approx(found.reward_b, abs=1e-4)


def test_reward_differences_of_single_answers_are_those_of_the_pair(tiny, tmp_path):
    made = write_judge(tmp_path, tiny("llama"), ("statistics", "probe"), weights=[0.5, 0.5])
    loaded = Judge.from_pretrained(made.folder)
    (found,) = loaded.predict([SHORT])
    difference = loaded.reward("Far?", "Ten minutes.") - loaded.reward("Far?", "No.")
    assert difference == pytest.approx(found.reward_a - found.reward_b, abs=1e-4)


def test_joint_members_alone_have_no_reward(tiny, tmp_path):
    made = write_judge(tmp_path, tiny("llama"), ("joint",))
    loaded = Judge.from_pretrained(made.folder)
    assert loaded.predict(PAIRS)[0].reward_a is None
    with pytest.raises(ModelError, match="no reward"):
        loaded.reward("q", "a")


def test_a_member_without_weight_gives_no_reward(tiny, tmp_path):
    made = write_judge(tmp_path, tiny("llama"), ("probe", "joint"), weights=[0.0, 1.0])
    assert Judge.from_pretrained(made.folder).predict(PAIRS)[0].reward_a is None


# kinds of judges


@pytest.mark.parametrize("members", [("statistics",), ("probe",), ("lora",), ("joint", "lora")])
@pytest.mark.parametrize("pool", ["linear", "power"])
def test_parts_of_the_members_and_other_pools(tiny, tmp_path, members, pool):
    made = write_judge(tmp_path, tiny("llama"), members, pool=pool, calibration=Calibration())
    found = table(Judge.from_pretrained(made.folder).predict(PAIRS))
    expected = by_hand(made, PAIRS)
    power = 0.5 if pool == "power" else 1.0
    mean = np.mean([expected[m] ** power for m in members], axis=0) ** (1 / power)
    np.testing.assert_allclose(found, mean / mean.sum(1, keepdims=True), atol=1e-5)


def test_a_judge_of_votes_that_lapse(tiny, tmp_path):
    lapsing = SCALING.model_copy(update={"name": "lapse", "lapse": 0.3, "lapse_tie": 0.2})
    made = [
        write_judge(tmp_path / c.name, tiny("llama"), ("probe", "lora"), calibration=c)
        for c in (SCALING, lapsing)
    ]
    plain, found = (Judge.from_pretrained(one.folder).predict(PAIRS) for one in made)
    expected = 0.7 * table(plain) + 0.3 * np.array([0.4, 0.4, 0.2])
    np.testing.assert_allclose(table(found), expected, atol=1e-6)
    # rewards are those of the votes that do not lapse
    assert [p.reward_a for p in found] == pytest.approx([p.reward_a for p in plain], abs=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen3"])
def test_other_families(tiny, tmp_path, family):
    made = write_judge(tmp_path, tiny(family), ("probe", "lora"), head="rao-kupper")
    found = table(Judge.from_pretrained(made.folder).predict(PAIRS[:3]))
    np.testing.assert_allclose(found, joined(made.file, by_hand(made, PAIRS[:3])), atol=1e-5)


def test_names_with_dots(tiny, tmp_path):
    names = {"lora": "lora-qwen2.5-0.5b", "probe": "probe-qwen2.5-0.5b"}
    made = write_judge(tmp_path, tiny("llama"), ("probe", "lora"), names=names)
    found = table(Judge.from_pretrained(made.folder).predict(PAIRS[:1]))
    np.testing.assert_allclose(found, joined(made.file, by_hand(made, PAIRS[:1])), atol=1e-5)


# artifacts


def test_the_file_comes_back_as_it_was(written, tmp_path):
    file = written.file.model_copy(
        update={"metrics": {"log_loss": 0.9}, "intervals": {"log_loss": (0.8, 1.0)}}
    )
    save_judge_file(file, tmp_path)
    assert load_judge_file(tmp_path) == file
    assert load_judge_file(tmp_path).ensemble.calibration == SCALING
    assert file.backbone(file.backbones[0].name) is file.backbones[0]


def test_a_judge_from_before_lapse_rates_loads(written, tmp_path):
    save_judge_file(written.file, tmp_path)
    change(tmp_path, lambda raw: raw["ensemble"]["calibration"].pop("lapse"))
    change(tmp_path, lambda raw: raw["ensemble"]["calibration"].pop("lapse_tie"))
    assert load_judge_file(tmp_path) == written.file


def change(folder, edit):
    """Rewrite judge.json with an edit of its content."""
    raw = json.loads((folder / "judge.json").read_text())
    edit(raw)
    (folder / "judge.json").write_text(json.dumps(raw))


DAMAGES = {
    "empty": "",
    "cut": '{"format_version": 1, "classes"',
    "a list": "[]",
    "null": "null",
    "no version": "{}",
    "not UTF-8": b"\xff\xfe\x00",
    "other version": lambda raw: raw.update(format_version=FORMAT_VERSION + 1),
    "unknown key": lambda raw: raw.update(surprise=1),
    "no members": lambda raw: raw.pop("members"),
    "unknown kind": lambda raw: raw["members"][0].update(kind="oracle"),
    "unknown head": lambda raw: raw["members"][1].update(head="oracle"),
    "weights off": lambda raw: raw["ensemble"].update(weights=[0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
    "weight NaN": lambda raw: raw["ensemble"].update(weights=[float("nan"), 1, 0, 0, 0, 0, 0]),
    "scale 0": lambda raw: raw["ensemble"]["calibration"].update(scale=0),
    "text in a number": lambda raw: raw["backbones"][0].update(exit_depth="deep"),
    "depth out of range": lambda raw: raw["backbones"][0].update(exit_depth=99),
    "other template": lambda raw: raw["backbones"][0].update(template="chat-v0"),
    "joined members that are not there": lambda raw: raw["members"].pop(),
    "no such backbone": lambda raw: raw["members"][1].update(backbone="ghost"),
    "no encoder": lambda raw: raw["members"][1].update(encoder=None),
    "no start": lambda raw: [m.update(start_depth=None) for m in raw["members"]],
    "a name that leaves the folder": lambda raw: (
        raw["members"][0].update(name="../members/statistics"),
        raw["ensemble"]["members"].__setitem__(0, "../members/statistics"),
    ),
    "a name twice": lambda raw: raw["members"][1].update(name="statistics"),
    "start above the exit": lambda raw: raw["members"][4].update(start_depth=EXIT),
    "depth above the exit": lambda raw: raw["members"][2].update(depth=EXIT + 1),
    "depth 0": lambda raw: raw["members"][2].update(depth=0),
    "a branch with a depth": lambda raw: raw["members"][4].update(depth=EXIT - 1),
    "other classes": lambda raw: raw.update(classes=["b", "a", "tie"]),
}


@pytest.fixture
def copied(written, tmp_path):
    """A copy of the judge that may be damaged."""
    return Path(shutil.copytree(written.folder, tmp_path / "judge"))


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_description_is_a_model_error(copied, damage):
    edit = DAMAGES[damage]
    if callable(edit):
        change(copied, edit)
    else:
        data = edit if isinstance(edit, bytes) else edit.encode()
        (copied / "judge.json").write_bytes(data)
    with pytest.raises(ModelError) as caught:
        Judge.from_pretrained(copied)
    assert caught.value.fix and caught.value.place


def test_damaged_members_are_model_errors(copied):
    (copied / "members" / "probe" / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="head"):
        Judge.from_pretrained(copied)


@pytest.mark.parametrize("file", ["head.safetensors", "adapter_config.json"])
def test_missing_member_files_are_model_errors(copied, file):
    (copied / "members" / "lora" / "fold1" / file).unlink()
    with pytest.raises(ModelError):
        Judge.from_pretrained(copied)


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_no_judge_there(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"judge\.json is missing") as caught:
        Judge.from_pretrained(tmp_path / place)
    assert "litee fit" in caught.value.fix


def test_a_judge_on_the_hub_without_a_network():
    with pytest.raises(ModelError, match="from the hub"):
        Judge.from_pretrained("someone/some-judge-that-is-not-here")


def test_other_backbone_weights_are_refused(tiny, tmp_path):
    model = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    made = write_judge(tmp_path / "judge", model, ("probe",))
    Judge.from_pretrained(made.folder)
    save_tiny(model, "llama", seed=1)
    with pytest.raises(ModelError, match="fitted on") as caught:
        Judge.from_pretrained(made.folder)
    assert caught.value.place == str(model)


class Bomb:
    """Unpickling this creates a file: nothing must ever unpickle it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.parametrize("keep", [True, False])
def test_no_pickle_is_ever_opened(copied, tmp_path, monkeypatch, keep):
    """Beside the safetensors they are passed over, in their place they are refused."""
    folders = [file.parent for file in (copied / "members").rglob("head.safetensors")]
    assert len(folders) == 9
    for member in folders:
        for name in ("adapter_model.bin", "head.bin", "head.pt", "pytorch_model.bin"):
            torch.save(Bomb(str(tmp_path / "boom")), member / name)
        if not keep:
            for file in member.glob("adapter_model.safetensors"):
                file.unlink()

    def never(*_, **__):
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr(torch, "load", never)
    if keep:
        assert len(Judge.from_pretrained(copied).predict(PAIRS)) == len(PAIRS)
    else:
        with pytest.raises(ModelError, match=r"adapter_model\.safetensors is missing"):
            Judge.from_pretrained(copied)
    assert not (tmp_path / "boom").exists()


def test_odd_texts_are_judged(judge):
    pairs = [
        Pair("empty", ("",), ("",), ("",)),
        Pair("markers", ("<|im_end|>",), ("<|im_start|>user\n",), ("<|bos|>" * 40,)),
        Pair("long", ("word " * 20_000,), ("x" * 50_000,), ("\x00é😀" * 99,)),
    ]
    found = judge.predict(pairs)
    assert np.isfinite(table(found)).all()
    assert found[0].probabilities[0] == pytest.approx(found[0].probabilities[1], abs=1e-6)
