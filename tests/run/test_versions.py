"""What changes when a file is written again."""

from dccd_timm.run.versions import hash_of, version_of


def test_a_file_has_its_size_and_an_address_stays(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert version_of(str(path)).startswith(f"{path} 3 ")
    assert version_of("hf://a/b") == "hf://a/b"


def test_a_hash_has_all_parts_also_names_in_bytes_that_are_no_text():
    assert hash_of(["a", 1]) == hash_of(["a", 1]) != hash_of(["a", 2])
    assert hash_of(["\udcff"]) != hash_of(["\udcfe"])
