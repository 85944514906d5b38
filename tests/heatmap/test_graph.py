"""The network as OpenVINO runs it is the network that torch taught: the same tensors give the same maps."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cryopick.errors import SettingsError, WeightsError
from cryopick.heatmap.layout import OUTPUTS, STRIDE_PX, tensor_shapes
from cryopick.heatmap.model import load_model
from cryopick.inference.processor import multiplies_bfloat16, multiplies_int8
from cryopick.inference.runtime import OPENVINO, runtime_on
from cryopick.io.weights import find_weights, load_checkpoint, read_arrays, save_checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")

from cryopick.heatmap.activation_ranges import activation_ranges  # noqa: E402
from cryopick.heatmap.graph import heatmap_graph  # noqa: E402
from cryopick.heatmap.network import build_heatmap_unet, fold_batch_norm, without_shape  # noqa: E402
from cryopick.inference.openvino_network import OpenVinoNetwork  # noqa: E402

SHIPPED = find_weights("general")
ARCHITECTURES = {
    "two planes": {"in_channels": 2, "widths": [8, 12, 16], "depths": [1, 1, 1]},
    "shapes": {"in_channels": 3, "widths": [8, 16, 24], "depths": [2, 1, 3], "has_shape": True},
    "wide": {"in_channels": 3, "widths": [32, 48, 64], "depths": [1, 2, 1]},
}


def taught(architecture):
    """A network of torch whose batch norms are away from where they begin, and its tensors as arrays."""
    torch.manual_seed(len(str(architecture)))
    module = build_heatmap_unet(architecture).train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(2, architecture["in_channels"], 64, 64) * 3 + 1)
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return SimpleNamespace(
        architecture=architecture, planes=architecture["in_channels"], module=module.eval(), arrays=arrays
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def network(request):
    return taught(ARCHITECTURES[request.param])


def image(planes, height, width, *, seed=0):
    return (3 * np.random.default_rng(seed).normal(size=(planes, height, width)) + 1).astype(np.float32)


def by_torch(module, planes):
    with torch.inference_mode():
        return without_shape(module)(torch.from_numpy(planes)[None])[0].numpy()


@pytest.mark.parametrize("shape_yx", [(16, 16), (64, 96), (208, 48)])
def test_in_float32_both_libraries_answer_the_same_to_an_image_of_any_shape(network, shape_yx):
    seen = OpenVinoNetwork(heatmap_graph(network.arrays, network.architecture))
    planes = image(network.planes, *shape_yx)
    expected, found = by_torch(network.module, planes), seen(planes)
    assert found.shape == (len(OUTPUTS), shape_yx[0] // STRIDE_PX, shape_yx[1] // STRIDE_PX)
    spread = expected.reshape(len(OUTPUTS), -1).std(axis=1)[:, None, None]
    assert (np.abs(found - expected) / spread).max() < 1e-4


def test_the_names_and_shapes_of_tensors_are_those_of_the_network_that_learns(network):
    assert tensor_shapes(network.architecture) == {name: array.shape for name, array in network.arrays.items()}


def test_the_shipped_weights_give_the_same_maps_with_both_libraries():
    checkpoint = load_checkpoint(SHIPPED)
    module = checkpoint.build(build_heatmap_unet).eval()
    planes = image(checkpoint.card.architecture["in_channels"], 160, 112)
    found = OpenVinoNetwork(heatmap_graph(read_arrays(SHIPPED), checkpoint.card.architecture))(planes)
    assert np.allclose(found, by_torch(module, planes), atol=2e-4)  # of logits that reach 20


def in_eight_bits(network):
    images = (torch.from_numpy(image(network.planes, 64, 64, seed=seed))[None] for seed in range(4))
    ranges = activation_ranges(fold_batch_norm(network.module), images)
    return OpenVinoNetwork(heatmap_graph(network.arrays, network.architecture, ranges=ranges))


@pytest.mark.skipif(not multiplies_int8(), reason="this CPU does not multiply 8-bit integers")
def test_eight_bit_integers_move_outputs_by_a_few_per_cent_of_their_spread(network):
    planes = image(network.planes, 96, 80, seed=9)
    exact, found = by_torch(network.module, planes), in_eight_bits(network)(planes)
    assert not np.allclose(exact, found, rtol=1e-4)
    for plane, (a, b) in enumerate(zip(exact, found, strict=True)):
        assert (a - b).std() / a.std() < 0.06, OUTPUTS[plane]
        assert abs((a - b).mean() / a.std()) < 0.02, OUTPUTS[plane]


@pytest.mark.parametrize("impossible", [(1e308, 1e308), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_range_that_no_activation_can_have_is_named(network, impossible):
    images = [torch.from_numpy(image(network.planes, 64, 64, seed=0))[None]]
    ranges = activation_ranges(fold_batch_norm(network.module), images)
    name = min(ranges)
    with pytest.raises(ValueError, match=rf"range of the activation {name} is .* to "):
        heatmap_graph(network.arrays, network.architecture, ranges={**ranges, name: impossible})


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16")
def test_bfloat16_moves_outputs_by_a_few_per_mille_of_their_spread(network):
    planes = image(network.planes, 96, 80, seed=9)
    exact = by_torch(network.module, planes)
    found = OpenVinoNetwork(heatmap_graph(network.arrays, network.architecture), is_bfloat16=True)(planes)
    for plane, (a, b) in enumerate(zip(exact, found, strict=True)):
        assert 1e-5 < (a - b).std() / a.std() < 0.02, OUTPUTS[plane]


def test_the_same_image_gives_the_same_answer_whatever_was_seen_in_between(network):
    seen = in_eight_bits(network)
    planes = image(network.planes, 64, 48)
    first = seen(planes)
    for rows in range(1, 8):
        seen(image(network.planes, 16 * rows, 32))
    assert np.array_equal(seen(planes), first)


def test_the_number_of_threads_changes_nothing(network, monkeypatch):
    answers = []
    for threads in ("1", "2", "3,1"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        answers.append(in_eight_bits(network)(image(network.planes, 128, 96)))
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_a_missing_range_of_an_activation_is_named(network):
    with pytest.raises(ValueError, match="unshuffle"):
        heatmap_graph(network.arrays, network.architecture, ranges={"stem": (0.0, 1.0)})


def test_weights_of_another_network_are_refused_without_torch_as_with_it(tmp_path):
    checkpoint = load_checkpoint(SHIPPED)
    tensors = {**checkpoint.tensors, "stem.0.weight": checkpoint.tensors["stem.0.weight"][:, :16]}
    save_checkpoint(tmp_path / "mine.safetensors", tensors, checkpoint.card)
    with pytest.raises(WeightsError, match=r"stem\.0\.weight is \(64, 16, 3, 3\), expected \(64, 48, 3, 3\)"):
        load_model(tmp_path / "mine.safetensors", device="cpu")


def test_numbers_that_the_cpu_has_no_units_for_are_refused_and_not_replaced(monkeypatch):
    monkeypatch.setattr("cryopick.heatmap.model.multiplies_bfloat16", lambda: False)
    with pytest.raises(SettingsError, match="float32 works everywhere"):
        load_model(None, device="cpu", precision="bfloat16")


def test_the_cpu_is_openvino_s_and_cards_are_torch_s():
    assert [runtime_on(device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [OPENVINO, "torch", "torch", "torch"]


def test_picking_on_the_cpu_imports_no_torch():
    code = (
        "import sys, numpy as np\n"
        "from cryopick.workflows.pick import pick\n"
        "from cryopick.types import Micrograph\n"
        "pixels = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)\n"
        "for name in ('general', 'blob'):\n"
        "    pick(Micrograph(pixels), name, diameter='40px', **({'device': 'cpu'} if name == 'general' else {}))\n"
        "print(sorted({'torch', 'torchvision', 'skimage', 'sklearn', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
