"""Samplers as tables of numbers: every step of every sampler is the same linear rule.

With the network's answer P at the sample x, step i is

    kept_i  = keep_x x + keep_answer P                         (and limited to +-limit)
    mean    = sum_j weights_j kept_(i-j)                       (the newest first)
    x_(i+1) = from_x x' + from_mean mean + from_answer P + from_noise z

where x' is x, or the sample before it at a step that starts again from there. A table is an array
for each of these numbers, computed here on the host; `sampling.sample` scans over it. So one
compiled program serves every sampler with as many steps and as long a memory.

The rules are those of the schedulers of PyTorch diffusers: DDIM (arXiv:2010.02502, eq. 12), its
inversion, PNDM without Runge-Kutta steps (arXiv:2202.09778), Euler and ancestral Euler
(arXiv:2206.00364, algorithm 2), and DPM-Solver++ 2M (arXiv:2211.01095, algorithm 2).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.errors import UserError

# The names of the samplers: diffusers' class, and what it is told.
SAMPLERS = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}

_KINDS = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
}
# What a class does where the config of a checkpoint does not say: these differ.
_SPACING = {"ddim": "leading", "pndm": "leading"}  # the others: linspace
# Settings that would change a sampler's rule and are not done here: the values that each may have,
# the first where a config says nothing. What a sampler does not read may be anything.
_SIGMAS = {
    "final_sigmas_type": ("zero",),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
}
_DONE = {
    "ddim": {"thresholding": (False,)},
    "pndm": {"skip_prk_steps": (True,)},
    "euler": _SIGMAS
    | {
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete",),
        "sigma_min": (None,),
        "sigma_max": (None,),
    },
    "euler_a": {},
    "dpmpp_2m": _SIGMAS
    | {
        "thresholding": (False,),
        "algorithm_type": ("dpmsolver++", "deis"),  # as the class itself reads another's configs
        "solver_type": ("midpoint", "logrho", "bh1", "bh2"),
        "solver_order": (2,),
        "use_lu_lambdas": (False,),
        "use_flow_sigmas": (False,),
        "euler_at_final": (False,),
        "lambda_min_clipped": (-np.inf,),
        "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    },
}
_NUMBERS = ("num_train_timesteps", "beta_start", "beta_end", "steps_offset", "clip_sample_range")
_EVERYWHERE = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}
# Combinations of the last answers, the newest first (Adams-Bashforth).
_ADAMS = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)


class Table(NamedTuple):
    """The numbers of n steps, float32 [n] unless said otherwise; see the module.

    timesteps: what the network is told; scale: factor of its input; weights: [n, memory];
    restart: bool, x' is the sample before x; append: bool, kept_i stays in memory; limit: [],
    infinite where nothing is limited; start_x, start_noise: the noised start at step 0 of an
    image's latents (image-to-image); sigma: [], factor of pure noise as a start.
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
    limit: np.ndarray
    start_x: np.ndarray
    start_noise: np.ndarray
    sigma: np.ndarray


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A noise schedule and the sampler that walks it; the fields are diffusers' settings.

    kind: one of ddim, pndm, euler, euler_a, dpmpp_2m; prediction: epsilon or v_prediction; spacing:
    leading, trailing or linspace; eta: share of the noise that DDIM adds again.
    """

    kind: str = "ddim"
    prediction: str = "epsilon"
    spacing: str = "leading"
    offset: int = 0
    alpha_to_one: bool = False
    clip: float = np.inf
    karras: bool = False
    eta: float = 0.0
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    zero_snr: bool = False
    train_steps: int = 1000

    @property
    def sampler(self) -> str:
        """The name of the sampler; with Karras's sigmas it ends in _karras."""
        return f"{self.kind}_karras" if self.karras else self.kind

    @property
    def stochastic(self) -> bool:
        """Whether steps add noise."""
        return self.kind == "euler_a" or self.eta > 0

    def betas(self) -> np.ndarray:
        """Returns the variances of the forward process, float32 [train_steps]."""
        if self.trained_betas is not None:
            betas = np.array(self.trained_betas, np.float32)
        elif self.beta_schedule == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, self.train_steps, dtype=np.float32)
        else:
            ends = self.beta_start**0.5, self.beta_end**0.5
            betas = np.linspace(*ends, self.train_steps, dtype=np.float32) ** 2
        return _with_zero_snr(betas) if self.zero_snr else betas

    def alphas_cumprod(self) -> np.ndarray:
        """Returns the share of the image in the variance at each level, float32 [train_steps]."""
        return np.cumprod(1 - self.betas(), dtype=np.float32)


def from_config(config: Mapping[str, Any], sampler: str = "", eta: float = 0.0) -> Schedule:
    """Returns the schedule of a checkpoint's scheduler_config.json.

    sampler: one of SAMPLERS, or "" for the checkpoint's own; what the config does not say is as
    that class of diffusers has it. Raises UserError for settings that are not done here.
    """
    named, extra = SAMPLERS.get(sampler, (config.get("_class_name"), {}))
    if named not in _KINDS:
        raise UserError(
            f"the scheduler {sampler or named!r} is not known; choose one of {', '.join(SAMPLERS)}."
        )
    kind, own = _KINDS[named], config.get("_class_name") == named
    config = {key: value for key, value in config.items() if value is not None} | extra
    refused = list(_refused(config, kind, own))
    if refused:
        raise UserError(
            f"the scheduler config has {', '.join(refused)}, which is not done here; change it, or "
            f"set another sampler of {', '.join(SAMPLERS)}."
        )
    clips = kind == "ddim" and config.get("clip_sample", own)
    return Schedule(
        kind=kind,
        prediction=config.get("prediction_type", "epsilon"),
        spacing=config.get("timestep_spacing", _SPACING.get(kind, "linspace")),
        offset=config.get("steps_offset", 0),
        alpha_to_one=kind in ("ddim", "pndm") and config.get("set_alpha_to_one", kind == "ddim"),
        clip=config.get("clip_sample_range", 1.0) if clips else np.inf,
        karras=kind in ("euler", "dpmpp_2m") and config.get("use_karras_sigmas", False),
        eta=eta if kind == "ddim" else 0.0,
        beta_start=config.get("beta_start", 0.0001),
        beta_end=config.get("beta_end", 0.02),
        beta_schedule=config.get("beta_schedule", "linear"),
        trained_betas=tuple(config["trained_betas"]) if "trained_betas" in config else None,
        zero_snr=config.get("rescale_betas_zero_snr", False),
        train_steps=config.get("num_train_timesteps", 1000),
    )


def _refused(config: Mapping[str, Any], kind: str, own: bool) -> Iterator[str]:
    """Yields each setting that is not done here, or makes no sense."""
    done = _EVERYWHERE | _DONE[kind]
    said = {key: config[key] for key in done if key in config}
    if kind == "pndm" and own:
        said.setdefault("skip_prk_steps", False)  # what its class does unless told otherwise
    for key, value in said.items():
        if value not in done[key]:
            yield f"{key}={value!r}"
    for key in _NUMBERS:
        value = config.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{key}={value!r}"
    betas = config.get("trained_betas")
    if betas is not None and len(betas) != config.get("num_train_timesteps", 1000):
        yield "trained_betas of another number than num_train_timesteps"
    is_epsilon = config.get("prediction_type", "epsilon") == "epsilon"
    if kind == "ddim" and is_epsilon and config.get("rescale_betas_zero_snr"):
        yield "rescale_betas_zero_snr=True without v_prediction"  # divides by 0


def make_table(schedule: Schedule, steps: int, skip: int = 0) -> Table:
    """Returns the table that takes `steps` steps from noise to image, less the first `skip`.

    Raises UserError where the schedule has not so many timesteps.
    """
    # DPM-Solver counts one interval more.
    most = schedule.train_steps - (schedule.kind == "dpmpp_2m")
    if not 1 <= steps <= most:
        raise UserError(f"{steps} steps are not between 1 and {most}.")
    make = {"ddim": _ddim, "pndm": _pndm, "dpmpp_2m": _dpmpp_2m}.get(schedule.kind, _euler)
    return make(schedule, steps, skip)


def image_to_image_table(schedule: Schedule, steps: int, strength: float) -> Table:
    """Returns the table that begins with an image noised to `strength` of the way (0 to 1).

    As diffusers' image-to-image pipeline counts: int(steps * strength) steps are done. PNDM makes
    one call more and, since no timestep is repeated then, lags one interval behind its timesteps.
    """
    done = min(int(steps * strength), steps)
    if done < 1:
        raise UserError(
            f"strength {strength} of {steps} steps leaves none to do; give more of either."
        )
    return make_table(schedule, steps, skip=steps - done)


def inversion_table(schedule: Schedule, steps: int, rule: str = "current") -> Table:
    """Returns the table of DDIM inversion: from an image's latents to the noise that makes it.

    rule: "current" steps from level t-r to t with the answer at t, as diffusers has it now; "0.18"
    steps from t to t+r, as diffusers 0.18 did, which SynTBPR's editing was made with.
    Raises UserError where the schedule has not so many timesteps.
    """
    schedule = dataclasses.replace(schedule, eta=0.0)
    if not 1 <= steps <= schedule.train_steps:
        raise UserError(f"{steps} steps are not between 1 and {schedule.train_steps}.")
    if rule not in ("current", "0.18"):
        raise ValueError(f"rule {rule!r} is not known; use 'current' or '0.18'.")
    ratio = schedule.train_steps // steps
    times = _leading(schedule, np.arange(steps), ratio)
    alphas = schedule.alphas_cumprod().astype(np.float64)
    if rule == "current":
        source, target = _level(schedule, alphas, times - ratio), alphas[times]
    else:
        source, target = alphas[times], alphas[np.minimum(times + ratio, len(alphas) - 1)]
    return _between(schedule, times, source, target)


def add_noise(alphas_cumprod, latents, noise, timesteps):
    """Returns latents [B, ...] noised to the levels of timesteps [B] (DDPM, eq. 4)."""
    image, level = _shares(alphas_cumprod, timesteps, latents)
    return image * latents + level * noise


def velocity(alphas_cumprod, latents, noise, timesteps):
    """Returns the v of latents [B, ...] at timesteps [B] (arXiv:2202.00512, appendix D)."""
    image, level = _shares(alphas_cumprod, timesteps, latents)
    return image * noise - level * latents


# --- samplers ------------------------------------------------------------------------------------


def _ddim(schedule: Schedule, steps: int, skip: int) -> Table:
    times = _timesteps(schedule, steps)[skip:]
    alphas = schedule.alphas_cumprod().astype(np.float64)
    target = _level(schedule, alphas, times - schedule.train_steps // steps)
    return _between(schedule, times, alphas[times], target)


def _between(schedule: Schedule, times, source, target) -> Table:
    """DDIM from levels `source` to `target`, each float64 [n], with the answers at `times`."""
    image, level = source**0.5, (1 - source) ** 0.5
    with np.errstate(divide="ignore"):  # epsilon tells no image where there is no signal
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
    alphas = _levels_with_signal(schedule)
    # The second call does the first step again, now with what was learnt at its end.
    at, to = np.where(second, times + ratio, times), np.where(second, times, times - ratio)
    source, target = alphas[at], _level(schedule, alphas, to)
    entries = np.minimum(np.where(np.arange(n) < 2, 1, np.arange(n)), 4)
    weights = np.where(second[:, None], [0.5, 0.5, 0, 0], _ADAMS[entries - 1])
    slope = (target - source) / (
        source * (1 - target) ** 0.5 + (source * (1 - source) * target) ** 0.5
    )
    noise_x, noise_answer = _as_noise(schedule, source**0.5, (1 - source) ** 0.5)
    first = alphas[times[0]]
    return _table(
        times,
        weights=weights,
        from_x=(target / source) ** 0.5 - slope * noise_x,
        from_mean=-slope * noise_answer,
        restart=second,
        start=(first**0.5, (1 - first) ** 0.5),
    )


def _euler(schedule: Schedule, steps: int, skip: int) -> Table:
    """Euler's method, and the ancestral one, which goes further down and adds noise again."""
    times = _timesteps(schedule, steps, whole=False)
    sigmas = np.interp(times, np.arange(schedule.train_steps), _sigmas(schedule))
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
    table = _sigmas(schedule)
    sigmas = np.interp(times, np.arange(len(table)), table)
    if schedule.karras:
        sigmas = _karras(table[0], table[-1], steps)
        times = _times_of(schedule, sigmas).round()
    times, sigmas = times[skip:], np.append(sigmas, 0)[skip:]
    image = (sigmas**2 + 1) ** -0.5
    level = sigmas * image
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(image) - np.log(level)  # infinite at the end, which is the image
    stride = np.diff(half_log_snr)
    weights = np.zeros((len(times), 2))
    weights[:, 0] = 1
    # The first step has no step before it; the last goes the whole way and has infinite stride.
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
    scale=1.0,
    from_answer=0.0,
    from_noise=0.0,
    restart=False,
    limit=np.inf,
    start=(1.0, 0.0),
    sigma=1.0,
) -> Table:
    """Fills up what a sampler does not say. keep: (keep_x, keep_answer), else the answer itself."""
    keep_x, keep_answer = keep or (0.0, 1.0)

    def column(values, dtype=np.float32):
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
    """The timesteps from noise to image; whole: rounded to integers where they are not."""
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
    """DPM-Solver's spacing, which counts one interval more than the other samplers do."""
    if schedule.spacing == "leading":
        ratio = schedule.train_steps // (steps + 1)
        return _leading(schedule, np.arange(1, steps + 1)[::-1], ratio)
    if schedule.spacing == "trailing":
        return _trailing(schedule, steps)
    return np.linspace(0, schedule.train_steps - 1, steps + 1).round()[:0:-1]


def _leading(schedule: Schedule, numbers: np.ndarray, ratio: int) -> np.ndarray:
    times = numbers * ratio + schedule.offset
    if times.max() >= schedule.train_steps:
        raise UserError(
            f"{len(times)} steps begin at timestep {times.max()}, but the last is "
            f"{schedule.train_steps - 1} (scheduler config: steps_offset {schedule.offset}); "
            "take fewer steps."
        )
    return times


def _trailing(schedule: Schedule, steps: int) -> np.ndarray:
    total = schedule.train_steps
    return np.round(np.arange(total, 0, -total / steps))[:steps] - 1


def _level(schedule: Schedule, alphas: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The levels of timesteps of which those below 0 are the end of the walk."""
    end = 1.0 if schedule.alpha_to_one else alphas[0]
    return np.where(times >= 0, alphas[np.maximum(times, 0)], end)


def _levels_with_signal(schedule: Schedule) -> np.ndarray:
    """The levels, float64 [train_steps], for the samplers that divide by each.

    As diffusers' Euler and DPM-Solver have it, the least is 2^-24 where the last is pure noise.
    """
    return np.maximum(schedule.alphas_cumprod().astype(np.float64), 2.0**-24)


def _sigmas(schedule: Schedule) -> np.ndarray:
    """The noise in units of the image at each level, float64 [train_steps], ascending."""
    alphas = _levels_with_signal(schedule)
    return ((1 - alphas) / alphas) ** 0.5


def _karras(smallest: float, largest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """arXiv:2206.00364, eq. 5: sigmas whose rho-th roots are evenly spaced, descending."""
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    return np.linspace(*ends, steps) ** rho


def _times_of(schedule: Schedule, sigmas: np.ndarray) -> np.ndarray:
    """The fractional timesteps of sigmas, linear in their logarithm between whole ones."""
    table = np.log(_sigmas(schedule))
    return np.interp(np.log(sigmas), table, np.arange(len(table)))


def _as_image(schedule: Schedule, image, level):
    """(factor of x, factor of P) of the image that the answer P at x stands for."""
    if schedule.prediction == "v_prediction":
        return image, -level
    return 1 / image, -level / image


def _as_noise(schedule: Schedule, image, level):
    """The same for the noise."""
    if schedule.prediction == "v_prediction":
        return level, image
    return 0.0, 1.0


def _with_zero_snr(betas: np.ndarray) -> np.ndarray:
    """arXiv:2305.08891, algorithm 1: shifted and scaled so that the last level is pure noise."""
    roots = np.cumprod(1 - betas, dtype=np.float32) ** 0.5
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    levels = roots**2
    alphas = np.concatenate([levels[:1], levels[1:] / levels[:-1]])
    return (1 - alphas).astype(np.float32)


def _shares(alphas_cumprod, timesteps, like):
    """The factors of image and noise at timesteps [B], each broadcast against `like`."""
    alphas = jnp.asarray(alphas_cumprod)[timesteps].reshape(-1, *[1] * (like.ndim - 1))
    return alphas**0.5, (1 - alphas) ** 0.5
