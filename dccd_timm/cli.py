"""The console programs dccd-train, dccd-validate, dccd-push and dccd-report."""

from collections.abc import Sequence
from pathlib import Path

from dccd_timm.data.workers import start_server_early
from dccd_timm.launch.guard import guarded
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.recipe.parse import OneLineParser


def train_main(argv: Sequence[str] | None = None) -> None:
    """Run train.py."""

    def run(arguments: Sequence[str]) -> None:
        recipe = load_recipe(arguments)
        start_server_early(recipe)
        from dccd_timm.hub.publisher import HubPublisher  # torch, timm and datasets load only once the flags are right
        from dccd_timm.run.train import train

        train(recipe, HubPublisher(recipe))

    guarded(run, argv)


def validate_main(argv: Sequence[str] | None = None) -> None:
    """Run validate.py."""

    def run(arguments: Sequence[str]) -> None:
        options = load_validation(arguments)
        start_server_early(options)
        from dccd_timm.run.validate import validate

        validate(options)

    guarded(run, argv)


def push_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-push."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser("dccd-push", description="Push a finished run's student, with its card and evidence.")
        parser.add_argument("run", type=Path, help="a run's folder")
        parser.add_argument("repo_id", metavar="owner/name", help="repository; a new one is created, and private")
        parser.add_argument("--hub-public", action="store_true", help="make a new repository public")
        parser.add_argument("--hub-revision", metavar="BRANCH", help="branch to push to; a missing one is created")
        parser.add_argument("--hub-license", metavar="ID", help="license of the card (default: its sources')")
        parser.add_argument(
            "--hub-overwrite", action="store_true", help="push into a repository that has files of somebody else"
        )
        options = parser.parse_args(arguments)
        from dccd_timm.hub import push as hub

        target = hub.Target(
            options.repo_id, options.hub_public, options.hub_revision, options.hub_license, options.hub_overwrite
        )
        hub.check(target)
        hub.push(options.run, target)

    guarded(run, argv)


def report_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-report."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser("dccd-report", description="Draw a finished run's report again, beside another run's.")
        parser.add_argument("run", type=Path, help="a finished run's folder")
        parser.add_argument("--against", type=Path, metavar="RUN2", help="a finished run on the same data")
        given = parser.parse_args(arguments)
        from dccd_timm.hub.publisher import HubPublisher
        from dccd_timm.run.redraw import redraw

        redraw(given.run, given.against, HubPublisher)

    guarded(run, argv)
