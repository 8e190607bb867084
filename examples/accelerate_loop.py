"""DCCD in a loop of your own with accelerate: several GPUs and mixed precision by `accelerate launch`.

accelerate launch examples/accelerate_loop.py output/train/my-teacher/best images/train
"""

import argparse

import timm
import torch
from accelerate import Accelerator
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from dccd_timm import DCCDTask, MultiViewTransform

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("teacher")
parser.add_argument("train")
parser.add_argument("--student", default="test_resnet")
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()

accelerator = Accelerator()
teacher = timm.create_model(f"local-dir:{options.teacher}", pretrained=True)
config = resolve_data_config(model=teacher)
student = timm.create_model(options.student, num_classes=teacher.num_classes, pretrained_cfg_overlay=config)
two_views = MultiViewTransform(create_transform(**config, is_training=True), views=2)
train = DataLoader(ImageFolder(options.train, two_views), batch_size=8, shuffle=True, drop_last=True)

task = DCCDTask(student, teacher, views=2, device=accelerator.device)
optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.05, momentum=0.9, nesterov=True)
# only what is trained is prepared: the frozen teacher belongs to no DistributedDataParallel
task.trainable_module, optimizer, train = accelerator.prepare(task.trainable_module, optimizer, train)
for epoch in range(options.epochs):
    task.train()
    for views, target in train:
        with accelerator.autocast():
            losses = task(views, target)
        accelerator.backward(losses["loss"])
        optimizer.step()
        optimizer.zero_grad()
    loss = accelerator.reduce(losses["loss"].detach(), "mean")
    accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
if accelerator.is_main_process:
    timm.models.save_for_hf(task.get_eval_model(), "student", safe_serialization=True)
accelerator.end_training()
