"""What is decoded, and what is refused: by `quantization_config` and by the tensors."""

import pytest
import torch
from safetensors.torch import save_file

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource, open_source
from mscvt.tensors.computing import values_of
from mscvt.tensors.quantized import dequantized

FP8 = torch.ones(3, 5).to(torch.float8_e4m3fn)
SCALE = torch.full((1, 1), 2.0)
RELEASE = {"a.weight": FP8, "a.weight_scale_inv": SCALE}
PLAIN = {"a.weight": torch.ones(3, 5, dtype=torch.bfloat16)}


def folder_of(tmp_path, tensors):
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def config(**said):
    return {"quantization_config": said}


METHODS = ["gptq", "awq", "compressed-tensors", "modelopt", "mxfp4", "fbgemm_fp8", "torchao", None, 8]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dequantize", [False, True])
def test_method_that_can_not_be_decoded_is_named(method, dequantize, tmp_path):
    folder = folder_of(tmp_path, PLAIN)
    with pytest.raises(MscvtError, match=f"quantization_config says quant_method {method!r}; decoded can be") as caught:
        open_source(folder, dequantize=dequantize, config=config(quant_method=method))
    assert "bf16 release" in caught.value.hint


@pytest.mark.parametrize("said", [[], "fp8", 8])
def test_quantization_config_that_is_no_object_is_refused(said, tmp_path):
    with pytest.raises(MscvtError, match="quantization_config says no object"):
        open_source(folder_of(tmp_path, RELEASE), dequantize=True, config={"quantization_config": said})


FOREIGN = {
    "a.weight_scale": "compressed-tensors, ModelOpt",
    "a.weight_scale_2": "NVFP4",
    "a.qweight": "GPTQ or AWQ",
    "a.qzeros": "GPTQ or AWQ",
    "a.weight_packed": "compressed-tensors",
    "mlp.experts.gate_up_proj_blocks": "MXFP4",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("dequantize", [False, True])
def test_names_of_other_tools_are_refused_with_who_uses_them(name, dequantize, tmp_path):
    folder = folder_of(tmp_path, RELEASE | {name: torch.ones(2)})
    with pytest.raises(MscvtError, match=FOREIGN[name]) as caught:
        open_source(folder, dequantize=dequantize)
    assert repr(name) in caught.value.message


def test_asking_to_decode_what_is_not_quantized_is_an_error(tmp_path):
    with pytest.raises(MscvtError, match="no weight is quantized") as caught:
        open_source(folder_of(tmp_path, PLAIN), dequantize=True)
    assert caught.value.hint == "Leave out --dequantize."


def test_plain_weights_whose_configuration_still_says_fp8_are_taken(tmp_path):
    source = open_source(folder_of(tmp_path, PLAIN), config=config(quant_method="fp8"))
    assert {name: info.dtype for name, info in source.tensors.items()} == {"a.weight": "BF16"}


def test_block_size_of_the_configuration_is_used(tmp_path):
    scales = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    folder = folder_of(tmp_path, {"a.weight": FP8, "a.weight_scale_inv": scales})
    said = config(quant_method="fp8", weight_block_size=[2, 2])
    found = values_of(open_source(folder, dequantize=True, config=said).tensor("a.weight"), 0, (3, 5), (5, 1))
    assert found.tolist() == [[1.0, 1.0, 2.0, 2.0, 3.0]] * 2 + [[4.0, 4.0, 5.0, 5.0, 6.0]]


@pytest.mark.parametrize("size", [[128], [128, 0], [128, 1.5], "128", [128, True], [-1, 128], 128])
def test_impossible_block_size_is_refused(size, tmp_path):
    with pytest.raises(MscvtError, match="weight_block_size is"):
        open_source(
            folder_of(tmp_path, RELEASE), dequantize=True, config=config(quant_method="fp8", weight_block_size=size)
        )


def test_fp8_of_another_format_is_refused(tmp_path):
    with pytest.raises(MscvtError, match="fmt 'e5m2'"):
        open_source(folder_of(tmp_path, RELEASE), dequantize=True, config=config(quant_method="fp8", fmt="e5m2"))


ORPHANS = {
    "scale_inv": ({"b.weight_scale_inv": SCALE}, "b.weight_scale_inv: there is no b.weight"),
    "e8m0": ({"b.scale": torch.ones(1, 1).to(torch.float8_e8m0fnu)}, "b.scale: there is no b.weight"),
    "two_scales": ({"a.scale": SCALE}, "a.weight has two scales, a.scale and a.weight_scale_inv"),
    "no_scale": ({"b.weight": FP8}, "b.weight: F8_E4M3 and no b.weight_scale_inv or b.scale"),
    "e5m2": ({"b": FP8.to(torch.float8_e5m2)}, "b: F8_E5M2 and no b_scale_inv"),
    "scale_of_bf16": ({"b": PLAIN["a.weight"], "b_scale_inv": SCALE}, "b: BF16"),
}


@pytest.mark.parametrize("orphan", ORPHANS)
@pytest.mark.parametrize("dequantize", [False, True])
def test_scale_and_weight_without_each_other_are_refused_by_name(orphan, dequantize, tmp_path):
    tensors, said = ORPHANS[orphan]
    with pytest.raises(MscvtError, match=said):
        open_source(folder_of(tmp_path, RELEASE | tensors), dequantize=dequantize)


def test_parameters_named_scale_are_no_scales(tmp_path):
    tensors = PLAIN | {"a.scale": SCALE, "norm.scale": torch.ones(3)}
    assert open_source(folder_of(tmp_path, tensors)).tensors.keys() == tensors.keys()


def test_wrapper_keeps_the_files_and_notes_of_its_source(tmp_path):
    folder = folder_of(tmp_path, RELEASE)
    (folder / "consolidated.safetensors").write_bytes(b"")
    source = HuggingFaceSource(folder)
    wrapped = dequantized(source, {})
    assert (wrapped.files, wrapped.notes) == (source.files, source.notes)
    assert "consolidated.safetensors" in wrapped.notes[0]
    assert source.tensors["a.weight"].dtype == "F8_E4M3"
    assert values_of(source.tensor("a.weight"), 0, (2,), (1,)).dtype == torch.float8_e4m3fn
    assert values_of(wrapped.tensor("a.weight"), 0, (2,), (1,)).tolist() == [2.0, 2.0]
