"""A teacher's layer list read back, and its blocks dropped."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from model_training.backbones.mobilefacenet import MobileFaceNetShape
from model_training.backbones.units import AnnealedPReLU, ConvUnit
from model_training.teachers.layer_list import LayerListError, load_layer_list
from model_training.training.shrinking import drop_blocks, kept_blocks
from tests.unit.model_training.common import TINY, random_network, random_pixels


def layer_list(network):
    """Layers and arrays of a network, in the order of their computation and as a converter would name them."""
    layers, arrays = [{"op": "_minus_scalar", "name": "minus", "inputs": ["data"], "scalar": 127.5}], {}

    def add_norm(name, norm):
        parts = {"gamma": norm.weight, "beta": norm.bias, "mean": norm.running_mean, "var": norm.running_var}
        for part, value in parts.items():
            arrays[f"{name}_{part}"] = value.detach().numpy()
        layers.append({"op": "BatchNorm", "name": name, "eps": norm.eps} | {p: f"{name}_{p}" for p in parts})

    units = [module for module in network.modules() if isinstance(module, ConvUnit)]
    for number, unit in enumerate(units):
        name, conv = f"unit{number}", unit.conv
        arrays[f"{name}_weight"] = conv.weight.detach().numpy()
        layers.append(
            {
                "op": "Convolution",
                "name": name,
                "kernel": list(conv.kernel_size),
                "stride": list(conv.stride),
                "groups": conv.groups,
                "weight": f"{name}_weight",
            }
        )
        add_norm(f"{name}_bn", unit.bn)
        if isinstance(unit.act, AnnealedPReLU):
            arrays[f"{name}_slope"] = unit.act.weight.detach().numpy()
            layers.append({"op": "PReLU", "name": f"{name}_relu", "slope": f"{name}_slope"})
        if number % 7 == 5:
            layers.append({"op": "Add", "name": f"plus{number}", "inputs": []})
    arrays["fc1_weight"], arrays["fc1_bias"] = network.fc.weight.detach().numpy(), network.fc.bias.detach().numpy()
    layers.append({"op": "FullyConnected", "name": "fc1", "weight": "fc1_weight", "bias": "fc1_bias"})
    add_norm("fc1_bn", network.fc_bn)
    return layers, arrays


def with_odd_epsilons(network):
    """As a teacher from another framework has them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for number, norm in enumerate(norms):
        norm.eps = 0.05 + 0.01 * (number % 3)
    return network


@pytest.fixture
def teacher():
    return with_odd_epsilons(random_network(TINY, seed=3))


@pytest.fixture
def store(tmp_path):
    def write(layers, arrays):
        np.savez(tmp_path / "teacher.npz", **arrays)
        (tmp_path / "layers.json").write_text(json.dumps({"input": "data", "layers": layers}))
        return tmp_path / "teacher.npz", tmp_path / "layers.json"

    return write


def output(network):
    with torch.no_grad():
        return network.eval()(random_pixels())


class TestLoad:
    def test_a_network_comes_back_with_its_shape_and_its_function(self, teacher, store):
        loaded = load_layer_list(*store(*layer_list(teacher)))
        assert loaded.shape == teacher.shape
        assert not loaded.training
        assert torch.equal(output(loaded), output(teacher))

    def test_stages_without_residual_blocks_are_read_too(self, store):
        shape = MobileFaceNetShape(**{**TINY.__dict__, "blocks": (0, 2, 1)})
        network = random_network(shape)
        loaded = load_layer_list(*store(*layer_list(network)))
        assert loaded.shape.blocks == (0, 2, 1)
        assert torch.equal(output(loaded), output(network))

    def test_a_missing_bias_has_a_customary_name(self, teacher, store):
        layers, arrays = layer_list(teacher)
        arrays["pre_fc1_bias"] = arrays.pop("fc1_bias")
        del next(layer for layer in layers if layer["op"] == "FullyConnected")["bias"]
        assert torch.equal(output(load_layer_list(*store(layers, arrays))), output(teacher))

    @pytest.mark.parametrize(
        "name", ["unit0_weight", "unit4_weight", "unit3_bn_mean", "unit2_slope", "fc1_weight", "fc1_bn_var"]
    )
    def test_a_missing_array_is_named(self, teacher, store, name):
        layers, arrays = layer_list(teacher)
        del arrays[name]
        with pytest.raises(LayerListError, match=name):
            load_layer_list(*store(layers, arrays))

    def test_a_misshapen_array_is_named(self, teacher, store):
        layers, arrays = layer_list(teacher)
        arrays["unit3_bn_mean"] = arrays["unit3_bn_mean"][:-1]
        with pytest.raises(LayerListError, match="unit3_bn_mean has shape"):
            load_layer_list(*store(layers, arrays))

    @pytest.mark.parametrize("op", ["BatchNorm", "PReLU", "FullyConnected"])
    def test_a_missing_layer_is_an_error(self, teacher, store, op):
        layers, arrays = layer_list(teacher)
        layers.remove(next(layer for layer in layers if layer["op"] == op))
        with pytest.raises(LayerListError):
            load_layer_list(*store(layers, arrays))

    def test_another_architecture_is_an_error(self, teacher, store):
        layers, arrays = layer_list(teacher)
        for layer in layers[5:]:
            if layer.get("stride") == [2, 2]:
                layer["stride"] = [1, 1]
        with pytest.raises(LayerListError, match="three strided stages"):
            load_layer_list(*store(layers, arrays))


class TestKeptBlocks:
    @pytest.mark.parametrize(
        ("available", "wanted", "kept"),
        [
            (4, 2, [0, 2]),
            (6, 3, [0, 2, 4]),
            (2, 1, [0]),
            (6, 4, [0, 1, 3, 4]),
            (4, 4, [0, 1, 2, 3]),
            (5, 0, []),
            (0, 0, []),
        ],
    )
    def test_they_are_spread_evenly_from_the_first(self, available, wanted, kept):
        assert kept_blocks(available, wanted) == kept

    @pytest.mark.parametrize(("available", "wanted"), [(2, 3), (2, -1)])
    def test_more_than_there_are_is_an_error(self, available, wanted):
        with pytest.raises(ValueError, match="residual blocks"):
            kept_blocks(available, wanted)


class TestDropBlocks:
    DEEP = MobileFaceNetShape(**{**TINY.__dict__, "blocks": (4, 3, 2)})

    def test_dropping_none_is_the_same_network(self, teacher):
        assert torch.equal(output(drop_blocks(teacher, TINY.blocks)), output(teacher))

    def test_the_student_is_the_teacher_with_the_other_blocks_passed_over(self):
        """Against the teacher itself with a hole where each dropped block was."""
        teacher = with_odd_epsilons(random_network(self.DEEP))
        student = drop_blocks(teacher, (2, 1, 0))
        assert student.shape.blocks == (2, 1, 0)
        got = output(student)
        # Index 0 of a stage is its strided bottleneck; of four blocks the first and third stay, of three the first.
        for stage, dropped in ((0, (2, 4)), (1, (2, 3)), (2, (1, 2))):
            for index in dropped:
                teacher.stages[stage][index] = nn.Identity()
        assert torch.equal(got, output(teacher))

    def test_the_student_shares_no_memory_with_the_teacher(self, teacher):
        before = output(teacher)
        student = drop_blocks(teacher, (0, 1, 0))
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.zero_()
        assert torch.equal(output(teacher), before)

    def test_more_blocks_than_the_teacher_has_is_an_error(self, teacher):
        with pytest.raises(ValueError, match="residual blocks"):
            drop_blocks(teacher, (1, 2, 0))
