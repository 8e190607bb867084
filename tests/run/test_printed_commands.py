"""The commands that a finished run prints run as they are printed, whatever its folders are called."""

import json
import re
import shlex

import pytest

from dccd_timm import cli
from dccd_timm.report.schema import Report
from tests.conftest import write_folders

pytestmark = pytest.mark.slow
NAME = 'it\'s "größe" $x'


def test_they_evaluate_the_student_and_draw_the_report_again(tmp_path, monkeypatch, capsys, caplog, fresh_accelerator):
    data, run = write_folders(tmp_path / f"data {NAME}", per_class=(4, 3)), tmp_path / "out" / NAME

    def fail(*_):
        raise OSError("no font")

    with monkeypatch.context() as patch:
        patch.setattr("dccd_timm.run.finish.draw_pictures", fail)
        flags = ["--data-dir", data, "--model", "test_resnet", "--img-size", 32, "-b", 6, "-j", 0, "--epochs", 1]
        flags += ["--warmup-epochs", 0, "--device", "cpu", "--output", run.parent, "--experiment", NAME]
        cli.main(["train", *map(str, flags)])
    report = Report.read(run)
    validate, push = re.findall("^  next: (.*)$", capsys.readouterr().out, re.MULTILINE)
    cli.main([*shlex.split(validate)[1:], "--device", "cpu", "-j", "0"])
    assert json.loads(capsys.readouterr().out.split("--result\n")[1])["top1"] == pytest.approx(
        report.student.top1, abs=0.01
    )
    assert shlex.split(push) == ["dccd-timm", "push", str(run), "OWNER/NAME"]
    [again] = {
        found[1] for line in caplog.messages if (found := re.search("`(dccd-timm report .*)` tries again", line))
    }
    assert not (run / "report" / "curves.png").exists()
    cli.main(shlex.split(again)[1:])
    assert (run / "report" / "curves.png").is_file()
