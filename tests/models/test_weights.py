"""Files that have no weights, or not all, are refused with what helps."""

import pytest
import safetensors.torch
import timm
import torch

from dccd_timm.errors import UserError
from dccd_timm.models.weights import check_weights, hash_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"


def test_whole_files_pass(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(9)}, tmp_path / "w.safetensors")
    torch.save({"w": torch.ones(9)}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        check_weights(tmp_path / name, name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: POINTER, "w is a pointer of Git LFS and has no weights: run `git lfs pull`"),
        (lambda whole: b"", "w is empty: copy or download it again"),
        (lambda whole: whole[:-5], "w is cut short or damaged: copy or download it again"),
        (lambda whole: whole[:20], "w is cut short or damaged"),
        (lambda whole: b"<html>not found</html>", "w is cut short or damaged"),
    ],
)
def test_others_are_refused(change, words, tmp_path):
    safetensors.torch.save_file({"w": torch.ones(9)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(change((tmp_path / "w.safetensors").read_bytes()))
    with pytest.raises(UserError, match=words) as caught:
        check_weights(tmp_path / "w.safetensors", "w")
    assert "\n" not in str(caught.value)


def test_a_file_of_torch_that_is_cut_short(tmp_path):
    torch.save({"w": torch.ones(99)}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-200])
    with pytest.raises(UserError, match="w is cut short: copy or download it again"):
        check_weights(tmp_path / "w.pth", "w")


def test_a_file_that_is_none_of_weights(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"hello, world")
    with pytest.raises(UserError, match="w is no file of weights"):
        check_weights(tmp_path / "w.pth", "w")
    torch.save({"w": torch.ones(9)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    check_weights(tmp_path / "w.pth", "w")  # as torch 1.5 wrote it


def test_a_pointer_in_place_of_a_pickle(tmp_path):
    (tmp_path / "w.pth").write_bytes(POINTER)
    with pytest.raises(UserError, match="pointer of Git LFS"):
        check_weights(tmp_path / "w.pth", "w")


def test_the_hash_of_weights_knows_every_value_and_no_place():
    first, same = (timm.create_model("test_resnet", num_classes=2) for _ in range(2))
    same.load_state_dict(first.state_dict())
    assert hash_weights(first) == hash_weights(same)
    same.get_buffer("bn1.running_mean")[0] += 1e-6
    assert hash_weights(first) != hash_weights(same)
    assert hash_weights(first.half()) != hash_weights(first.float())
