"""Bad backbones, judges and folders at the entry point: one message, never a traceback."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done, digests, litee, vote_rows, write, write_rows

ROWS = vote_rows()


def test_more_tokens_than_the_backbone_has_positions(fit, votes):
    done = fit(votes, "--max-tokens", 500)
    done.refused_later(2, "max_tokens = 500 and 20 template tokens", "512", "--max-tokens 492")


def test_the_largest_budget_that_is_named_fits(fit, votes, quick):
    assert fit(votes, "--max-tokens", 492, "--members", "probe").code == 0


def test_more_lora_layers_than_the_depth_found(fit, votes, quick):
    done = fit(votes, "--lora-layers", 9)
    done.refused_later(2, "lora_layers = 9 is more than the exit depth 4", "--lora-layers 4")


def test_a_depth_that_the_backbone_has_not(fit, votes):
    fit(votes, "--depth", 99).refused_later(4, "exit depth 99 is not in 1 … 4", "--depth auto")


def test_backbones_that_differ_in_signs_only(fit, votes, backbone):
    done = fit(votes, "--backbone", f"{backbone}/")
    done.refused_later(2, "two backbones are called", "rename")


@pytest.mark.parametrize("name", ["nothing", "no/body", "nothing.gguf"])
def test_unknown_backbones(votes, config, tmp_path, name):
    base = ("--out", tmp_path / "out", "--config", config)
    litee("fit", votes, *base, "--backbone", name).refused_later(4, name)


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _shorten(name: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        os.truncate(folder / name, (folder / name).stat().st_size - 20)

    return work


def _overwrite(name: str, content: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / name).write_text(content)

    return work


def _remove(name: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / name).unlink()

    return work


BAD_BACKBONES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickles only": (_pickle_only, "only pickled weights (pytorch_model.bin)"),
    "half the weights": (_shorten("model.safetensors"), "cannot load"),
    "no weights": (_remove("model.safetensors"), "no *.safetensors in the folder"),
    "no config": (_remove("config.json"), "no config.json in the folder"),
    "broken config": (_overwrite("config.json", "{"), "cannot load"),
    "unknown architecture": (_overwrite("config.json", '{"model_type": "abacus"}'), "cannot load"),
    "broken tokenizer": (_overwrite("tokenizer.json", "{}"), "cannot load"),
}


@pytest.mark.parametrize("case", BAD_BACKBONES)
def test_backbone_folders_that_cannot_be_used(votes, config, backbone, tmp_path, case):
    damage, said = BAD_BACKBONES[case]
    copy = Path(shutil.copytree(backbone, tmp_path / "backbone"))
    damage(copy)
    base = ("--out", tmp_path / "out", "--config", config, "--backbone", copy)
    litee("fit", votes, *base, "--members", "probe").refused_later(4, str(copy), said)


def test_a_damaged_gguf_file(votes, config, tmp_path):
    file = write(tmp_path / "model.gguf", b"GGUFrubbish")
    base = ("--out", tmp_path / "out", "--config", config, "--backbone", file)
    litee("fit", votes, *base, "--members", "probe").refused_later(4, str(file), "GGUF")


def _edit(*path: object, to: object) -> Callable[[Path], None]:
    """Change one value of judge.json."""

    def work(folder: Path) -> None:
        file = folder / "judge.json"
        content = json.loads(file.read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        file.write_text(json.dumps(content))

    return work


def _member(kind: str, work: Callable[[str], Callable[[Path], None]], file: str):
    """Damage a file of the only member whose folder starts with `kind`."""

    def damage(folder: Path) -> None:
        (found,) = (folder / "members").glob(f"{kind}*")
        work(f"members/{found.name}/{file}")(folder)

    return damage


BAD_JUDGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no judge.json": (_remove("judge.json"), "judge.json is missing"),
    "half of judge.json": (_shorten("judge.json"), "judge.json: damaged"),
    "a list": (_overwrite("judge.json", "[]"), "judge.json: damaged"),
    "a newer format": (_edit("format_version", to=99), "format version 99"),
    "other classes": (_edit("classes", to=["b", "a", "tie"]), "classes are"),
    "unknown key": (_edit("colour", to="red"), "colour"),
    "weights that do not sum to 1": (_edit("ensemble", "weights", 0, to=7.0), "sum to 1"),
    "unknown member": (_edit("ensemble", "members", 0, to="nobody"), "not those listed"),
    "no members": (_edit("members", to=[]), "not those listed"),
    "a name out of the folder": (_edit("members", 0, "name", to="../x"), "damaged"),
    "no backbone": (_edit("backbones", to=[]), "no backbone"),
    "another template": (_edit("backbones", 0, "template", to="chat-v99"), "template chat-v99"),
    "LoRA above the exit": (_edit("members", 2, "start_depth", to=50), "below its exit depth"),
    "no head": (_member("statistics", _remove, "head.safetensors"), "cannot read the head"),
    "half a head": (_member("probe", _shorten, "head.safetensors"), "cannot read the head"),
    "no adapter": (_member("lora", _remove, "fold1/adapter_model.safetensors"), "is missing"),
    "half an adapter": (_member("lora", _shorten, "fold0/adapter_model.safetensors"), "adapter"),
    "no adapter config": (_member("lora", _remove, "fold0/adapter_config.json"), "is missing"),
}


@pytest.mark.parametrize("case", BAD_JUDGES)
def test_judges_that_are_damaged(judge, votes, tmp_path, case):
    damage, said = BAD_JUDGES[case]
    copy = Path(shutil.copytree(judge[0], tmp_path / "judge"))
    damage(copy)
    done = litee("predict", copy, votes, "-o", tmp_path / "p.csv")
    done.refused(4, said)
    assert not (tmp_path / "p.csv").exists()
    assert litee("evaluate", copy, votes).err == done.err


def test_a_head_of_another_member(judge, votes, tmp_path):
    copy = Path(shutil.copytree(judge[0], tmp_path / "judge"))
    (probe,) = (copy / "members").glob("probe*")
    shutil.copy(probe / "head.safetensors", copy / "members" / "statistics")
    done = litee("predict", copy, votes, "-o", tmp_path / "p.csv")
    done.refused(4, "numbers per answer", "do not belong together")


def test_a_judge_that_is_not_there(votes, tmp_path):
    for name in (tmp_path / "none", "no/body"):
        litee("predict", name, votes, "-o", tmp_path / "p.csv").refused(4, str(name))


def test_a_judge_whose_backbone_has_changed_or_gone(votes, config, backbone, tmp_path, quick):
    copy = Path(shutil.copytree(backbone, tmp_path / "backbone"))
    base = ("--config", config, "--backbone", copy, "--members", "probe")
    assert litee("fit", votes, "--out", tmp_path / "judge", *base).code == 0
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(content | {"rms_norm_eps": 0.5}))
    predict = ("predict", tmp_path / "judge", votes, "-o", tmp_path / "p.csv")
    litee(*predict).refused(4, str(copy), "sha256", "the same revision")
    shutil.rmtree(copy)
    litee(*predict).refused(4, str(copy))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("predict", "{judge}", "{votes}", "-o", "p.txt"), 2, "cannot write .txt"),
        (("predict", "{judge}", "none.csv", "-o", "p.csv"), 3, "none.csv: no such file"),
        (("predict", "{judge}", "null.jsonl", "-o", "p.csv"), 3, "null.jsonl, row 2: null resp"),
        (("evaluate", "{judge}", "{votes}", "--report", "r.pdf"), 2, "name a .html file"),
        (("evaluate", "{judge}", "none.csv"), 3, "none.csv: no such file"),
    ],
)
def test_bad_arguments_of_predict_and_evaluate(
    judge, votes, tmp_path, monkeypatch, arguments, code, said
):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "null.jsonl", [ROWS[0], ROWS[1] | {"response_a": None}])
    given = [part.format(judge=judge[0], votes=votes) for part in arguments]
    litee(*given).refused(code, said)
    assert [file.name for file in tmp_path.iterdir()] == ["null.jsonl"]


def test_out_is_a_file_or_holds_something_else(fit, votes, tmp_path):
    (tmp_path / "out").write_text("mine")
    fit(votes).refused_later(2, "out: not a folder", "choose a new --out")
    (tmp_path / "out").unlink()
    write(tmp_path / "out.txt", "mine").rename(tmp_path / "mine.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.txt").rename(tmp_path / "out" / "mine.txt")
    fit(votes).refused_later(2, "the folder is not empty and holds no run", "choose a new --out")
    assert set(digests(tmp_path / "out")) == {"mine.txt"}


def test_a_run_of_before_heads_read_lengths_is_not_gone_on_with(fit, votes, tmp_path):
    assert fit(votes).code == 0
    file = tmp_path / "out" / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["settings"].pop("answer_length") is True
    file.write_text(json.dumps(manifest))
    fit(votes, "--resume").refused_later(2, "answer_length: False → True", "choose a new --out")


def test_a_damaged_manifest(fit, votes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{")
    fit(votes, "--resume").refused_later(2, "manifest.json: damaged", "choose a new --out")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("limit", "members", "file"),
    [
        (100, "statistics", "manifest.json"),
        (5_000, "probe", ".safetensors"),
        (100_000, "probe,lora", "tokens.bin"),
    ],
)
def test_no_room_for_a_file(fit, votes, tmp_path, monkeypatch, limit, members, file):
    """A limit on the size of files stands in for the full disk: the first write beyond it fails."""
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    pipe, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            done = fit(votes, "--members", members)
            os.write(into, json.dumps([done.code, done.out, done.err]).encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    with os.fdopen(pipe) as handle:
        done = Done(*json.loads(handle.read()))
    done.refused_later(5, file, "cannot write: File too large", "check that the folder")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("how", ["as the operating system says it", "as safetensors says it"])
def test_a_full_disk_then_more_room(fit, votes, tmp_path, monkeypatch, quick, how):
    from safetensors import SafetensorError

    import litee.finetune.members as members

    def full(*_: object, **__: object) -> None:
        if how.startswith("as safetensors"):
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(members, "save_file", full)
        done = fit(votes, "--members", "statistics")
    done.refused_later(5, "statistics.safetensors", "no space left on the disk", "--resume")
    assert fit(votes, "--members", "statistics", "--resume").code == 0


def test_a_cache_that_was_damaged_is_computed_again(fit, votes, tmp_path, monkeypatch, quick):
    monkeypatch.setenv("LITEE_CACHE", str(tmp_path / "cache"))
    assert fit(votes, "--members", "probe").code == 0
    whole = digests(tmp_path / "out" / "members")
    shutil.rmtree(tmp_path / "out")
    shards = list((tmp_path / "cache" / "states").rglob("*.safetensors"))
    for shard in shards:
        os.truncate(shard, shard.stat().st_size // 2)
    assert fit(votes, "--members", "probe").code == 0
    assert digests(tmp_path / "out" / "members") == whole
    assert len(shards) >= 1
