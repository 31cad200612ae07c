"""Every attention kernel of the device equals plain attention in float32: outputs and gradients."""

import jax
import jax.numpy as jnp
import pytest

from bert_jax.modeling import attention_kernels as kernels
from tests.modeling import attention_cases
from tests.modeling.attention_cases import KINDS

ON_GPU = jax.default_backend() == 'gpu'
# B, N, T, H, all different so that shapes in a compiled program tell what they are
SHAPE = (3, 4, 256, 64) if ON_GPU else (2, 4, 128, 16)
HALF = ('bfloat16', 'float16')
# What the Pallas kernel supports: self-attention without window and bias.
BY_DOCUMENT = [k for k in KINDS if k != 'padding, few queries' and not k.startswith(('window', 'bias'))]
# Dtypes and kinds of mask that each kernel computes. A CPU interprets Pallas kernels, which is slow.
SUPPORTED = (
    {'xla': (('float32', *HALF), KINDS), 'cudnn': (HALF, KINDS), 'pallas': (('float32', *HALF), BY_DOCUMENT)}
    if ON_GPU
    else {
        'xla': (('bfloat16',), KINDS),
        'splash': (('float32',), ['packed, causal']),
        'pallas': (('float32',), ['padding, grouped heads', 'packed, causal']),
    }
)
# Relative rounding errors. Products of float32 numbers on a GPU round their factors to TF32, which has the precision
# of float16.
ROUNDING = {'bfloat16': 2.0**-8, 'float16': 2.0**-11, 'float32': 2.0**-11 if ON_GPU else 2.0**-18}
# Largest errors, as shares of the largest entry, in rounding errors. Probabilities, their gradients, bias and results
# are rounded once each. Plain attention in half precision on a CPU has errors of up to 1.3 and 2.3. Attention to a wrong
# token has errors of about 100 in bfloat16.
UNITS_OF_OUTPUT, UNITS_OF_GRADIENTS = 4, 8
COMBINATIONS = [
    (implementation, dtype, kind)
    for implementation, (dtypes, kinds) in SUPPORTED.items()
    for dtype in dtypes
    for kind in kinds
]


@pytest.mark.parametrize(('implementation', 'dtype', 'kind'), COMBINATIONS, ids=str)
def test_kernels_equal_plain_attention(implementation, dtype, kind):
    case = attention_cases.make_case(kind, jnp.dtype(dtype), *SHAPE)
    mask = case.arrays[-1] if 'bias' in kind else case.mask
    assert implementation in kernels.supported(*case.arrays[:2], mask)
    output, *gradients = attention_cases.relative_errors(case, implementation)
    assert output <= UNITS_OF_OUTPUT * ROUNDING[dtype]
    assert max(gradients) <= UNITS_OF_GRADIENTS * ROUNDING[dtype]


@pytest.mark.skipif(not ON_GPU, reason='needs a GPU: python -m pytest --noconftest tests/gpu')
@pytest.mark.parametrize('kind', ['none', 'padding', 'causal, padding', 'window, causal, padding'])
def test_cudnn_stores_no_scores(kind):
    batch, heads, length, _ = SHAPE
    case = attention_cases.make_case(kind, jnp.bfloat16, *SHAPE)

    def compile_text(implementation):
        lowered = attention_cases.run.lower(case.arrays, case.mask, case.is_real, implementation)
        return lowered.compile().as_text()

    text = compile_text('cudnn')
    assert text.count('__cudnn$fmha') == 2  # forward and backward pass
    assert f'{length},{length}]' not in text
    assert f'[{batch},{heads},{length},{length}]' in compile_text('xla')
