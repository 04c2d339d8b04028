"""Tables of options: what a field's type means, defaults, and values and parts of a model that are refused."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mscvt.errors import Faults, MscvtError
from mscvt.model.options import check_features, check_refused, check_values, notes_on, option, rows, with_defaults
from mscvt.model.values import KINDS, Bytes, parse_bytes, parse_list, parse_whole, shown


@dataclass(frozen=True, slots=True)
class Table:
    folder: Path = option(help="A folder.")
    size: int | None = option(help="A size.", default=1, least=1, aliases=("--sz",))
    parts: int | None = option(help="Parts.", same_as="size", unset="the size", feature="moe")
    slots: tuple[int, ...] | None = option(help="Slots.", default=(), least=0, unset="none")
    is_quiet: bool = option(help="Say nothing.")
    is_merged: bool | None = option(help="Merged.", feature="mla")
    method: str | None = option(help="A method.", choices=("one", "two"), default="one")
    memory: Bytes | None = option(help="Memory.", default=1024, least=16)
    words: tuple[str, ...] | None = option(help="Words.")


FOLDER = Path("f")


def faults_of(check, *arguments):
    faults = Faults()
    check(*arguments, faults)
    with pytest.raises(MscvtError) as caught:
        faults.raise_if_any("wrong")
    return caught.value


def test_kinds_follow_from_types():
    kinds = {name: row.kind for name, row in rows(Table).items()}
    assert kinds == {
        "folder": KINDS[Path],
        "size": KINDS[int],
        "parts": KINDS[int],
        "slots": KINDS[tuple[int, ...]],
        "is_quiet": KINDS[bool],
        "is_merged": KINDS[bool],
        "method": KINDS[str],
        "memory": KINDS[Bytes],
        "words": KINDS[tuple[str, ...]],
    }
    assert list(kinds) == list(Table.__dataclass_fields__)


def test_rows_say_what_is_required_and_what_holds_otherwise():
    table = rows(Table)
    assert [name for name, row in table.items() if row.is_required] == ["folder"]
    assert [name for name, row in table.items() if row.is_switch] == ["is_quiet", "is_merged"]
    otherwise = {name: row.otherwise for name, row in table.items() if row.otherwise}
    assert otherwise == {
        "folder": "required", "size": "1", "parts": "the size", "slots": "none", "method": "one", "memory": "1024"
    }  # fmt: skip
    assert table["size"].flags == ("--size", "--sz")
    assert table["is_quiet"].flag == "--is-quiet"


@pytest.mark.parametrize(
    "entry", [(int, field(default=0)), (float, option(help="A number.")), (int | str, option(help="Either."))]
)
def test_field_that_is_no_option_is_refused(entry):
    made = dataclass(type("Wrong", (), {"__annotations__": {"wrong": entry[0]}, "wrong": entry[1]}))
    with pytest.raises(TypeError, match=r"Wrong\.wrong"):
        rows(made)


def test_option_with_a_detail_that_no_row_has_is_refused():
    made = dataclass(type("Wrong", (), {"__annotations__": {"wrong": int}, "wrong": option(help="It.", hlep="It.")}))
    with pytest.raises(TypeError, match="hlep"):
        rows(made)


def test_defaults_fill_in_what_was_not_asked_for():
    filled = with_defaults(Table(folder=FOLDER, is_merged=True, slots=(3,)))
    assert filled == Table(FOLDER, 1, 1, (3,), False, True, "one", 1024, None)
    assert with_defaults(Table(FOLDER, size=4)).parts == 4
    assert with_defaults(Table(FOLDER, size=4, parts=2)).parts == 2


def test_values_that_no_model_could_have_are_all_refused():
    error = faults_of(check_values, Table(FOLDER, size=0, slots=(0, 4, -2), method="three", memory=15))
    assert error.faults == (
        "--size 0: must be at least 1",
        "--slots 0,4,-2: must be at least 0",
        "--method three: must be one of one, two",
        "--memory 15: must be at least 16",
    )
    accepted = Faults()
    check_values(Table(FOLDER, size=1, slots=(), method="two", memory=16), accepted)
    assert not accepted


def test_options_for_parts_that_a_model_lacks_are_refused_but_as_their_defaults():
    asked = Table(FOLDER, size=4, parts=2, is_merged=True)
    error = faults_of(check_features, asked, frozenset(), "mine")
    assert error.faults == (
        "--parts 2: mine models have no experts (mixture of experts)",
        "--is-merged: mine models have no multi-head latent attention",
    )
    accepted = Faults()
    check_features(asked, frozenset({"moe", "mla"}), "mine", accepted)
    check_features(Table(FOLDER, size=4, parts=4, is_merged=False), frozenset(), "mine", accepted)
    assert not accepted


def test_options_that_a_model_type_refuses_or_notes_are_named_but_not_their_defaults():
    reasons = {"parts": "are whole", "is_merged": "are not merged", "method": "have one method", "words": "are mute"}
    asked = Table(FOLDER, size=4, parts=2, is_merged=True, method="one")
    said = ("--parts 2: mine are whole", "--is-merged: mine are not merged")
    assert faults_of(check_refused, asked, reasons, "mine").faults == said
    assert notes_on(asked, reasons, "mine") == said
    assert notes_on(Table(FOLDER, size=4), reasons, "mine") == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("65536", 65536), ("1B", 1), ("2k", 2000), ("2kB", 2000), ("2KiB", 2048), ("64MiB", 64 << 20),
        ("1 GiB", 1 << 30), ("1.5GB", 1_500_000_000), ("0.5gib", 1 << 29), ("3t", 3 * 10**12),
    ],
)  # fmt: skip
def test_bytes_are_read_with_their_units(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "MiB", "1iB", "-1", "1e3", "1.", "1 XB", "0x10", "1,5GB", "1MiBs", "9" * 5000])
def test_bytes_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "1_0", "٣", "1.0", "0x1", "--1", "9" * 5000])
def test_whole_numbers_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_whole(text)
    with pytest.raises(ValueError, match=r".*"):
        parse_list(f"1,{text}")


def test_values_are_written_as_they_are_read():
    assert parse_list(shown((3, 4, -1))) == (3, 4, -1)
    assert (shown(()), shown(8), shown("local")) == ("none", "8", "local")
