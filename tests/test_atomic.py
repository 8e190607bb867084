"""A file or folder is there whole, or the one before it is: whatever interrupts the writing."""

import pytest

from dccd_timm.atomic import replacing, write_text


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "best"
    for text in ("first", "second"):
        with replacing(target) as folder:
            (folder / "model").write_text(text)
    assert (target / "model").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_folder_leaves_the_old_one_and_nothing_else(tmp_path, interruption):
    target = tmp_path / "best"
    with replacing(target) as folder:
        (folder / "model").write_text("first")

    def half_a_write():
        with replacing(target) as folder:
            (folder / "model").write_text("half")
            raise interruption

    with pytest.raises(type(interruption)):
        half_a_write()
    assert (target / "model").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_what_a_killed_program_left_half_written_is_not_mixed_in(tmp_path):
    leftover = tmp_path / ".best.new"
    leftover.mkdir()
    (leftover / "old").write_text("of a killed program")
    with replacing(tmp_path / "best") as folder:
        (folder / "model").write_text("whole")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["model"]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "args.yaml"
    write_text(path, "a: 1\n")
    write_text(path, "name: Übung\n")
    assert path.read_text(encoding="utf-8") == "name: Übung\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")  # cannot be encoded: fails while it is written
    assert path.read_text(encoding="utf-8") == "name: Übung\n"
