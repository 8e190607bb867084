"""A small task and batches for the engine's tests."""

from types import SimpleNamespace

import torch
from accelerate import Accelerator
from timm.task import ClassificationTask
from torch import nn

from dccd_timm.batch import Batch
from dccd_timm.engine.optim import build_optimizer
from dccd_timm.recipe import load_recipe


class Classifier(nn.Module):
    """A linear classifier of 4 x 4 images in 3 classes."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(48, 3)

    def forward(self, images):
        return self.fc(images.flatten(1))


class Loader:
    """The same batches in each epoch."""

    def __init__(self, batches):
        self.batches, self.batches_per_epoch, self.epochs = batches, len(batches), []
        self.prepare, self.skips = SimpleNamespace(set_epoch=self.epochs.append), SimpleNamespace(count=0)

    def __iter__(self):
        while True:
            yield from self.batches


def batches(count, size=4, views=2):
    draw = torch.Generator().manual_seed(0)
    return [
        Batch(torch.randn(size, views, 3, 4, 4, generator=draw), torch.randint(3, (size,), generator=draw))
        for _ in range(count)
    ]


def setup(*flags):
    """Recipe, task, optimizer and accelerator of a training that starts from the same weights each time."""
    recipe = load_recipe(["--opt", "momentum", "--lr", "0.1", "--momentum", "0", "--device", "cpu", *map(str, flags)])
    torch.manual_seed(0)
    task = ClassificationTask(Classifier(), device=torch.device("cpu"), verbose=False)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=recipe.grad_accum_steps)
    task.trainable_module, optimizer = accelerator.prepare(task.trainable_module, build_optimizer(task, recipe, 1))
    return recipe, task, optimizer, accelerator
