"""A loaded model is called on batches of texts."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.train import model as model_lib


def test_a_classifier_has_its_classes_config_and_tokenizer(finetuned):
    model, tokenizer = bert_jax.load(finetuned)
    logits = model(**tokenizer(['the good dog', 'the bad dog'])).logits
    assert [model.class_names[i] for i in logits.argmax(-1)] == ['good', 'bad']
    assert (model.config.width, model.config.layers) == (32, 2)
    assert model.tokenizer is tokenizer
    assert tokenizer.longest_row == model.config.max_positions


def test_texts_of_many_lengths_share_one_program(pretrained):
    model, tokenizer = bert_jax.load(pretrained)
    before = model_lib._apply._cache_size()
    for n in range(1, 40):
        model(**tokenizer('the ' * n))
    assert model_lib._apply._cache_size() <= before + 1


def test_padding_changes_nothing(pretrained):
    model, tokenizer = bert_jax.load(pretrained)
    batch = tokenizer('the dog runs')
    n = batch['valid'].sum()
    short = model(batch['tokens'][:, :n])
    padded = model(**batch)
    np.testing.assert_allclose(padded.logits[:, :n], short.logits, atol=1e-5)
    assert [h.shape for h in short.hidden_states] == [(1, n, 32)] * 3


@pytest.mark.parametrize('run', ['gpt', 'bart'])
def test_generative_models_predict_the_tokens_of_a_text(run, request):
    model, tokenizer = bert_jax.load(request.getfixturevalue(run))
    batch = tokenizer(['the dog', 'a cat runs'])
    out = model(**batch, output_attentions=True)
    vocab_size = model.config.vocab_size
    assert out.logits.shape == (2, 64, vocab_size)
    assert [w.shape for w in out.attentions] == [(2, 2, 64, 64)] * 2
    is_bart = run == 'bart'
    assert (batch['tokens'][0, 0] == tokenizer.cls) == is_bart, 'a causal model gets no special tokens'
    assert (out.cross_attentions is not None) == is_bart
    if is_bart:
        targets = np.roll(batch['tokens'], 1, 1)
        targets[:, 0] = tokenizer.sep
        np.testing.assert_array_equal(model(**batch, targets=targets).logits, out.logits)


def test_a_model_can_be_transformed(finetuned):
    model, tokenizer = bert_jax.load(finetuned)
    batch, labels = tokenizer(['the good dog', 'the bad dog']), jnp.array([0, 1])

    def loss(model, batch):
        logits = model(**batch, key=jax.random.key(0)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradients = jax.jit(jax.grad(loss))(model, batch)
    assert gradients.params.keys() == model.params.keys()
    updated = optax.apply_updates(model, jax.tree.map(lambda g: -0.01 * g, gradients))
    assert loss(updated, batch) < loss(model, batch)


@pytest.mark.parametrize(
    ('tokens', 'others', 'message'),
    [
        ('the dog', {}, r'tokens must be numbers, not text .* model\(\*\*tokenizer\(texts\)\)'),
        (['the dog'], {}, 'tokens must be numbers, not text'),
        ([[1, 2], [3]], {}, 'rows of tokens have different lengths'),
        ([1, 2], {}, r'tokens has the shape \(2,\), but must have rows and columns'),
        ([[1.0, 2.0]], {}, 'tokens has the type float64, but must be integers'),
        ([[1, 5000]], {}, 'tokens contains the id 5000, but the vocabulary has the ids 0 to 18'),
        ([[1, -1]], {}, 'tokens contains the id -1'),
        ({'tokens': [[1]]}, {}, r'by name: model\(\*\*batch\)'),
        ([[1] * 70], {}, r'70 tokens are longer than the 64 positions .* max_length=64'),
        ([[1, 2]], {'valid': [[True]]}, r'valid has the shape \(1, 1\), but tokens has \(1, 2\)'),
        ([[1, 2, 3]], {'valid': [[True, False, True]]}, 'Move the padding to the end of each row'),
        ([[1, 2]], {'targets': [[1]]}, 'Leave out targets'),
    ],
)
def test_wrong_arguments_are_rejected(pretrained, tokens, others, message):
    model, _ = bert_jax.load(pretrained)
    with pytest.raises(UserError, match=message):
        model(tokens, **others)


def test_the_example_of_load_runs(pretrained, finetuned, monkeypatch):
    load, folders = bert_jax.load, {'runs/quickstart/pretrain': pretrained, 'runs/sst2': finetuned}
    monkeypatch.setattr(bert_jax, 'load', lambda path: load(folders[path]))
    names = {}
    for example in doctest.DocTestParser().get_examples(load.__doc__):
        exec(example.source, names)
    assert names['word']
    assert {*names['names']} <= {'good', 'bad'}


def test_a_path_without_a_run_is_an_error():
    with pytest.raises(UserError, match='path is None'):
        bert_jax.load(None)
    with pytest.raises(UserError, match=r'convert a published model with .*bin\.convert --from_hf=NAME'):
        bert_jax.load('bert-base-uncased')
