"""Published networks by name: cells, layout, images, and published figures (docs/method.md, 6.3).

All pad as TensorFlow's SAME does. DARTS pads alike on both sides; no figure here depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pnas_fast.network import Genotype, Layout
from pnas_fast.zoo import genotypes

TOLERANCE = 0.05
"""How far a computed figure may be from the published one."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a network's images go through before it sees them.

    The middle ``crop`` of height and of width is resized, bilinearly, to the network's size; values in
    [0, 1] have ``mean`` subtracted and are divided by ``std``, per channel (docs/method.md, 5.4).
    """

    crop: float = 0.875
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Published:
    """Figures from the published tables.

    Attributes:
        parameters: millions of them.
        multiply_adds: millions of them for one image; None where none were published.
        accuracy: top-1 / top-5 on ImageNet, or the error on CIFAR-10, in per cent.
        mismatch: why the public definition gives other figures; empty where it should not.
    """

    parameters: float
    multiply_adds: float | None = None
    accuracy: str = ""
    mismatch: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that can be created by name.

    Attributes:
        title: its name in the literature.
        genotype: its cells.
        layout: how they are put together.
        image_size: height and width of its images.
        classes: that the published figures are with.
        drop_path: of the published training recipe; 0 where that has none or says nothing.
        preprocessing: of its images; None for CIFAR-10, whose recipe belongs to the training.
        published: figures to compare with.
        tolerance: how far computed figures may be from them.
    """

    title: str
    genotype: Genotype
    layout: Layout
    image_size: int
    classes: int
    published: Published
    drop_path: float = 0.0
    preprocessing: Preprocessing | None = None
    tolerance: float = TOLERANCE


def imagenet_layout(
    repeats: int, filters: int, stem_filters: int = 32, *, within: bool = True, skip: bool = False
) -> Layout:
    """The layout of PNASNet-5 and, with ``within=False``, of NASNet-A and AmoebaNet on ImageNet.

    Args:
        repeats: N.
        filters: F.
        stem_filters: of the stem's convolution.
        within: whether reductions are among the 3N cells, or two more.
        skip: see `Layout.skip_reduction_input`.
    """
    return Layout(
        repeats=repeats,
        filters=filters,
        stem="imagenet",
        stem_filters=stem_filters,
        extra_reductions=not within,
        skip_reduction_input=skip,
        dropout=0.5,
        norm_epsilon=1e-3,
        norm_momentum=3e-4,
    )


_DARTS = Layout(repeats=6, filters=36, extra_reductions=True, always_align=True, final_rectify=False)

_CHANNEL_STATISTICS = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

MODELS: dict[str, Model] = {
    "pnasnet5_large": Model(
        title="PNASNet-5 large",
        genotype=genotypes.PNASNET5,
        layout=imagenet_layout(4, 216, 96),
        image_size=331,
        classes=1000,
        drop_path=0.4,
        preprocessing=Preprocessing(),
        published=Published(86.1, 25_000, "82.9 / 96.2"),
        tolerance=0.01,
    ),
    "pnasnet5_mobile": Model(
        title="PNASNet-5 mobile",
        genotype=genotypes.PNASNET5,
        layout=imagenet_layout(3, 54),
        image_size=224,
        classes=1000,
        preprocessing=Preprocessing(),
        published=Published(5.1, 588, "74.2 / 91.9"),
        tolerance=0.01,
    ),
    "pnasnet5_cifar": Model(
        title="PNASNet-5 CIFAR",
        genotype=genotypes.PNASNET5,
        layout=Layout(repeats=3, filters=48),
        image_size=32,
        classes=10,
        drop_path=0.4,
        published=Published(3.2, None, "3.41 ± 0.09"),
        tolerance=0.01,
    ),
    "nasnet_a_large": Model(
        title="NASNet-A large",
        genotype=genotypes.NASNET_A,
        layout=imagenet_layout(6, 168, 96, within=False, skip=True),
        image_size=331,
        classes=1000,
        drop_path=0.3,
        preprocessing=Preprocessing(),
        published=Published(88.9, 23_800, "82.7 / 96.2"),
    ),
    "nasnet_a_mobile": Model(
        title="NASNet-A mobile",
        genotype=genotypes.NASNET_A,
        layout=imagenet_layout(4, 44, within=False),
        image_size=224,
        classes=1000,
        preprocessing=Preprocessing(),
        published=Published(5.3, 564, "74.0 / 91.6"),
    ),
    "nasnet_a_cifar": Model(
        title="NASNet-A CIFAR",
        genotype=genotypes.NASNET_A,
        layout=Layout(repeats=6, filters=32, extra_reductions=True),
        image_size=32,
        classes=10,
        drop_path=0.4,
        published=Published(3.3, None, "3.41"),
    ),
    "amoebanet_a_large": Model(
        title="AmoebaNet-A large",
        genotype=genotypes.AMOEBANET_A,
        layout=imagenet_layout(6, 190, within=False),
        image_size=331,
        classes=1001,
        drop_path=0.3,
        preprocessing=Preprocessing(),
        published=Published(86.7, 23_100, "82.8 / 96.1"),
    ),
    "amoebanet_a_mobile": Model(
        title="AmoebaNet-A mobile",
        genotype=genotypes.AMOEBANET_A,
        layout=imagenet_layout(4, 50, within=False),
        image_size=224,
        classes=1001,
        preprocessing=Preprocessing(),
        published=Published(5.1, 555, "74.5 / 92.0"),
    ),
    "amoebanet_a_cifar": Model(
        title="AmoebaNet-A CIFAR",
        genotype=genotypes.AMOEBANET_A,
        layout=Layout(repeats=6, filters=36, extra_reductions=True),
        image_size=32,
        classes=10,
        published=Published(3.2, None, "3.34 ± 0.06"),
    ),
    "amoebanet_b_large": Model(
        title="AmoebaNet-B large",
        genotype=genotypes.AMOEBANET_B,
        layout=imagenet_layout(6, 196, within=False),
        image_size=331,
        classes=1001,
        drop_path=0.3,
        preprocessing=Preprocessing(),
        published=Published(84.0, 22_300, "82.3 / 96.1"),
    ),
    "amoebanet_b_mobile": Model(
        title="AmoebaNet-B mobile",
        genotype=genotypes.AMOEBANET_B,
        layout=imagenet_layout(3, 62, within=False),
        image_size=224,
        classes=1001,
        preprocessing=Preprocessing(),
        published=Published(5.3, 555, "74.0 / 91.5"),
    ),
    "amoebanet_b_cifar": Model(
        title="AmoebaNet-B CIFAR",
        genotype=genotypes.AMOEBANET_B,
        layout=Layout(repeats=6, filters=36, extra_reductions=True),
        image_size=32,
        classes=10,
        published=Published(2.8, None, "3.37 ± 0.04"),
    ),
    "amoebanet_c_large": Model(
        title="AmoebaNet-C large",
        genotype=genotypes.AMOEBANET_C,
        layout=imagenet_layout(6, 228, within=False),
        image_size=331,
        classes=1001,
        drop_path=0.3,
        preprocessing=Preprocessing(),
        published=Published(155.3, 41_100, "83.1 / 96.3"),
    ),
    "amoebanet_c_mobile": Model(
        title="AmoebaNet-C mobile",
        genotype=genotypes.AMOEBANET_C,
        layout=imagenet_layout(4, 50, within=False),
        image_size=224,
        classes=1001,
        preprocessing=Preprocessing(),
        published=Published(
            6.4,
            570,
            "75.7 / 92.4",
            "the released cells at the published N and F have its parameters, but more multiply-adds",
        ),
    ),
    "enas_cifar": Model(
        title="ENAS micro CIFAR",
        genotype=genotypes.ENAS,
        layout=Layout(
            repeats=5,
            filters=36,
            extra_reductions=True,
            always_align=True,
            previous_projections=2,
            classifier_bias=False,
        ),
        image_size=32,
        classes=10,
        published=Published(
            4.6, None, "3.54", "the network that the released script trains is smaller than the paper's"
        ),
    ),
    "darts_v1_cifar": Model(
        title="DARTS v1 CIFAR",
        genotype=genotypes.DARTS_V1,
        layout=_DARTS,
        image_size=32,
        classes=10,
        drop_path=0.2,
        published=Published(3.3, None, "3.00 ± 0.14"),
    ),
    "darts_v2_cifar": Model(
        title="DARTS v2 CIFAR",
        genotype=genotypes.DARTS_V2,
        layout=_DARTS,
        image_size=32,
        classes=10,
        drop_path=0.2,
        published=Published(3.3, None, "2.76 ± 0.09"),
    ),
    "darts_v2_imagenet": Model(
        title="DARTS v2 ImageNet",
        genotype=genotypes.DARTS_V2,
        layout=replace(_DARTS, repeats=4, filters=48, stem="strided", stem_filters=48),
        image_size=224,
        classes=1000,
        preprocessing=_CHANNEL_STATISTICS,
        published=Published(
            4.7, 574, "73.3 / 91.3", "others, too, count about 525 M multiply-adds in the released network"
        ),
    ),
}

UNDEFINED: dict[str, Published] = {
    "NASNet-B CIFAR": Published(2.6, None, "3.73", "no public code or genotype defines its cells"),
    "NASNet-C CIFAR": Published(3.1, None, "3.59", "no public code or genotype defines its cells"),
}
"""Rows of the published tables that cannot be built: their cells are drawn in a paper and defined nowhere."""
