"""The authors' files of Cryo-EMMAE: `MAE_epoch_N.pth.tar` and what its program keeps beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryopick.errors import WeightsError
from cryopick.io.weights import Checkpoint, ModelCard
from cryopick.pickers.cryoemmae.kmeans_file import read_centres
from cryopick.pickers.cryoemmae.network import build_masked_autoencoder
from cryopick.pickers.published_weights import PublishedWeights

if TYPE_CHECKING:
    from torch import Tensor

HEADS, DECODER_HEADS = 1, 8
"""No tensor tells them; those of all published models."""
POSITION_SCALE = 0.08
UNUSED = ("cls_token_classifier.weight", "cls_token_classifier.bias")
"""Left over in some of the authors' files; their program deletes them too."""
RENAMED = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "positions"),
    (r"^decoder_pos_embed$", "decoder_positions"),
    (r"^patch_embed\.proj\.", "embed."),
    (r"^decoder_pred\.", "predict."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attn\.proj\.", ".project."),
    (r"\.mlp\.fc1\.", ".expand."),
    (r"\.mlp\.fc2\.", ".contract."),
)
"""The authors' names to ours; the others are the same."""


def _weights_in(content: Any) -> Mapping[str, Any]:
    inner = content.get("model", content) if isinstance(content, Mapping) else {}
    return inner if isinstance(inner, Mapping) else {}


def recognises(content: Any) -> bool:
    """Whether what a file of torch holds is a masked autoencoder of the authors."""
    return {"mask_token", "decoder_pos_embed", "patch_embed.proj.weight"} <= set(_weights_in(content))


def read(path: Path, content: Any, companions: Mapping[str, Path]) -> Checkpoint:
    """The weights with a card, ready for `--as program` and `--as article`.

    Position codes are kept as the file has them: the authors' table tells the column first, ours the row.

    Parameters
    ----------
    companions : `standardization` and `clusters` are needed; `reference` and `reference_mask` say which cluster is the
        particle, which must be told at picking where they are not here

    Raises
    ------
    WeightsError
        If tensors are missing, unknown or of impossible shapes, or a companion is missing or malformed.
    """
    found = _weights_in(content)
    tensors = {_renamed(name): value for name, value in found.items() if name not in UNUSED}
    if not all(hasattr(value, "shape") for value in tensors.values()):
        raise WeightsError(f"{path}: holds something else than tensors among the weights of the network")
    architecture = _architecture(path, tensors)
    _put_in_our_shape(tensors)
    for name, file in (("standardization", "standarization_*.npy"), ("clusters", "kmeans_*.pkl")):
        if name not in companions:
            raise WeightsError(
                f"{path}: its {name} is missing; expected a file such as {file} beside it, or name it: cryopick "
                f"import-weights {path.name} -o DIR --with {name}={file}"
            )
    mean, std = _standardization(companions["standardization"])
    centres = read_centres(companions["clusters"])
    if centres.shape[1] != architecture["width"]:
        raise WeightsError(
            f"{companions['clusters']}: centres of {centres.shape[1]} numbers, expected {architecture['width']}, the "
            f"length of a latent vector of {path.name}"
        )
    epoch = content.get("epoch") if isinstance(content, Mapping) else None
    card = ModelCard(
        picker="cryoemmae",
        architecture=architecture,
        preprocessing={"mode": "program", "mean": mean, "std": std},
        postprocessing={"centres": centres.astype(float).tolist(), "particle": None},
        data={"kind": "published weights", "epoch": epoch if isinstance(epoch, int) else None},
        licence="that of its authors",
        notes=(
            "scores are not calibrated: with --as article and --as program a score is the size of a component, in "
            "pixels of 512 x 512",
        ),
    )
    checkpoint = Checkpoint(tensors, card, path)
    return _with_particle(checkpoint, companions)


def _renamed(name: str) -> str:
    for pattern, ours in RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def _architecture(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read off the shapes."""
    try:
        width, _, patch_px, _ = tensors["embed.weight"].shape
        side = round((tensors["positions"].shape[1] - 1) ** 0.5)
        depth, decoder_depth = (
            1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{blocks}."))
            for blocks in ("blocks", "decoder_blocks")
        )
        ratio = tensors["blocks.0.expand.weight"].shape[0] / width
        decoder_width = tensors["mask_token"].shape[2]
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: lacks a part of the network, or has it in another shape ({error})") from error
    found: dict[str, Any] = {
        "network": "masked_autoencoder",
        "image_px": side * patch_px,
        "patch_px": patch_px,
        "width": width,
        "depth": depth,
        "heads": HEADS,
        "decoder_width": decoder_width,
        "decoder_depth": decoder_depth,
        "decoder_heads": DECODER_HEADS,
        "position_scale": POSITION_SCALE,
        "stores_positions": True,
    }
    return found if ratio == 2 else {**found, "mlp_ratio": ratio}


def _put_in_our_shape(tensors: dict[str, Tensor]) -> None:
    """Patches are flat here, and the factor of the patches' position codes is in the codes."""
    tensors["embed.weight"] = tensors["embed.weight"].flatten(1)
    positions = tensors["positions"].clone()
    positions[:, 1:] *= POSITION_SCALE  # the program leaves that of the class token as it is
    tensors["positions"] = positions


def _standardization(path: Path) -> tuple[float, float]:
    """Mean and standard deviation of the training pixels, in [0, 1]."""
    try:
        values = np.load(path, allow_pickle=False)
        mean, std = (float(value) for value in np.ravel(values)[:2])
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: expected an .npy file of two numbers, mean and deviation ({error})") from error
    if not (np.isfinite([mean, std]).all() and std > 0):
        raise WeightsError(f"{path}: mean {mean} and deviation {std}, expected finite numbers, the second above 0")
    return mean, std


def _with_particle(checkpoint: Checkpoint, companions: Mapping[str, Path]) -> Checkpoint:
    """The same with the particle's cluster on the card, where a reference picture and its mask tell it."""
    from dataclasses import replace

    from cryopick.io.images.micrographs import read_micrograph
    from cryopick.pickers.cryoemmae.latent import Encoder
    from cryopick.pickers.cryoemmae.published_chain import particle_by_reference, picture_in_unit

    network = checkpoint.build(build_masked_autoencoder)  # also says which tensors are unknown or missing
    card = checkpoint.card
    if "reference" in companions and "reference_mask" in companions:
        values = card.preprocessing
        encoder = Encoder.loaded(network, mean=values["mean"], std=values["std"], device="cpu", precision="float32")
        picture = picture_in_unit(read_micrograph(companions["reference"]).pixels, name=str(companions["reference"]))
        marked = companions["reference_mask"]
        mask = read_micrograph(marked).pixels != 0
        centres = np.asarray(card.postprocessing["centres"], np.float32)
        particle = particle_by_reference(encoder.tokens(picture).vectors, centres, mask, where=marked)
        return replace(checkpoint, card=replace(card, postprocessing={**card.postprocessing, "particle": particle}))
    given = [name for name in ("reference", "reference_mask") if name in companions]
    if given:
        raise WeightsError(
            f"{checkpoint.path}: {given[0]} is of no use alone; reference and reference_mask belong together"
        )
    note = (
        "which cluster is the particle is not known: give --reference and --reference-mask when picking (the authors' "
        "input_example.png and target_example.png), or import again --with reference=... and --with reference-mask=..."
    )
    return replace(checkpoint, card=replace(card, notes=(*card.notes, note)))


PUBLISHED_WEIGHTS = PublishedWeights(
    about="the authors' masked autoencoder, MAE_epoch_N.pth.tar",
    recognises=recognises,
    read=read,
    companions={
        "standardization": ("standarization*.npy", "standardization*.npy"),
        "clusters": ("kmeans*.pkl", "kmeans*.npy"),
        "reference": ("input_example.png",),
        "reference_mask": ("target_example.png",),
    },
)
