"""Damaged inputs of every kind end in a result or a named error, within 5 s and 1 GiB."""

import math

import mutants
import numpy as np
import pytest

pytestmark = pytest.mark.slow
CASES, LONG_CASES = 600, 5_000
"""Over all readers."""


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    with mutants.bounded_child(tmp_path_factory.mktemp("mutants")) as read:
        yield read


@pytest.mark.parametrize("reader", mutants.READERS)
def test_mutated_inputs_end_in_a_result_or_a_named_error(request, child, reader):
    total = LONG_CASES if request.config.getoption("--long") else CASES
    cases = range(math.ceil(total / len(mutants.READERS)))
    read, refused, wrong = child(reader, request.config.getoption("--seed"), cases)
    assert not wrong
    assert read + refused == len(cases)
    assert refused, "no input was damaged enough to be refused"


def test_mutate_same_seed_gives_the_same_input():
    sound = mutants.SOUND["labels"]()
    once, again, other = (
        mutants.mutate("labels", np.random.default_rng(seed), sound) for seed in (1, 1, 2)
    )
    assert once == again != other
