"""Samplers as tables of numbers: every step of every sampler is the same linear rule.

With the network's output P at the sample x, step i is

    kept_i  = keep_x x + keep_answer P                         (limited to +-limit)
    mean    = sum_j weights_j kept_(i-j)                       (the newest first)
    x_(i+1) = from_x x' + from_mean mean + from_answer P + from_noise z

where x' is x, or the sample before it in a step that repeats the step from there. A table has an
array for each of these numbers, computed here on the host; `sampling.sample` scans over it. So one
compiled program serves every sampler with the same number of steps and the same memory.

The rules are those of the schedulers of PyTorch diffusers: DDIM (arXiv:2010.02502, eq. 12), its
inversion, PNDM without Runge-Kutta steps (arXiv:2202.09778), Euler and ancestral Euler
(arXiv:2206.00364, algorithm 2), and DPM-Solver++ 2M (arXiv:2211.01095, algorithm 2).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.schedule import Schedule, levels_at, levels_with_signal, sigmas_of

# Weights of the last outputs, the newest first (Adams-Bashforth).
_ADAMS = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)


class Table(NamedTuple):
    """The numbers of n steps, float32 [n] unless noted; see the module.

    timesteps: input of the network; scale: factor of its other input, x; weights: [n, memory];
    restart: bool, x' is the sample before x; append: bool, kept_i stays in memory; limit: [],
    infinite without a limit; start_x, start_noise: factors of an image's latents and of noise at
    step 0 (image-to-image); sigma: [], factor of pure noise at step 0.
    """

    timesteps: np.ndarray
    scale: np.ndarray
    keep_x: np.ndarray
    keep_answer: np.ndarray
    weights: np.ndarray
    from_x: np.ndarray
    from_mean: np.ndarray
    from_answer: np.ndarray
    from_noise: np.ndarray
    restart: np.ndarray
    append: np.ndarray
    limit: np.ndarray | np.float32
    start_x: np.ndarray | np.float32
    start_noise: np.ndarray | np.float32
    sigma: np.ndarray | np.float32


@dataclasses.dataclass(frozen=True)
class Kind:
    """A sampler.

    class_name: of diffusers. table(schedule, steps, skip): the numbers of its steps. supported:
    {setting that changes the rule: values supported here, the default first}. spacing: default
    timestep_spacing. clips, has_karras, has_eta: whether it reads these settings; alpha_to_one:
    default of `set_alpha_to_one`, None where it does not read that. intervals: how many intervals
    of timesteps it has more than steps.
    """

    class_name: str
    table: Callable[[Schedule, int, int], Table]
    supported: Mapping[str, tuple]
    spacing: str = "linspace"
    clips: bool = False
    has_karras: bool = False
    has_eta: bool = False
    alpha_to_one: bool | None = None
    intervals: int = 0


def make_table(schedule: Schedule, steps: int, skip: int = 0) -> Table:
    """Returns the table of `steps` steps from noise to image, without the first `skip`.

    Raises InputError where the schedule has fewer timesteps.

    >>> make_table(Schedule(kind="ddim"), 4).timesteps
    array([750., 500., 250.,   0.], dtype=float32)
    """
    kind = KINDS[schedule.kind]
    most = schedule.train_steps - kind.intervals
    if not 1 <= steps <= most:
        raise InputError(f"steps={steps} is out of range; it must be between 1 and {most}.")
    return kind.table(schedule, steps, skip)


def adds_noise(table: Table) -> bool:
    """Whether steps of a table add noise.

    >>> adds_noise(make_table(Schedule(kind="euler_a"), 4))
    True
    """
    return bool(np.any(table.from_noise))


def image_to_image_table(schedule: Schedule, steps: int, strength: float) -> Table:
    """Returns the table of image-to-image: from an image noised to `strength` (0 to 1).

    As in diffusers' pipeline, int(steps * strength) steps are taken. PNDM calls the network once
    more and, since no timestep is repeated then, lags one interval behind its timesteps.

    >>> image_to_image_table(Schedule(kind="ddim"), 4, strength=0.5).timesteps
    array([250.,   0.], dtype=float32)
    """
    done = min(int(steps * strength), steps)
    if done < 1:
        raise InputError(
            f"strength={strength} with steps={steps} leaves no step to take; raise one of them."
        )
    return make_table(schedule, steps, skip=steps - done)


def inversion_table(schedule: Schedule, steps: int, rule: str = "current") -> Table:
    """Returns the table of DDIM inversion: from an image's latents to the noise that makes it.

    rule: "current" steps from level t-r to t with the answer at t, as diffusers has it now; "0.18"
    steps from t to t+r, as diffusers 0.18 did, which SynTBPR's editing was made with.
    Raises InputError where the schedule has fewer timesteps.

    >>> inversion_table(Schedule(kind="ddim"), 4).timesteps
    array([  0., 250., 500., 750.], dtype=float32)
    """
    schedule = dataclasses.replace(schedule, eta=0.0)
    if not 1 <= steps <= schedule.train_steps:
        raise InputError(
            f"steps={steps} is out of range; it must be between 1 and {schedule.train_steps}."
        )
    if rule not in ("current", "0.18"):
        raise ValueError(f"rule={rule!r} is unknown; use 'current' or '0.18'.")
    ratio = schedule.train_steps // steps
    times = _leading(schedule, np.arange(steps), ratio)
    alphas = schedule.alphas_cumprod().astype(np.float64)
    if rule == "current":
        source, target = levels_at(schedule, alphas, times - ratio), alphas[times]
    else:
        source, target = alphas[times], alphas[np.minimum(times + ratio, len(alphas) - 1)]
    return _between(schedule, times, source, target)


# --- samplers ------------------------------------------------------------------------------------


def _ddim(schedule: Schedule, steps: int, skip: int) -> Table:
    times = _timesteps(schedule, steps)[skip:]
    alphas = schedule.alphas_cumprod().astype(np.float64)
    target = levels_at(schedule, alphas, times - schedule.train_steps // steps)
    return _between(schedule, times, alphas[times], target)


def _between(schedule: Schedule, times, source, target) -> Table:
    """DDIM from alphas `source` to `target`, each float64 [n], with the outputs at `times`.

    1. Keep the predicted image x0 of the output; 2. find sigma, the noise that eta adds again;
    3. the next sample is sqrt(target) x0, the predicted noise scaled to what is left of the
    variance beside sigma, and sigma times new noise (eq. 12).
    """
    image, level = source**0.5, (1 - source) ** 0.5
    with np.errstate(divide="ignore"):  # epsilon predicts no image where there is no signal
        keep = _as_image(schedule, image, level)
    spread = np.zeros_like(source)
    if schedule.eta:
        spread = schedule.eta * np.sqrt((1 - target) / (1 - source) * (1 - source / target))
    direction = np.sqrt(np.maximum(1 - target - spread**2, 0))
    noise_x, noise_answer = _as_noise(schedule, image, level)
    return _table(
        times,
        keep=keep,
        weights=np.ones((len(times), 1)),
        from_x=direction * noise_x,
        from_mean=target**0.5,
        from_answer=direction * noise_answer,
        from_noise=spread,
        limit=schedule.clip,
        start=(image[0], level[0]),
    )


def _pndm(schedule: Schedule, steps: int, skip: int) -> Table:
    ratio = schedule.train_steps // steps
    times = _timesteps(schedule, steps)
    times = np.concatenate([times[:2], times[1:2], times[2:]])[skip:]
    n, second = len(times), np.arange(len(times)) == 1
    alphas = levels_with_signal(schedule)
    # 1. The second call repeats the first step, now with the output at its end (restart).
    at, to = np.where(second, times + ratio, times), np.where(second, times, times - ratio)
    source, target = alphas[at], levels_at(schedule, alphas, to)
    # 2. Outputs are combined by Adams-Bashforth of as many as there are, up to four; the repeated
    #    step takes the mean of both ends (Heun).
    entries = np.minimum(np.where(np.arange(n) < 2, 1, np.arange(n)), 4)
    weights = np.where(second[:, None], [0.5, 0.5, 0, 0], _ADAMS[entries - 1])
    # 3. The transfer formula (eq. 11) with that mean as the noise.
    slope = (target - source) / (
        source * (1 - target) ** 0.5 + (source * (1 - source) * target) ** 0.5
    )
    noise_x, noise_answer = _as_noise(schedule, source**0.5, (1 - source) ** 0.5)
    return _table(
        times,
        weights=weights,
        from_x=(target / source) ** 0.5 - slope * noise_x,
        from_mean=-slope * noise_answer,
        restart=second,
        start=(source[0] ** 0.5, (1 - source[0]) ** 0.5),
    )


def _euler(schedule: Schedule, steps: int, skip: int) -> Table:
    """Euler's method, and the ancestral one, which steps below the next sigma and adds noise."""
    times = _timesteps(schedule, steps, whole=False)
    sigmas = np.interp(times, np.arange(schedule.train_steps), sigmas_of(schedule))
    if schedule.karras:
        sigmas = _karras(sigmas[-1], sigmas[0], steps)
        times = _times_of(schedule, sigmas)
    largest = sigmas.max()
    now, after = sigmas[skip:], np.append(sigmas[1:], 0)[skip:]
    up = np.zeros_like(now)
    if schedule.kind == "euler_a":
        up = np.sqrt(after**2 * (now**2 - after**2) / now**2)
    step = np.sqrt(after**2 - up**2) - now
    # The derivative d = slope_x x + slope_answer P.
    slope_x, slope_answer = np.zeros_like(now), np.ones_like(now)
    if schedule.prediction == "v_prediction":
        slope_x, slope_answer = now / (now**2 + 1), (now**2 + 1) ** -0.5
    return _table(
        times[skip:],
        scale=(now**2 + 1) ** -0.5,
        weights=np.ones((len(now), 1)),
        from_x=1 + step * slope_x,
        from_mean=step * slope_answer,
        from_noise=up,
        start=(1.0, now[0]),
        sigma=(largest**2 + 1) ** 0.5 if schedule.spacing == "leading" else largest,
    )


def _dpmpp_2m(schedule: Schedule, steps: int, skip: int) -> Table:
    times = _dpm_timesteps(schedule, steps)
    table = sigmas_of(schedule)
    sigmas = np.interp(times, np.arange(len(table)), table)
    if schedule.karras:
        sigmas = _karras(table[0], table[-1], steps)
        times = _times_of(schedule, sigmas).round()
    times, sigmas = times[skip:], np.append(sigmas, 0)[skip:]
    image = (sigmas**2 + 1) ** -0.5
    level = sigmas * image
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(image) - np.log(level)  # infinite at the end, where sigma is 0
    stride = np.diff(half_log_snr)
    weights = np.zeros((len(times), 2))
    weights[:, 0] = 1
    # Second order needs a step before (not the first) and a finite stride (not the last, which
    # goes to sigma 0): those two are of first order.
    half = stride[1:-1] / stride[:-2] / 2
    weights[1:-1] += np.stack([half, -half], axis=1)
    return _table(
        times,
        keep=_as_image(schedule, image[:-1], level[:-1]),
        weights=weights,
        from_x=level[1:] / level[:-1],
        from_mean=-image[1:] * np.expm1(-stride),
        start=(image[0], level[0]),
    )


# --- parts ---------------------------------------------------------------------------------------


def _table(
    times,
    *,
    weights,
    from_x,
    from_mean,
    keep=None,
    scale: ArrayLike = 1.0,
    from_answer: ArrayLike = 0.0,
    from_noise: ArrayLike = 0.0,
    restart: ArrayLike = False,
    limit: float = np.inf,
    start: tuple[float, float] = (1.0, 0.0),
    sigma: float = 1.0,
) -> Table:
    """Fills in defaults. keep: (keep_x, keep_answer), by default the output itself."""
    keep_x, keep_answer = keep or (0.0, 1.0)

    def column(values: ArrayLike, dtype: DTypeLike = np.float32) -> np.ndarray:
        return np.array(np.broadcast_to(values, len(times)), dtype)

    return Table(
        timesteps=column(times),
        scale=column(scale),
        keep_x=column(keep_x),
        keep_answer=column(keep_answer),
        weights=np.array(weights, np.float32),
        from_x=column(from_x),
        from_mean=column(from_mean),
        from_answer=column(from_answer),
        from_noise=column(from_noise),
        restart=column(restart, bool),
        append=~column(restart, bool),
        limit=np.float32(limit),
        start_x=np.float32(start[0]),
        start_noise=np.float32(start[1]),
        sigma=np.float32(sigma),
    )


def _timesteps(schedule: Schedule, steps: int, whole: bool = True) -> np.ndarray:
    """The timesteps from noise to image; whole: rounded to integers."""
    last = schedule.train_steps - 1
    if schedule.spacing == "leading":
        times = _leading(schedule, np.arange(steps)[::-1], schedule.train_steps // steps)
    elif schedule.spacing == "trailing":
        times = _trailing(schedule, steps)
    else:
        times = np.linspace(0, last, steps)[::-1]
        times = times.round() if whole else times.astype(np.float32)
    return times.astype(np.int64 if whole else np.float64)


def _dpm_timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """DPM-Solver's spacing, which has one interval more than that of the other samplers."""
    if schedule.spacing == "leading":
        ratio = schedule.train_steps // (steps + 1)
        return _leading(schedule, np.arange(1, steps + 1)[::-1], ratio)
    if schedule.spacing == "trailing":
        return _trailing(schedule, steps)
    return np.linspace(0, schedule.train_steps - 1, steps + 1).round()[:0:-1]


def _leading(schedule: Schedule, numbers: np.ndarray, ratio: int) -> np.ndarray:
    times = numbers * ratio + schedule.offset
    if times.max() >= schedule.train_steps:
        raise InputError(
            f"{len(times)} steps start at timestep {times.max()}, but the last timestep is "
            f"{schedule.train_steps - 1} (scheduler config: steps_offset {schedule.offset}); "
            "use fewer steps."
        )
    return times


def _trailing(schedule: Schedule, steps: int) -> np.ndarray:
    total = schedule.train_steps
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1


def _karras(smallest: float, largest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """arXiv:2206.00364, eq. 5: sigmas whose rho-th roots are evenly spaced, descending."""
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    return np.linspace(*ends, steps) ** rho


def _times_of(schedule: Schedule, sigmas: np.ndarray) -> np.ndarray:
    """The fractional timesteps of sigmas, linear in their logarithm between whole ones."""
    table = np.log(sigmas_of(schedule))
    return np.interp(np.log(sigmas), table, np.arange(len(table)))


def _as_image(schedule: Schedule, image, level):
    """(factor of x, factor of P) of the image that the output P at x predicts."""
    if schedule.prediction == "v_prediction":
        return image, -level
    return 1 / image, -level / image


def _as_noise(schedule: Schedule, image, level):
    """The same for the noise."""
    if schedule.prediction == "v_prediction":
        return level, image
    return 0.0, 1.0


# --- the table of samplers -----------------------------------------------------------------------

_SIGMAS = {
    "final_sigmas_type": ("zero",),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
}
KINDS = {
    "ddim": Kind(
        "DDIMScheduler", _ddim, {"thresholding": (False,)},
        spacing="leading", clips=True, has_eta=True, alpha_to_one=True,
    ),
    "pndm": Kind(
        "PNDMScheduler", _pndm, {"skip_prk_steps": (True,)},
        spacing="leading", alpha_to_one=False,
    ),
    "euler": Kind(
        "EulerDiscreteScheduler",
        _euler,
        _SIGMAS
        | {
            "interpolation_type": ("linear",),
            "timestep_type": ("discrete",),
            "sigma_min": (None,),
            "sigma_max": (None,),
        },
        has_karras=True,
    ),
    "euler_a": Kind("EulerAncestralDiscreteScheduler", _euler, {}),
    "dpmpp_2m": Kind(
        "DPMSolverMultistepScheduler",
        _dpmpp_2m,
        _SIGMAS
        | {
            "thresholding": (False,),
            "algorithm_type": ("dpmsolver++", "deis"),  # as the class itself reads another's
            "solver_type": ("midpoint", "logrho", "bh1", "bh2"),
            "solver_order": (2,),
            "use_lu_lambdas": (False,),
            "use_flow_sigmas": (False,),
            "euler_at_final": (False,),
            "lambda_min_clipped": (-np.inf,),
            "variance_type": (
                None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log",
            ),
        },
        has_karras=True,
        intervals=1,
    ),
}  # fmt: skip
# The names of the samplers: a kind, and settings that it adds to its config.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in KINDS} | {
    "dpmpp_2m_karras": ("dpmpp_2m", {"use_karras_sigmas": True}),
}
