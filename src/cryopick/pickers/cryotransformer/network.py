"""A detection transformer whose queries are selected from the image and look only around themselves.

Set prediction as in DETR: one query answers for one particle, one-to-one matching teaches it, and nothing is suppressed
afterwards. Three things make it small and quick to train: queries are those places of a convolutional feature map that
may hold a particle (Deformable DETR's two stages, Zhu et al., ICLR 2021), a query attends to the tokens around its
reference point and refines that point layer by layer, and queries see how they lie to each other (Hou et al., ECCV
2024). No weight depends on the place in the image and nothing reaches further than a few particles. So there is no
largest image and no largest number of particles, and cutting an image into tiles changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryopick.heatmap.layout import HEAD_CHANNELS, STRIDE_PX, TRUNK_STRIDE_PX
from cryopick.heatmap.network import HeatmapUNet
from cryopick.processing.scale import NOMINAL_PARTICLE_PX

REACH_PX = 30.0
"""Queries further apart do not see each other."""
PROPOSAL_PLANES = 4
DENSE_PLANES = PROPOSAL_PLANES + HEAD_CHANNELS
"""Planes of `ProposalNetwork` before the tokens."""
_CHUNK = 4096  # queries whose windows are gathered at once


@dataclass
class Queries:
    """A set of queries, of one image or of several.

    Parameters
    ----------
    image : (n,) int64, which image of the batch
    xy_px : (n, 2) reference points, input pixels
    log_size : (n,) natural logarithm of the diameter over `NOMINAL_PARTICLE_PX`
    logit : (n,) of the probability that the query holds a particle
    """

    image: Tensor
    xy_px: Tensor
    log_size: Tensor
    logit: Tensor

    def detach(self) -> Queries:
        return Queries(self.image, self.xy_px.detach(), self.log_size.detach(), self.logit.detach())

    def __len__(self) -> int:
        return len(self.image)


@dataclass
class Attention:
    """What queries look at in one layer, mean over the heads.

    Parameters
    ----------
    index : (n, k) tokens, in the order of a (b, h / 4, w / 4) array
    weight : (n, k), sums to 1 over the tokens of a query
    """

    index: Tensor
    weight: Tensor


class LocalDetectionTransformer(nn.Module):
    """(b, in_channels, h, w) to sets of particles.

    Parameters
    ----------
    in_channels, trunk_widths, trunk_depths : of the convolutional trunk, see `HeatmapUNet`
    width : channels of a query
    heads : of every attention
    layers : of the decoder; 0 takes the proposals as they are
    window : side of the square of tokens, `TRUNK_STRIDE_PX` apart, that a query attends to; odd
    neighbours : nearest queries, itself included, that a query attends to; 1 switches self-attention off
    competes : whether queries on one particle compete for it, see `Competition`
    """

    def __init__(
        self,
        *,
        in_channels: int = 2,
        trunk_widths: tuple[int, int, int] = (64, 96, 128),
        trunk_depths: tuple[int, int, int] = (2, 2, 2),
        width: int = 96,
        heads: int = 4,
        layers: int = 3,
        window: int = 7,
        neighbours: int = 12,
        competes: bool = True,
    ) -> None:
        super().__init__()
        # what the shapes of the weights do not tell; in a damaged card a number may have become `true`
        for name, number in (("window", window), ("neighbours", neighbours), ("heads", heads), ("layers", layers)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}, expected a whole number from 1 on")
        if window % 2 == 0:
            raise ValueError(f"window is {window}, expected an odd number of tokens")
        tokens = trunk_widths[0]
        self.encoder = ProposalNetwork(in_channels=in_channels, widths=trunk_widths, depths=trunk_depths)
        self.neighbours, self.window = neighbours, window
        self.enter = nn.Sequential(nn.Linear(tokens + 2, width), nn.LayerNorm(width))
        self.layers = nn.ModuleList(
            DecoderLayer(tokens, width=width, heads=heads, window=window, competes=competes) for _ in range(layers)
        )

    def forward(self, planes: Tensor, *, floor: float, most: int) -> dict[str, Any]:
        """What training needs: `heat` (b, 5, h / 2, w / 2), `proposals` (b, 4, h / 4, w / 4), `stages`: `Queries` each.

        Parameters
        ----------
        floor : proposals less probable become no queries
        most : queries per image
        """
        dense = self.encoder(planes).float()
        heat = nn.functional.pixel_shuffle(dense[:, PROPOSAL_PLANES:DENSE_PLANES], TRUNK_STRIDE_PX // STRIDE_PX)
        proposals, tokens = dense[:, :PROPOSAL_PLANES], dense[:, DENSE_PLANES:]
        queries, index = select_queries(proposals, floor=floor, most=most)
        return {"heat": heat, "proposals": proposals, "stages": self.decode(tokens, queries, index)}

    def decode(
        self, tokens: Tensor, queries: Queries, index: Tensor, *, seen: list[Attention] | None = None
    ) -> list[Queries]:
        """The queries after each decoder layer, the proposals themselves not included.

        Parameters
        ----------
        tokens : (b, c, h / 4, w / 4)
        index : (n,) the token of each query, in the order of a (b, h / 4, w / 4) array
        seen : filled with what each layer looked at
        """
        stages: list[Queries] = []
        if len(queries) == 0 or not self.layers:
            return [queries] * len(self.layers)
        grid = TokenGrid.of(tokens)
        size = torch.stack([queries.logit.detach().clamp(-8, 8) / 4, queries.log_size.detach()], dim=1)
        x = self.enter(torch.cat([grid.flat[index], size], dim=1))
        neighbours = nearest_queries(queries, count=self.neighbours)
        for layer in self.layers:
            x, queries, answers = layer(x, queries.detach(), grid, neighbours, seen)
            stages.append(answers)
        return stages


class ProposalNetwork(nn.Module):
    """The convolutional part: (b, in_channels, h, w) to (b, `DENSE_PLANES` + tokens, h / 4, w / 4).

    Planes: proposals, then the heat maps of `HeatmapUNet` folded to stride 4, then the tokens. A proposal is an
    objectness logit, an offset x and y in input pixels, and a log size. It starts as what the heat maps say at its
    place and is corrected by what one-to-one matching teaches.
    """

    def __init__(self, *, in_channels: int, widths: tuple[int, int, int], depths: tuple[int, int, int]) -> None:
        super().__init__()
        self.tokens = widths[0]
        self.trunk = HeatmapUNet(in_channels=in_channels, widths=widths, depths=depths)
        self.heat_head = self.trunk.head
        self.trunk.head = nn.Sequential()  # the trunk ends with its features
        self.proposal_head = nn.Sequential(
            nn.Conv2d(widths[0], widths[0], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[0], PROPOSAL_PLANES, 1),
        )
        _silence(self.proposal_head[-1])

    def train(self, mode: bool = True) -> ProposalNetwork:
        """As usual, but batch norms stay frozen, as those of DETR's backbone are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, planes: Tensor) -> Tensor:
        tokens = self.trunk(planes)
        heat = self.heat_head(tokens)
        factor = TRUNK_STRIDE_PX // STRIDE_PX
        pooled = nn.functional.avg_pool2d(heat[:, :PROPOSAL_PLANES].detach(), factor)
        units = pooled.new_tensor([1.0, STRIDE_PX, STRIDE_PX, 1.0])[None, :, None, None]
        proposals = pooled * units + self.proposal_head(tokens)
        return torch.cat([proposals, nn.functional.pixel_unshuffle(heat, factor), tokens], dim=1)

    def load_trunk(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from the weights of a `HeatmapUNet` of the same widths and depths; what it says of shapes is left."""
        own = {
            name.replace("head.", "heat_head.", 1) if name.startswith("head.") else f"trunk.{name}": tensor
            for name, tensor in tensors.items()
        }
        for name in ("heat_head.1.weight", "heat_head.1.bias"):
            own[name] = own[name][:HEAD_CHANNELS]
        found = self.load_state_dict(own, strict=False)
        missing = [name for name in found.missing_keys if not name.startswith("proposal_head.")]
        if missing or found.unexpected_keys:
            raise ValueError(f"weights of another trunk: {(missing + found.unexpected_keys)[0]} has no counterpart")


@dataclass
class TokenGrid:
    """Tokens of a batch of images, one row each: `flat` is (b * height * width, c)."""

    flat: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, tokens: Tensor) -> TokenGrid:
        height, width = tokens.shape[-2:]
        return cls(tokens.permute(0, 2, 3, 1).reshape(-1, tokens.shape[1]), height, width)

    def window_around(self, queries: Queries, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (n, side²) of the tokens around reference points, their offsets (n, side², 2) in diameters, and which
        of them lie outside the image."""
        place = (queries.xy_px + 0.5) / TRUNK_STRIDE_PX - 0.5
        middle = place.round()
        step = torch.arange(side, device=place.device) - side // 2
        column = middle[:, :1] + step.repeat(side)
        row = middle[:, 1:] + step.repeat_interleave(side)
        is_outside = (column < 0) | (row < 0) | (column >= self.width) | (row >= self.height)
        offset = torch.stack([column - place[:, :1], row - place[:, 1:]], dim=2) * (
            TRUNK_STRIDE_PX / NOMINAL_PARTICLE_PX
        )
        at_row, at_column = row.clamp(0, self.height - 1).long(), column.clamp(0, self.width - 1).long()
        index = (queries.image[:, None] * self.height + at_row) * self.width + at_column
        return index, offset, is_outside


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the image around them; then each corrects its place, size and logit."""

    def __init__(
        self, tokens: int, *, width: int, heads: int, window: int, competes: bool, relation_width: int = 24
    ) -> None:
        super().__init__()
        self.competition = Competition() if competes else None
        self.heads, self.window, self.head_width = heads, window, width // heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_in = nn.Linear(width, 3 * width)
        self.relation = nn.Sequential(nn.Linear(RELATIONS, relation_width), nn.ReLU(inplace=True))
        self.relation_bias = nn.Linear(relation_width, heads)
        self.self_out = nn.Linear(width + heads * relation_width, width)
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(tokens, 2 * width)
        self.place = nn.Sequential(
            nn.Linear(3, relation_width), nn.ReLU(inplace=True), nn.Linear(relation_width, heads)
        )
        self.cross_out = nn.Linear(width + heads * 2, width)
        self.feed = nn.Sequential(nn.Linear(width, 3 * width), nn.ReLU(inplace=True), nn.Linear(3 * width, width))
        self.answer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, PROPOSAL_PLANES)
        )
        _silence(self.answer[-1])

    def forward(
        self,
        x: Tensor,
        queries: Queries,
        grid: TokenGrid,
        neighbours: tuple[Tensor, Tensor],
        seen: list[Attention] | None = None,
    ) -> tuple[Tensor, Queries, Queries]:
        x = x + self._look_at_queries(self.norms[0](x), queries, *neighbours)
        x = x + self._look_at_image(self.norms[1](x), queries, grid, seen)
        x = x + self.feed(self.norms[2](x))
        change = self.answer(x).float()
        moved = replace(
            queries,
            logit=queries.logit + change[:, 0],
            xy_px=queries.xy_px + change[:, 1:3] * (NOMINAL_PARTICLE_PX / 4),
            log_size=queries.log_size + change[:, 3],
        )
        return x, moved, moved if self.competition is None else self.competition(moved, *neighbours)

    def _look_at_queries(self, x: Tensor, queries: Queries, neighbours: Tensor, is_absent: Tensor) -> Tensor:
        n, count = neighbours.shape
        query, key_value = self.self_in(x).split([x.shape[1], 2 * x.shape[1]], dim=1)
        key, value = gather(key_value, neighbours).view(n, count, 2, self.heads, -1).unbind(2)
        relation = self.relation(relations(queries, neighbours).to(x.dtype))
        score = (query.view(n, 1, self.heads, -1) * key).sum(-1) * self.head_width**-0.5 + self.relation_bias(relation)
        weight = score.float().masked_fill(is_absent[:, :, None], -1e4).softmax(1).to(value.dtype)
        seen = torch.einsum("nkh,nkhc->nhc", weight, value).reshape(n, -1)
        related = torch.einsum("nkh,nkc->nhc", weight, relation.to(value.dtype)).reshape(n, -1)
        out: Tensor = self.self_out(torch.cat([seen, related], dim=1))
        return out

    def _look_at_image(self, x: Tensor, queries: Queries, grid: TokenGrid, seen: list[Attention] | None) -> Tensor:
        memory = self.memory(grid.flat)
        query = self.query(x)
        parts, looks = [], []
        for start in range(0, len(queries), _CHUNK):
            part = slice(start, start + _CHUNK)
            some = Queries(queries.image[part], queries.xy_px[part], queries.log_size[part], queries.logit[part])
            index, offset, is_outside = grid.window_around(some, self.window)
            part_seen, weight = self._attend(query[part], memory, index, offset, is_outside)
            parts.append(part_seen)
            if seen is not None:
                looks.append((index, weight.mean(dim=2)))
        if seen is not None:
            seen.append(Attention(*(torch.cat(values) for values in zip(*looks, strict=True))))
        out: Tensor = self.cross_out(torch.cat(parts))
        return out

    def _attend(
        self, query: Tensor, memory: Tensor, index: Tensor, offset: Tensor, is_outside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is seen (n, width + 2 heads), values and mean place, and the attention (n, tokens, heads)."""
        n, count = index.shape
        key, value = gather(memory, index).view(n, count, 2, self.heads, -1).unbind(2)
        place = torch.cat([offset, (offset**2).sum(2, keepdim=True)], dim=2).to(query.dtype)
        score = (query.view(n, 1, self.heads, -1) * key).sum(-1) * self.head_width**-0.5 + self.place(place)
        weight = score.float().masked_fill(is_outside[:, :, None], -1e4).softmax(1)
        seen = torch.einsum("nkh,nkhc->nhc", weight.to(value.dtype), value).reshape(n, -1)
        where = torch.einsum("nkh,nkc->nhc", weight, offset).reshape(n, -1).to(value.dtype)
        return torch.cat([seen, where], dim=1), weight


class Competition(nn.Module):
    """Queries on one particle share its probability, as slots share the image in slot attention.

    The logit of query i falls by `log(1 + sum_j exp(g_ij))` over its neighbours j, where `g` is how much j is the same
    particle and surer of it: `strength * tanh(slope * (logit_j - logit_i)) + offset - width * distance²` in diameters.
    The four numbers and a correction of `g` by a small network are learnt with everything else; they start from the
    plain fact that two centres a third of a diameter apart are hardly two particles.

    References
    ----------
    F. Locatello et al., Object-Centric Learning with Slot Attention, NeurIPS 2020.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(6.0))
        self.slope = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor(2.0))
        self.width = nn.Parameter(torch.tensor(40.0))
        self.correct = nn.Sequential(nn.Linear(RELATIONS, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))
        _silence(self.correct[-1])

    def forward(self, queries: Queries, neighbours: Tensor, is_absent: Tensor) -> Queries:
        with torch.no_grad():
            fixed = queries.detach()
            relation = relations(fixed, neighbours)
            diameter = torch.exp((fixed.log_size[neighbours] + fixed.log_size[:, None]).clamp(-3, 3) / 2)
            distance = relation[..., 2] / diameter
            itself = torch.arange(len(queries), device=neighbours.device)[:, None]
            is_other = ~is_absent & (neighbours != itself)
        difference = queries.logit[neighbours] - queries.logit[:, None]
        # shared softly while learning, decided when asked: two nearly equal ones would both stay at half strength
        surer = torch.tanh(self.slope * difference) if self.training else torch.sign(difference)
        same = self.offset - self.width * distance**2 + self.correct(relation)[..., 0].float()
        rivalry = torch.where(is_other, self.strength * surer + same, -30.0)
        none = torch.zeros_like(rivalry[:, :1])
        return replace(queries, logit=queries.logit - torch.logsumexp(torch.cat([none, rivalry], dim=1), dim=1))


RELATIONS = 8


def relations(queries: Queries, neighbours: Tensor) -> Tensor:
    """(n, k, `RELATIONS`) How a query's neighbours lie to it: offset, distance, size, and how sure they are."""
    xy, logit, size = queries.xy_px, queries.logit.clamp(-8, 8) / 4, queries.log_size
    offset = (xy[neighbours] - xy[:, None]) / NOMINAL_PARTICLE_PX
    distance = (offset**2).sum(2).add(1e-6).sqrt()
    theirs = logit[neighbours]
    return torch.stack(
        [
            *offset.unbind(2),
            distance,
            torch.log(distance + 0.05),
            size[neighbours] - size[:, None],
            theirs,
            theirs - logit[:, None],
            # which of two equal ones is meant must not depend on rounding: the sign breaks the tie
            torch.tanh(8 * (theirs - logit[:, None])),
        ],
        dim=2,
    )


def nearest_queries(queries: Queries, *, count: int) -> tuple[Tensor, Tensor]:
    """(n, count) indices of the nearest queries of the same image, itself first, and which entries are none."""
    from scipy.spatial import cKDTree

    apart = places_apart(queries.xy_px, queries.image)
    distance, index = cKDTree(apart).query(apart, k=np.arange(1, count + 1), distance_upper_bound=REACH_PX)
    is_absent = ~np.isfinite(distance)
    index = np.where(is_absent, np.arange(len(apart))[:, None], index)
    device = queries.xy_px.device
    return torch.from_numpy(index).to(device), torch.from_numpy(is_absent).to(device)


def places_apart(xy_px: Tensor, image: Tensor) -> NDArray[np.float64]:
    """(n, 3) Points of several images far from each other, for one search tree.

    No coordinate is 0: a tree splits between a value and the next larger number, and where training flushes denormal
    numbers to 0 the number next to 0 is 0, which ends in endless recursion.
    """
    planes = np.column_stack([xy_px.detach().cpu().numpy(), 1e7 * image.cpu().numpy()]).astype(np.float64)
    return np.asarray(planes + 1e5)


def select_queries(proposals: Tensor, *, floor: float, most: int | None = None) -> tuple[Queries, Tensor]:
    """Proposals at least as probable as `floor` as queries, and the index of each one's token.

    Parameters
    ----------
    proposals : (b, 4, h, w)
    most : of one image; the most probable ones. None: all, as many as there are
    """
    b, _, height, width = proposals.shape
    flat = proposals.permute(0, 2, 3, 1).reshape(b, height * width, PROPOSAL_PLANES)
    logit = flat[..., 0].detach()
    is_chosen = logit > float(np.log(floor / (1 - floor)))
    if most is not None and height * width > most:
        is_chosen &= logit >= logit.topk(most, dim=1).values[:, -1:]
    index = is_chosen.flatten().nonzero()[:, 0]
    chosen = flat.reshape(-1, PROPOSAL_PLANES)[index]
    inside = index % (height * width)
    token_xy = torch.stack([inside % width, torch.div(inside, width, rounding_mode="floor")], dim=1)
    xy_px = (token_xy + 0.5) * TRUNK_STRIDE_PX - 0.5 + chosen[:, 1:3]
    image = torch.div(index, height * width, rounding_mode="floor")
    return Queries(image, xy_px, chosen[:, 3], chosen[:, 0]), index


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """(m, c) and (n, k) to (n, k, c); as an embedding, whose gradient is added up in parallel."""
    return nn.functional.embedding(index, rows)


def _silence(layer: nn.Module) -> None:
    """Start a correction at zero."""
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise TypeError(f"expected a linear or convolutional layer, got {type(layer)}")
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
