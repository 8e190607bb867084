"""What a run does with the Hub: a check before it, interim pushes, the model card, the push after it."""

from pathlib import Path

from dccd_timm.atomic import write_text
from dccd_timm.hub import push
from dccd_timm.hub.card import Card
from dccd_timm.recipe import Hub
from dccd_timm.report.schema import Report


class HubPublisher:
    """Publishes runs of a recipe as its Hub options say; without ``--push-to-hub`` it only writes cards.

    It is the ``Publisher`` of ``run/publisher.py``; a run never imports this package.
    """

    def __init__(self, options: Hub) -> None:
        self.target = push.Target.of(options)

    def check(self) -> None:
        """Check that the student could be pushed, before the training begins.

        Raises:
            UserError: bad repository name, missing or wrong token, or no connection to the Hub.
        """
        if self.target:
            push.check(self.target)

    def write_card(self, folder: Path) -> None:
        """Write README.md into the folder of a finished run."""
        report = Report.read(folder)
        write_text(folder / "README.md", Card(folder, license=report.license if report else None).text())

    def push_interim(self, folder: Path, report: Report) -> None:
        """Push the best student of a run that still trains; a failed push is only a warning."""
        if self.target:
            push.push_interim(folder, self.target, report)

    def push(self, folder: Path) -> None:
        """Push the student of a finished run.

        Raises:
            UserError: names the cause, the student's folder and the command that pushes it again.
        """
        if self.target:
            push.push(folder, self.target)
