"""The model card: what a student is, who taught it, how it was trained, how good it is, how to use and train it."""

import importlib.resources
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from dccd_timm.errors import UserError
from dccd_timm.hub.public import changed_settings, hub_data, public_changes, public_settings, scrubbed, split_dataset
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report.pictures import PICTURES
from dccd_timm.report.schema import Channels, NetworkReport, Origin, Report

_logger = logging.getLogger(__name__)

TEMPLATE = importlib.resources.files("dccd_timm.hub") / "card.md.jinja"
_PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense")


@dataclass(frozen=True)
class Export:
    """What ``best/config.json`` says of the exported student; ``input_size`` is (channels, height, width)."""

    architecture: str
    num_classes: int
    input_size: tuple[int, int, int]
    has_labels: bool
    registered_by: str = ""

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read it from a run's folder."""
        config = json.loads((run / "best" / "config.json").read_text(encoding="utf-8"))
        size = tuple(config["pretrained_cfg"]["input_size"])
        known = "label_names" in config, config.get("registered_by", "")
        return cls(config["architecture"], config["num_classes"], size, *known)

    @property
    def is_ours(self) -> bool:
        """Whether the network is one of this package's, which timm alone does not know."""
        return self.architecture.startswith("cifar_")

    @property
    def is_timms(self) -> bool:
        """Whether timm alone knows the network."""
        return not (self.is_ours or self.registered_by)

    @property
    def image_mode(self) -> str:
        """Pillow's name of the images that it takes."""
        return "L" if self.input_size[0] == 1 else "RGB"


class Card:
    """The card of a run, and the files that are published with it; read from the run's folder alone.

    Args:
        run: a run's folder with ``best/``, ``args.yaml`` and ``report/report.json``.
        repo_id: where it is published, owner/name; None for the card that stays in the folder.
        license: the Hub's identifier; None takes that of the networks that the student was made from, if it is known.
        report: the report of a run that still trains; None reads report.json.

    Raises:
        UserError: a folder without report.json.
    """

    def __init__(
        self, run: Path, repo_id: str | None = None, license: str | None = None, report: Report | None = None
    ) -> None:
        found = report or Report.read(run)
        if found is None:
            raise UserError(f"{run} holds no finished run: it has no report/report.json")
        self.run, self.repo_id, self.report = run, repo_id, found
        self.export = Export.read(run)
        self.student, self.teacher = found.student, found.teacher
        start = self.student.start
        made_of = {"model": start, "initial_checkpoint": start, "kd_model_name": self.teacher}
        pins = {key: network.commit for key, network in made_of.items() if network and network.commit}
        architectures = {"model": self.export.architecture}
        if self.teacher:
            architectures["kd_model_name"] = self.teacher.name
        settings = yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8"))
        self.dataset = hub_data(settings.get("dataset") or "")
        self.settings, self.notes = public_settings(settings, architectures, pins)
        self.report = found = replace(found, changes=public_changes(found.changes, architectures, pins))
        self.settings.pop("changed", None)
        if found.changes:
            self.settings["changed"] = [{"epoch": change.epoch, **change.settings} for change in found.changes]
        self.license = license or self._inherited_license()
        self._warn_of_license()

    @property
    def name(self) -> str:
        """The student's name: its repository's, else its run's."""
        return self.repo_id.split("/")[-1] if self.repo_id else self.run.name

    @property
    def model_name(self) -> str:
        """The name by which timm loads the student."""
        return f"hf-hub:{self.repo_id}" if self.repo_id else "local-dir:best"

    @property
    def data_name(self) -> str:
        """The data set's name."""
        dataset = self.settings.get("dataset") or ""
        if not dataset or dataset.split("/")[0] in ("folder", "tar"):
            return Path(self.settings.get("data_dir") or "image folder").name
        return self.dataset or split_dataset(dataset)[1].rstrip("/").rsplit("/", 1)[-1]

    @property
    def pictures(self) -> list[str]:
        """Files of report/ that are shown; not the views, which show training images."""
        return [f"{name}.png" for name in PICTURES if (self.run / "report" / f"{name}.png").is_file()]

    def network_name(self, network: NetworkReport) -> str:
        """A network's name, with its size where teacher and student have the same name."""
        if self.teacher is None or self.teacher.name != self.student.name:
            return network.name
        return f"{network.name}, {network.parameters_m:.3f} M"

    @property
    def gain(self) -> str | None:
        """The student's gain over its control, None without one."""
        control = self.report.control
        if control is None or control.top1 is None or self.student.top1 is None:
            return None
        points = f"{self.student.top1 - control.top1:+.2f} points over"
        methods = self.settings.get("dccd_control") or ()
        named = [methods] if isinstance(methods, str) else methods  # a name in runs of older versions
        labels = [METHODS[name].student_label(self.report.loss_type) for name in named if name in METHODS]
        if control.label in labels:  # no run given by --against
            return f"{points} the {control.label} with the same seed, steps and views"
        return f"{points} {control.label or 'the control'}"

    def headline(self) -> str:
        """The commit's message."""
        top1 = "" if self.student.top1 is None else f", top-1 {self.student.top1:.2f} %"
        return f"{self.export.architecture}, {self.report.method}{top1}"

    def text(self) -> str:
        """README.md."""
        card = ModelCard.from_template(
            self.data(),
            template_str=TEMPLATE.read_text(encoding="utf-8"),
            card=self,
            export=self.export,
            report=self.report,
            method=METHODS[self.report.method],
            loss_type=self.report.loss_type,
            student=self.student,
            teacher=self.teacher,
            settings=self.settings,
            rows=self._rows(),
            compared=self.teacher is None or self.teacher.classifies,
            pictures=[(name, picture.caption) for name, picture in PICTURES.items() if f"{name}.png" in self.pictures],
            on_the_way=self._changes(),
            changed=[(name, _cell(value)) for name, value in changed_settings(self.settings).items()],
        )
        return f"{card}\n".encode("utf-8", "replace").decode()  # a run's name may have bytes that are no UTF-8

    def data(self) -> ModelCardData:
        """The front matter."""
        task = "image-classification" if self.export.num_classes else "image-feature-extraction"
        tags, source = [task, "timm"], None
        if self.teacher and METHODS[self.report.method].distills:
            source = self.teacher.hub_id or self.teacher.name
            tags += ["knowledge-distillation", f"teacher:{source}"]
        if self.report.method == "dccd":
            tags.append("dccd")
        start = self.student.start
        base_model = (start.hub_id or None) if start else None
        results = self._results()
        return ModelCardData(
            library_name="timm",
            pipeline_tag=task,
            license=self.license,
            tags=tags,
            datasets=[self.dataset] if self.dataset else None,
            metrics=["accuracy"] if results else None,
            model_name=self.name,
            eval_results=results or None,
            teacher=source,
            base_model=base_model,
            base_model_relation="finetune" if base_model else None,
        )

    def recipe(self) -> str:
        """recipe.yaml: the settings that train this student again."""
        versions, hardware = self.settings.get("versions", {}), self.report.hardware
        lines = [f"# Trains the student {self.name} again:", "#", "#   dccd-timm train -c recipe.yaml", "#"]
        lines += [f"# {note}." for note in self.notes]
        lines += [f"# Changed on the way: {change}; below are the last values." for change in self._changes()]
        if hardware:
            used = ", ".join(f"{name} {version}" for name, version in versions.items())
            lines.append(f"# It ran on {hardware.world} x {hardware.device} in {hardware.precision}, with {used}.")
        changed = {k: v for k, v in changed_settings(self.settings).items() if k != "versions"}
        changed |= {"seed": self.settings["seed"], "kd_distill_type": self.settings["kd_distill_type"]}
        return "\n".join([*lines, yaml.safe_dump(changed, sort_keys=False)])

    def args(self) -> str:
        """args.yaml: every setting."""
        return yaml.safe_dump(self.settings, sort_keys=False)

    def public_report(self) -> str:
        """report.json without the names of files that could not be read."""
        shown = {k: v for k, v in self.report.to_json().items() if k != "skipped_first"}
        return json.dumps(scrubbed(shown), indent=2) + "\n"

    def _changes(self) -> list[str]:
        """What resumes changed, a line for each."""
        return [
            f"from epoch {change.epoch + 1} on, "
            + ", ".join(f"`{name}` {_cell(old)} -> {_cell(new)}" for name, (old, new) in change.settings.items())
            for change in self.report.changes
        ]

    def _sources(self) -> list[Origin]:
        """The networks that the student was made from: the one that it started from, and its teacher."""
        return [network for network in (self.student.start, self.teacher) if network]

    def _inherited_license(self) -> str | None:
        known = [network.license for network in self._sources() if network.license]
        return max(known, key=lambda license: license not in _PERMISSIVE, default=None)

    def _warn_of_license(self) -> None:
        for network in self._sources():
            theirs = network.license
            if theirs and theirs not in _PERMISSIVE and self.license != theirs:
                _logger.warning(
                    "the license %s is not that of %s, %s: check that you may use it",
                    self.license,
                    network.name,
                    theirs,
                )

    def _results(self) -> list[EvalResult]:
        """The student's accuracies, none without validation."""
        accuracies = (("Top-1", self.student.top1), ("Top-5", self.student.top5))
        return [
            EvalResult(
                task_type="image-classification",
                dataset_type=self.dataset or self.data_name,
                dataset_name=self.data_name,
                dataset_split=self.settings.get("val_split") or None,
                metric_type="accuracy",
                metric_value=round(value, 2),
                metric_name=f"{name} accuracy (%)",
            )
            for name, value in accuracies
            if value is not None
        ]

    def _rows(self) -> list[tuple[str, NetworkReport, Channels | None]]:
        """Rows of the table: label, network, and what is known of its channels."""
        channels, control = self.report.redundancy, self.report.control
        rows: list[tuple[str, NetworkReport | None, Channels | None]] = [
            ("teacher", self.teacher, channels.teacher if channels else None),
            ("**student**", self.student, channels.student if channels else None),
            ((control and control.label) or "control", control, channels.control if channels else None),
        ]
        rows += [(network.label or "control", network, None) for network in self.report.further_controls]
        return [(label, network, rank) for label, network, rank in rows if network and network.top1 is not None]


def _cell(value: object) -> str:
    """A setting's value as a cell of a table."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
