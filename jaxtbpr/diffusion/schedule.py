"""The noise schedule of a diffusion model: how much noise there is at each timestep.

Its settings are those of the schedulers of PyTorch diffusers (`scheduler_config.py` reads them).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A noise schedule and the sampler on it; the fields are diffusers' settings.

    kind: one of `samplers.KINDS`; prediction: epsilon or v_prediction; spacing: of timesteps:
    leading, trailing or linspace; eta: of DDIM, 0 = deterministic, 1 = DDPM's noise.
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
        """Returns the signal's fraction of the variance at each timestep, float32 [train_steps]."""
        return np.cumprod(1 - self.betas(), dtype=np.float32)


def add_noise(alphas_cumprod, latents, noise, timesteps):
    """Returns latents [B, ...] noised to the levels of timesteps [B] (DDPM, eq. 4)."""
    image, level = _shares(alphas_cumprod, timesteps, latents)
    return image * latents + level * noise


def velocity(alphas_cumprod, latents, noise, timesteps):
    """Returns the v of latents [B, ...] at timesteps [B] (arXiv:2202.00512, appendix D)."""
    image, level = _shares(alphas_cumprod, timesteps, latents)
    return image * noise - level * latents


def levels_at(schedule: Schedule, alphas: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns alphas_cumprod at timesteps; those below 0 are the end of sampling."""
    end = 1.0 if schedule.alpha_to_one else alphas[0]
    return np.where(times >= 0, alphas[np.maximum(times, 0)], end)


def levels_with_signal(schedule: Schedule) -> np.ndarray:
    """Returns alphas_cumprod, float64 [train_steps], for the samplers that divide by each.

    The smallest is 2^-24 where the last is pure noise, as in diffusers' Euler and DPM-Solver.
    """
    return np.maximum(schedule.alphas_cumprod().astype(np.float64), 2.0**-24)


def sigmas_of(schedule: Schedule) -> np.ndarray:
    """Returns sigma = noise / signal at each timestep, float64 [train_steps], ascending."""
    alphas = levels_with_signal(schedule)
    return ((1 - alphas) / alphas) ** 0.5


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
