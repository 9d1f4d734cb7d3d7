"""LoRA branches: PEFT's own gradients and files, the probe as start, the same when resumed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from litee.config import FitSettings
from litee.encode.forest import EncodedPair, grow
from litee.errors import ModelError
from litee.finetune import adapters as adapters_module
from litee.finetune import branch as branch_module
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.attention_pooling import start_query
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.batches import make_batches
from litee.finetune.branch import Branch, Examples, Lesson, answers, train_together
from litee.finetune.heads import make_head
from litee.finetune.probe import PairStates, fit_probe, predict_head
from litee.finetune.states import PooledStore, TokenStore
from litee.finetune.trunk import lay_out, pooled
from tiny_models import FAMILIES, WINDOW, plain_states

START, EXIT = 1, 3
SETTINGS = FitSettings(
    lora_r=3,
    lora_alpha=6,
    lora_dropout=0.0,
    lora_layers=2,
    learning_rate=3e-3,
    batch_tokens=96,
    num_train_epochs=2,
    gradient_accumulation_steps=1,
    evaluations_per_epoch=2,
    patience=50,
)


def some_pairs(count=8, seed=0):
    """Pairs over a few prompts that share answers; some longer than the window."""
    rng = np.random.default_rng(seed)

    def ids(low, high):
        return tuple(rng.integers(4, 260, rng.integers(low, high)).tolist())

    pairs = []
    for _ in range((count + 2) // 3):
        prefix = ids(2, WINDOW + 4)
        answers = [ids(1, 2 * WINDOW) for _ in range(3)]
        for left, right in ((0, 1), (1, 2), (2, 0)):
            pairs.append(EncodedPair(prefix, answers[left], answers[right], (0, 0, 0)))
    return pairs[:count]


def some_votes(count, seed=1):
    rng = np.random.default_rng(seed)
    return Examples(
        np.arange(count), rng.dirichlet([1, 1, 1], size=count), rng.uniform(0.5, 2, count)
    )


class Setting:
    """A trunk with adapters, a forest and a token store in a folder."""

    def __init__(self, model, folder, *, options=SETTINGS, count=8, keep=True):
        self.backbone = load_backbone(find_backbone(str(model)), depth=EXIT)
        self.options = options
        self.forest = grow(some_pairs(count))
        self.examples = some_votes(count)
        self.adapters = Adapters(
            self.backbone.trunk, start=START, settings=options, backbone=str(model)
        )
        self.store = TokenStore(
            self.backbone.trunk,
            self.forest,
            depth=START,
            folder=folder / "tokens",
            cache_bytes=1 << 30 if keep else 0,
        )
        self.store.fill(title="test")

    def head(self, seed=0, *, pooling="last"):
        head = make_head("davidson", self.backbone.trunk.hidden_size * len(pooling.split("+")))
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.2)
        return head

    def branch(self, name="one", *, seed=0, head=None, pooling="last", shaken=False, attends=False):
        parameters = self.adapters.add(name, seed=seed)
        query = start_query(self.backbone.trunk.hidden_size) if attends else None
        if attends:
            parameters = parameters | {"query": query}
        if shaken:  # B is zero at the start, which would leave A without gradients
            rng = torch.Generator().manual_seed(seed + 50)
            with torch.no_grad():
                for parameter in parameters.values():
                    parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)
        head = head or self.head(pooling=pooling)
        return Branch(
            self.adapters, name, head=head, store=self.store, pooling=pooling, query=query
        )


@pytest.fixture
def made(tiny, tmp_path):
    return Setting(tiny("llama"), tmp_path)


def one_batch(forest, pairs):
    (batch,) = make_batches(forest, pairs, 10**6, np.random.default_rng(0))
    return batch


def loss_of(branch, batch, examples, smoothing=0.0, seed=None):
    (states,) = answers([branch], [batch.pack], None if seed is None else [seed])
    return branch.loss(states, batch, examples, smoothing)


def train_branch(branch, training, validation, *, settings, seed, checkpoint, title):
    lesson = Lesson(training, validation, seed)
    return train_together(
        [branch], [lesson], settings=settings, checkpoint=checkpoint, title=title
    )[0]


# gradients


def plain_peft(folder, branch):
    """Plain transformers and PEFT with the branch's weights under the same names."""
    decoder = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    linear = {
        name.rsplit(".", 1)[-1]
        for name, part in decoder.get_decoder().layers[0].named_modules()
        if isinstance(part, nn.Linear)
    }
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        lora_dropout=0.0,
        target_modules=sorted(linear),
        layers_to_transform=list(range(START, EXIT)),
        layers_pattern="layers",
    )
    peft = get_peft_model(decoder.get_decoder(), config, adapter_name=branch.name)
    names = dict(peft.named_parameters())
    for name, parameter in branch.adapters.parameters(branch.name).items():
        names[name].data.copy_(parameter.data)
    return decoder, {n: names[n] for n in branch.adapters.parameters(branch.name)}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    ("family", "pooling"), [*((f, "last") for f in sorted(FAMILIES)), ("gemma3", "last+mean")]
)
def test_gradients_equal_those_of_plain_sequences_through_plain_peft(
    tiny, tmp_path, family, pooling
):
    folder = tiny(family)
    made = Setting(folder, tmp_path, count=5)
    branch = made.branch(pooling=pooling, shaken=True)
    forest, examples = made.forest, made.examples
    loss, weight = loss_of(branch, one_batch(forest, examples.pairs), examples, 0.1)
    loss.backward()
    ours = {n: p.grad for n, p in made.adapters.parameters("one").items()}

    model, reference = plain_peft(folder, branch)
    branch.head.zero_grad()
    rows = []
    for prefix, ids in forest.leaves:
        states = plain_states(model, [*forest.prefixes[prefix], *ids])[EXIT][-len(ids) :]
        both = torch.stack([states[-1], states.mean(0)])
        rows.append(both[branch.columns].flatten())
    rows = torch.stack(rows)
    target = torch.from_numpy(examples.shares).float() * 0.9 + 0.1 / 3
    log_p = branch.head(rows[forest.left], rows[forest.right])
    weights = torch.from_numpy(examples.weights).float()
    plain = -((target * log_p).sum(-1) * weights).sum()
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert weight == pytest.approx(examples.weights.sum(), rel=1e-6)
    assert len(ours) == len(reference) >= 2 * 4 * (EXIT - START)
    for name, gradient in ours.items():
        expected = reference[name].grad
        scale = expected.abs().max()
        assert scale > 0, name
        assert (gradient - expected).abs().max() <= 2e-4 * scale, name


def test_only_the_layers_below_the_exit_are_adapted(made):
    names = made.adapters.add("one", seed=0)
    assert {int(n.split("layers.")[1].split(".")[0]) for n in names} == {1, 2}
    trainable = {n for n, p in made.adapters.model.named_parameters() if p.requires_grad}
    assert trainable == set(names)


def test_the_branch_is_a_function_of_its_seed_alone(tiny, tmp_path):
    found = []
    for number, seed in enumerate([1, 1, 2]):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        parameters = Setting(tiny("llama"), tmp_path / str(number)).adapters.add("x", seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(torch.cat([p.detach().flatten() for p in parameters.values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# predictions


@pytest.mark.parametrize(
    ("pooling", "attends"),
    [*((p, False) for p in ("last", "mean", "last+mean")), ("mean", True), ("last+mean", True)],
)
def test_before_the_first_step_it_is_its_probe(made, tmp_path, pooling, attends):
    columns = branch_module.POOLINGS[pooling]
    states = PooledStore(made.backbone, [EXIT], folder=tmp_path).compute(made.forest, title="t")
    flat = states[:, 0][:, list(columns)].reshape(len(states), -1)
    data = PairStates(flat, made.forest.left, made.forest.right)
    probe = fit_probe(data, made.examples.shares, made.examples.weights, ridge=5.0)
    branch = made.branch(head=probe, pooling=pooling, attends=attends)
    found = branch.log_probabilities(made.examples.pairs).exp().numpy()
    np.testing.assert_allclose(found, predict_head(probe, data), atol=1e-5)


def test_predictions_of_some_pairs_are_those_of_all(made):
    branch = made.branch(shaken=True)
    everything = branch.log_probabilities(np.arange(8))
    some = branch.log_probabilities(np.array([6, 1]))
    torch.testing.assert_close(some, everything[[6, 1]], atol=1e-5, rtol=1e-4)
    assert everything.shape == (8, 3)


def test_two_adapters_side_by_side_do_not_disturb_each_other(made):
    first = made.branch("one", seed=1, shaken=True)
    alone = first.log_probabilities(made.examples.pairs)
    second = made.branch("two", seed=2, shaken=True)
    other = second.log_probabilities(made.examples.pairs)
    assert (other - alone).abs().max() > 1e-3
    assert torch.equal(first.log_probabilities(made.examples.pairs), alone)
    loss, _ = loss_of(second, one_batch(made.forest, made.examples.pairs), made.examples)
    assert torch.equal(first.log_probabilities(made.examples.pairs), alone)
    loss.backward()
    grads = {n: p.grad for n, p in made.adapters.model.named_parameters() if p.grad is not None}
    assert grads and all(".two." in name for name in grads)
    made.adapters.drop("two")
    assert torch.equal(first.log_probabilities(made.examples.pairs), alone)


def test_without_segments_it_is_the_frozen_model(made):
    branch = made.branch(shaken=True)
    fresh = made.branch("fresh")  # B is zero: the frozen model
    expected = fresh.states(range(len(made.forest.leaves)))
    assert (branch.states(range(len(made.forest.leaves))) - expected).abs().max() > 1e-3
    pack = one_batch(made.forest, made.examples.pairs).pack
    trees = lay_out(made.forest, pack)
    with torch.inference_mode():
        top = made.backbone.trunk.run(
            trees, start=START, states=made.store.states(pack), depths=[EXIT]
        )
    found = pooled(top[EXIT], trees)[:, 0]
    torch.testing.assert_close(found, expected[list(trees.leaves)], atol=1e-5, rtol=1e-5)


# many branches in one pass


def three_branches(made):
    """Branches that differ in seed, rank and depth, and batches of their own."""
    given = ((1, None, None), (2, 5, None), (3, 2, START + 1))
    branches, batches = [], []
    for number, (seed, rank, start) in enumerate(given):
        name = f"b{number}"
        parameters = made.adapters.add(name, seed=seed, rank=rank, start=start)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)
        branches.append(
            Branch(made.adapters, name, head=made.head(seed), store=made.store, pooling="last")
        )
        batches.append(one_batch(made.forest, made.examples.pairs[number : number + 5]))
    return branches, batches


def test_ranks_and_depths_of_branches_are_their_own(made):
    three_branches(made)
    shapes = {
        name: {len(p) for n, p in made.adapters.parameters(name).items() if "lora_A" in n}
        for name in ("b0", "b1", "b2")
    }
    assert shapes == {"b0": {3}, "b1": {5}, "b2": {2}}
    layers = {n.split("layers.")[1][0] for n in made.adapters.parameters("b2")}
    assert layers == {str(START + 1)}
    with pytest.raises(ValueError, match="start 0 is not in 1 … 2"):
        made.adapters.add("low", seed=0, start=0)


def test_tokens_that_fill_a_pass_up_go_through_no_adapter(made):
    branches, _ = three_branches(made)
    segments = [Segment(b.name, 2) for b in branches]
    layer = next(m for m in made.adapters.model.modules() if isinstance(m, LoraLayer))
    x = torch.randn(1, 11, layer.in_features)
    with torch.inference_mode():
        with made.adapters.together(segments):
            found = layer(x)
            torch.testing.assert_close(found[:, :6], layer(x[:, :6]))
        plain = layer(x)
    torch.testing.assert_close(found[:, 6:], plain[:, 6:])
    assert (found[:, :6] - plain[:, :6]).abs().max() > 0


@pytest.mark.parametrize("seeds", [None, [7, 8, 9]])
def test_one_pass_gives_states_and_gradients_of_single_passes(tiny, tmp_path, seeds):
    options = SETTINGS.model_copy(update={"lora_dropout": 0.2})
    made = Setting(tiny("gemma3"), tmp_path, options=options)
    branches, batches = three_branches(made)

    def gradients():
        found = {}
        for branch in branches:
            for name, parameter in made.adapters.parameters(branch.name).items():
                found[name], parameter.grad = parameter.grad, None
        return found

    together = answers(branches, [b.pack for b in batches], seeds)
    sum(states.square().sum() for states in together).backward()
    joint = gradients()
    for number, (branch, batch) in enumerate(zip(branches, batches, strict=True)):
        (alone,) = answers([branch], [batch.pack], seeds and [seeds[number]])
        torch.testing.assert_close(together[number], alone, atol=1e-6, rtol=1e-6)
        alone.square().sum().backward()
    single = gradients()
    assert joint.keys() == single.keys()
    for name, gradient in single.items():
        scale = gradient.abs().max()
        assert scale > 0, name
        assert (joint[name] - gradient).abs().max() <= 2e-5 * scale, name


def test_every_branch_of_a_pass_pools_with_its_own_query(made):
    given = {"one": True, "two": False, "three": True}
    branches = [
        made.branch(name, seed=k, shaken=True, pooling="last+mean", attends=attends)
        for k, (name, attends) in enumerate(given.items())
    ]
    with torch.no_grad():
        branches[0].query.mul_(20)  # so that weights are far from equal
    batches = [one_batch(made.forest, made.examples.pairs[k : k + 5]) for k in range(3)]
    together = answers(branches, [batch.pack for batch in batches])
    sum(states.square().sum() for states in together).backward()
    joint = [None if b.query is None else b.query.grad for b in branches]
    for branch, batch, states, gradient in zip(branches, batches, together, joint, strict=True):
        query = branch.query
        branch.query = None if query is None else query.detach().requires_grad_()
        (alone,) = answers([branch], [batch.pack])
        torch.testing.assert_close(states, alone, atol=1e-5, rtol=1e-5)
        branch.adapters.model.zero_grad()
        alone.square().sum().backward()
        if query is not None:
            assert gradient.abs().max() > 0
            scale = float(gradient.abs().max())
            torch.testing.assert_close(gradient, branch.query.grad, atol=2e-5 * scale, rtol=1e-4)
            branch.query = None
            (plain,) = answers([branch], [batch.pack])
            assert (plain - states).abs().max() > 1e-2


def test_batched_products_are_those_one_by_one(made):
    made.branch("one", seed=1, shaken=True)
    made.branch("two", seed=2, shaken=True)
    layer = next(
        m for m in made.adapters.model.modules() if isinstance(m, adapters_module.LoraLayer)
    )
    x = torch.randn(1, 12, layer.in_features)
    for seed in (None, 4):
        plans = [
            adapters_module._Plan([Segment("one", 6, seed), Segment("two", 6, seed)], x.device)
            for _ in range(2)
        ]
        layer.lora_dropout["one"] = layer.lora_dropout["two"] = torch.nn.Dropout(0.3)
        one = adapters_module._one_by_one(layer, x, plans[0], layer.out_features)
        two = adapters_module._batched(layer, x, plans[1], layer.out_features)
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)
        assert (one[:, :6] - one[:, 6:]).abs().max() > 1e-3


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    x = torch.ones(1, 300, 333)
    generator = torch.Generator().manual_seed(0)
    kept, factor = adapters_module._dropped(x, torch.nn.Dropout(p), generator)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert (kept == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    assert factor == pytest.approx(1 / (1 - p))
    again, _ = adapters_module._dropped(x, torch.nn.Dropout(p), torch.Generator().manual_seed(0))
    assert torch.equal(kept, again)
    other, _ = adapters_module._dropped(x, torch.nn.Dropout(p), generator)
    assert not torch.equal(kept, other)


def test_branches_trained_together_end_as_each_alone(tiny, tmp_path):
    options = SETTINGS.model_copy(
        update={"lora_dropout": 0.2, "batch_tokens": 64, "num_train_epochs": 4, "patience": 3}
    )

    def lessons(made):
        rest = [np.arange(6), np.arange(8), np.array([0, 7])]
        own = made.examples
        return [
            Lesson(Examples(r, own.shares[r], own.weights[r]), own, seed)
            for seed, r in enumerate(rest)
        ]

    def learnt(made, names, folder, which):
        branches = [
            made.branch(n, seed=k, head=made.head(k)) for k, n in zip(which, names, strict=True)
        ]
        given = [lessons(made)[k] for k in which]
        histories = train_together(
            branches, given, settings=options, checkpoint=folder / "c", title="test"
        )
        return histories, [b.log_probabilities(made.examples.pairs) for b in branches]

    made = Setting(tiny("llama"), tmp_path / "all", options=options)
    together, predicted = learnt(made, ["one", "two", "three"], tmp_path / "all", [0, 1, 2])
    assert len({h.step for h in together}) > 1
    for number in range(3):
        folder = tmp_path / str(number)
        made = Setting(tiny("llama"), folder, options=options)
        (history,), (alone,) = learnt(made, ["one"], folder, [number])
        assert (history.step, history.best_step) == (
            together[number].step,
            together[number].best_step,
        )
        found = [loss for _, loss in together[number].validation]
        assert found == pytest.approx([loss for _, loss in history.validation], abs=1e-5)
        torch.testing.assert_close(predicted[number], alone, atol=1e-4, rtol=1e-4)


def test_out_of_time_keeps_the_best_state(tiny, tmp_path):
    options = SETTINGS.model_copy(update={"batch_tokens": 64, "num_train_epochs": 3})
    made = Setting(tiny("llama"), tmp_path, options=options)
    branches = [made.branch(name, seed=k) for k, name in enumerate(["one", "two"])]
    lessons = [Lesson(made.examples, made.examples, seed) for seed in (0, 1)]
    asked = []

    def late():
        asked.append(1)
        return len(asked) > 3

    histories = train_together(
        branches, lessons, settings=options, checkpoint=tmp_path / "c", title="t", out_of_time=late
    )
    assert [h.step for h in histories] == [3, 3]
    assert all(h.stopped == "the time is up" for h in histories)
    for branch, history in zip(branches, histories, strict=True):
        log_p = branch.log_probabilities(made.examples.pairs).numpy()
        losses = -(made.examples.shares * log_p).sum(1)
        found = np.average(losses, weights=made.examples.weights)
        assert found == pytest.approx(history.best_loss, abs=1e-6)
        assert history.best_loss == min(loss for _, loss in history.validation)


# files


def test_a_saved_adapter_gives_the_same_logits(made, tiny, tmp_path):
    branch = made.branch(shaken=True)
    expected = branch.log_probabilities(made.examples.pairs)
    made.adapters.save("one", tmp_path / "saved")
    other = Setting(tiny("llama"), tmp_path / "other")
    other.adapters.load("again", tmp_path / "saved")
    loaded = Branch(other.adapters, "again", head=branch.head, store=other.store, pooling="last")
    assert torch.equal(loaded.log_probabilities(made.examples.pairs), expected)
    # and a second one beside it
    other.adapters.load("twice", tmp_path / "saved")
    twin = Branch(other.adapters, "twice", head=branch.head, store=other.store, pooling="last")
    assert torch.equal(twin.log_probabilities(made.examples.pairs), expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_loads_a_saved_adapter_by_itself(made, tiny, tmp_path):
    branch = made.branch(shaken=True)
    found = branch.states(range(len(made.forest.leaves)))
    made.adapters.save("one", tmp_path / "saved")
    plain = AutoModel.from_pretrained(tiny("llama"), attn_implementation="eager")
    peft = PeftModel.from_pretrained(plain, str(tmp_path / "saved")).eval()
    lora = [n for n, p in peft.named_parameters() if "lora_B" in n and p.abs().max() > 0]
    assert len(lora) == 7 * (EXIT - START)
    states = []
    hook = plain.layers[EXIT - 1].register_forward_hook(lambda *x: states.append(x[2]))
    for leaf, (prefix, ids) in enumerate(made.forest.leaves):
        with torch.inference_mode():
            peft(input_ids=torch.tensor([[*made.forest.prefixes[prefix], *ids]]))
        last = states.pop()
        last = (last[0] if isinstance(last, tuple) else last)[0, -1]
        torch.testing.assert_close(last, found[leaf], atol=1e-4, rtol=1e-4)
    hook.remove()


def test_a_saved_adapter_holds_safetensors_and_json_only(made, tmp_path):
    made.branch(shaken=True)
    made.adapters.save("one", tmp_path / "saved")
    files = sorted(f.name for f in (tmp_path / "saved").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    tensors = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert all(".one." not in name for name in tensors)
    assert len(tensors) == 2 * 7 * (EXIT - START)


@pytest.mark.parametrize("damage", ["no weights", "pickle", "no config", "config", "cut", "shape"])
def test_a_damaged_adapter_is_a_model_error(made, tiny, tmp_path, damage):
    made.branch()
    folder = tmp_path / "saved"
    made.adapters.save("one", folder)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "pickle":
        torch.save(load_file(weights), folder / "adapter_model.bin")
        weights.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "config":
        config.write_text("{")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        config.write_text(config.read_text().replace('"r": 3', '"r": 5'))
    other = Setting(tiny("llama"), tmp_path / "other")
    with pytest.raises(ModelError):
        other.adapters.load("again", folder)


# training


def digest(made, name):
    parameters = made.adapters.parameters(name)
    data = b"".join(p.detach().numpy().tobytes() for _, p in sorted(parameters.items()))
    return hashlib.sha256(data).hexdigest()


def test_the_query_moves_at_the_rate_of_the_adapter(tiny, tmp_path):
    options = SETTINGS.model_copy(
        update={"learning_rate": 1e-3, "weight_decay": 0.03, "warmup_ratio": 0.0}
    )
    made = Setting(tiny("llama"), tmp_path, options=options)
    branch = made.branch(pooling="mean", attends=True)
    lesson = Lesson(made.examples, made.examples, 0)
    loop = branch_module._loop(branch, lesson, settings=options, checkpoint=tmp_path / "c")
    groups = {id(p): g for g in loop.optimiser.param_groups for p in g["params"]}
    found = {
        (groups[id(p)]["peak"], groups[id(p)]["weight_decay"]) for p in loop.parameters.values()
    }
    assert found == {(1e-3, 0.03)} and loop.parameters["query"] is branch.query
    (batch, _), *_ = loop.step_batches()
    loss, weight = loss_of(branch, batch, made.examples)
    loss.backward()
    assert branch.query.grad.abs().min() > 0
    loop.finish_step(float(loss.detach()), weight)
    torch.testing.assert_close(
        branch.query.detach().abs(), torch.full((32,), 1e-3), rtol=0.05, atol=0
    )


def train(made, folder, *, name="one", seed=3, head=None, **given):
    branch = made.branch(name, seed=seed, head=head, **given)
    part = Examples(np.arange(6), made.examples.shares[:6], made.examples.weights[:6])
    history = train_branch(
        branch,
        part,
        made.examples,
        settings=made.options,
        seed=seed,
        checkpoint=folder / "branch.checkpoint",
        title="test",
    )
    return branch, history


def test_training_lowers_the_training_loss(tiny, tmp_path):
    options = SETTINGS.model_copy(update={"num_train_epochs": 15, "learning_rate": 1e-2})
    made = Setting(tiny("llama"), tmp_path, options=options)
    branch = made.branch(seed=3)
    votes = Examples(np.arange(8), np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]], np.ones(8))
    history = train_branch(
        branch, votes, votes, settings=options, seed=3, checkpoint=tmp_path / "c", title="test"
    )
    assert history.best_loss < history.validation[0][1] - 0.3
    log_p = branch.log_probabilities(votes.pairs).numpy()
    assert -(votes.shares * log_p).sum(1).mean() == pytest.approx(history.best_loss, abs=1e-5)


@pytest.mark.parametrize(("dropout", "attends"), [(0.0, False), (0.3, False), (0.3, True)])
@pytest.mark.parametrize("kill_at", [0, 3, 5])
def test_killed_and_resumed_ends_in_the_same_bytes(
    tiny, tmp_path, monkeypatch, kill_at, dropout, attends
):
    class Killed(BaseException):
        pass

    options = SETTINGS.model_copy(
        update={"lora_dropout": dropout, "batch_tokens": 64, "num_train_epochs": 4}
    )
    given = {"pooling": "last+mean", "attends": True} if attends else {}
    whole = Setting(tiny("llama"), tmp_path / "whole", options=options)
    first, expected = train(whole, tmp_path / "whole", **given)
    assert expected.step > kill_at + 1
    assert expected.best_step > 1

    cut = Setting(tiny("llama"), tmp_path / "cut", options=options)
    losses = []
    plain = Branch.loss

    def dying(self, *given):
        if len(losses) == kill_at:
            raise Killed
        losses.append(1)
        return plain(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Branch, "loss", dying)
        with pytest.raises(Killed):
            train(cut, tmp_path / "cut", **given)
    torch.manual_seed(12345)
    again = Setting(tiny("llama"), tmp_path / "cut", options=options)
    assert again.store.tokens_run == 0
    second, found = train(again, tmp_path / "cut", **given)
    assert found == expected
    assert digest(again, "one") == digest(whole, "one")
    if attends:
        assert torch.equal(second.query, first.query) and first.query.abs().max() > 0


def test_dropout_works_while_training_and_not_while_judging(tiny, tmp_path):
    options = SETTINGS.model_copy(update={"lora_dropout": 0.5})
    made = Setting(tiny("llama"), tmp_path, options=options)
    branch = made.branch(shaken=True)
    batch = one_batch(made.forest, made.examples.pairs)
    losses = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # it draws from its own seed alone
        losses.append(loss_of(branch, batch, made.examples, seed=seed)[0].item())
    assert losses[0] == losses[1] != losses[2]
    first = branch.log_probabilities(made.examples.pairs)
    assert torch.equal(first, branch.log_probabilities(made.examples.pairs))


def test_a_branch_trains_the_same_without_a_kept_store(tiny, tmp_path):
    results = []
    for keep in (True, False):
        made = Setting(tiny("llama"), tmp_path / str(keep), keep=keep)
        branch, history = train(made, tmp_path / str(keep))
        results.append((history, branch.log_probabilities(made.examples.pairs)))
    assert results[0][0].step == results[1][0].step
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-3, rtol=1e-3)


def test_frozen_layers_have_no_dropout_when_they_are_run_again(tiny, tmp_path):
    """Backbones with attention dropout: the states below the branch must stay what they are."""
    from tiny_models import save_tiny

    folder = save_tiny(tmp_path / "model", "llama", attention_dropout=0.5)
    made = Setting(folder, tmp_path, keep=False)
    branch = made.branch()
    batch = one_batch(made.forest, made.examples.pairs)
    expected = made.store.states(batch.pack)
    loss_of(branch, batch, made.examples, seed=1)
    assert torch.equal(made.store.states(batch.pack), expected)


def test_a_held_head_stays_and_a_free_one_moves(tiny, tmp_path):
    for rate, moves in ((0.0, False), (1e-2, True)):
        options = SETTINGS.model_copy(update={"head_learning_rate": rate})
        made = Setting(tiny("llama"), tmp_path / str(rate), options=options)
        before = {n: p.clone() for n, p in made.head().state_dict().items()}
        # validation on the training pairs, so that the best state is a later one
        branch = made.branch(seed=3)
        train_branch(
            branch,
            made.examples,
            made.examples,
            settings=options,
            seed=3,
            checkpoint=tmp_path / str(rate) / "c",
            title="test",
        )
        after = branch.head.state_dict()
        assert torch.equal(before["mean"], after["mean"])
        assert torch.equal(before["reward_weight"], after["reward_weight"]) != moves


def test_the_head_has_its_own_rate(tiny, tmp_path):
    options = SETTINGS.model_copy(update={"head_learning_rate": 1e-12, "weight_decay": 0.0})
    made = Setting(tiny("llama"), tmp_path, options=options)
    before = made.head().reward_weight.detach().clone()
    branch = made.branch(seed=3)
    train_branch(
        branch,
        made.examples,
        made.examples,
        settings=options,
        seed=3,
        checkpoint=tmp_path / "c",
        title="test",
    )
    torch.testing.assert_close(branch.head.reward_weight.detach(), before, atol=1e-6, rtol=0)


# batches


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 200), st.integers(0, 1000), st.data())
def test_batches_cover_every_pair_once_within_their_size(count, most, seed, data):
    forest = grow(some_pairs(count, seed))
    pairs = np.array(data.draw(st.permutations(range(count)))[: max(1, count // 2)])
    batches = make_batches(forest, pairs, most, np.random.default_rng(seed))
    rows = [row for batch in batches for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(len(pairs)))
    for batch in batches:
        leaves = [leaf for _, held in batch.pack.groups for leaf in held]
        assert len(set(leaves)) == len(leaves)
        own = pairs[batch.rows]
        assert set(leaves) == {*forest.left[own].tolist(), *forest.right[own].tolist()}
        tokens = sum(len(forest.leaves[leaf][1]) for leaf in leaves)
        tokens += sum(len(forest.prefixes[prefix]) for prefix, _ in batch.pack.groups)
        assert batch.pack.tokens == tokens
        assert tokens <= most or len(batch.rows) == 1
        for prefix, held in batch.pack.groups:
            assert all(forest.leaves[leaf][0] == prefix for leaf in held)


def test_batches_depend_on_the_generator_alone():
    forest = grow(some_pairs(24))

    def order(seed):
        batches = make_batches(forest, np.arange(24), 80, np.random.default_rng(seed))
        return [batch.rows.tolist() for batch in batches]

    assert order(1) == order(1) != order(2)


def test_pairs_of_a_prompt_share_a_batch():
    forest = grow(some_pairs(24))
    (batch,) = make_batches(forest, np.arange(24), 10**6, np.random.default_rng(0))
    assert batch.pack.tokens == forest.tokens < forest.plain_tokens / 2
