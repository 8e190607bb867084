"""Check what README's main job must have written: a student that timm alone loads, report, pictures and card."""

import os
import re
import socket
import sys
import tempfile
from pathlib import Path

import timm
import torch

run = Path(sys.argv[1])
model = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True).eval()
assert model(torch.zeros(1, 1, 56, 56)).shape == (1, 10)
assert "dccd_timm" not in sys.modules

from dccd_timm.report.pictures import PICTURES  # noqa: E402
from dccd_timm.report.schema import Report  # noqa: E402

report = Report.read(run)
assert report and report.teacher and report.control
top1 = {"teacher": report.teacher.top1, "student": report.student.top1, "control": report.control.top1}
print(top1)
# Over five seeds KD reached 87.1 to 87.9, a student without a teacher at most 84.5; DCCD gained 0.5 to 1.6 over KD.
assert top1["control"] > 86, "distillation must show"
assert top1["teacher"] > top1["student"] > top1["control"] + 0.3, "DCCD must show"
for picture in ("views", *PICTURES):
    assert (run / "report" / f"{picture}.png").stat().st_size > 10_000, picture
card = (run / "README.md").read_text()
assert card.count(f"{top1['student']:.2f}") >= 2
assert f"{top1['student'] - top1['control']:+.2f} points over the student by KD on logits with the same seed" in card
assert card.index("report/comparison.png") < card.index("report/channels.png")

# What would be published of it contains no name, no path and no token.
os.environ["HF_TOKEN"] = "hf_" + "secret" * 6
from dccd_timm.hub.card import Card  # noqa: E402
from dccd_timm.hub.push import gather  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    gather(Card(run, "alice/student"), Path(folder))
    texts = {
        path.name: path.read_text()
        for path in Path(folder).rglob("*")
        if path.suffix in (".md", ".yaml", ".json", ".csv")
    }
assert {"README.md", "args.yaml", "recipe.yaml", "report.json", "config.json", "summary.csv"} <= set(texts)
for name, text in texts.items():
    for private in (str(Path.home()), socket.gethostname(), os.environ["HF_TOKEN"], str(run.parents[2])):
        assert not re.search(rf"(?<!\w){re.escape(private)}(?!\w)", text), f"{name} holds {private}"
print("the quickstart wrote what README promises")
