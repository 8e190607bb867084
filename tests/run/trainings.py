"""Small trainings in this process that keep their teacher's answers."""

import safetensors.torch
from accelerate.state import AcceleratorState, GradientState

from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.run.train import train

STUDENT = ["--model", "resnetv2_18", "--model-kwargs", "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8"]


def images_from(inputs, kind):
    if kind == "folder":
        return ["--data-dir", inputs / "folder"]
    return ["--dataset", f"{kind}/{inputs / 'stream'}", "--val-split", "test"]


class Trainings:
    """Trains in this process; a name is a run's."""

    def __init__(self, inputs, folder):
        self.inputs, self.folder = inputs, folder

    def forget(self):
        """Forget what accelerate remembers for a whole process."""
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    def __call__(self, name, *flags, cache=True, kind="folder"):
        self.forget()
        words = [
            *images_from(self.inputs, kind), *STUDENT, "--kd-model-name", f"local-dir:{self.inputs / 'teacher'}",
            "--kd-distill-type", "dccd", "--allow-weak-teacher", "--img-size", 48, "-b", 6, "-j", 0, "--epochs", 3,
            "--lr", 0.05, "--warmup-epochs", 0, "--device", "cpu", "--dccd-view-period", 2, "--recovery-interval", 1,
            "--output", self.folder, "--experiment", name,
        ]  # fmt: skip
        kept = ["--kd-cache", self.folder / "answers", "--kd-cache-logits", "float32"] if cache else []
        recipe = load_recipe([str(word) for word in [*words, *kept, *flags]])
        train(recipe, HubPublisher(recipe))
        return safetensors.torch.load_file(self.folder / name / "last" / "model.safetensors")
