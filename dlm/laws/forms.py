"""The laws: validation loss in nats per token as a function of parameters, tokens and unique tokens.

Each law is its formula, a function of coefficients `c` and of N parameters, D training tokens and U
unique tokens, written in NumPy and differentiated as it stands (`dlm.laws.dual`). All coefficients
are positive. D/U is the number of epochs; U and D are raw tokens. A looped law counts a model whose
layers run r times as one of more parameters (`effective_size`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from dlm.errors import DlmError, nearest

# What options of a fit take: a row of dlm's own runs, what is minimised, and in how many stages.
POINTS = ("best", "last", "curve")
LOSSES = ("huber", "lad", "gaussian")
STEPS = ("auto", "two", "joint")


@dataclass(frozen=True)
class Coefficient:
    """`start`: the range that starts are drawn from; of an amplitude, as a share of the mean loss.

    `centre` makes an amplitude well-conditioned: A/N^alpha is fitted by its value at the typical
    run, so `(("N", "alpha"),)` says A = (that value) * N0^alpha with N0 the geometric mean; the power
    may be a number. `max_interval_ratio`: a coefficient is identified if its interval's ends differ
    by at most this factor. `held_at`: a count, N or U; the coefficient is never fitted, but held at
    the typical run's, to one digit.
    """

    name: str
    meaning: str
    start: tuple[float, float]
    limits: tuple[float, float]
    max_interval_ratio: float = 10.0
    centre: tuple[tuple[str, str | float], ...] = ()
    amplitude: bool = False
    held_at: str = ""


@dataclass(frozen=True)
class Law:
    name: str
    formula: str
    source: str
    coefficients: tuple[Coefficient, ...]
    loss: Callable[[Any, Any, Any, Any], Any]  # (c, N, D, U) -> nats per token
    ties: Mapping[str, str] = field(default_factory=dict)  # beta tied to alpha

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.coefficients)

    def coefficient(self, name: str) -> Coefficient:
        return self.coefficients[self.names.index(name)]

    def complete(self, values: Mapping[str, Any]) -> SimpleNamespace:
        """The coefficients as attributes, tied ones included; numbers as NumPy's, of which a power
        out of range is infinite and no error."""
        numbers = {k: np.float64(v) if isinstance(v, int | float) else v for k, v in values.items()}
        return SimpleNamespace(**numbers, **{name: numbers[to] for name, to in self.ties.items()})

    @property
    def looped(self) -> bool:
        """Whether the law knows loops; the others predict as if loops changed nothing."""
        return "phi" in self.names

    def predict(
        self,
        values: Mapping[str, Any],
        params: Any,
        tokens: Any,
        unique: Any,
        loops: Any = 1.0,
        share: Any = 1.0,
    ) -> Any:
        """Loss in nats per token; the arrays broadcast against each other.

        `loops`: how often the layers run; `share`: of the parameters, those that are in the loop.
        """
        c = self.complete(values)
        with np.errstate(all="ignore"):
            N = effective_size(c, params, loops, share) if self.looped else params
            return self.loss(c, N, tokens, unique)


# --- the pieces ---------------------------------------------------------------------------------


def effective_size(c: Any, N: Any, loops: Any, share: Any) -> Any:
    """N_once + r^phi N_looped: the parameters that a model of r loops is worth (2604.21106)."""
    return N * (1.0 + share * (loops**c.phi - 1.0))


def repetitions(c: Any, N: Any, U: Any) -> Any:
    """R_D of a run: that of the law, times `growth` for each tenfold of U over U_0, or N over N_0.

    The power of U is what Yan et al. prove for linear regression on Zipf-distributed data: the worth
    at which repetition saturates is of the order of a power of the unique examples.
    """
    if not hasattr(c, "growth"):
        return c.R_D
    tenfolds = np.log(U / c.U_0 if hasattr(c, "U_0") else N / c.N_0) / np.log(10.0)
    return c.R_D * c.growth**tenfolds


def matched_parameters(c: Any, U: Any) -> Any:
    """U_N: the parameters that U fresh tokens call for, N_opt(D = U) = (U G)^(beta/alpha) G.

    G = (alpha A / (beta B))^(1/(alpha + beta)): equal marginal gain of N and D at C = 6ND.
    """
    G = (c.alpha * c.A / (c.beta * c.B)) ** (1.0 / (c.alpha + c.beta))
    return (U * G) ** (c.beta / c.alpha) * G


def saturating(unique: Any, amount: Any, R: Any) -> Any:
    """u + u R (1 - exp(-(x/u - 1)/R)): what x = `amount` of which u are new is worth."""
    return unique * (1.0 - R * np.expm1(-(amount / unique - 1.0) / R))


def discounted(unique: Any, amount: Any, k: Any) -> Any:
    """u (1 - exp(-k x/u)) / (1 - exp(-k)): each repetition is worth exp(-k) of the one before."""
    return unique * np.expm1(-k * amount / unique) / np.expm1(-k)


def power_decayed(unique: Any, amount: Any, p: Any) -> Any:
    """u (1 + ((x/u)^(1-p) - 1) / (1-p)): the x-th repetition is worth x^-p; log at p = 1."""
    q = 1.0 - p + 1e-9  # so that p = 1 is its limit, the logarithm
    return unique * (1.0 + np.expm1(q * np.log(amount / unique)) / q)


def _fresh(c: Any, N: Any, D: Any, U: Any) -> Any:
    return c.E + c.A / N**c.alpha + c.B / D**c.beta


def _repeated(worth: Callable[[Any, Any, Any], Any], data: str, size: str) -> Callable:
    def loss(c: Any, N: Any, D: Any, U: Any) -> Any:
        U_N = np.minimum(matched_parameters(c, U), N)
        N_worth = worth(U_N, N, getattr(c, size))
        return c.E + c.A / N_worth**c.alpha + c.B / worth(U, D, getattr(c, data)) ** c.beta

    return loss


def _data_only(c: Any, N: Any, D: Any, U: Any) -> Any:
    return c.E + c.A / N**c.alpha + c.B / saturating(U, D, c.R_D) ** c.beta


def _size_only(c: Any, N: Any, D: Any, U: Any) -> Any:
    N_worth = saturating(np.minimum(matched_parameters(c, U), N), N, c.R_N)
    return c.E + c.A / N_worth**c.alpha + c.B / D**c.beta


def _overfit(c: Any, N: Any, D: Any, U: Any) -> Any:
    again = D / U - 1.0
    extra = (again > 1e-9) * np.maximum(again, 1e-9) ** c.kappa  # nothing in the first epoch
    return _repeated(saturating, "R_D", "R_N")(c, N, D, U) + c.K * (N / U) ** c.gamma * extra


def _overfit_one(c: Any, N: Any, D: Any, U: Any) -> Any:
    return _fresh(c, N, D, U) + c.K * np.sqrt(N / U * np.maximum(D / U - 1.0, 0.0))


def _growing(c: Any, N: Any, D: Any, U: Any) -> Any:
    grown = SimpleNamespace(**vars(c) | {"R_D": repetitions(c, N, U)})
    return _repeated(saturating, "R_D", "R_N")(grown, N, D, U)


def _one_size(c: Any, N: Any, D: Any, U: Any) -> Any:
    return c.E + c.B / saturating(U, D, c.R_D) ** c.beta


# --- the coefficients ---------------------------------------------------------------------------

E = Coefficient("E", "irreducible loss, nats/token", (0.3, 0.98), (1e-3, 1e2), 1.5)
A = Coefficient(
    "A", "size term", (0.02, 0.8), (1e-4, 1e30), 100.0, centre=(("N", "alpha"),), amplitude=True
)
B = Coefficient(
    "B", "data term", (0.02, 0.8), (1e-4, 1e30), 100.0, centre=(("D", "beta"),), amplitude=True
)
ALPHA = Coefficient("alpha", "exponent of parameters", (0.1, 1.2), (0.01, 5.0), 2.0)
BETA = Coefficient("beta", "exponent of tokens", (0.1, 1.2), (0.01, 5.0), 2.0)
TIED = Coefficient("alpha", "exponent of parameters and of tokens", (0.1, 1.2), (0.01, 5.0), 2.0)
R_D = Coefficient(
    "R_D", "epochs after which a repeated token is worth 1/e", (1.0, 500.0), (0.05, 1e6)
)
R_N = Coefficient(
    "R_N", "multiples of U_N after which a parameter is worth 1/e", (0.3, 300.0), (0.01, 1e6)
)
K_D = Coefficient("k_D", "discount rate of a repetition, 1/epoch", (0.002, 1.0), (1e-6, 20.0))
K_N = Coefficient("k_N", "discount rate of surplus parameters", (0.003, 3.0), (1e-6, 20.0))
P_D = Coefficient("p_D", "exponent at which repetitions lose worth", (0.05, 3.0), (1e-4, 20.0))
P_N = Coefficient(
    "p_N", "exponent at which surplus parameters lose worth", (0.05, 3.0), (1e-4, 20.0)
)
K = Coefficient(
    "K",
    "over-fitting term",
    (0.002, 0.5),
    (1e-12, 1e6),
    100.0,
    centre=(("U/N", "gamma"), ("U/D", "kappa")),
    amplitude=True,
)
K_ONE = dataclasses.replace(
    K, meaning="over-fitting", max_interval_ratio=3.0, centre=(("U/N", 0.5), ("U/D", 0.5))
)
GAMMA = Coefficient(
    "gamma", "exponent of parameters per unique token", (0.1, 2.0), (0.01, 6.0), 2.0
)
KAPPA = Coefficient("kappa", "exponent of repetitions", (0.2, 2.0), (0.01, 6.0), 2.0)

GROWTH = Coefficient("growth", "factor of R_D for each tenfold", (0.4, 5.0), (0.01, 100.0), 3.0)
U_0 = Coefficient("U_0", "unique tokens at which R_D holds", (1.0, 1.0), (1.0, 1e30), held_at="U")
N_0 = Coefficient("N_0", "parameters at which R_D holds", (1.0, 1.0), (1.0, 1e30), held_at="N")
PHI = Coefficient("phi", "exponent at which loops add size", (0.1, 1.5), (1e-3, 5.0), 2.0)

MUENNIGHOFF = "Muennighoff et al. 2023, arXiv 2305.16264, equation 5 and appendix A"
YAN = "this project: the simplest form in which, as in Yan et al. 2025, arXiv 2511.13421, larger data "
YAN += "can be repeated more; the paper has no law of the loss"
SCHWETHELM = "Schwethelm et al. 2026, arXiv 2604.21106: phi = 0.46"
REPEATED = "L = E + A/N'^alpha + B/D'^beta, D' = U(1 + R_D(1 - exp(-(D/U - 1)/R_D))), "
REPEATED += "N' = U_N(1 + R_N(1 - exp(-(N/U_N - 1)/R_N))), U_N = min(N, N_opt(U))"

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "chinchilla",
            "L = E + A/N^alpha + B/D^beta",
            "Hoffmann et al. 2022, arXiv 2203.15556, equation 2",
            (E, A, B, ALPHA, BETA),
            _fresh,
        ),
        Law(
            "chinchilla-tied",
            "L = E + A/N^alpha + B/D^alpha",
            "Muennighoff et al. 2023, arXiv 2305.16264, appendix A",
            (E, A, B, TIED),
            _fresh,
            {"beta": "alpha"},
        ),
        Law(
            "data-constrained",
            REPEATED,
            MUENNIGHOFF,
            (E, A, B, ALPHA, BETA, R_D, R_N),
            _repeated(saturating, "R_D", "R_N"),
        ),
        Law(
            "data-constrained-tied",
            f"{REPEATED}, beta = alpha",
            MUENNIGHOFF,
            (E, A, B, TIED, R_D, R_N),
            _repeated(saturating, "R_D", "R_N"),
            {"beta": "alpha"},
        ),
        Law(
            "data-decay",
            "L = E + A/N^alpha + B/D'^beta: repeated data loses worth, parameters do not",
            MUENNIGHOFF,
            (E, A, B, ALPHA, BETA, R_D),
            _data_only,
        ),
        Law(
            "size-decay",
            "L = E + A/N'^alpha + B/D^beta: surplus parameters lose worth, data does not",
            MUENNIGHOFF,
            (E, A, B, ALPHA, BETA, R_N),
            _size_only,
        ),
        Law(
            "geometric",
            "as data-constrained, with D' = U(1 - (1-d)^(D/U))/d, d = 1 - exp(-k_D); N' alike, k_N. "
            "The explicit exponential is the same curve, told by its rate k = -log(1 - d)",
            MUENNIGHOFF,
            (E, A, B, ALPHA, BETA, K_D, K_N),
            _repeated(discounted, "k_D", "k_N"),
        ),
        Law(
            "power-decay",
            "as data-constrained, with D' = U(1 + ((D/U)^(1-p_D) - 1)/(1-p_D)); N' alike, with p_N",
            "this project: the e-th repetition is worth e^-p, with no saturation for p < 1",
            (E, A, B, ALPHA, BETA, P_D, P_N),
            _repeated(power_decayed, "p_D", "p_N"),
        ),
        Law(
            "over-fitting",
            "data-constrained + K (N/U)^gamma (D/U - 1)^kappa",
            "this project: AR's loss rises with repetition, which data-constrained cannot",
            (E, A, B, ALPHA, BETA, R_D, R_N, K, GAMMA, KAPPA),
            _overfit,
        ),
        Law(
            "over-fitting-one",
            "L = E + A/N^alpha + B/D^beta + K sqrt(N/U (D/U - 1))",
            "Lovelace et al. 2026, arXiv 2605.01640, who add P (D/U - 1)^delta (N/U)^kappa; that both "
            "exponents are 1/2 is this project's, for what it predicts of held-out runs (docs/laws.md)",
            (E, A, B, ALPHA, BETA, K_ONE),
            _overfit_one,
        ),
        Law(
            "data-growth",
            "as data-constrained, with R_D growth^log10(U/U_0) in place of R_D: the exponent of U is "
            "log10 growth, and growth = 1 is data-constrained",
            YAN,
            (E, A, B, ALPHA, BETA, R_D, R_N, GROWTH, U_0),
            _growing,
        ),
        Law(
            "size-growth",
            "as data-constrained, with R_D growth^log10(N/N_0) in place of R_D: the exponent of N is "
            "log10 growth, and growth = 1 is data-constrained",
            YAN,
            (E, A, B, ALPHA, BETA, R_D, R_N, GROWTH, N_0),
            _growing,
        ),
        Law(
            "chinchilla-looped",
            "as chinchilla, with N_once + r^phi N_looped in place of N: N r^phi if all layers loop",
            SCHWETHELM,
            (E, A, B, ALPHA, BETA, PHI),
            _fresh,
        ),
        Law(
            "data-constrained-looped",
            "as data-constrained, with N_once + r^phi N_looped in place of N",
            f"{SCHWETHELM}; {MUENNIGHOFF}",
            (E, A, B, ALPHA, BETA, R_D, R_N, PHI),
            _repeated(saturating, "R_D", "R_N"),
        ),
        Law(
            "one-size",
            "L = E + B/D'^beta, D' as in data-constrained: for runs of a single model size",
            "data-constrained, with the size term inside E",
            (E, B, BETA, R_D),
            _one_size,
        ),
    )
}


def law(name: str) -> Law:
    """The law of that name.

    Raises:
      DlmError: there is none.
    """
    if name not in LAWS:
        raise DlmError(f"law={name!r}: must be one of {', '.join(LAWS)}{nearest(name, LAWS)}")
    return LAWS[name]
