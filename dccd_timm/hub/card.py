"""The model card: what a student is, from whom, how it was made, how well it does, how to use and make it again."""

import json
import logging
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from dccd_timm.hub.public import changed_settings, hub_data, public_settings, scrubbed, split_dataset
from dccd_timm.recipe.methods import METHODS

_logger = logging.getLogger(__name__)

_PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense")
_WEIGHTS = {"ema": ", averaged weights (EMA)", "raw": ", plain weights (better than their EMA)"}
_PICTURES = {
    "curves": "Validation accuracy and the parts of the training loss by epoch.",
    "channels": "Correlation between channels of the pooled features, before and after training; below, how well each"
    " teacher channel can be read off the student's by a linear map, on images that the map was not fitted on.",
    "redundancy": "How many directions the features use: the faster a line falls, the more redundant the channels.",
    "classes": "Agreement with the teacher, accuracy class by class, and the pairs of classes most often confused.",
}


class Card:
    """What the card of a run and the files beside it say; read from the run's folder alone.

    Args:
        run: a run's folder with ``best/``, ``args.yaml`` and ``report/report.json``.
        repo_id: where it is published, owner/name; None for the card that stays in the folder.
        license: the Hub's identifier; None takes that of what the student was made from, when it is known.
        report: what is known so far, for a run that goes on; None reads report.json.
    """

    def __init__(
        self, run: Path, repo_id: str | None = None, license: str | None = None, report: dict[str, Any] | None = None
    ) -> None:
        self.run, self.repo_id = run, repo_id
        self.report = report or json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))
        self.config: dict[str, Any] = json.loads((run / "best" / "config.json").read_text(encoding="utf-8"))
        settings = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8"))
        self.student, self.teacher = self.report["student"], self.report.get("teacher")
        architectures = {"model": self.config["architecture"]}
        start, teacher = self.student.get("start") or {}, self.teacher or {}
        made_of = {"model": start, "initial_checkpoint": start, "kd_model_name": teacher}
        pins = {key: network["commit"] for key, network in made_of.items() if "commit" in network}
        if self.teacher:
            architectures["kd_model_name"] = self.teacher["name"]
        self.dataset = hub_data(settings.get("dataset") or "")
        self.settings, self.notes = public_settings(settings, architectures, pins)
        self.license = license or self._inherited()
        self._warn_of_licence()

    @property
    def name(self) -> str:
        """What the student is called: its repository, else its run."""
        return self.repo_id.split("/")[-1] if self.repo_id else self.run.name

    def _sources(self) -> list[dict[str, Any]]:
        """Networks that the student was made from: what it started from, and its teacher."""
        start = self.student.get("start")
        return [network for network in (start, self.teacher) if network]

    def _inherited(self) -> str | None:
        known = [network["license"] for network in self._sources() if network.get("license")]
        return max(known, key=lambda word: word not in _PERMISSIVE, default=None)

    def _warn_of_licence(self) -> None:
        for network in self._sources():
            theirs = network.get("license")
            if theirs and theirs not in _PERMISSIVE and self.license != theirs:
                _logger.warning("the license %s is not that of %s, %s: see whether you may", self.license,
                                network["name"], theirs)  # fmt: skip

    @property
    def pictures(self) -> list[str]:
        """Files of report/ that are shown; not the views, which are somebody's images."""
        return [f"{name}.png" for name in _PICTURES if (self.run / "report" / f"{name}.png").is_file()]

    def headline(self) -> str:
        """The commit's message."""
        top1 = f", top-1 {self.student['top1']:.2f} %" if "top1" in self.student else ""
        return f"{self.config['architecture']}, {self.report['method']}{top1}"

    def public_report(self) -> str:
        """report.json without the names of files that could not be read."""
        shown = {k: v for k, v in self.report.items() if k != "skipped_first"}
        return json.dumps(scrubbed(shown), indent=2) + "\n"

    def data_name(self) -> str:
        """What the data set is called."""
        dataset = self.settings.get("dataset") or ""
        if not dataset or dataset.split("/")[0] in ("folder", "tar"):
            return Path(self.settings.get("data_dir") or "image folder").name
        return self.dataset or split_dataset(dataset)[1].rstrip("/").rsplit("/", 1)[-1]

    def data(self) -> ModelCardData:
        """The front matter."""
        dataset = self.dataset
        split = self.settings.get("val_split") or None
        tags = ["image-classification", "timm", *([] if self._is_ours() else ["transformers"])]
        more: dict[str, Any] = {}
        if self.teacher:
            source = self.teacher.get("hub_id") or self.teacher["name"]
            tags += ["knowledge-distillation", f"teacher:{source}"]
            more["teacher"] = source
        if self.report["method"] == "dccd":
            tags.append("dccd")
        start = self.student.get("start")
        if start and start.get("hub_id"):
            more |= {"base_model": start["hub_id"], "base_model_relation": "finetune"}
        results = None
        if "top1" in self.student:
            results = [
                EvalResult(
                    task_type="image-classification", dataset_type=dataset or self.data_name(),
                    dataset_name=self.data_name(), dataset_split=split, metric_type="accuracy",
                    metric_value=round(self.student[key], 2), metric_name=f"{name} accuracy (%)",
                )
                for key, name in (("top1", "Top-1"), ("top5", "Top-5"))
            ]  # fmt: skip
        return ModelCardData(
            library_name="timm", pipeline_tag="image-classification", license=self.license, tags=tags,
            datasets=[dataset] if dataset else None, metrics=["accuracy"] if results else None,
            model_name=self.name, eval_results=results, **more,
        )  # fmt: skip

    def recipe(self) -> str:
        """recipe.yaml: the settings that make this student again."""
        versions, hardware = self.settings.get("versions", {}), self.report.get("hardware", {})
        lines = [f"# Makes the student {self.name} again:", "#", "#   dccd-train -c recipe.yaml", "#"]
        lines += [f"# {note}." for note in self.notes]
        if hardware:
            lines.append(f"# It ran on {hardware['world']} x {hardware['device']} in {hardware['precision']}, with"
                         f" {', '.join(f'{k} {v}' for k, v in versions.items())}.")  # fmt: skip
        changed = {k: v for k, v in changed_settings(self.settings).items() if k != "versions"}
        changed |= {"seed": self.settings["seed"], "kd_distill_type": self.settings["kd_distill_type"]}
        return "\n".join([*lines, yaml.safe_dump(changed, sort_keys=False)])

    def args(self) -> str:
        """args.yaml: every setting."""
        return yaml.safe_dump(self.settings, sort_keys=False)

    def text(self) -> str:
        """README.md."""
        parts = [f"---\n{self.data().to_yaml()}\n---", f"# {self.name}", self._summary(), self._table(),
                 *self._pictures(), self._use(), self._training(), self._limits(), _citation(self.teacher)]  # fmt: skip
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        size = "x".join(map(str, self.config["pretrained_cfg"]["input_size"]))
        first = (
            f"An image classifier for the {self.config['num_classes']} classes of {self.data_name()}: a"
            f" {self.config['architecture']} with {self.student['parameters_m']:.3f} M parameters, images of {size}."
        )
        start = self.student.get("start")
        begun = f"started from {_link(start)}" if start else "trained from scratch"
        method = METHODS[self.report["method"]]
        if self.teacher and method.distills:
            how = f"It was {begun} and distilled by {method.label} from {_link(self.teacher)}"
            how += f" ({self.teacher['parameters_m']:.3f} M parameters)"
        else:
            how = f"It was {begun} without a teacher"
        return f"{first} {how}, with dccd-timm{'' if self._is_ours() else '; plain timm loads it'}."

    def _is_ours(self) -> bool:
        return self.config["architecture"].startswith("cifar_")

    def _table(self) -> str:
        if "top1" not in self.student:
            return ""
        with_rank = self.report.get("redundancy", {})
        lines = ["| | parameters | top-1 (%) | top-5 (%) | agrees with teacher (%) | effective rank |",
                 "|---|---|---|---|---|---|"]  # fmt: skip
        for key in ("teacher", "student", "control"):
            network = self.report.get(key) or {}
            if "top1" not in network:
                continue
            label = "**student**" if key == "student" else network.get("label", key)
            agreement, found = network.get("agreement"), with_rank.get(key, {})
            rank = f"{found['effective_rank']:.1f} of {found['channels']}" if found else ""
            lines.append(
                f"| {label} ({network['name']}) | {network['parameters_m']:.3f} M | {network['top1']:.2f} |"
                f" {network['top5']:.2f} | {'' if agreement is None else f'{agreement:.2f}'} | {rank} |"
            )
        split = self.settings.get("val_split")
        weights = _WEIGHTS.get(self.report.get("weights") or "", "")
        chosen = (
            f"Measured on the split `{split}`, which also chose the epoch: {self.report['best_epoch'] + 1} of"
            f" {self.report['epochs']}{weights}. One run, seed {self.settings['seed']}."
        )
        if not self.report.get("complete", True):
            chosen += " **The training still goes on.**"
        return "\n".join([*lines, "", chosen])

    def _pictures(self) -> list[str]:
        drawn = [f"![{name}](report/{name}.png)\n\n{text}" for name, text in _PICTURES.items()
                 if f"{name}.png" in self.pictures]  # fmt: skip
        return ["## Evidence", *drawn] if drawn else []

    def _use(self) -> str:
        name = f"hf-hub:{self.repo_id}" if self.repo_id else "local-dir:best"
        mode = {1: "L", 3: "RGB"}.get(self.config["pretrained_cfg"]["input_size"][0], "RGB")
        labels = 'labels = model.pretrained_cfg["label_names"]\n' if "label_names" in self.config else ""
        # the benchmark's small networks are no part of timm
        ours = "import dccd_timm.models  # has the network\n" if self._is_ours() else ""
        shown = "labels[i]" if labels else "i"
        return f"""## Use

```python
import timm
import torch
{ours}from PIL import Image

model = timm.create_model("{name}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
{labels}
image = Image.new("{mode}", (256, 256))  # yours: Image.open("picture.png").convert("{mode}")
with torch.inference_mode():
    probabilities = model(transform(image).unsqueeze(0)).softmax(-1)[0]
for p, i in zip(*(t.tolist() for t in probabilities.topk(min(5, len(probabilities))))):
    print(f"{{100 * p:5.1f}} %  {{{shown}}}")
```"""

    def _training(self) -> str:
        changed = changed_settings(self.settings)
        rows = "\n".join(f"| `{k}` | `{_short(v)}` |" for k, v in changed.items())
        if self.repo_id:
            again = (f"```bash\nhf download {self.repo_id} recipe.yaml --local-dir . && dccd-train -c recipe.yaml\n"
                     "```")  # fmt: skip
        else:
            again = "```bash\ndccd-train -c args.yaml\n```"
        notes = "".join(f"\n- {note}" for note in self.notes)
        if notes:
            again += f"\n\nBefore it runs elsewhere:\n{notes}"
        return f"""## Training

The method's settings, and what differs from defaults; `args.yaml` has all, `summary.csv` every epoch.

| setting | value |
|---|---|
{rows}

Again, in one command, with dccd-timm installed:

{again}"""

    def _limits(self) -> str:
        lines = [
            "- One run with one seed; differences of some tenths of a point may be chance.",
            f"- It knows its {self.config['num_classes']} classes and nothing else, and answers any image with one.",
        ]
        if self.settings.get("val_split"):
            lines.append("- The split that it was judged on also chose its epoch, so the number is a little too good.")
        if self.teacher:
            lines.append("- What its teacher gets wrong or learnt from biased data, it has learnt too.")
        if self.license is None:
            lines.append("- No license is stated: ask its author before you use it.")
        return "## Limits\n\n" + "\n".join(lines)


def _link(network: dict[str, Any]) -> str:
    hub_id = network.get("hub_id")
    return f"[{hub_id}](https://huggingface.co/{hub_id})" if hub_id else network["name"]


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("`", "'")


def _citation(teacher: dict[str, Any] | None) -> str:
    of_teacher = f"\n\nThe teacher: {_link(teacher)}." if teacher else ""
    return f"""## Citation

DCCD's formulas are dccd-timm's reading of the paper's abstract.

```bibtex
@article{{liu2024dccd,
  author  = {{Liu, Y. and Chen, J. and Liu, Y.}},
  title   = {{{{DCCD}}: Reducing Neural Network Redundancy via Distillation}},
  journal = {{IEEE Transactions on Neural Networks and Learning Systems}},
  volume  = {{35}},
  number  = {{7}},
  pages   = {{10006--10017}},
  year    = {{2024}},
  doi     = {{10.1109/TNNLS.2023.3238337}}
}}
@misc{{rw2019timm,
  author       = {{Ross Wightman}},
  title        = {{PyTorch Image Models}},
  year         = {{2019}},
  publisher    = {{GitHub}},
  howpublished = {{\\url{{https://github.com/huggingface/pytorch-image-models}}}},
  doi          = {{10.5281/zenodo.4414861}}
}}
```{of_teacher}"""
