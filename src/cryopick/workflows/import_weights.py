"""Take over weights that the authors of a system published: their file becomes safetensors with a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.errors import RunFolderError
from cryopick.io.weights import ModelCard, file_sha256, save_checkpoint
from cryopick.pickers.published_weights import read_published
from cryopick.training.folder import WEIGHTS_FILE


@dataclass(frozen=True, kw_only=True)
class ImportedWeights:
    """What was taken over.

    Parameters
    ----------
    weights : the file written; its card lies beside it
    tensors, parameters : how many tensors, and how many numbers in them
    """

    weights: Path
    card: ModelCard
    tensors: int
    parameters: int


def import_weights(
    file: Path | str,
    output: Path | str,
    *,
    picker: str | None = None,
    companions: Mapping[str, Path] | None = None,
) -> ImportedWeights:
    """Read the authors' weights and write them, with a card, into the folder `output`.

    Parameters
    ----------
    file : of torch: .pth, .pt, .pth.tar, .ckpt; read without executing anything in it
    output : folder, made if missing; `--weights` takes it
    picker : whose weights they are; None finds it out from the names of the tensors
    companions : files that belong to it, by name; others are looked for beside it

    Raises
    ------
    WeightsError
        If the file cannot be read safely, no system knows it, or a companion is unknown or missing.
    RunFolderError
        If the folder holds other weights already.
    """
    file, output = Path(file), Path(output)
    target = output / WEIGHTS_FILE
    checkpoint = read_published(file, picker=picker, companions=companions)
    source = {"file": file.name, "sha256": file_sha256(file)}
    if target.exists():
        raise RunFolderError(f"{target}: is there already; give another folder, or remove it")
    output.mkdir(parents=True, exist_ok=True)
    card = replace(checkpoint.card, data={**checkpoint.card.data, "imported_from": source})
    card = save_checkpoint(target, checkpoint.tensors, card)
    return ImportedWeights(
        weights=target,
        card=card,
        tensors=len(checkpoint.tensors),
        parameters=sum(tensor.numel() for tensor in checkpoint.tensors.values()),
    )
