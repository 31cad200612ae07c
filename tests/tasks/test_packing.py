"""Packed rows give every downstream task the losses, gradients and outputs of one text a row."""

import jax
import numpy as np
import pytest

from bert_jax.data import packing
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.pipeline import stack
from bert_jax.data.question_answering import QuestionConfig
from bert_jax.data.records import Record
from bert_jax.data.seq2seq import Seq2SeqConfig
from bert_jax.data.tagging import TaggingConfig
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.modeling import module
from bert_jax.tasks import choice, embed, qa, regress, seq2seq, tag
from tests.modeling import tiny
from tests.runs import slow_after

LENGTH = 12
WORDS = [' '.join(f'w{10 * i + j}' for j in range(n)) for i, n in enumerate((3, 9, 1, 5, 2, 7, 4))]
LABELS = ('a', 'b', 'c')


def make_records(**fields):
    """One record for each text in `WORDS`; each field is a function of its number and its words."""
    return [
        Record(f'example {i}', {k: make(i, words.split()) for k, make in fields.items()})
        for i, words in enumerate(WORDS)
    ]


def make_regress(tokenizer):
    records = make_records(text=lambda i, w: ' '.join(w), pair=lambda i, w: 'w5', label=lambda i, w: i / 2)
    data = LabeledConfig('x.jsonl', length=LENGTH, text_pair='pair')
    return regress.Task(regress.Config(), data, tokenizer), records


def make_choice(tokenizer):
    records = make_records(
        text=lambda i, w: ' '.join(w), endings=lambda i, w: ['w1 w2', w[0]], label=lambda i, w: i % 2
    )
    return choice.Task(choice.Config(), ChoiceConfig('x.jsonl', length=LENGTH), tokenizer), records


def make_tag(tokenizer, **settings):
    records = make_records(tokens=lambda i, w: w, tags=lambda i, w: [LABELS[len(x) % 3] for x in w])
    config = tag.Config(labels=LABELS, **settings)
    return tag.Task(config, TaggingConfig('x.jsonl', length=LENGTH), tokenizer), records


def make_lstm_tag(tokenizer):
    return make_tag(tokenizer, features='last', lstm_width=5)


def make_qa(tokenizer):
    records = make_records(
        id=lambda i, w: f'{i}',
        question=lambda i, w: 'w8',
        context=lambda i, w: ' '.join(w),
        answers=lambda i, w: {'text': w[-1:], 'answer_start': [' '.join(w).index(w[-1])]},
    )
    return qa.Task(
        qa.Config(), QuestionConfig('x.json', length=LENGTH, stride=3, max_question_length=2), tokenizer
    ), records


def make_seq2seq(tokenizer, **settings):
    records = make_records(text=lambda i, w: ' '.join(w), target=lambda i, w: ' '.join(w[:: 1 + i % 3]))
    data = Seq2SeqConfig('x.jsonl', length=LENGTH, target_length=LENGTH - 4)
    return seq2seq.Task(seq2seq.Config(**settings), data, tokenizer), records


def make_decoder_only(tokenizer):
    return make_seq2seq(tokenizer, decoder_only=True)


def make_embed(tokenizer, fields=('text', 'pair'), **settings):
    records = make_records(
        text=lambda i, w: ' '.join(w), pair=lambda i, w: f'w{i} w3', label=lambda i, w: LABELS[i % 3]
    )
    data = TupleConfig('x.jsonl', length=LENGTH, texts=fields)
    return embed.Task(embed.Config(**settings), data, tokenizer), records


def make_class_pairs(tokenizer):
    return make_embed(tokenizer, objective='classes', labels=LABELS, widths=(8,))


def make_first_tokens(tokenizer):
    return make_embed(tokenizer, pooling='cls', symmetric=True, output_width=8)


def make_single_texts(tokenizer):
    return make_embed(tokenizer, ('text',))


def pack(examples, lengths, num_rows):
    """Pack examples into rows; return the batch, and the example in each slot or -1."""
    slots, lengths = len(examples), lengths.reshape(len(examples), -1)
    shape = packing.Packing(lengths, slots, num_rows, slots, [np.zeros(1)] * lengths.shape[1], 1, 1.0)
    rows, widths = shape.assign_rows(np.arange(slots))
    batch = stack([packing.pack_row([examples[i] for i in row], widths, slots) for row in rows])
    order = np.full((num_rows, slots), -1)
    for i, row in enumerate(rows):
        order[i, : len(row)] = row
    return batch, order.ravel()


@pytest.mark.parametrize(
    ('make', 'model', 'changes'),
    slow_after(
        9,
        [
            *((make, 'bert', {}) for make in (make_regress, make_choice, make_tag, make_qa, make_embed)),
            (make_tag, 'bart', {}),
            (make_seq2seq, 'bart', {}),
            (make_decoder_only, 'gpt', {}),
            (make_choice, 'bert', {**tiny.LOCAL, 'pooling': 'mean'}),
            (make_lstm_tag, 'bert', {}),
            (make_choice, 'gpt', {}),
            *((make_seq2seq, 'bart', changes) for changes in (tiny.MODERN, tiny.T5)),
            *((make_tag, 'bert', changes) for changes in (tiny.LOCAL, tiny.DEBERTA)),
            *(
                (make_choice, 'bert', changes)
                for changes in (tiny.MPNET, tiny.NOMIC, tiny.ALBERT, tiny.EUROBERT)
            ),
            *((make, 'bert', {}) for make in (make_class_pairs, make_first_tokens, make_single_texts)),
            (make_embed, 'bert', tiny.LOCAL),
        ],
    ),
)
def test_packing_changes_no_loss_gradient_or_output(word_tokenizer, make, model, changes):
    task, records = make(word_tokenizer)
    rows = task.make_examples(records).rows
    examples = [task.example(row, np.random.default_rng(0)) for row in rows]
    lengths = task.text_lengths(rows)
    sides = [key for key in ('valid', 'target_valid') if key in examples[0]]
    assert lengths.reshape(-1).tolist() == [int(e[side].sum()) for e in examples for side in sides]
    packed, order = pack(examples, lengths, 3)
    assert packed['tokens'].size < stack(examples)['tokens'].size

    def build(config, rngs):
        return task.build_model(config, rngs)

    build.__name__ = model
    graph, params = tiny.graph_and_params(build, vocab_size=len(word_tokenizer), **changes)

    @jax.jit
    def evaluate(params, batch):
        def loss(params):
            result = task.loss(module.merge(graph, params), batch, None)
            return sum(t.value() for t in result.losses.values()), result

        return jax.grad(loss, has_aux=True)(params)

    (grads, alone), (packed_grads, together) = (evaluate(params, b) for b in (stack(examples), packed))
    for expected, found in (
        (alone.losses, together.losses),
        (alone.metrics, together.metrics),
        (grads, packed_grads),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=1e-5, rtol=1e-5), expected, found)
    for name, expected in alone.outputs.items():
        found = np.asarray(together.outputs[name])
        found = found.reshape(-1, *found.shape[2:])[order >= 0][np.argsort(order[order >= 0])]
        assert found.shape == expected.shape
        per_token = expected.shape[1:2] == (LENGTH,)
        real = stack(examples)['valid'] if per_token else slice(None)
        np.testing.assert_allclose(found[real], np.asarray(expected)[real], atol=1e-5, rtol=1e-5)
