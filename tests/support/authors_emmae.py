"""Files as the authors of Cryo-EMMAE publish them, with random weights of a narrower and shallower network."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans

WIDTH, DEPTH, DECODER_WIDTH, DECODER_DEPTH = 8, 2, 16, 1
MEAN, STD = 0.53, 0.12
WEIGHTS, KMEANS, STANDARDIZATION = "MAE_epoch_400.pth.tar", "kmeans_4_82_400.pkl", "standarization_82.npy"
REFERENCE, MASK = "input_example.png", "target_example.png"


def authors_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Under the authors' names, position codes included and as random as the rest."""
    generator = torch.Generator().manual_seed(seed)

    def of(*shape: int, scale: float = 0.25) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator)

    found = {
        "cls_token": of(1, 1, WIDTH),
        "pos_embed": of(1, 257, WIDTH, scale=1.0),
        "mask_token": of(1, 1, DECODER_WIDTH),
        "decoder_pos_embed": of(1, 257, DECODER_WIDTH, scale=1.0),
        "patch_embed.proj.weight": of(WIDTH, 1, 4, 4),
        "patch_embed.proj.bias": of(WIDTH),
        "norm.weight": 1 + of(WIDTH),
        "norm.bias": of(WIDTH),
        "decoder_embed.weight": of(DECODER_WIDTH, WIDTH),
        "decoder_embed.bias": of(DECODER_WIDTH),
        "decoder_norm.weight": 1 + of(DECODER_WIDTH),
        "decoder_norm.bias": of(DECODER_WIDTH),
        "decoder_pred.weight": of(16, DECODER_WIDTH),
        "decoder_pred.bias": of(16),
    }
    for blocks, count, width in (("blocks", DEPTH, WIDTH), ("decoder_blocks", DECODER_DEPTH, DECODER_WIDTH)):
        for block in (f"{blocks}.{number}" for number in range(count)):
            for name, rows in (("attn.qkv", 3 * width), ("attn.proj", width), ("mlp.fc1", 2 * width)):
                found |= {f"{block}.{name}.weight": of(rows, width), f"{block}.{name}.bias": of(rows)}
            found |= {f"{block}.mlp.fc2.weight": of(width, 2 * width), f"{block}.mlp.fc2.bias": of(width)}
            for norm in ("norm1", "norm2"):
                found |= {f"{block}.{norm}.weight": 1 + of(width), f"{block}.{norm}.bias": of(width)}
    return found


def write_authors_files(folder: Path, *, picture: NDArray[np.uint8], vectors: NDArray[np.float32]) -> None:
    """Weights, standardisation, a k-means of joblib on the vectors, the picture and a mask of its darkest places.

    Parameters
    ----------
    picture : (1024, 1024) pre-processed
    vectors : (n, `WIDTH`)
    """
    torch.save(
        {
            "model": {**authors_tensors(), "cls_token_classifier.weight": torch.zeros(1, WIDTH)},
            "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999), "params": [0]}]},
            "epoch": 400,
            "scaler": {"scale": 65536.0},
        },
        folder / WEIGHTS,
    )
    np.save(folder / STANDARDIZATION, np.array([MEAN, STD, 1.0, 2.0, 3.0, 4.0]))
    joblib.dump(KMeans(4, random_state=0, n_init="auto").fit(vectors), folder / KMEANS)
    Image.fromarray(picture).save(folder / REFERENCE)
    small = np.asarray(Image.fromarray(picture).resize((256, 256)))
    mask = small < np.quantile(small, 0.03)
    Image.fromarray(255 * mask.astype(np.uint8)).save(folder / MASK)
