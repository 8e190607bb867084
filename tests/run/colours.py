"""Images of one colour, which is their class, and networks that know it without a training."""

import timm
import torch
from PIL import Image
from timm.models import save_for_hf

COLOURS = {"ant": (220, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 220), "dog": (220, 220, 30)}
SIZE = 32


def write_folder(root, *names, colours=COLOURS, images=3):
    """A folder of classes; ``colours`` gives the colour of each name."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (SIZE, SIZE), colours[name]).save(root / name / f"{number}.png")
    return root


def write_parquet(file, names, colours=COLOURS, images=3):
    """A file of images whose column of classes has ``names`` in this order."""
    import datasets

    from tests.conftest import encoded

    labels = [index for index in range(len(names)) for _ in range(images)]
    pictures = [{"bytes": encoded(Image.new("RGB", (SIZE, SIZE), colours[names[k]])), "path": None} for k in labels]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features).to_parquet(file)


@torch.no_grad()
def knowing(names, colours=COLOURS, arch="test_resnet"):
    """A timm network that answers with the index in ``names`` of an image's colour."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(arch, num_classes=len(names)).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    rgb = torch.tensor([colours[name] for name in names]).view(-1, 3, 1, 1) / 255
    images = ((rgb - mean) / std).expand(-1, -1, SIZE, SIZE)
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    head = model.get_classifier()
    centred = features - features.mean(0)
    weight = 20 * torch.linalg.pinv(centred.double()).T.float()
    head.weight.copy_(weight)
    head.bias.copy_(-(weight @ features.mean(0)))
    assert model(images).argmax(1).tolist() == list(range(len(names)))
    return model


def save_knowing(folder, names, label_names=..., colours=COLOURS, arch="test_resnet"):
    """Export such a network; ``label_names`` are its own ``names`` unless given, None for none."""
    labels = list(names) if label_names is ... else label_names
    config = {"label_names": labels} if labels else {}
    model = knowing(names, colours, arch)
    save_for_hf(
        model, folder, model_config=config, data_config={"input_size": (3, SIZE, SIZE)}, safe_serialization=True
    )
    return folder
