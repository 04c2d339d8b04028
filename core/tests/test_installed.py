"""Entry points are found as `importlib.metadata` finds them, in whatever a `sys.path` holds."""

import sys
import zipfile
from importlib import metadata

import pytest

from mscvt.plugins import installed
from mscvt.plugins.installed import EntryPoint, entry_points

HEAD = "Metadata-Version: 2.1\nname: {}\nVersion: {}\nRequires-Dist: torch\n\nVersion: 9\nWhat it is.\n"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders, which are all of `sys.path`."""
    found = tmp_path / "first", tmp_path / "second"
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder) for folder in found])
    return found


def put(folder, name, declared, version="1.2", kind="dist-info", head="METADATA"):
    info = folder / f"{name}-{version}.{kind}"
    info.mkdir()
    (info / head).write_text(HEAD.format(name, version))
    if declared is not None:
        (info / "entry_points.txt").write_text(declared)


def check_same(*expected):
    """Both find the same, which is this."""
    found = entry_points("mscvt")
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    for point in metadata.entry_points(group="mscvt"):
        assert EntryPoint(point.name, point.value, point.dist.name, point.dist.version) in found
    assert len(metadata.entry_points(group="mscvt")) == len(found)


def test_what_is_installed_here_is_found_as_the_standard_library_finds_it():
    found = entry_points("mscvt")
    assert "mscvt-qwen3" in {point.distribution for point in found}
    check_same(*found)


def test_lines_of_other_groups_and_comments_are_none(folders):
    put(
        folders[0],
        "acme",
        "# x\n[console_scripts]\nacme = acme:main\n\n[mscvt]\n# no = acme\na b=acme\n  b = acme : plugin [extra] \n"
        "[mscvt.more]\nc = acme\n",
    )
    check_same(EntryPoint("a b", "acme", "acme", "1.2"), EntryPoint("b", "acme : plugin [extra]", "acme", "1.2"))


def test_line_that_declares_nothing_is_passed_over(folders):
    put(folders[0], "acme", "[mscvt]\nnothing\nit = acme\n")
    assert entry_points("mscvt") == [EntryPoint("it", "acme", "acme", "1.2")]


def test_first_distribution_of_a_name_counts_though_it_is_spelt_otherwise(folders):
    put(folders[0], "Acme.Two", None)
    put(folders[1], "acme_two", "[mscvt]\nit = acme\n", version="3")
    put(folders[1], "other", "[mscvt]\nit = other\n")
    check_same(EntryPoint("it", "other", "other", "1.2"))


def test_folder_of_an_egg_info_is_a_distribution_too(folders):
    put(folders[0], "acme", "[mscvt]\nit = acme\n", kind="egg-info", head="PKG-INFO")
    (folders[1] / "old-1.egg-info").write_text("Name: old\n")
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_folders_that_are_not_there_are_passed_over(folders, monkeypatch):
    put(folders[0], "acme", "[mscvt]\nit = acme\n")
    monkeypatch.setattr(sys, "path", [str(folders[1] / "none"), *sys.path])
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_current_folder_is_read_where_the_path_has_an_empty_word(folders, monkeypatch):
    put(folders[0], "acme", "[mscvt]\nit = acme\n")
    monkeypatch.chdir(folders[0])
    monkeypatch.setattr(sys, "path", [""])
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_distributions_in_a_zip_file_are_found(folders, monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("acme-1.2.dist-info/METADATA", HEAD.format("acme", "1.2"))
        archive.writestr("acme-1.2.dist-info/entry_points.txt", "[mscvt]\nit = acme\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "all.zip")])
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_distribution_in_an_egg_is_found(folders, monkeypatch, tmp_path):
    info = tmp_path / "acme-1.2-py3.egg" / "EGG-INFO"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text(HEAD.format("acme", "1.2"))
    (info / "entry_points.txt").write_text("[mscvt]\nit = acme\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(info.parent)])
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_finder_of_another_kind_is_asked(folders, monkeypatch):
    class Found(metadata.Distribution):
        def read_text(self, filename):
            return {"METADATA": HEAD.format("acme", "1.2"), "entry_points.txt": "[mscvt]\nit = acme\n"}.get(filename)

        def locate_file(self, path):
            return path

    class Finder(metadata.DistributionFinder):
        def find_spec(self, *_):
            return None

        def find_distributions(self, context=None):
            return [Found()]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    check_same(EntryPoint("it", "acme", "acme", "1.2"))


def test_distribution_that_states_nothing_has_no_name(folders):
    info = folders[0] / "acme-1.2.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"[mscvt]\nit = acme\n# \xff\n")
    assert entry_points("mscvt") == [EntryPoint("it", "acme", *installed.UNKNOWN)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("os.path", __import__("os").path),
        ("os : path.join", __import__("os").path.join),
        ("os:path.join [fast]", __import__("os").path.join),
        ("os [fast]", __import__("os")),
    ],
)
def test_entry_point_leads_to_a_module_or_an_object_in_one(value, expected):
    assert EntryPoint("it", value).load() is expected
