"""How far apart results may be that are equal but for rounding: the table of all tests with float32.

The same numbers by another program, in another shape or on other devices differ in their last bits:
XLA orders sums by the vectors that a CPU has, joins products and sums where it can, and computes exp
and log with other polynomials. So an entry is derived from the roundings on the way, not from what one
machine showed. Beside it stand the most that was measured by default (AVX-512), and with XLA_FLAGS set
to `--xla_cpu_max_isa=AVX2` and to `=SSE4_2`: a tenth of the entry at most; and the least that a
mistake would move: ten times the entry at least.

Bits are compared only of one program on one kind of device, or where dlm promises them: a run that was
killed, goes on from a trunk, or takes its steps in other calls. `tests/test_tolerances.py` keeps
tolerances of their own out of tests of float32.
"""

from __future__ import annotations

import numpy as np

ULP = 2.0**-23  # of float32, relative; each rounding is off by half of it at most

# Rates, averages and times. At most 16 operations on numbers up to 8 times the result: 16 x 1/2 x 8.
# Measured 3 ULP. A step late moves a rate by 4e-4 where it moves it least, at the end of a cosine.
FORMULA = 64 * ULP  # 7.6e-6

# Parameters up to 4 after three steps of AdamW, absolute. Each adds a small number: 3 x 1/2 ULP of 4.
# Measured 1 ULP. Without clipping or the correction of its bias, or with decay of vectors, 7e-3.
UPDATES = 16 * ULP  # 1.9e-6

# Logits, of the largest. Up to 25 sums in a row (8 a layer), of up to 32 terms each: roundings go up as
# often as down, so a sum is off by sqrt(32) x 1/2 < 3 ULP, and all of them by 75.
# Measured 5 ULP. One pair of the 33,000 of a causal mask, lost, moves them by 1.6e-3.
LOGITS = 128 * ULP  # 1.5e-5

# Gradients, of the largest of an array. Twice as many sums, and one over up to 1,100 positions.
# Measured 10 ULP. A key lost to half of the queries moves them by 3e-3.
GRADIENTS = 256 * ULP  # 3.1e-5

# Nats of a string or a batch, relative. The difference of two numbers of the size of the logits, which
# are up to 4 times the nats, each with the rounding of LOGITS: 75 x 4, and the sum over tokens.
# Measured 29 ULP. A token more or less in the mean moves them by 3e-3, a BOS not seen by 0.03.
NATS = 512 * ULP  # 6.1e-5

# What probabilities of all strings sum to, less one: NATS of a mean of 4 nats, in both directions.
# Measured 2 ULP. An nll 3% too low moves it by 0.1.
PROBABILITY = 1024 * ULP  # 1.2e-4

# Losses, nats/token, of runs of up to 24 steps by other programs or on other devices, relative. Means
# over tokens, of logits below the nats: half of LOGITS. Where a loss depends on a gradient, that is far
# above its rounding, and so are Adam's steps.
# Measured 2 ULP. One token of one batch, in the first half of a run, moves them by 1e-4.
TRAINED = 64 * ULP  # 7.6e-6

# Of float64, whose ULP is 2**-52: up to 1,000 terms that nearly cancel to one in 1,000.
# Measured 1e-15. It is for what is computed exactly twice: a mistake moves it by 1e-3.
FLOAT64 = 2.0**-32  # 2.3e-10


def assert_close(found, expected, rtol: float) -> None:
    """Every element within `rtol` of the largest magnitude in `expected`: sums round by their parts."""
    scale = np.abs(np.asarray(expected, np.float64)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)
