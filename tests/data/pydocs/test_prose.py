"""Docstrings become prose: no markup, code or tables, and one line per paragraph."""

import pytest

from bert_jax.data.pydocs import prose


@pytest.mark.parametrize(
    ('doc', 'expected'),
    [
        ('Uses :func:`~a.b.c` and :ref:`text <t>`.', 'Uses `c` and text.'),
        ('Is ``x``, see [1]_, `site <https://a.b>`_.', 'Is `x`, see [1], site.'),
        ('Takes *x* and **kwargs**, not *args, **kw.', 'Takes x and kwargs, not *args, **kw.'),
        ('One.\n\n.. code-block:: python\n\n    x = 1\n\nTwo.', 'One.\n\nTwo.'),
        ('.. note:: Mind\n   the gap.', 'Note: Mind the gap.'),
        ('One.\n\n===  ===\na    b\n===  ===\n\nTwo.', 'One.\n\nTwo.'),
        ('One.\n\n```\ncode\n```\nTwo.', 'One.\n\nTwo.'),
        ('- a long\n  item\n- another', '- a long item\n- another'),
        ('One.\n\nCopyright 2020 Nobody.', 'One.'),
        ('One.\n\nExamples\n--------\n>>> 1\n1\n', 'One.'),
    ],
)
def test_clean(doc, expected):
    assert prose.clean(doc) == expected


def test_abbreviations_do_not_end_a_sentence():
    text = 'Give e.g. Ten apples to No. One. Then go.'
    assert text[: prose.sentence_length(text)] == 'Give e.g. Ten apples to No. One.'
