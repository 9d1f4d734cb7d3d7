"""One frozen member per depth, from one pass of the backbone; LoRA at the deepest."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import SETTINGS, judge_bytes, litee, write_yaml

from litee.finetune.states import PooledStore
from litee.predict.artifact import load_judge_file
from litee.predict.backbone_fit import slug


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    values = SETTINGS | {"members": ["probe", "lora"], "num_train_epochs": 1}
    return write_yaml(tmp_path_factory.mktemp("depths") / "depths.yaml", values)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, settings, votes, backbone):
    """A judge of three depths, checked in a fresh process."""
    out = tmp_path_factory.mktemp("depths") / "judge"
    more = ("--config", settings, "--backbone", backbone, "--depth", "4,1,2")
    return out, litee("fit", votes, "--out", out, *more), more


def test_a_member_per_depth_and_branches_at_the_deepest(fitted, backbone):
    out, done, _ = fitted
    assert done.code == 0, done.err
    name, file = slug(str(backbone)), load_judge_file(out)
    assert [(m.name, m.depth, m.start_depth) for m in file.members] == [
        (f"probe-depth1-{name}", 1, None),
        (f"probe-depth2-{name}", 2, None),
        (f"probe-{name}", None, None),
        (f"lora-{name}", None, 3),
    ]
    assert file.backbones[0].exit_depth == 4
    assert "probe-depth1" in done.out and "probe-depth2" in done.out


def test_members_are_those_of_fits_at_one_depth_and_the_backbone_runs_once(
    settings, votes, backbone, tmp_path, quick
):
    name, head, made = slug(str(backbone)), "head.safetensors", {}
    for depth in ("1,2,4", "2", "4"):
        out = made[depth] = tmp_path / depth
        more = ("--config", settings, "--members", "probe", "--depth", depth)
        done = litee("fit", votes, "--out", out, "--backbone", backbone, *more)
        assert done.code == 0, done.err
    ours = made["1,2,4"] / "members"
    for depth, member in (("2", f"probe-depth2-{name}"), ("4", f"probe-{name}")):
        alone = made[depth] / "members" / f"probe-{name}" / head
        assert (ours / member / head).read_bytes() == alone.read_bytes()
    tokens = {
        d: json.loads((out / "receipt.json").read_text())["tokens"] for d, out in made.items()
    }
    assert tokens["1,2,4"] == tokens["4"] > 0


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Every fit runs its backbone, whatever an earlier one has kept."""
    monkeypatch.setattr(PooledStore, "_shards", lambda _: iter(()))


def test_a_resumed_judge_says_the_same(fitted, votes, tmp_path, quick):
    out, _, more = fitted
    again = shutil.copytree(out, tmp_path / "again")
    name = "probe-depth2-*"
    for file in (*again.glob(f"stages/member-{name}"), *again.glob(f"members/{name}/head.*")):
        file.unlink()
    assert judge_bytes(again) != judge_bytes(out)
    done = litee("fit", votes, "--out", again, *more, "--resume")
    assert done.code == 0, done.err
    assert judge_bytes(again) == judge_bytes(out)
    tables = []
    for folder in (out, again):
        table = tmp_path / "table.csv"
        assert litee("predict", folder, votes, "--out", table).code == 0
        tables.append(table.read_text())
        table.unlink()
    assert tables[0] == tables[1]
