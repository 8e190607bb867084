"""An error's text fits on one line, and a bug is said to be one, with the place of its traceback."""

import pytest

from dccd_timm.errors import LOG_FILE, UserError, logged_failure, one_line, printable


def test_one_line():
    assert one_line(ValueError("a\n  b\t c ")) == "a b c"
    assert one_line(UserError()) == "UserError"
    assert one_line(OSError("x" * 400)) == "x" * 300 + " ..."
    assert one_line(OSError("abcdef"), 3) == "abc ..."


def test_a_failure_of_the_machine_is_a_warning_with_its_cause(tmp_path, caplog):
    for error in (OSError("no space\nleft"), UserError("set --output")):
        with logged_failure("no picture", tmp_path):
            raise error
    assert [r.getMessage() for r in caplog.records] == ["no picture: no space left", "no picture: set --output"]
    assert not (tmp_path / LOG_FILE).exists()


def test_a_bug_is_said_as_such_and_its_traceback_is_kept(tmp_path, caplog):
    for _ in range(2):
        with logged_failure("no picture", tmp_path):
            {}["caf\udce9"]
    line = caplog.records[0].getMessage()
    assert line.startswith("no picture: a bug of dccd-timm in test_errors.py, line ") and "KeyError" in line
    assert line.endswith(f"its traceback is in {tmp_path / LOG_FILE}") and "\n" not in line
    assert (tmp_path / LOG_FILE).read_text().count("Traceback (most recent call last)") == 2


def test_a_bug_in_a_folder_that_is_only_read_is_still_a_line(tmp_path, caplog):
    with logged_failure("no picture", tmp_path / "nowhere"):
        raise IndexError("x")
    assert "a bug of dccd-timm" in caplog.text and "errors.log" not in caplog.text


def test_a_stop_is_no_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), logged_failure("no picture", tmp_path):
        raise KeyboardInterrupt


def test_a_name_in_bytes_that_are_no_utf8_can_be_written_everywhere():
    assert printable("caf\udce9 é") == "caf\\udce9 é"
    assert one_line(OSError("caf\udce9")) == "caf\\udce9"
