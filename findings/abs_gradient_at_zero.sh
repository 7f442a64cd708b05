#!/usr/bin/env bash
# JAX 0.10.2 and PyTorch 2.13.0: the gradient of |x| at x = 0 is 1 in JAX and 0 in PyTorch, so an L1
# distance that a guidance differentiates has another gradient wherever its residual is exactly 0.
#
# Expected, of a port: the same subgradient; both give sign(x) elsewhere, and sign(0) = 0 in both.
# Seen: jax.grad gives [1, 1, -1] at [0, 2, -2] by jnp.abs, torch.autograd [0, 1, -1]; jnp.sign gives
# [0, 1, -1]. Guidance by an L1 distance (noise map guidance, for example) thus pushes latents that
# are where they should be, unless it is written as x * stop_gradient(sign(x)).
# This script fails when the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  jax==0.10.2 torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'END_PYTHON'
from importlib.metadata import version

import jax
import jax.numpy as jnp
import torch

values = [0.0, 2.0, -2.0]
ours = jax.grad(lambda x: jnp.abs(x).sum())(jnp.array(values)).tolist()
signed = jax.grad(lambda x: (x * jax.lax.stop_gradient(jnp.sign(x))).sum())(jnp.array(values))
leaf = torch.tensor(values, requires_grad=True)
leaf.abs().sum().backward()
theirs = leaf.grad.tolist()
print("jax", version("jax"), "torch", version("torch"))
print("gradient of |x| at", values)
print("jax:  ", ours, " jnp.sign:", jnp.sign(jnp.array(values)).tolist())
print("torch:", theirs, " torch.sign:", torch.tensor(values).sign().tolist())
assert ours == [1.0, 1.0, -1.0], ours
assert theirs == [0.0, 1.0, -1.0], theirs
assert signed.tolist() == theirs, signed
END_PYTHON
