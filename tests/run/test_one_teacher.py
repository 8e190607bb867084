"""While a student trains there is one copy of its teacher, whatever the method."""

import gc

import pytest
import timm
import torch
from torch import nn

from dccd_timm.data.sources import open_split
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.models.cost import gmacs
from dccd_timm.recipe import load_recipe
from dccd_timm.run.pieces import Splits, build_training

WIDEST = (512, 512, 3, 3)  # one convolution of the teacher, and none of the student


def tensors_of(shape):
    gc.collect()
    found = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and x.shape == shape]
    return {x.untyped_storage().data_ptr() for x in found}


@pytest.mark.parametrize("method", ["dccd", "logit", "feature", "token"])
def test_one_copy_of_the_teacher(method, parquet, tmp_path, fresh_accelerator):
    before = tensors_of(WIDEST)
    torch.manual_seed(0)
    teacher = timm.create_model("cifar_vgg8", num_classes=3)
    num_parameters, cost = sum(p.numel() for p in teacher.parameters()), gmacs(teacher, (3, 32, 32))
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    del teacher
    student = "deit_tiny_distilled_patch16_224" if method == "token" else "cifar_resnet8"
    sized = ["--model-kwargs", "img_size=32", "patch_size=8", "depth=1"] if method == "token" else []
    recipe = load_recipe([
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", student, *sized, "--img-size", "32",
        "--kd-model-name", "cifar_vgg8", "--kd-teacher-checkpoint", str(tmp_path / "teacher.pth"),
        "--kd-distill-type", method, "-b", "4", "-j", "0", "--device", "cpu",
    ])  # fmt: skip
    accelerator = start_accelerator(recipe)
    splits = Splits(open_split(recipe, "train", True, None), open_split(recipe, "test", False, None))
    training = build_training(recipe, splits, accelerator, 0, None)
    assert len(tensors_of(WIDEST) - before) == 1
    # the evaluation takes the task's own, in its form and at its size; its numbers are those before folding
    assert training.teacher is not None and training.teacher in list(training.task.modules())
    assert training.teacher(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert training.teacher.num_parameters == num_parameters
    assert gmacs(training.teacher.model, training.teacher.input_size((3, 32, 32))) == cost
    folded = not any(isinstance(m, nn.BatchNorm2d) for m in training.teacher.modules())
    assert folded == (method == "dccd")
    training.loader.close()
