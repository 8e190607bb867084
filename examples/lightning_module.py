"""DCCD in a LightningModule.

python examples/lightning_module.py output/train/my-teacher/best images/train
"""

import argparse

import pytorch_lightning
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from dccd_timm import DCCDTask, MultiViewTransform


class Distillation(pytorch_lightning.LightningModule):
    def __init__(self, student, teacher):
        super().__init__()
        self.task = DCCDTask(student, teacher, views=2)

    def training_step(self, batch, batch_number):
        losses = self.task(*batch)
        self.log_dict({name: value for name, value in losses.items() if name.endswith("loss")}, prog_bar=True)
        return losses["loss"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.task.trainable_module.parameters(), lr=0.05, momentum=0.9, nesterov=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("teacher")
parser.add_argument("train")
parser.add_argument("--student", default="test_resnet")
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()

teacher = timm.create_model(f"local-dir:{options.teacher}", pretrained=True)
config = resolve_data_config(model=teacher)
student = timm.create_model(options.student, num_classes=teacher.num_classes, pretrained_cfg_overlay=config)
two_views = MultiViewTransform(create_transform(**config, is_training=True), views=2)
train = DataLoader(ImageFolder(options.train, two_views), batch_size=16, shuffle=True, drop_last=True)

trainer = pytorch_lightning.Trainer(
    max_epochs=options.epochs, accelerator="auto", logger=False, enable_checkpointing=False
)
trainer.fit(Distillation(student, teacher), train)
timm.models.save_for_hf(student, "student", safe_serialization=True)
