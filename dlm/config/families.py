"""The built-in objectives, from autoregression to diffusion: options and facts, without JAX.

A family is an options record, which `config.objective` holds if the family is chosen, and one row of
FAMILIES. Its maths stands in `dlm/objectives/NAME.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dlm.config.family import FAMILIES, Family, Objective
from dlm.config.fields import MOST, MOST_STEPS, Flag, PartShare, Range, Share
from dlm.errors import fail


def objective(name: str = "ar", **options: Any) -> Any:
    """Makes the options record of a built-in family: `objective("masked", schedule="cosine")`.

    The values are not checked; those of `dlm.config.resolve` are.
    """
    return FAMILIES[name].options(name=name, **options)


FAMILIES["ar"] = Family(
    *(True, 1, 0, "causal", "-sum_j log p(x_j | x_<j)"),
    "chain rule; arXiv 2507.15857, section 2.1",
    title="AR",
)


@dataclass(frozen=True, kw_only=True)
class InOrders(Objective):
    # number of fixed orders; 0: a new order for every sequence
    orders: Annotated[int, Range(0, 10_000)] = 4
    span: Annotated[int, Range(1, MOST)] = 8  # for order_kind spans: tokens that stay together


@dataclass(frozen=True, kw_only=True)
class Orders(InOrders):
    # jitter (of left to right), uniform, spans or segments
    order_kind: Literal["jitter", "uniform", "spans", "segments"] = "jitter"
    # for order_kind segments: the token id that ends a segment (a full stop, an end of document)
    separator_id: Annotated[int, Range(-1, 10_000_000)] = -1
    targets: Flag = False  # tell the model the position of the token it predicts

    def check(self) -> None:
        if self.order_kind == "segments" and self.separator_id < 0:
            right = "a token id, for order_kind='segments'"
            fail("objective.separator_id", self.separator_id, right)

    @property
    def least_vocabulary(self) -> int:
        return max(self.separator_id + 1, 2)

    def check_vocabulary(self, vocab_size: int) -> None:
        if self.order_kind == "segments" and self.separator_id >= vocab_size:
            fail("objective.separator_id", self.separator_id, f"below {vocab_size}, the vocabulary")


FAMILIES["orders"] = Family(
    *(True, 1, 0, "causal", "as ar; trained on N orders of each sequence"),
    "arXiv 2507.15857, section 3.5; target positions: sigma-GPT, arXiv 2404.09562",
    title="AR in several orders",
    options=Orders,
)


@dataclass(frozen=True, kw_only=True)
class AnyOrder(InOrders):
    # not segments: with an order that depends on the tokens the score is no bound
    order_kind: Literal["jitter", "uniform", "spans"] = "jitter"

    @property
    def bounds(self) -> tuple[str, ...]:
        return ("orders", "tangent")


FAMILIES["any_order"] = Family(
    *(False, 1, 0, "causal", "E_s[-sum_j log p(x_s(j) | x_s(<j), positions)]"),
    "Uria et al. 2014; sigma-GPT, arXiv 2404.09562",
    title="any-order AR",
    options=AnyOrder,
)


@dataclass(frozen=True, kw_only=True)
class Noise(Objective):
    noise: PartShare = 0.1  # share of the input tokens that training changes
    noise_kind: Literal["mask", "replace"] = "mask"  # replace: by a random token
    attention_noise: Share = 0.0  # share of the queries that lose part of their keys


FAMILIES["noise"] = Family(
    *(True, 2, 0, "causal", "as ar; trained with inputs or attention disturbed"),
    "arXiv 2507.15857, section 3.5",
    title="AR with noise",
    options=Noise,
)


@dataclass(frozen=True, kw_only=True)
class Scheduled(Objective):
    """A family with a noise schedule, see dlm/objectives/schedules.py."""

    schedule: Literal["linear", "cosine", "polynomial", "loglinear", "geometric"] = "linear"
    # for polynomial, m(t) = t^schedule_exponent; beyond 4, m of early times is 0 in float32 and the
    # weight m'/m is NaN
    schedule_exponent: Annotated[float, Range(0.1, 4)] = 2.0

    def _needs_no_noise_at_the_start(self, which: str) -> None:
        if self.schedule == "geometric":
            right = f"one with m(0) = 0, for {which}; else the loss is no bound"
            fail("objective.schedule", self.schedule, right)


@dataclass(frozen=True, kw_only=True)
class Masked(Scheduled):
    # masks of the training loss: time (each token with probability m(t)) or count (exactly k tokens)
    estimator: Literal["time", "count"] = "time"
    timesteps: Annotated[int, Range(0, 10_000)] = 0  # steps of discrete time; 0: continuous time
    # the training loss: the bound, or unweighted cross-entropy
    weighting: Literal["bound", "unweighted"] = "bound"
    suffix: Share = 0.0  # share of the training sequences whose masks are a suffix
    # the highest time trained on in the first low_noise_steps
    low_noise: Annotated[float, Range(0.01, 1)] = 1.0
    low_noise_steps: Annotated[int, Range(0, MOST_STEPS)] = 0

    @property
    def reveals(self) -> bool:
        return True


FAMILIES["masked"] = Family(
    *(False, 2, 1, "full", "int m'(t)/m(t) E sum_masked -log p(x_i | x_t) dt + prior + rec."),
    "MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329; arXiv 2507.15857",
    uses_time=True,
    title="masked diffusion",
    options=Masked,
)


@dataclass(frozen=True, kw_only=True)
class Dual(Masked):
    """The options beyond these two are of the sequences that are masked."""

    ar_share: Share = 0.5  # share of the training sequences that are trained left to right
    # how it is scored and sampled: by the bound of masked diffusion, or exactly, left to right
    scored_as: Literal["masked", "ar"] = "masked"

    @property
    def family(self) -> Family:
        facts = super().family._replace(extra_positions=int(self.ar_share < 1))
        if self.scored_as == "ar":
            facts = facts._replace(exact=True, attention="causal", formula=FAMILIES["ar"].formula)
        return facts

    @property
    def training_attention(self) -> dict[str, float]:
        shares = {"causal": self.ar_share, "full": 1 - self.ar_share}
        return {kind: share for kind, share in shares.items() if share}

    @property
    def reveals(self) -> bool:
        return self.scored_as == "masked"


FAMILIES["dual"] = Family(
    *(False, 2, 1, "full", "as masked; with scored_as=ar as ar; trained as both"),
    "arXiv 2512.14549",
    uses_time=True,
    title="dual AR-diffusion",
    options=Dual,
)


@dataclass(frozen=True, kw_only=True)
class Block(Objective):
    # masks of the training loss: time (each token with probability m(t)) or count (exactly k tokens)
    estimator: Literal["time", "count"] = "time"
    # tokens that are denoised together; must divide data.seq_len
    block: Annotated[int, Range(1, MOST)] = 4

    @property
    def block_length(self) -> int:
        return self.block

    @property
    def reveals(self) -> bool:
        return True

    def sampler_calls(self, length: int, steps: int) -> int:
        blocks = length // self.block
        return blocks * max(steps // blocks, 1)

    def sampler_passes(self, length: int) -> float:
        return (self.block + 1) / 2  # a call reads one copy of a block, training reads both


FAMILIES["block"] = Family(
    *(False, 2, 1, "block", "sum over blocks of the masked bound given the blocks before"),
    "BD3-LM, arXiv 2503.09573",
    title="block diffusion",
    options=Block,
)


@dataclass(frozen=True, kw_only=True)
class D3PM(Scheduled):
    timesteps: Annotated[int, Range(0, 10_000)] = 0  # steps of discrete time; 0: continuous time
    # jump to a random token, to MASK, or to either
    transition: Literal["uniform", "absorbing", "mixed"] = "uniform"
    mask_share: Share = 0.5  # for transition mixed: share of the jumps that lead to MASK
    # what the model predicts: a distribution over tokens, or ratios of probabilities
    parameterization: Literal["denoising", "score"] = "denoising"

    def check(self) -> None:
        if self.parameterization == "score":
            if self.transition == "mixed":
                right = "uniform or absorbing, for parameterization='score'"
                fail("objective.transition", self.transition, right)
            self._needs_no_noise_at_the_start("parameterization='score'")
            if self.timesteps:
                fail("objective.timesteps", self.timesteps, "0, for parameterization='score'")

    def sampler_passes(self, length: int) -> float:
        return self.timesteps or 2 * length


FAMILIES["d3pm"] = Family(
    *(False, 2, 1, "full", "int rate sum_y [a_p(y) - a(y) + a(y) log(a(y)/a_p(y))] dt"),
    "D3PM, arXiv 2107.03006; SEDD, 2310.16834; UDLM, 2412.10193; GIDD, 2503.04482",
    hides_targets=False,
    uses_time=True,
    title="jump diffusion",
    options=D3PM,
)


@dataclass(frozen=True, kw_only=True)
class Flow(Scheduled):
    path: Literal["mask", "uniform"] = "mask"  # start from masks or from uniform tokens

    def check(self) -> None:
        self._needs_no_noise_at_the_start("flow")

    @property
    def reveals(self) -> bool:
        return self.path == "mask"


FAMILIES["flow"] = Family(
    *(False, 2, 1, "full", "int k'/(1-k) [1 - p(x_t) - [x_t != x](1 + log p(x))] dt"),
    "discrete flow matching, arXiv 2407.15595, 2412.03487",
    hides_targets=False,
    uses_time=True,
    title="flow matching",
    options=Flow,
)


@dataclass(frozen=True, kw_only=True)
class Gaussian(Objective):
    prediction: Literal["x0", "epsilon"] = "x0"  # predict a mean of embeddings, or the noise
    log_snr: Annotated[float, Range(0, 20, "low")] = 6.0  # log-SNR at t = 0; minus this at t = 1
    learned_schedule: Flag = False  # train both ends of the log-SNR

    @property
    def samplers(self) -> tuple[str, ...]:
        return ("ancestral", "ddim")


FAMILIES["gaussian"] = Family(
    *(False, 1, 1, "full", "KL(q(z_1)||N) + 1/2 int SNR' ||x - x_p||^2 dt - E log p(x | z_0)"),
    "VDM, arXiv 2107.00630; Diffusion-LM, arXiv 2205.14217; Plaid, arXiv 2305.18619",
    hides_targets=False,
    uses_time=True,
    title="Gaussian diffusion",
    options=Gaussian,
)
