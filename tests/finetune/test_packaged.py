"""Backbones in PyPI packages: parts put together, the wrong ones refused."""

import hashlib

import pytest

from litee.errors import ModelError
from litee.finetune.backbones import find_backbone
from litee.finetune.packaged import PACKAGED, Packaged, packaged_file

WHOLE = b"GGUF, in three parts"
PARTS = (WHOLE[:7], WHOLE[7:11], WHOLE[11:])
SHA256 = hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three packages with a part each, whose code must not run."""
    for n, part in enumerate(PARTS):
        folder = tmp_path / "site" / f"ghost_part{n}"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise AssertionError('this code must not run')\n")
        (folder / "data" / f"{n}.bin").write_bytes(part)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def ghost(monkeypatch, parts=(0, 1, 2), sha256=SHA256):
    files = tuple((f"ghost_part{n}", f"data/{n}.bin") for n in parts)
    monkeypatch.setitem(PACKAGED, "ghost", Packaged(files, sha256, "pip install ghost"))


def test_parts_make_up_the_file_once(packages, monkeypatch, tmp_path):
    ghost(monkeypatch)
    found = packaged_file("ghost", tmp_path / "downloads")
    assert found.read_bytes() == WHOLE
    (packages / "ghost_part0" / "data" / "0.bin").unlink()  # not read again
    assert packaged_file("ghost", tmp_path / "downloads") == found


def test_a_damaged_whole_is_put_together_again(packages, monkeypatch, tmp_path):
    ghost(monkeypatch)
    found = packaged_file("ghost", tmp_path)
    found.write_bytes(WHOLE[:-1])
    assert packaged_file("ghost", tmp_path).read_bytes() == WHOLE


def test_a_single_part_stays_where_it_is(packages, monkeypatch, tmp_path):
    ghost(monkeypatch, parts=(1,), sha256=hashlib.sha256(PARTS[1]).hexdigest())
    assert packaged_file("ghost", tmp_path / "none") == packages / "ghost_part1" / "data" / "1.bin"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("parts", [(0, 2, 1), (0, 1), (0,)])
def test_other_files_than_ours_are_refused(parts, packages, monkeypatch, tmp_path):
    ghost(monkeypatch, parts=parts)
    with pytest.raises(ModelError, match="not those of the version") as caught:
        packaged_file("ghost", tmp_path)
    assert caught.value.fix == "pip install ghost --force-reinstall"
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("parts", [(0, 1, 2), (1,)])
def test_a_part_that_was_deleted_is_noticed(parts, packages, monkeypatch, tmp_path):
    ghost(monkeypatch, parts=parts)
    (packages / "ghost_part1" / "data" / "1.bin").unlink()
    with pytest.raises(ModelError, match="not those of the version"):
        packaged_file("ghost", tmp_path)


def test_packages_that_are_not_installed(monkeypatch):
    ghost(monkeypatch)
    with pytest.raises(ModelError, match="not installed") as caught:
        find_backbone("ghost")
    assert caught.value.fix == "pip install ghost"


def test_a_damaged_model_of_the_right_bytes_is_a_model_error(packages, monkeypatch):
    ghost(monkeypatch)
    with pytest.raises(ModelError, match="cannot read the GGUF file"):
        find_backbone("ghost")


def test_all_packaged_backbones_are_told_apart():
    assert len({one.sha256 for one in PACKAGED.values()}) == len(PACKAGED)
    for one in PACKAGED.values():
        assert len(bytes.fromhex(one.sha256)) == 32
        assert one.install.startswith("pip install ")
