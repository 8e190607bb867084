"""The hashes of tests/invariants/students.py see a difference where there is one, and none where there is none."""

from dataclasses import replace

import pytest

from tests.invariants.students import CASES, ROOT, compare, differences, train, write_inputs

CONTROLLED = replace(CASES["dccd-control"], flags=f"{CASES['dccd-control'].flags} --epochs 1 -j 0")
ALONE = replace(CONTROLLED, flags=CONTROLLED.flags.replace("dccd --dccd-control logit", "logit --dccd-views 2"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def student(inputs, tmp_path_factory):
    return train(ROOT, ALONE, inputs, tmp_path_factory.mktemp("first") / "run")


def test_the_same_training_gives_the_same_hashes_and_another_seed_gives_others(inputs, student, tmp_path):
    assert set(student) == {"last", "best", "losses"}
    assert differences(student, train(ROOT, ALONE, inputs, tmp_path / "again")) == []
    other = replace(ALONE, flags=f"{ALONE.flags} --seed 43")
    assert differences(student, train(ROOT, other, inputs, tmp_path / "other")) == sorted(student)


def test_a_control_is_the_student_of_a_run_of_its_own(inputs, student, tmp_path):
    both = train(ROOT, CONTROLLED, inputs, tmp_path / "both")
    assert {name: both[f"control/{name}"] for name in student} == student
    assert both["last"] != student["last"]


def test_a_student_that_differs_is_named_and_ends_with_code_1(capsys):
    expected = {"first": {"last": "aa", "best": "bb"}, "second": {"last": "cc", "best": "dd"}}
    assert compare(expected, expected, "before") == 0
    assert "the same as with before: 2 of 2 cases" in capsys.readouterr().out
    assert compare({**expected, "second": {"last": "cc", "best": "ee"}}, expected, "before") == 1
    assert capsys.readouterr().out == "DIFFERENT: second: best not as with before\n"
    assert compare({"third": expected["first"]}, expected, "before") == 1  # a case without an expectation is no success
    assert "third" in capsys.readouterr().out
