"""Training of the small detection transformer of `cryotransformer` on simulated crops or labelled micrographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.heatmap.targets import crop_targets, example, heatmap_loss
from cryopick.metrics.detection import precision_recall_curve
from cryopick.pickers.cryotransformer.matching import FORBIDDEN, assign, box_losses, matching_cost
from cryopick.pickers.cryotransformer.model import (
    NETWORK,
    PROPOSAL_FLOOR,
    LocalSetModel,
    build_local,
    local_model,
)
from cryopick.pickers.cryotransformer.picker import local_picks
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, PLANES, network_planes
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.counted_sizes import counted_sizes
from cryopick.training.judging import (
    Candidates,
    calibrated,
    device_of,
    outcomes_of,
    outcomes_on,
    typical_diameter_px,
)
from cryopick.training.quarters import Example, QuarterTask, inside_quarter, quarter
from cryopick.training.sources import LearnsFromCrops, stacked
from cryopick.types import Micrograph

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.pickers.cryotransformer.network import Queries

BOX_UNIT_PX = 10 * NOMINAL_PARTICLE_PX
"""Unit of boxes in costs and losses: about the side of a crop, as the paper's unit is the side of the image."""
SURE_COST = 4.0
"""Weight of the probability in matching. With the article's 1, the queries on a particle, a fraction of a pixel apart,
would be told apart by chance rather than by which is surer, and none would learn to be the one."""
REACHABLE = 0.5
"""A query further than this many diameters from a particle is never matched with it."""
DUPLICATE = 0.3
"""Two answers closer than this many diameters are one particle answered for twice."""


@dataclass(frozen=True, kw_only=True)
class LocalTask(QuarterTask):
    """What the network is and what it sees."""

    width: Annotated[int, "channels of a query"] = 96
    heads: Annotated[int, "heads of every attention"] = 4
    layers: Annotated[int, "decoder layers; 0 answers with the proposals"] = 3
    window: Annotated[int, "side of the square of tokens that a query attends to; odd"] = 7
    neighbours: Annotated[int, "nearest queries that a query attends to; 1 switches self-attention off"] = 12
    competes: Annotated[bool, "whether queries on one particle compete for it"] = True
    in_channels: Annotated[int, "planes that it sees, see `general`"] = 3
    trunk_widths: Annotated[tuple[int, int, int], "trunk: channels at strides 4, 8 and 16"] = (64, 128, 192)
    trunk_depths: Annotated[tuple[int, int, int], "trunk: residual blocks at each of them"] = (2, 3, 2)
    start: Annotated[
        Literal["general", "random", "given"],
        "first weights of the convolutional trunk: general's, random, or with all others those of --start",
    ] = "general"
    trunk_rate: Annotated[float, "learning rate of the trunk relative to the rest; 0 keeps it as it is"] = 0.2
    heat_weight: Annotated[float, "weight of the heat map's loss, which answers for particles many to one"] = 0.5
    queries: Annotated[int, "most queries of one crop in training; picking has no limit"] = 256
    batch_size: Annotated[int, "quarters of crops per batch, an even number"] = 8
    simulation_seed: Annotated[int, "seed of the simulated crops; not that of the trunk's, which knows those"] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0 or self.width % self.heads:
            raise SettingsError(
                f"[task] window is {self.window}, width {self.width}, heads {self.heads}; expected an odd window and a "
                "width that the heads divide"
            )


@dataclass
class LocalTrainable(LearnsFromCrops):
    """The network, its crops and its loss."""

    task: LocalTask
    picker: str = field(default="cryotransformer", init=False)

    def simulated_example(self, crop: Crop) -> Example:
        """`particles` as of `particles_of`; `background` is the weight of what is no particle."""
        planes, targets = example(crop, self.task.in_channels)
        background = np.array(1, np.float32)
        return {"planes": planes, "targets": targets, "particles": particles_of(crop), "background": background}

    def labelled_example(self, crop: LabelledCrop) -> Example:
        """Sparse labels say nothing of background."""
        return {
            "planes": network_planes(crop.image, particle_px=NOMINAL_PARTICLE_PX, count=self.task.in_channels),
            "targets": labelled_targets(crop),
            "particles": labelled_particles(crop),
            "background": np.array(crop.is_complete, np.float32),
        }

    def part_of(self, example: Example, number: int) -> Example:
        """A quarter and the particles in it."""
        maps = {name: array for name, array in example.items() if name != "particles"}
        particles = inside_quarter(example["particles"], number, example["planes"].shape[-1] // 2)
        return {**quarter(maps, number), "particles": particles}

    def architecture(self) -> dict[str, Any]:
        task = self.task
        return {
            "network": NETWORK,
            "in_channels": task.in_channels,
            "trunk_widths": list(task.trunk_widths),
            "trunk_depths": list(task.trunk_depths),
            "width": task.width,
            "heads": task.heads,
            "layers": task.layers,
            "window": task.window,
            "neighbours": task.neighbours,
            "competes": task.competes,
        }

    def build_network(self) -> nn.Module:
        network = build_local(self.architecture())
        if self.task.start == "general":
            network.encoder.load_trunk(_general_trunk(self.task))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The trunk learns more slowly: its first weights are good."""
        parts: tuple[list[Any], list[Any]] = ([], [])
        for name, parameter in network.named_parameters():
            parts[name.startswith(("encoder.trunk.", "encoder.heat_head."))].append(parameter)
        rate = 1.0 if self.task.start == "random" else self.task.trunk_rate
        if rate == 0:
            for parameter in parts[1]:
                parameter.requires_grad_(False)
            return [{"params": parts[0]}]
        return [{"params": parts[0]}, {"params": parts[1], "lr_factor": rate}]

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Crops, or two quarters each of simulated ones, their heat maps, and their particles as one list.

        `particles` is (n, 5): number of the crop, x, y and diameter in working pixels, 1 where it is to be picked (0
        where that is undecided).
        """
        import torch

        examples = list(self.source.examples(index, rng))
        rows = [np.insert(one.pop("particles"), 0, number, axis=1) for number, one in enumerate(examples)]
        return {**stacked(examples), "particles": torch.from_numpy(np.concatenate(rows).astype(np.float32))}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Matched losses of the proposals and of every decoder layer, and the heat map's loss."""
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        found = network(planes, floor=PROPOSAL_FLOOR, most=self.task.queries)
        particles, background = batch["particles"], batch["background"]
        count = particles[:, 4].sum().clamp(min=len(background))  # batches of empty crops must not weigh more
        parts: dict[str, Tensor] = {}
        proposals = all_proposals(found["proposals"])
        stages: list[tuple[str, Queries, float]] = [("proposal", proposals, 0.5)]
        stages += [(f"layer{number}", one, 1.0) for number, one in enumerate(found["stages"], start=1)]
        total = torch.zeros((), device=planes.device)
        for name, queries, weight in stages:
            classes, l1, giou = set_losses(queries, particles, background)
            parts[f"{name}_class"] = classes / count
            parts[f"{name}_box"] = (5 * l1 + 2 * giou) / count
            total = total + weight * (parts[f"{name}_class"] + parts[f"{name}_box"])
        if self.task.heat_weight > 0:
            heat = heatmap_loss(found["heat"].float(), batch["targets"])
            parts["heat"] = heat["loss"]
            # the heat map's loss is a mean over pixels, the others are per particle
            pixels = batch["targets"][:, 0].numel()
            total = total + self.task.heat_weight * heat["loss"] * pixels / (30 * count)
        return {"loss": total, **parts}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision and best F1 at a quarter of a diameter, and the share of duplicates among those picks."""
        return judge(as_model(network), self.source.held_out)

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        outcomes = outcomes_of(partial(picked, as_model(network)), self.task.crops_to_calibrate())
        return {
            "preprocessing": {
                "nominal_particle_px": NOMINAL_PARTICLE_PX,
                "planes": ", ".join(PLANES[: self.task.in_channels]),
            },
            "postprocessing": {"calibration": calibrated(outcomes, surest_counts=True).to_list()},
            "data": self.card_data(),
        }

    def card_data(self) -> dict[str, Any]:
        """What was learnt from."""
        data = self.source.card_data()
        return {**data, "started_from": "general"} if self.task.start == "general" else data


# -------------------------------------------------------------------------------------------------------- targets


def _general_trunk(task: LocalTask) -> Mapping[str, Tensor]:
    """The weights of the shipped `general`, which must have the trunk that the task asks for."""
    from cryopick.io.weights import check_architecture, find_weights, load_checkpoint

    checkpoint = load_checkpoint(find_weights("general"), picker="general")
    wanted = {"in_channels": task.in_channels, "widths": task.trunk_widths, "depths": task.trunk_depths}
    check_architecture(checkpoint.card, {**checkpoint.card.architecture, **wanted}, where=str(checkpoint.path))
    return checkpoint.tensors


def particles_of(crop: Crop) -> NDArray[np.float64]:
    """(n, 4) x, y, diameter, and 1 where it is to be picked; particles of quite another size are none."""
    is_picked, is_undecided = counted_sizes(crop.diameter_px)
    return np.column_stack([crop.xy_px, crop.diameter_px, is_picked])[is_picked | is_undecided]


def labelled_particles(crop: LabelledCrop) -> NDArray[np.float64]:
    """(n, 4) as `particles_of`; uncertain labels are undecided."""
    return np.column_stack([crop.xy_px, crop.diameter_px, ~crop.is_uncertain])


def labelled_targets(crop: LabelledCrop) -> NDArray[np.float32]:
    """(6, h / 2, w / 2) as those of `example`; nothing is known of junk; sparse labels say nothing of background.

    Labels of the kind `background` teach `general` alone.
    """
    centre, offset_x, offset_y, size, weight, _ = crop_targets(crop)
    if not crop.is_complete:
        weight = weight * centre
    return np.stack([centre, offset_x, offset_y, size, np.zeros_like(centre), weight])


# --------------------------------------------------------------------------------------------------------- losses


def all_proposals(proposals: Tensor) -> Queries:
    """Every token of (b, 4, h, w) proposals as a query, whatever its logit."""
    from cryopick.pickers.cryotransformer.network import select_queries

    return select_queries(proposals, floor=1e-12)[0]


def set_losses(queries: Queries, particles: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over a batch of the class loss, the L1 loss and the generalised IoU loss after one-to-one matching.

    Parameters
    ----------
    particles : (n, 5) crop, x, y, diameter, 1 to be picked or 0 undecided
    background : (b,) weight of unmatched queries, 0 where labels are sparse
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    boxes, target_boxes = _boxes(queries.xy_px, queries.log_size), _target_boxes(particles)
    rows, columns, is_silent = match(queries, boxes, particles, target_boxes)
    is_matched = torch.zeros_like(queries.logit)
    is_matched[rows] = particles[columns, 4]
    weight = torch.where(is_silent, 0.0, background[queries.image])
    weight[rows] = particles[columns, 4]
    classes = (binary_cross_entropy_with_logits(queries.logit, is_matched, reduction="none") * weight).sum()
    is_picked = particles[columns, 4] > 0
    l1, giou = box_losses(boxes[rows[is_picked]], target_boxes[columns[is_picked]])
    return classes, l1, giou


def match(queries: Queries, boxes: Tensor, particles: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matched queries and particles, crop by crop, and the queries that an undecided particle excuses.

    Only queries within `REACHABLE` diameters of a particle are looked at for it; the others would cost more than none.
    """
    import torch
    from scipy.spatial import cKDTree

    from cryopick.pickers.cryotransformer.network import places_apart

    with torch.no_grad():
        probability = queries.logit.sigmoid()
        apart, places = places_apart(queries.xy_px, queries.image), places_apart(particles[:, 1:3], particles[:, 0])
        truth = particles.cpu().numpy().astype(np.float64)
        silent = np.zeros(len(apart), bool)
        rows: list[NDArray[np.intp]] = []
        columns: list[NDArray[np.intp]] = []
        if len(truth) and len(apart):
            near = cKDTree(apart).query_ball_point(places, REACHABLE * truth[:, 3])
            for number in np.unique(truth[:, 0]):
                targets = np.flatnonzero(truth[:, 0] == number)
                members = np.unique(np.concatenate([np.asarray(near[t], np.intp) for t in targets]))
                if len(members) == 0:
                    continue
                some, them = torch.from_numpy(members).to(boxes.device), torch.from_numpy(targets).to(boxes.device)
                cost = (
                    matching_cost(probability[some], boxes[some], target_boxes[them], class_cost=SURE_COST)
                    .cpu()
                    .numpy()
                )
                for j, target in enumerate(targets):
                    is_near = np.isin(members, np.asarray(near[target], np.intp))
                    cost[~is_near, j] = FORBIDDEN
                    silent[members[is_near]] |= truth[target, 4] == 0
                row, column = assign(cost)
                rows.append(members[row])
                columns.append(targets[column])
        found = [np.concatenate(one) if one else np.zeros(0, np.intp) for one in (rows, columns)]
    device = boxes.device
    return (
        torch.from_numpy(found[0]).to(device),
        torch.from_numpy(found[1]).to(device),
        torch.from_numpy(silent).to(device),
    )


def _boxes(xy_px: Tensor, log_size: Tensor) -> Tensor:
    import torch

    side = (log_size.clamp(-2, 2).exp() * (NOMINAL_PARTICLE_PX / BOX_UNIT_PX))[:, None]
    return torch.cat([xy_px / BOX_UNIT_PX, side, side], dim=1)


def _target_boxes(particles: Tensor) -> Tensor:
    import torch

    return torch.cat([particles[:, 1:3], particles[:, 3:4], particles[:, 3:4]], dim=1) / BOX_UNIT_PX


# -------------------------------------------------------------------------------------------------------- judging


def as_model(network: nn.Module) -> LocalSetModel:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    from cryopick.pickers.cryotransformer.network import LocalDetectionTransformer

    if not isinstance(network, LocalDetectionTransformer):
        raise TypeError(f"expected a LocalDetectionTransformer, got {type(network)}")
    return local_model(network, Calibration.none(), device=device_of(network), precision="float32")


def judge(model: LocalSetModel, crops: Sequence[Crop | LabelledCrop]) -> dict[str, float]:
    """Scores over crops; `score` is the average precision, `duplicates` a share of the picks at the best F1."""
    predictions = [model(crop.image) for crop in crops]
    found = [(one.xy_px, one.score) for one in predictions]
    curve = precision_recall_curve([outcomes_on(crop, one) for crop, one in zip(crops, found, strict=True)])
    best_f1, threshold = curve.best_f1()
    picks = [xy_px[score >= threshold] for xy_px, score in found]
    twice = sum(
        count_duplicates(xy_px, DUPLICATE * typical_diameter_px(crop.diameter_px))
        for xy_px, crop in zip(picks, crops, strict=True)
    )
    return {
        "score": curve.average_precision,
        "best_f1": best_f1,
        "duplicates": twice / max(sum(len(xy_px) for xy_px in picks), 1),
    }


def count_duplicates(xy_px: NDArray[np.float64], distance_px: float) -> int:
    """Pairs of answers no further apart than `distance_px`."""
    from scipy.spatial import cKDTree

    return len(cKDTree(xy_px).query_pairs(distance_px)) if len(xy_px) else 0


def picked(model: LocalSetModel, crop: Crop) -> Candidates:
    """Places (n, 2) and scores (n,) of a crop's answers at the size at which the picker works."""
    picks = local_picks(model, Micrograph(crop.image), diameter_px=WORKING_FACTOR * NOMINAL_PARTICLE_PX)
    return picks.xy_px, picks.score.astype(np.float64)
