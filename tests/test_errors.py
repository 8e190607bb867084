"""An error's text fits on one line, whatever the library made of it."""

from dccd_timm.errors import UserError, one_line


def test_one_line():
    assert one_line(ValueError("a\n  b\t c ")) == "a b c"
    assert one_line(UserError()) == "UserError"
    assert one_line(OSError("x" * 400)) == "x" * 300 + " ..."
    assert one_line(OSError("abcdef"), 3) == "abc ..."
