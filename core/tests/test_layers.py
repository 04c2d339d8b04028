import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_plugins import family_of

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.family import DENSE, MOE, Layer
from mscvt.model.layers import select_layers


def model(dense=3, experts=5, mtp=2):
    count = dense + experts
    layers = [Layer(i, DENSE if i < dense else MOE) for i in range(count)]
    return [*layers, *(Layer(count + m, MOE, mtp=m) for m in range(mtp))]


def kept(layers, **options):
    selection = select_layers(layers, Options(**options))
    assert {*selection.kept, *selection.dropped} == {*layers}
    assert len(selection.kept) + len(selection.dropped) == len(layers)
    return [layer.index for layer in selection.kept]


@pytest.mark.parametrize(
    ("h", "kinds"),
    [
        ({}, [DENSE] * 3),
        ({"first_k_dense_replace": 1}, [DENSE] * 3),
        ({"num_experts": 4}, [MOE] * 3),
        ({"num_experts": 4, "first_k_dense_replace": 2}, [DENSE, DENSE, MOE]),
    ],
)
@pytest.mark.parametrize("depth", [0, 2])
def test_layers_of_a_family_that_names_none_are_dense_then_have_experts(h, kinds, depth):
    mtp = [Layer(3 + m, MOE if "num_experts" in h else DENSE, mtp=m) for m in range(depth)]
    decoder = [Layer(i, kind) for i, kind in enumerate(kinds)]
    assert family_of().layers({"num_layers": 3, "mtp_num_layers": depth, **h}) == (*decoder, *mtp)


def test_all_decoder_layers_and_no_mtp_layers_are_kept_by_default():
    assert kept(model()) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_first_layers_are_kept_with_num_layers():
    assert kept(model(), num_layers=4) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("layers", "dense", "expected"),
    [(4, 1, [0, 3, 4, 5]), (5, 0, [3, 4, 5, 6, 7]), (6, 2, [0, 1, 3, 4, 5, 6]), (4, 3, [0, 1, 2, 3]), (1, 2, [0])],
)
def test_dense_layers_are_left_out_with_first_k_dense_replace(layers, dense, expected):
    assert kept(model(), num_layers=layers, first_k_dense_replace=dense) == expected


def test_mtp_layers_keep_the_numbers_of_the_whole_model_with_reduced_layers():
    assert kept(model(), num_layers=2, mtp_num_layers=2) == [0, 1, 8, 9]
    assert select_layers(model(), Options(num_layers=2, mtp_num_layers=1)).decoder_count == 2


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.none() | st.integers(0, 5))
def test_selection_is_what_the_rule_says_or_an_error(dense, experts, mtp, wanted, first):
    layers = model(dense, experts, mtp)
    numbers = list(range(dense + experts))
    if first is not None:
        numbers = numbers[:first] + numbers[dense:]
    fits = wanted <= len(numbers) and (first is None or first <= dense)
    try:
        found = kept(layers, num_layers=wanted, first_k_dense_replace=first)
    except MscvtError:
        assert not fits
    else:
        assert fits
        assert found == numbers[:wanted]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 9}, "--num-layers 9: the model has 8 layers"),
        ({"num_layers": 8, "first_k_dense_replace": 1}, "--num-layers 8: with --first-k-dense-replace 1"),
        ({"num_layers": 4, "first_k_dense_replace": 4}, "--first-k-dense-replace 4: the model has 3 leading dense"),
        ({"first_k_dense_replace": 1}, "--num-layers is not given"),
        ({"mtp_num_layers": 3}, "--mtp-num-layers 3: the model has 2 MTP layers"),
    ],
)
def test_more_than_the_model_has_is_refused(options, message):
    with pytest.raises(MscvtError) as caught:
        select_layers(model(), Options(**options))
    assert message in str(caught.value)


def test_all_faults_are_shown_at_once():
    with pytest.raises(MscvtError) as caught:
        select_layers(model(), Options(num_layers=9, mtp_num_layers=3))
    assert len(caught.value.faults) == 2
