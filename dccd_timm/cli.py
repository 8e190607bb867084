"""The console command dccd-timm and its programs; dccd-train, dccd-validate, dccd-push, dccd-report are the same."""

import difflib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dccd_timm.cache.identity import FILE as ANSWERS
from dccd_timm.data.workers import start_server_early
from dccd_timm.errors import UserError
from dccd_timm.launch.guard import guarded
from dccd_timm.recipe import Recipe, load_recipe, load_validation
from dccd_timm.recipe.folders import check_data_folder, check_model_folder
from dccd_timm.recipe.help import OneLineParser

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm: one of its programs."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and (program := _PROGRAMS.get(words[0])):
        program(words[1:])
    else:
        guarded(_about, words)


def train_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm train, which is train.py."""

    def run(arguments: Sequence[str]) -> None:
        recipe = load_recipe(arguments)
        _check_folders(recipe)  # torch and timm take seconds to import
        _log_start()
        start_server_early(recipe)
        from dccd_timm.hub.publisher import HubPublisher  # torch, timm and datasets load only once the flags are right

        if recipe.plan:
            from dccd_timm.run.plan import print_plan

            print_plan(recipe, HubPublisher(recipe))
        else:
            from dccd_timm.run.train import train

            train(recipe, HubPublisher(recipe))

    guarded(run, argv)


def _check_folders(recipe: Recipe) -> None:
    """Refuse folders that are not there; a teacher's may be missing where its answers are kept."""
    check_data_folder(recipe)
    check_model_folder(recipe.model, "student (--model)")
    if not recipe.kd_cache or not (Path(recipe.kd_cache) / ANSWERS).is_file():
        check_model_folder(recipe.kd_model_name, "teacher (--kd-model-name)")


def plan_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm plan: train.py with --plan."""
    train_main([*(sys.argv[1:] if argv is None else argv), "--plan"])


def validate_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm validate, which is validate.py."""

    def run(arguments: Sequence[str]) -> None:
        options = load_validation(arguments)
        check_data_folder(options)
        check_model_folder(options.model, "model")
        check_model_folder(options.teacher, "teacher (--teacher)")
        _log_start()
        start_server_early(options)
        from dccd_timm.run.validate import validate

        validate(options)

    guarded(run, argv)


def push_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm push."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser(
            "dccd-timm push",
            "Push a finished run's student to the Hugging Face Hub, with its card and evidence.",
            (
                "dccd-timm push output/train/first owner/student",
                "dccd-timm push output/train/first owner/student --hub-public --hub-license mit",
                "dccd-timm push output/train/first owner/student --hub-revision v2",
            ),
        )
        parser.add_argument("run", type=Path, help="a run's folder")
        parser.add_argument("repo_id", metavar="owner/name", help="repository; a new one is created, and private")
        parser.add_argument("--hub-public", action="store_true", help="make a new repository public")
        parser.add_argument("--hub-revision", metavar="BRANCH", help="branch to push to; a missing one is created")
        parser.add_argument("--hub-license", metavar="ID", help="license of the card (default: its sources')")
        parser.add_argument(
            "--hub-overwrite", action="store_true", help="push into a repository that has files of somebody else"
        )
        parser.add_about()
        options = parser.parse_args(arguments)
        if not options.run.is_dir() and Path(options.repo_id).is_dir():
            swapped = shlex.join(["dccd-timm", "push", options.repo_id, str(options.run)])
            raise UserError(f"the run's folder comes first: {swapped}")
        from dccd_timm.hub import push as hub

        target = hub.Target(
            options.repo_id, options.hub_public, options.hub_revision, options.hub_license, options.hub_overwrite
        )
        hub.check_run(options.run)
        hub.check(target)
        hub.push(options.run, target)

    guarded(run, argv)


def pull_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm pull."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser(
            "dccd-timm pull",
            "Download a published student from the Hugging Face Hub: weights, settings, card and report, no code.",
            (
                "dccd-timm pull owner/student",
                "dccd-timm pull owner/student students/first --hub-revision v2",
                "dccd-timm validate students/first --data-dir flowers",
            ),
        )
        parser.add_argument("repo_id", metavar="owner/name", help="repository of the student")
        parser.add_argument("folder", type=Path, nargs="?", help="new folder to put it in (default: the name)")
        parser.add_argument("--hub-revision", metavar="REVISION", help="branch, tag or commit (default: main)")
        parser.add_about()
        options = parser.parse_args(arguments)
        from dccd_timm.hub.pull import pull

        pull(options.repo_id, options.folder, options.hub_revision)

    guarded(run, argv)


def report_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm report."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser(
            "dccd-timm report",
            "Draw a finished run's report again, beside another run's.",
            (
                "dccd-timm report output/train/first",
                "dccd-timm report output/train/first --against output/train/second",
            ),
        )
        parser.add_argument("run", type=Path, help="a finished run's folder")
        parser.add_argument("--against", type=Path, metavar="RUN2", help="a finished run on the same data")
        text = "module or .py file that registers the run's own networks, where it is not where it was"
        parser.add_argument("--import", action="append", dest="modules", default=[], metavar="MODULE", help=text)
        parser.add_about()
        given = parser.parse_args(arguments)
        _log_start()
        from dccd_timm.hub.publisher import HubPublisher
        from dccd_timm.run.redraw import redraw

        redraw(given.run, given.against, HubPublisher, given.modules)

    guarded(run, argv)


def cache_main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm cache."""

    def run(arguments: Sequence[str]) -> None:
        parser = OneLineParser(
            "dccd-timm cache",
            "What a folder of --kd-cache holds: of which teacher, of which views, how complete, how large.",
            ("dccd-timm cache answers", "dccd-timm cache answers --verify 100"),
        )
        parser.add_argument("folder", type=Path, help="folder that --kd-cache named")
        parser.add_argument(
            "--verify", type=int, default=0, metavar="N", help="ask the teacher again for N random images, and compare"
        )
        text = "module or .py file that registers the run's own networks, where it is not where it was"
        parser.add_argument("--import", action="append", dest="modules", default=[], metavar="MODULE", help=text)
        parser.add_about()
        given = parser.parse_args(arguments)
        if given.verify < 0:
            raise UserError(f"--verify {given.verify}: give a number of images")
        if not given.folder.is_dir():
            raise UserError(f"{given.folder} is no folder")
        _log_start()
        from dccd_timm.run.cache_report import show_cache

        show_cache(given.folder, given.verify, given.modules)

    guarded(run, argv)


# Name -> program, and a phrase for --help
_PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train_main,
    "plan": plan_main,
    "validate": validate_main,
    "push": push_main,
    "pull": pull_main,
    "report": report_main,
    "cache": cache_main,
}
_PHRASES = {
    "train": "train a timm student, alone or distilled from a timm teacher",
    "plan": "what such a training would take: memory, time, loader workers; takes train's options",
    "validate": "accuracy of a model on a data set, alone or beside its teacher",
    "push": "publish a finished run's student on the Hugging Face Hub",
    "pull": "download a published student",
    "report": "draw a finished run's report again",
    "cache": "what a folder of a teacher's kept answers holds",
}


def _about(words: Sequence[str]) -> None:
    """What dccd-timm prints without the name of a program."""
    parser = OneLineParser(
        "dccd-timm",
        "Knowledge distillation for timm models. dccd-timm PROGRAM --help says more of each.",
        (
            "dccd-timm train -c recipes/quickstart.yaml --experiment first",
            "dccd-timm validate output/train/first --data-dir flowers",
            "dccd-timm push output/train/first owner/student",
        ),
        "%(prog)s PROGRAM ...",
    )
    programs = parser.add_argument_group("Programs")
    for name, phrase in _PHRASES.items():
        programs.add_argument(name, nargs="?", help=phrase)
    parser.add_about()
    if not words:
        parser.print_help()
    elif words[0].startswith("-"):
        parser.parse_args(words[:1])
    else:
        near = difflib.get_close_matches(words[0], _PROGRAMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_PROGRAMS)}"
        raise UserError(f"dccd-timm has no program {words[0]}; {hint}")


def _log_start() -> None:
    """Log a first line: torch and timm take seconds to import."""
    if os.environ.get("RANK", "0") == "0":
        import dccd_timm

        _logger.info("dccd-timm %s: loading PyTorch and timm", dccd_timm.__version__)
