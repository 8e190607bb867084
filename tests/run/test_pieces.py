"""What a training is made of, from flags."""

import pytest
import torch
from torch._dynamo import OptimizedModule

from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
from dccd_timm.run.pieces import build_training, open_splits


def build_for(flags):
    """The recipe of these flags, its training and its accelerator."""
    recipe = load_recipe([*map(str, flags), "--device", "cpu"])
    accelerator = start_accelerator(recipe)
    training = build_training(recipe, open_splits(recipe), accelerator, 0, None)
    training.loader.close()
    return recipe, training, accelerator


def build(flags):
    return build_for(flags)[1]


@pytest.mark.parametrize("method", ["dccd", "logit"])
def test_a_launcher_that_compiles_the_student_compiles_its_teacher(method, small, monkeypatch, fresh_accelerator):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    teacher = build([*small, "--kd-distill-type", method]).task.teacher  # timm's own compiles the model in it
    assert teacher._compiled_call_impl or isinstance(teacher.model, OptimizedModule)


def test_every_method_starts_from_the_same_student(small, fresh_accelerator):
    first = build(small).student.state_dict()
    torch.rand(1)  # where the random numbers stand does not matter
    second = build([*small, "--kd-distill-type", "logit"]).student.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_schedule_ends_with_the_last_update(small, fresh_accelerator):
    """48 images in batches of 16: 3 updates an epoch."""
    training = build([*small, "--epochs", 4, "--cooldown-epochs", 1])
    assert training.loader.batches_per_epoch == 3 and training.schedule.num_epochs == 5


def test_a_student_with_too_few_classes_is_refused(small, fresh_accelerator):
    with pytest.raises(UserError, match="the data set has 3 classes, the student 2: raise --num-classes"):
        build([*small, "--num-classes", 2])
