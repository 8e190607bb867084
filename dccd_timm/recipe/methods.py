"""The methods of --kd-distill-type and the losses of --kd-loss-type, declared once: names, terms, papers, weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to train a student.

    Args:
        name: as --kd-distill-type takes it.
        label: as cards and tables show it, after "distilled by".
        terms: parts of its loss, by the names that the task gives them in its output.
        needs: what it reads of a teacher: ``logits``, ``features`` (the pooled ones), ``maps`` (before pooling).
        paper: where it was published.
        weight: of its distillation loss, where none is given; None leaves it to the loss between logits.
        cached: whether --kd-cache keeps all that it reads of a teacher.
    """

    name: str
    label: str
    terms: tuple[str, ...]
    needs: tuple[str, ...] = ()
    paper: str = ""
    weight: float | None = None
    cached: bool = False

    @property
    def distills(self) -> bool:
        """Whether it has a teacher."""
        return bool(self.needs)

    @property
    def has_logit_loss(self) -> bool:
        """Whether it reads --kd-loss-type."""
        return "kd_loss" in self.terms and "logits" in self.needs

    @property
    def has_feature_loss(self) -> bool:
        """Whether it is one of the feature methods of the field, in our own task."""
        return "feature_loss" in self.terms

    def label_with(self, loss: str) -> str:
        """Its label when the loss between logits is ``loss``, which only methods with such a loss read."""
        if loss == "kl" or not self.has_logit_loss:
            return self.label
        return (
            f"{LOGIT_LOSSES[loss].label} on logits"
            if self.name == "logit"
            else f"{self.label} with {LOGIT_LOSSES[loss].label}"
        )

    def student_label(self, loss: str) -> str:
        """What a control trained by it is called beside another student."""
        return f"student by {self.label_with(loss)}" if self.distills else "student without distillation"


@dataclass(frozen=True)
class LogitLoss:
    """One loss between logits, with the settings of its paper.

    Args:
        name: as --kd-loss-type takes it.
        label: as tables show it.
        paper: where it was published.
        weight, task_weight: of the loss and of the task loss beside it, where none is given.
        temperature: of its softmax, where none is given; None where it has none.
    """

    name: str
    label: str
    paper: str
    weight: float = 1.0
    task_weight: float = 1.0
    temperature: float | None = None


LOGIT_LOSSES = {
    loss.name: loss
    for loss in (
        LogitLoss("kl", "KD", "Hinton et al., 2015", temperature=4.0),
        LogitLoss("ls", "KD of standardised logits", "Sun et al., CVPR 2024", 9.0, 0.1, temperature=2.0),
        LogitLoss("dkd", "decoupled KD", "Zhao et al., CVPR 2022", temperature=4.0),
        LogitLoss("dist", "DIST", "Huang et al., NeurIPS 2022", 2.0, temperature=1.0),
        LogitLoss("wttm", "WTTM", "Zheng, Yang, ICLR 2024", 45.0),
    )
}

_TASK_AND_FEATURE = ("task_loss", "feature_loss")

METHODS = {
    method.name: method
    for method in (
        Method("none", "no distillation", ("task_loss",)),
        Method("logit", "KD on logits", ("task_loss", "kd_loss"), ("logits",), cached=True),
        Method("feature", "KD on features", ("task_loss", "kd_loss"), ("features",)),
        Method("token", "KD by token", ("task_loss", "distill_loss"), ("logits",), cached=True),
        Method("fitnet", "FitNet", _TASK_AND_FEATURE, ("maps",), "Romero et al., ICLR 2015", 100.0),
        Method("at", "attention transfer", _TASK_AND_FEATURE, ("maps",), "Zagoruyko, Komodakis, ICLR 2017", 1000.0),
        Method("sp", "similarity-preserving KD", _TASK_AND_FEATURE, ("maps",), "Tung, Mori, ICCV 2019", 3000.0),
        Method("rkd", "relational KD", _TASK_AND_FEATURE, ("maps",), "Park et al., CVPR 2019", 1.0),
        Method("wkd", "WKD-F", _TASK_AND_FEATURE, ("maps",), "Lv et al., NeurIPS 2024", 0.02),
        Method("ofa", "OFA-KD", _TASK_AND_FEATURE, ("logits", "maps"), "Hao et al., NeurIPS 2023", 1.0, cached=True),
        Method(
            "dccd",
            "DCCD",
            ("task_loss", "kd_loss", "contrast_loss", "difference_loss"),
            ("logits", "maps"),
            "Liu et al., TNNLS 2023",
            cached=True,
        ),
    )
}
