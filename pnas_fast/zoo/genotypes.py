"""Published cells (docs/method.md, 3.1, 6.1) in the notation of `pnas_fast.network.Wiring`."""

from __future__ import annotations

from pnas_fast.network import Genotype

PNASNET5 = Genotype.parse(
    "0:sep5x5+0:max_pool3x3,1:sep7x7+1:max_pool3x3,1:sep5x5+1:sep3x3,4:sep3x3+1:max_pool3x3,0:sep3x3+1:identity"
)

NASNET_A = Genotype.parse(
    "1:sep5x5+0:sep3x3,0:sep5x5+0:sep3x3,1:avg_pool3x3+0:identity,"
    "0:avg_pool3x3+0:avg_pool3x3,1:sep3x3+1:identity=>0,2,3,4,5,6",
    "1:sep5x5+0:sep7x7,1:max_pool3x3+0:sep7x7,1:avg_pool3x3+0:sep5x5,"
    "3:identity+2:avg_pool3x3,2:sep3x3+1:max_pool3x3=>3,4,5,6",
)
"""As in the authors' code; transcriptions elsewhere drop one state from each concatenation."""

AMOEBANET_A = Genotype.parse(
    "1:avg_pool3x3+1:max_pool3x3,0:sep3x3+0:identity,1:identity+0:avg_pool3x3,"
    "1:sep3x3+2:sep5x5,5:avg_pool3x3+1:sep3x3=>0,3,4,6",
    "0:sep3x3+1:avg_pool3x3,1:max_pool3x3+2:sep7x7,0:max_pool3x3+1:max_pool3x3,"
    "4:sep3x3+1:conv1x7_7x1_bottleneck,0:avg_pool3x3+1:sep7x7",
)

AMOEBANET_B = Genotype.parse(
    "0:conv1x1+0:max_pool3x3,0:identity+1:sep3x3,0:conv1x1+1:sep3x3,"
    "2:conv1x1+2:identity,0:avg_pool3x3+5:conv1x1=>1,3,4,6",
    # The first side of block 2 is named a dilated convolution; the code that has the published figures builds
    # an ordinary one.
    "1:max_pool2x2+1:max_pool3x3,2:identity+0:conv3x3_bottleneck,2:sep5x5+2:max_pool3x3,"
    "3:identity+0:sep3x3,4:avg_pool3x3+3:conv1x1=>5,6",
)

AMOEBANET_C = Genotype.parse(
    "1:avg_pool3x3+1:sep3x3,1:identity+1:sep3x3,2:avg_pool3x3+0:sep3x3,"
    "1:identity+0:sep3x3,3:avg_pool3x3+1:sep3x3=>0,2,4,5,6",
    "1:max_pool3x3+1:max_pool3x3,2:sep7x7+1:sep3x3,1:sep7x7+0:max_pool3x3,"
    "4:sep5x5+4:sep5x5,0:max_pool3x3+0:sep3x3=>1,2,3,4,5,6",
)

ENAS = Genotype.parse(
    "0:avg_pool3x3+0:sep3x3,0:identity+0:sep5x5,0:identity+1:sep5x5,1:sep3x3+0:sep5x5,0:avg_pool3x3+1:sep5x5",
    "1:sep3x3+1:sep3x3,0:max_pool3x3+0:avg_pool3x3,1:sep5x5+3:sep5x5,"
    "1:sep3x3+0:skip_linear,0:max_pool3x3+1:sep5x5=>2,4,5,6",
)

DARTS_V1 = Genotype.parse(
    "1:sep3x3+0:sep3x3,0:skip+1:sep3x3,0:skip+1:sep3x3,0:sep3x3+2:skip",
    "0:max_pool3x3+1:max_pool3x3,2:skip+0:max_pool3x3,0:max_pool3x3+2:skip,2:skip+0:avg_pool3x3",
)

DARTS_V2 = Genotype.parse(
    "0:sep3x3+1:sep3x3,0:sep3x3+1:sep3x3,1:sep3x3+0:skip,0:skip+2:dil_conv3x3",
    "0:max_pool3x3+1:max_pool3x3,2:skip+1:max_pool3x3,0:max_pool3x3+2:skip,2:skip+1:max_pool3x3",
)
