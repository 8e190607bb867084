"""A short training is the same on any number of processes: 1 x 8 = 2 x 4 = 4 x 2 = 1 x 4 accumulated twice."""

import re

import pytest
import safetensors.torch
import torch

from tests.conftest import ROOT, run_python


def trained(small, folders, out, processes, batch, *flags):
    """The student after 6 updates of 8 images x 2 views.

    It is smooth: at a kink of ReLU or max-pooling it is rounding that decides between two gradients.
    """
    arguments = [
        *small, "--dataset", "", "--data-dir", folders, "--val-split", "", "--model", "resnet18", "--model-kwargs",
        "norm_layer=groupnorm1", "act_layer=silu", "replace_stem_pool=True", "layers=(1,1,1,1)", "channels=(8,16,16,32)", "stem_width=8", "-b", batch, "-j", 1,
        "--epochs", 1, "--lr", 0.02, "--output", out, "--experiment", "run", *flags,
    ]  # fmt: skip
    done = run_python([ROOT / "train.py", *arguments], processes)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"device +(\d+) x cpu", done.stdout)[1]) == processes
    return safetensors.torch.load_file(out / "run" / "last" / "model.safetensors")


@pytest.mark.parametrize(
    ("flags", "others"),
    [
        ([], [(2, 4, []), (4, 2, [])]),
        # statistics of accumulated batches are of each batch: the contrast is left out, and said to be
        (["--dccd-contrast-weight", 0], [(1, 4, ["--grad-accum-steps", 2])]),
    ],
    ids=["dccd", "accumulated"],
)
def test_a_training_does_not_depend_on_the_number_of_processes(flags, others, small, folders, tmp_path):
    one = trained(small, folders, tmp_path / "1x8", 1, 8, *flags)
    for processes, batch, more in others:
        other = trained(small, folders, tmp_path / f"{processes}x{batch}", processes, batch, *flags, *more)
        for name, weight in one.items():
            torch.testing.assert_close(other[name], weight, rtol=1e-5, atol=1e-5 * weight.abs().max().item(), msg=name)
