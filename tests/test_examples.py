"""The examples in the docstrings of losses, metrics and samplers say what is true."""

import doctest
import inspect
import types

import jax
import numpy as np
import pytest

from jaxtbpr.diffusion import samplers, sampling
from jaxtbpr.retrieval.evaluation import metrics
from jaxtbpr.retrieval.training import losses


def public_functions(module):
    """The functions that a module lists as public, or else has written itself."""
    own = [name for name, value in vars(module).items() if inspect.getmodule(value) is module]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    values = {name: getattr(module, name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, types.FunctionType)}


FUNCTIONS = {
    name: function
    for module in (losses, metrics, samplers)
    for name, function in public_functions(module).items()
} | {"sample": sampling.sample, "guide": sampling.guide}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_public_function_has_an_example_that_is_true(name):
    function = FUNCTIONS[name]
    names = {**vars(inspect.getmodule(function)), "np": np, "jax": jax, name: function}
    (example,) = doctest.DocTestFinder().find(function, name, module=False, globs=names)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
