"""`hf://` paths: a faked hub, a faked failure, no network."""

import sys
from types import SimpleNamespace

import pytest

from litee.collect.hub import choose_files, fetch
from litee.collect.votes import load_votes
from litee.errors import InputError


def fake_hub(monkeypatch, files, path=None):
    def download(repo, name, repo_type):
        assert (repo, repo_type) == ("owner/name", "dataset")
        return str(path)

    hub = SimpleNamespace(
        list_repo_files=lambda repo, repo_type: files,
        hf_hub_download=download,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_a_split_is_downloaded_and_read(monkeypatch, write, row):
    fake_hub(
        monkeypatch, ["README.md", "data/human-00.jsonl", "data/gpt4-00.jsonl"], write([row()])
    )
    assert len(load_votes(["hf://owner/name:human"]).votes) == 1


def test_no_network_is_an_input_error_with_a_fix(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("Temporary failure in name resolution\nmore")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(list_repo_files=fail))
    with pytest.raises(InputError, match="Temporary failure in name resolution") as caught:
        load_votes(["hf://owner/name"])
    assert "https://huggingface.co/datasets/owner/name" in caught.value.fix
    assert "more" not in str(caught.value)


def test_the_hub_library_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="not installed"):
        fetch("hf://owner/name")


@pytest.mark.parametrize("path", ["hf://name", "hf://a/b/c", "hf://a/b:", "hf:///b"])
def test_malformed_names(path):
    with pytest.raises(InputError, match="not a hub data set"):
        fetch(path)


def test_choice_of_files():
    names = ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet", "x.md"]
    assert choose_files(names, None, "hf://o/n") == (names[1], names[0])
    with pytest.raises(InputError, match="several splits") as caught:
        choose_files([*names, "data/test-0.parquet"], None, "hf://o/n")
    assert "hf://o/n:test" in caught.value.fix
    with pytest.raises(InputError, match="no file of split 'dev'"):
        choose_files(names, "dev", "hf://o/n")
    with pytest.raises(InputError, match="no readable file"):
        choose_files(["README.md"], None, "hf://o/n")
