"""DCCD in a plain PyTorch loop: a timm pair, your own data set and loader.

    python examples/loop.py output/train/my-teacher/best images/train images/validation

The teacher is a folder as timm's save_for_hf writes it, for example best/ of a run; the images lie in a folder for each
class. The student is written to the folder student, which timm loads as local-dir:student.
"""

import argparse

import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from dccd_timm import DCCDTask, MultiViewTransform

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("teacher")
parser.add_argument("train")
parser.add_argument("validation")
parser.add_argument("--student", default="test_resnet")
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()

teacher = timm.create_model(f"local-dir:{options.teacher}", pretrained=True)
config = resolve_data_config(model=teacher)  # the student takes the teacher's size and normalisation
student = timm.create_model(options.student, num_classes=teacher.num_classes, pretrained_cfg_overlay=config)
two_views = MultiViewTransform(create_transform(**config, is_training=True), views=2)
train = DataLoader(ImageFolder(options.train, two_views), batch_size=16, shuffle=True, drop_last=True)
validation = DataLoader(ImageFolder(options.validation, create_transform(**config)), batch_size=16)

task = DCCDTask(student, teacher, views=2)
optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.05, momentum=0.9, nesterov=True)
for epoch in range(options.epochs):
    task.train()
    for views, target in train:  # a list of two tensors [B, C, H, W], and [B]
        losses = task(views, target)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    student.eval()
    with torch.no_grad():
        hits = sum((student(images).argmax(1) == target).sum().item() for images, target in validation)
    print(f"epoch {epoch + 1}: loss {losses['loss'].item():.3f}, top-1 {100 * hits / len(validation.dataset):.2f} %")
timm.models.save_for_hf(student, "student", safe_serialization=True)
