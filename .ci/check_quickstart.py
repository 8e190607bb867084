"""What README's main job has to leave behind, read with timm alone."""

import json
import sys
from pathlib import Path

import timm
import torch

run = Path(sys.argv[1])
report = json.loads((run / "report" / "report.json").read_text())
top1 = {name: report[name]["top1"] for name in ("teacher", "student", "control")}
print(top1)
assert top1["teacher"] > top1["student"] > top1["control"] + 1, "distillation must show"
for picture in ("views", "curves", "channels", "redundancy", "classes"):
    assert (run / "report" / f"{picture}.png").stat().st_size > 10_000, picture
assert (run / "README.md").read_text().count(f"{top1['student']:.2f}") >= 2

model = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True).eval()
assert model(torch.zeros(1, 1, 56, 56)).shape == (1, 10)
assert "dccd_timm" not in sys.modules
print("the quickstart left what README promises")
