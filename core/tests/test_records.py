"""Records are the dataclasses of the standard library in everything but the time that it takes to make them."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, field

import pytest

from mscvt import records


@records.dataclass(frozen=True, slots=True)
class Point:
    """Where something is."""

    x: int
    y: float = 2.5
    tags: dict = field(default_factory=dict, hash=False)
    seen: list = field(default_factory=list, init=False, repr=False, compare=False)
    area: float = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "area", self.x * self.y)


def made_by(dataclass):
    """The same classes, by one decorator or the other."""

    @dataclass(frozen=True, slots=True)
    class Empty: ...

    @dataclass(frozen=True, slots=True)
    class One:
        a: object

    @dataclass(frozen=True)
    class Two:
        a: object
        b: object = 3

        def __repr__(self):
            return "two"

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        a: int
        b: list = field(default_factory=list, compare=False)
        c: int = 4

    @dataclass(frozen=True, slots=True)
    class Mixed:
        a: int
        b: int = field(default=5, kw_only=True)
        c: int = field(default=6, init=False)

    @dataclass(frozen=True, slots=True, eq=False)
    class Itself:
        a: int

    @dataclass(slots=True)
    class Loose:
        a: int
        b: list = field(default_factory=list)

    @dataclass(eq=False)
    class LooseItself:
        a: int

    return {each.__name__: each for each in (Empty, One, Two, Named, Mixed, Itself, Loose, LooseItself)}


NAN = float("nan")
ARGUMENTS = {
    "Empty": [((), {})],
    "One": [((1,), {}), ((NAN,), {}), (([],), {})],
    "Two": [((1,), {}), ((1, 4), {}), ((), {"b": 3, "a": 1})],
    "Named": [((), {"a": 1}), ((), {"a": 1, "b": [2]}), ((), {"c": 2, "a": 1})],
    "Mixed": [((1,), {}), ((1,), {"b": 2}), ((2,), {})],
    "Itself": [((1,), {})],
    "Loose": [((1,), {}), ((2, [3]), {}), ((), {"a": 1})],
    "LooseItself": [((1,), {})],
}
OURS, THEIRS = made_by(records.dataclass), made_by(dataclasses.dataclass)


def what_of(thing):
    """An answer, or the error instead of one."""
    try:
        return thing()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_record_is_what_a_dataclass_is(name):
    ours, theirs = OURS[name], THEIRS[name]
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert ours.__match_args__ == theirs.__match_args__
    assert hasattr(ours, "__slots__") == hasattr(theirs, "__slots__")
    assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]
    pairs = [(ours(*given, **named), theirs(*given, **named)) for given, named in ARGUMENTS[name]]
    for mine, other in pairs:
        assert [mine == each for each, _ in pairs] == [other == each for _, each in pairs]
    for mine, other in pairs:
        assert repr(mine).rpartition(".")[2] == repr(other).rpartition(".")[2]
        assert what_of(lambda mine=mine: hash(mine)) == what_of(lambda other=other: hash(other)) or "Itself" in name
        assert mine != other
        if name == "Empty":
            continue  # what is no field either may fail in another way
        assert what_of(lambda mine=mine: setattr(mine, "a", 7)) == what_of(lambda other=other: setattr(other, "a", 7))
        assert what_of(lambda mine=mine: delattr(mine, "a")) == what_of(lambda other=other: delattr(other, "a"))


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("given", [((), {}), ((1, 2, 3), {}), ((), {"z": 1})])
def test_record_refuses_what_a_dataclass_refuses(name, given):
    values, named = given
    if THEIRS[name].__name__ == "Empty" and not (values or named):
        return
    outcomes = [what_of(lambda each=each: type(each[name](*values, **named)).__name__) for each in (OURS, THEIRS)]
    assert outcomes[0] == outcomes[1]


def test_way_of_making_a_record_is_compiled_for_the_first_one_alone():
    @records.dataclass(frozen=True, slots=True)
    class Late:
        a: int

    class Heir(Late):
        """What is no record itself."""

    before = vars(Late)["__init__"]
    assert not inspect.isfunction(before)
    assert Heir(1).a == 1
    made = vars(Late)["__init__"]
    assert inspect.isfunction(made)
    assert Late(2).a == 2
    assert vars(Late)["__init__"] is made


def test_fields_are_set_by_defaults_factories_and_post_init():
    one, other = Point(2), Point(2, tags={"a": 1})
    assert (one.y, one.tags, one.seen, one.area) == (2.5, {}, [], 5.0)
    assert one.tags is not Point(2).tags
    assert one != other
    assert hash(one) == hash(other)
    assert repr(one) == "Point(x=2, y=2.5, tags={}, area=5.0)"
    assert dataclasses.replace(one, x=4).area == 10
    assert dataclasses.asdict(one) == {"x": 2, "y": 2.5, "tags": {}, "seen": [], "area": 5.0}
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 3


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_equal(again):
    one = Point(2, tags={"a": 1})
    one.seen.append(3)
    other = again(one)
    assert other is not one
    assert (other, other.seen, other.area) == (one, [3], 5.0)


@pytest.mark.parametrize(
    "bases", [(records.dataclass, dataclasses.dataclass), (dataclasses.dataclass, records.dataclass)]
)
@pytest.mark.parametrize("slots", [True, False])
def test_records_and_dataclasses_inherit_from_each_other(bases, slots):
    first, second = bases

    @first(frozen=True, slots=slots)
    class Base:
        a: int
        b: int = 2

    @second(frozen=True, slots=slots)
    class Heir(Base):
        c: int = 3

    heir = Heir(1)
    assert heir == Heir(1, 2, 3)
    assert (copy.copy(heir), dataclasses.astuple(heir)) == (heir, (1, 2, 3))
    with pytest.raises(FrozenInstanceError):
        heir.a = 4
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        second()(type("Loose", (Base,), {}))
