"""Segment Anything: published sizes, Meta's files, and a compact model of the same class."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from meta_checkpoint import meta_tensors  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from cryopick.errors import WeightsError  # noqa: E402
from cryopick.pickers.cryosegnet.sam_files import load_sam, meta_config  # noqa: E402
from cryopick.pickers.cryosegnet.sam_network import (  # noqa: E402
    CompactSamSize,
    SamSegmenter,
    build_compact_sam,
    compact_architecture,
    decode,
    encode,
    segment,
)

TINY = CompactSamSize(image_px=32, patch_px=8, width=16, depth=2, heads=2, decoder_width=16)


def test_vit_h_has_the_published_parameter_count():
    with torch.device("meta"):
        model = transformers.SamModel(meta_config("vit_h"))
    learnt = sum(parameter.numel() for parameter in model.parameters())
    fixed = model.shared_image_embedding.positional_embedding.numel()  # a buffer in Meta's program
    assert learnt - fixed == 641_090_608


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_in_metas_layout_loads_with_its_sizes_and_values(tmp_path, suffix):
    tensors = meta_tensors()
    path = tmp_path / f"sam_vit_t{suffix}"
    torch.save(tensors, path) if suffix == ".pth" else save_file(tensors, path)
    model = load_sam(str(path))
    vision = model.config.vision_config
    assert (vision.image_size, vision.patch_size, vision.window_size) == (32, 8, 2)
    assert list(vision.global_attn_indexes) == [1]
    assert vision.num_attention_heads == 2
    # Meta counts the last of three layers as number 2
    last = model.mask_decoder.output_hypernetworks_mlps[3].proj_out.weight
    assert torch.equal(last, tensors["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"])
    middle = model.mask_decoder.iou_prediction_head.layers[0].bias
    assert torch.equal(middle, tensors["mask_decoder.iou_prediction_head.layers.1.bias"])
    assert torch.equal(model.vision_encoder.layers[1].attn.rel_pos_w, tensors["image_encoder.blocks.1.attn.rel_pos_w"])
    positions = tensors["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(model.shared_image_embedding.positional_embedding, positions)
    assert torch.equal(model.prompt_encoder.shared_embedding.positional_embedding, positions)
    assert sum(p.numel() for p in model.parameters()) == sum(t.numel() for t in tensors.values())
    segmenter = SamSegmenter(model.eval(), "cpu", False, "meta")
    logits, predicted = segmenter.decode(
        segmenter.embed(np.zeros((2, 32, 32), np.float32)), np.array([0, 1, 1]), np.array([[3.0, 4.0]] * 3)
    )
    assert logits.shape == (3, 3, 32, 32)
    assert predicted.shape == (3, 3)


def test_a_folder_in_the_layout_of_transformers_gives_the_same_model(tmp_path):
    (tmp_path / "meta.pth").parent.mkdir(exist_ok=True)
    torch.save(meta_tensors(), tmp_path / "meta.pth")
    model = load_sam(str(tmp_path / "meta.pth"))
    model.save_pretrained(tmp_path / "folder")
    again = load_sam(str(tmp_path / "folder"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_other_files_are_refused_with_what_was_expected(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_sam(str(tmp_path / "sam_vit_h_4b8939.pth"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no checkpoint of Segment Anything"):
        load_sam(str(tmp_path / "other.pth"))
    tensors = {**meta_tensors(), "mask_decoder.hf_token.weight": torch.zeros(1, 4)}
    torch.save(tensors, tmp_path / "hq.pth")
    with pytest.raises(WeightsError, match=r"unknown mask_decoder\.hf_token"):
        load_sam(str(tmp_path / "hq.pth"))


def test_the_compact_model_segments_by_points_and_learns_from_them():
    torch.manual_seed(0)
    model = build_compact_sam(compact_architecture(TINY))
    embeddings = encode(model, torch.rand(2, 32, 32) * 255)
    assert embeddings.shape == (2, 16, 4, 4)
    logits, predicted = decode(model, embeddings[[0, 0, 1]], torch.tensor([[1.0, 2.0], [30.0, 5.0], [8.0, 8.0]]))
    assert logits.shape == (3, 1, 16, 16)
    assert predicted.shape == (3, 1)
    assert not torch.allclose(logits[0], logits[1])  # the place of the prompt matters
    points = torch.tensor([[[1.0, 2.0], [30.0, 5.0]], [[8.0, 8.0], [9.0, 1.0]]])
    torch.manual_seed(0)
    at_once, _ = segment(model, torch.rand(2, 32, 32) * 255, points)
    torch.manual_seed(0)
    embeddings = encode(model, torch.rand(2, 32, 32) * 255)
    apart, _ = decode(model, embeddings[[0, 0, 1, 1]], points.flatten(0, 1))
    assert torch.allclose(at_once.flatten(0, 1), apart, atol=1e-4)
    (logits.square().mean() + predicted.square().mean()).backward()
    used = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert any(name.startswith("vision_encoder") for name in used)
    assert any(name.startswith("prompt_encoder") for name in used)
    assert not model.shared_image_embedding.positional_embedding.requires_grad


def test_prompts_are_answered_for_their_own_tile():
    torch.manual_seed(0)
    segmenter = SamSegmenter(build_compact_sam(compact_architecture(TINY)).eval(), "cpu", False, "compact")
    tiles = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    together, _ = segmenter.decode(segmenter.embed(tiles), np.array([2, 0]), np.array([[5.0, 6.0], [9.0, 9.0]]))
    alone, _ = segmenter.decode(segmenter.embed(tiles[2:]), np.array([0]), np.array([[5.0, 6.0]]))
    np.testing.assert_allclose(together[0], alone[0], atol=1e-4)


def _damaged_files(folder):
    """Files that raised SafetensorError, EOFError, IndexError, KeyError, struct.error or ZeroDivisionError."""
    tensors = meta_tensors()
    torch.save(tensors, folder / "new.pth")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "plain.safetensors")
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for path, content in whole.items():
        for length in (0, 1, 9, 200, len(content) // 2, len(content) - 1):
            (folder / f"{length}-{path.name}").write_bytes(content[:length])
        for place in range(2, 1500, 97):
            damaged = bytearray(content)
            damaged[place] ^= 0x41
            (folder / f"at{place}-{path.name}").write_bytes(damaged)
        path.unlink()
    torch.save([tensors], folder / "list.pth")
    torch.save({1: torch.zeros(2)}, folder / "numbers.pth")
    torch.save({"model": tensors}, folder / "nested.pth")
    width = {"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(3, 0)}
    save_file({**tensors, **width}, folder / "zero.safetensors")
    huge = {"image_encoder.patch_embed.proj.weight": torch.zeros(2**31, 0, 8, 8)}
    save_file({**tensors, **huge}, folder / "huge.safetensors")
    return sorted(folder.iterdir())


def test_damaged_files_are_weights_errors_that_name_them_or_load(tmp_path):
    refused = {}
    for path in _damaged_files(tmp_path):
        try:
            load_sam(str(path))
        except WeightsError as error:
            refused[path.name] = str(error)
    assert all(name in message for name, message in refused.items())
    for name in ("0-new.pth", "0-old.pt", "200-old.pt", "9-plain.safetensors", "list.pth", "numbers.pth"):
        assert name in refused
    assert {"nested.pth", "zero.safetensors", "huge.safetensors"} <= set(refused)


def test_nothing_in_a_file_is_run(tmp_path):
    import pickle
    import zipfile

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "was run"), "w"))

    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload()))
    torch.save(meta_tensors(), tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "zipped.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(Payload()) if name.endswith("data.pkl") else content)
    for name in ("plain.pth", "zipped.pth"):
        with pytest.raises(WeightsError, match=name):
            load_sam(str(tmp_path / name))
    assert not (tmp_path / "was run").exists()


def test_a_folder_whose_weights_do_not_fill_the_model_is_refused(tmp_path):
    torch.save(meta_tensors(), tmp_path / "meta.pth")
    model = load_sam(str(tmp_path / "meta.pth"))
    state = model.state_dict()
    del state["vision_encoder.neck.conv1.weight"]
    model.save_pretrained(tmp_path / "folder", state_dict=state)
    with pytest.raises(WeightsError, match=r"no fitting weights for vision_encoder\.neck\.conv1\.weight"):
        load_sam(str(tmp_path / "folder"))
    weights = tmp_path / "folder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsError, match="folder"):
        load_sam(str(tmp_path / "folder"))


def test_a_folder_that_wants_more_layers_than_it_has_tensors_is_refused_before_they_are_built(tmp_path):
    torch.save(meta_tensors(), tmp_path / "meta.pth")
    load_sam(str(tmp_path / "meta.pth")).save_pretrained(tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    config = json.loads(file.read_text())
    config["mask_decoder_config"]["iou_head_depth"] = 10**400
    file.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"iou_head_depth is 1000.*tensors beside it"):
        load_sam(str(tmp_path / "folder"))


def test_a_folder_of_pickled_weights_is_refused_with_what_was_expected(tmp_path):
    torch.save(meta_tensors(), tmp_path / "meta.pth")
    model = load_sam(str(tmp_path / "meta.pth"))
    model.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "folder" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"folder: cannot be loaded .* and model\.safetensors"):
        load_sam(str(tmp_path / "folder"))
