"""The train steps of the pretraining configs are those of programs.json, see make_programs.py."""

import importlib.util

import jax
import pytest

from bert_jax.planning import abstract_step, plan
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import loop
from tests.planning import make_programs as made
from tests.runs import ROOT

SMALL = 'configs/pretrain/bilingual.py'
COMMAND = 'python -m tests.planning.make_programs'
RECORDED = made.read()
pytestmark = pytest.mark.skipif(
    RECORDED['versions'] != made.versions(), reason=f'programs.json is for {RECORDED["versions"]}'
)


def check(name, target):
    """Fail if a program is not the recorded one; the message says what has changed."""
    old = RECORDED['programs'].get(name, {}).get(target, {})
    new = made.describe(made.lower(name, target))
    if new['hash'] != old.get('hash'):
        if target == made.CPU:  # the compiler for TPUs takes minutes
            new['costs'] = made.compile_costs(name, target)
        pytest.fail(
            f'The program of {name} on {target} has changed: {made.compare(old, new)}.\n'
            f'If this is intended, run `{COMMAND}` and commit the file.',
            pytrace=False,
        )


@pytest.mark.parametrize('name', made.PROGRAMS)
@pytest.mark.parametrize('target', made.DEVICES)
def test_program_is_the_recorded_one(name, target):
    check(name, target)


def test_message_says_what_has_changed(monkeypatch):
    monkeypatch.setitem(made.PROGRAMS, SMALL, ('model.remat=full',))
    with pytest.raises(pytest.fail.Exception) as error:
        check(SMALL, made.CPU)
    assert all(part in str(error.value) for part in (SMALL, 'dot_general ', 'FLOP ', COMMAND))
    assert 'all-reduce bytes' not in str(error.value)  # unchanged


def test_names_of_functions_do_not_matter():
    @jax.jit
    def scale(x):
        return x * 2

    @jax.jit
    def double(x):
        return x * 2

    def lower(f, x):
        return made.normalize(jax.jit(lambda x: f(x) + 1).lower(x).as_text())

    x = jax.ShapeDtypeStruct((8,), 'float32')
    assert lower(scale, x) == lower(double, x)
    assert lower(scale, x) != lower(scale, jax.ShapeDtypeStruct((4,), 'float32'))


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec('libtpu'), reason='needs the TPU compiler: pip install "jax[tpu]"'
)
@pytest.mark.parametrize('name', ['bert.py:base', 'bart.py:base', 'gpt.py:small'])
def test_configs_for_accelerators_fit_into_16_chips(name):
    experiment = experiment_lib.read(str(ROOT / 'configs/pretrain' / name), [])
    experiment, tokenizer = abstract_step.complete_experiment(experiment)
    for phase in loop.make_phases(experiment, 0):
        assert plan.plan_step(experiment, tokenizer, phase, plan.Topology(made.TPU)).fits
