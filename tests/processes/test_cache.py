"""Two processes fill a folder of answers with files of their own, and two read all of them without the teacher."""

import re

from tests.invariants.students import save_teacher
from tests.processes.test_resume import assert_same_student, ended, started


def test_two_processes_fill_and_read(parquet, tmp_path):
    save_teacher(tmp_path / "teacher", "test_resnet")
    flags = [
        "--dataset", f"hfids/{parquet}", "--val-split=", "--model", "resnetv2_18", "--model-kwargs", "layers=(1,1,1)",
        "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 6, "-j", 1, "--epochs", 2, "--lr", 0.05,
        "--warmup-epochs", 0, "--device", "cpu", "--kd-model-name", f"local-dir:{tmp_path / 'teacher'}",
        "--kd-distill-type", "dccd", "--dccd-view-aug", "near", "--dccd-view-period", 1, "--kd-cache", tmp_path / "answers",
        "--kd-cache-logits", "float32", "--output", tmp_path,
    ]  # fmt: skip
    code, stderr = ended(started([*flags, "--experiment", "fill"], processes=2))
    assert code == 0, stderr
    writers = {re.split("[-.]", path.name)[2] for path in (tmp_path / "answers").glob("answers-*")}
    assert len(writers) == 2
    (tmp_path / "teacher").rename(tmp_path / "hidden")
    code, stderr = ended(started([*flags, "--experiment", "read"], processes=2))
    assert code == 0, stderr
    assert_same_student(tmp_path / "fill", tmp_path / "read")
