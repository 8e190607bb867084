"""Failures that are no bugs are one line with their fix."""

import errno

import pytest
import safetensors
import torch

from dccd_timm.data.patience import DataPatience
from dccd_timm.engine.meter import LossMeter
from dccd_timm.engine.nonfinite import UpdateGuard
from dccd_timm.errors import UserError
from dccd_timm.launch.failures import explain
from dccd_timm.recipe import load_recipe, load_validation


def test_out_of_memory_names_what_to_lower(tmp_path):
    recipe = load_recipe(["--dccd-views", "2", "--kd-model-name", "resnet18", "-b", "96"])
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    line = explain(caught.value, recipe, tmp_path)
    for word in (
        "out of memory",
        "96 images x 2 views",
        "--batch-size",
        "--dccd-views",
        "--amp",
        "--grad-checkpointing",
    ):
        assert word in line
    assert "GPU" in explain(torch.OutOfMemoryError("CUDA out of memory"), recipe, tmp_path)
    assert explain(RuntimeError("shapes do not match"), recipe, tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
        safetensors.SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
    ],
)
def test_a_full_disk_names_the_folder_and_how_to_resume(error, tmp_path):
    assert f"{tmp_path} cannot be written" in explain(error, load_recipe([]), tmp_path)
    assert "--resume" not in explain(error, load_recipe([]), tmp_path)  # nothing was saved yet
    (tmp_path / "state").mkdir()
    assert explain(error, load_recipe([]), tmp_path).endswith(f"then resume with --resume {tmp_path}")


def test_a_stuck_loader_names_the_data(tmp_path):
    recipe = load_recipe(["--data-dir", "/mnt/images", "--data-timeout", "30"])
    line = explain(RuntimeError("DataLoader timed out after 90 seconds"), recipe, tmp_path)
    assert "more than 30 s (--data-timeout)" in line and "/mnt/images" in line and "--resume" not in line
    (tmp_path / "control" / "state").mkdir(parents=True)
    line = explain(RuntimeError("DataLoader timed out after 90 seconds"), recipe, tmp_path)
    assert line.endswith(f"then resume with --resume {tmp_path}")


def test_what_a_run_can_go_on_after_names_its_folder_once_there_is_a_state(tmp_path):
    """Also what a loader worker reports, of which only the text arrives."""
    folder = tmp_path / "my run"
    folder.mkdir()
    with pytest.raises(UserError) as lost:
        DataPatience(0).give_up("shard 3", ConnectionError("cut"))
    guard = UpdateGuard("skip", torch.nn.Linear(1, 1), scaled=False)
    guard.parameters[0].grad = torch.tensor([[torch.nan]])
    meter = LossMeter(torch.device("cpu"), True)
    for update in range(9):
        assert not guard.may_update(meter, update)
    with pytest.raises(UserError) as broken:
        guard.may_update(meter, 9)
    for error in (lost.value, broken.value, UserError(str(lost.value))):
        for settings in (load_recipe([]), load_validation(["--model", "resnet18"])):
            assert explain(error, settings, folder).endswith(" start again")
    (folder / "state").mkdir()
    for error in (lost.value, broken.value):
        assert explain(error, load_recipe([]), folder).endswith(f" resume with --resume '{folder}'")
        assert explain(error, load_validation(["--model", "resnet18"]), folder).endswith(" start again")


def test_a_users_mistake_is_its_own_line_and_a_bug_is_none(tmp_path):
    assert explain(UserError("raise --epochs"), load_recipe([]), tmp_path) == "raise --epochs"
    assert explain(OSError(errno.ENOENT, "No such file"), load_recipe([]), tmp_path) is None
    assert explain(KeyError("name"), load_recipe([]), tmp_path) is None
