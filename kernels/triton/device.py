"""What kernels share: reading activations, counting arrivals, sums in a fixed order.

Triton's own dialect of Python: functions here run on the device.

Tickets. Floating-point atomics would make results depend on timing. Programs write partial results to a
buffer and take an integer ticket; whichever arrives last sums them all, in the order of the buffer.
The barrier before a ticket makes the whole program's writes precede it; the ticket is an acquire and a
release of the device's scope, and its value reaches the program's threads through a barrier; partial
sums are read past the first-level cache. Counters are zero again when a launch ends.

Loops. What waits through a window's loop takes registers that the window needs, and a program has one or two
tiles. So the compiler is told to make for each tile what is the same for all (``disable_licm``), and that
there is a first tile (``tl.assume``; `tiles.spread` sees to it): what follows the loop is then computed after
it, not before it for the case that there is none.
"""

import triton
import triton.language as tl

from pnas_fast.kernels.triton.launch import INTERPRETED

WIDEN = tl.constexpr(INTERPRETED)
DOT = tl.constexpr("tf32x3")
"""How fp32 operands are multiplied: three tf32 products, within a few units of the last place of fp32."""

CHUNK = tl.constexpr(32)
"""Channels taken at a time."""

PIXELS = tl.constexpr(64)
"""Pixels taken at a time where neighbours do not matter: of all images, one after the other."""

TEAM = tl.constexpr(16)
"""Programs whose partial results the last of them adds up; the last of all adds up the teams'."""

ACROSS = tl.constexpr(512)
"""Columns of partial results read at a time."""


@triton.jit
def pick(values, problem):
    """Of what a launch was given for each of its problems, one's own; of None nothing that can be used."""
    # No None: Triton 3.6 cannot return it.
    own = problem
    if values is not None:
        own = values[0]
        for other in tl.static_range(1, len(values)):
            own = tl.where(problem == other, values[other], own)
    return own


@triton.jit
def last_to_arrive(tickets, ticket, count):
    """Whether the other count - 1 programs have taken this ticket; their writes are then visible."""
    tl.debug_barrier()
    arrived = tl.atomic_add(tickets + ticket, 1, sem="acq_rel", scope="gpu")
    last = arrived == count - 1
    if last:
        tl.store(tickets + ticket, 0)
    return last


@triton.jit
def arrive(tickets, ticket):
    """Count this program, whose writes so far `wait_for` makes visible."""
    tl.debug_barrier()
    tl.atomic_add(tickets + ticket, 1, sem="release", scope="gpu")


@triton.jit
def wait_for(tickets, ticket, count):
    """Wait until so many programs have arrived."""
    while tl.atomic_add(tickets + ticket, 0, sem="acquire", scope="gpu") < count:
        pass
    tl.debug_barrier()


@triton.jit
def tickets_of(programs):
    """Tickets that so many programs take to add up what they have: one a team, and one for teams."""
    return tl.cdiv(programs, TEAM) + 1


@triton.jit
def rows_of(programs):
    """Rows of partial results: the programs' own and their teams'."""
    return programs + tl.cdiv(programs, TEAM)


@triton.jit
def arrive_in_team(tickets, program, programs):
    """(whether this program is the last of its team, first of the team's rows, their number)."""
    first = program // TEAM * TEAM
    members = tl.minimum(programs - first, TEAM)
    return last_to_arrive(tickets, program // TEAM, members), first, members


@triton.jit
def arrive_for_team(tickets, programs):
    """(whether this program's team is the last, first of the teams' rows, their number).

    Rows of teams follow those of programs. A team that is alone needs none: its programs' rows are last.
    """
    teams = tl.cdiv(programs, TEAM)
    last = teams == 1
    first, count = 0, programs
    if teams > 1:
        last = last_to_arrive(tickets, teams, teams)
        first, count = programs, teams
    return last, first, count


@triton.jit
def sum_rows(partials, first, count, length, columns, wanted, ROWS: tl.constexpr):
    """The sums of columns over rows of partials (…, length), always in the same order."""
    total = tl.zeros(columns.shape, tl.float32)
    for begin in range(0, count, ROWS):
        rows = begin + tl.arange(0, ROWS)
        mask = (rows < count)[:, None] & wanted[None, :]
        at = (first + rows)[:, None] * length + columns[None, :]
        total += tl.sum(tl.load(partials + at, mask=mask, other=0.0, cache_modifier=".cg"), axis=0)
    return total


@triton.jit
def nothing(COUNT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr = CHUNK):
    """A tuple of so many zero tensors [ROWS, CHANNELS]: sums to which nothing was added yet."""
    totals = ()
    for _ in tl.static_range(COUNT):
        totals = totals + (tl.zeros((ROWS, CHANNELS), tl.float32),)  # type: ignore[assignment]
    return totals


@triton.jit
def settle(value):
    """The same; what made it is done once, by the threads that loaded it.

    Operands of small products lie with every warp that multiplies them. The compiler would move what makes
    them behind that copy, for all of those warps to do; assembly that it cannot see through, a move which
    the assembler leaves out, keeps it from it.
    """
    if WIDEN or value.dtype.primitive_bitwidth != 16:
        return value
    return tl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [value], dtype=value.dtype, is_pure=False, pack=2
    )  # fmt: skip


@triton.jit
def multiply(a, b, total, DTYPE: tl.constexpr, SETTLE: tl.constexpr = True):
    """fp32 total + a b, a and b rounded to a type; settled where products are small, if SETTLE."""
    a, b = a.to(DTYPE), b.to(DTYPE)
    if SETTLE and total.shape[0] < 64:
        a, b = settle(a), settle(b)
    # The interpreter holds bf16 as integers and would multiply those.
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=DOT)


@triton.jit
def widen(value):
    """fp32 of a loaded value."""
    if value.dtype == tl.bfloat16:
        # As integers: two values of a register are then taken apart by one instruction each instead of three.
        return (value.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return value.to(tl.float32)


@triton.jit
def rectify(value):
    """relu(value); NaN stays NaN."""
    return tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def activate(value, mask, scale, shift, AFFINE: tl.constexpr, RECTIFY: tl.constexpr):
    """fp32 relu(scale * value + shift) where mask, else 0, as which it was read; NaN stays NaN."""
    value = widen(value)
    if AFFINE:
        value = value * scale + shift
    if RECTIFY:
        value = rectify(value)
    return tl.where(mask, value, 0.0) if AFFINE else value


@triton.jit
def load_affine(affine, c, wanted, C: tl.constexpr, AFFINE: tl.constexpr):
    """(scale, shift) of channels c, [1, channels] each."""
    if AFFINE:
        scale = tl.load(affine + c, mask=wanted, other=0.0)[None, :]
        shift = tl.load(affine + C + c, mask=wanted, other=0.0)[None, :]
    else:
        scale = 1.0
        shift = 0.0
    return scale, shift


@triton.jit
def finish_affine(
    d_scale, d_shift, program, programs, group, partial, d_affine, accumulate, tickets, ticket,
    C: tl.constexpr, BLOCK_C: tl.constexpr = CHUNK,
):  # fmt: skip
    """Sum [pixels, BLOCK_C] over pixels and over the programs of a block of channels, into d_affine (2, C).

    Of partial (programs, 2, C) each writes a row. What d_affine holds counts too if accumulate.
    """
    c = group * BLOCK_C + tl.arange(0, BLOCK_C)
    row = partial + program * 2 * C + c
    tl.store(row, tl.sum(d_scale, axis=0), mask=c < C)
    tl.store(row + C, tl.sum(d_shift, axis=0), mask=c < C)
    if last_to_arrive(tickets, ticket + group, programs):
        column = tl.arange(0, 2 * BLOCK_C)
        channel = group * BLOCK_C + column % BLOCK_C
        at = column // BLOCK_C * C + channel
        summed = sum_rows(partial, 0, programs, 2 * C, at, channel < C, 4 * TEAM * CHUNK // BLOCK_C)
        summed += tl.load(d_affine + at, mask=(channel < C) & (accumulate != 0), other=0.0)
        tl.store(d_affine + at, summed, mask=channel < C)


@triton.jit
def keep_weights(total, row, first_f, F, first_c, C, BLOCK_F: tl.constexpr):
    """Write [BLOCK_F, CHUNK], of filters and channels from the first on, to a program's row (F, C)."""
    rows, columns = first_f + tl.arange(0, BLOCK_F)[:, None], first_c + tl.arange(0, CHUNK)[None, :]
    tl.store(row + rows * C + columns, total, mask=(rows < F) & (columns < C))


@triton.jit
def finish_weights(
    program, programs, group, partial, length, d_weight, tickets, ticket, first_f, F, first_c, C, by_f, by_c,
    BLOCK_F: tl.constexpr, first_tap=0, end_tap=1, apart=0, by_y=0, by_x=0, KW: tl.constexpr = 1,
    CHANNELS: tl.constexpr = CHUNK,
):  # fmt: skip
    """Sum what programs of a group have kept of BLOCK_F filters, CHANNELS channels and some taps.

    Of partial (programs and teams, length) each has a row, in which a tap has (F, C) and taps are ``apart``.
    A group has `tickets_of` tickets.
    """
    tickets += ticket + group * tickets_of(programs)
    last, first, count = arrive_in_team(tickets, program, programs)
    if last:
        if programs > TEAM:
            team = partial + (programs + program // TEAM) * length
            for tap in range(first_tap, end_tap):
                for begin in range(0, BLOCK_F * CHANNELS, ACROSS):
                    column = begin + tl.arange(0, ACROSS)
                    f, c = first_f + column // CHANNELS, first_c + column % CHANNELS
                    wanted, at = (f < F) & (c < C), tap * apart + f * C + c
                    tl.store(
                        team + at, sum_rows(partial, first, count, length, at, wanted, TEAM), mask=wanted
                    )
        last, first, count = arrive_for_team(tickets, programs)
        if last:
            for tap in range(first_tap, end_tap):
                for begin in range(0, BLOCK_F * CHANNELS, ACROSS):
                    column = begin + tl.arange(0, ACROSS)
                    f, c = first_f + column // CHANNELS, first_c + column % CHANNELS
                    wanted, at = (f < F) & (c < C), tap * apart + f * C + c
                    summed = sum_rows(partial, first, count, length, at, wanted, TEAM)
                    own = d_weight + tap // KW * by_y + tap % KW * by_x + f * by_f + c * by_c
                    tl.store(own, summed, mask=wanted)
