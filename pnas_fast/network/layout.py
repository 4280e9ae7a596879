"""The macro-architecture around the cells, as data (docs/method.md, 3.2, 6.1, 6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Stem = Literal["cifar", "imagenet", "strided"]


class Place(NamedTuple):
    """One cell's position in a network.

    Attributes:
        filters: channels of a block.
        reduction: whether it is a reduction cell, of stride 2.
        back: how many outputs back its H[c-2] is.
    """

    filters: int
    reduction: bool
    back: int = 2


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A macro-architecture: everything about a network but its cells, its classes and its images.

    Attributes:
        repeats: N; three groups of N cells, between which the map halves and filters double.
        filters: F, channels of a block in the first group.
        stem: ``cifar``: a 3×3 convolution. ``imagenet``: a 3×3 convolution of stride 2 without padding, then
            two reduction cells of F / 4 and F / 2 filters. ``strided`` (DARTS on ImageNet): three 3×3
            convolutions of stride 2; H[c-2] and H[c-1] are the results of the last two.
        stem_filters: channels of the stem's (last) convolution; None is 3F.
        extra_reductions: whether reductions are cells of their own, 3N + 2 in all, or the first cells of the
            second and third group, 3N in all.
        skip_reduction_input: whether the cell after an extra reduction takes for its H[c-2] what the
            reduction's was, or the output that the reduction read as H[c-1].
        always_align: whether H[c-2] passes through a 1×1 convolution in every cell, or only where its
            channels are not F and it is not the raw stem.
        previous_projections: ReLU, 1×1, batch norm so many times on H[c-1].
        final_rectify: a ReLU before the last pooling.
        classifier_bias: a bias in the classifier.
        dropout: probability before the classifier.
        norm_epsilon: of every batch norm.
        norm_momentum: of every batch norm, in PyTorch's sense: the weight of the new batch.
    """

    repeats: int
    filters: int
    stem: Stem = "cifar"
    stem_filters: int | None = None
    extra_reductions: bool = False
    skip_reduction_input: bool = False
    always_align: bool = False
    previous_projections: int = 1
    final_rectify: bool = True
    classifier_bias: bool = True
    dropout: float = 0.0
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.1

    def places(self) -> list[Place]:
        """The positions of the cells in order, the stem's included."""
        places = []
        if self.stem == "imagenet":
            places += [Place(self.filters // 4, reduction=True), Place(self.filters // 2, reduction=True)]
        for group in range(3):
            filters = self.filters * 2**group
            normal = [Place(filters, reduction=False)] * self.repeats
            if group > 0:
                places.append(Place(filters, reduction=True))
                if not self.extra_reductions:
                    normal.pop()
                elif self.skip_reduction_input:
                    normal[0] = normal[0]._replace(back=3)
            places += normal
        return places

    @property
    def auxiliary_place(self) -> int:
        """The index of the cell that the auxiliary classifier reads: the last before the second reduction."""
        return [index for index, place in enumerate(self.places()) if place.reduction][-1] - 1
