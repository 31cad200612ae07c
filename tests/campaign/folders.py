"""Folders of models and tokenizers, and cases in which one of their files is damaged."""

import functools
import json
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.modeling import module
from bert_jax.train import checkpoint, convert, load
from bert_jax.train import experiment as experiment_lib
from tests.campaign.harness import check_message
from tests.campaign.mutations import damage, damage_json
from tests.conftest import sentences

_SHAPE = {'width': 16, 'heads': 2, 'mlp_width': 32, 'layers': 1, 'max_positions': 32}
_MODELS = {
    'bert': ({'name': 'mlm'}, 'bert', 'wordpiece'),
    'embed': ({'name': 'embed'}, 'bert', 'wordpiece'),
    'gpt': ({'name': 'clm'}, 'gpt', 'bpe'),
}


def make(folder: pathlib.Path) -> dict[str, Any]:
    """Make checkpoints and exported folders of small models with random parameters; return the parameters by model."""
    made: dict[str, Any] = {'folder': folder}
    for name, (task, model, kind) in _MODELS.items():
        config = tokenizer_lib.TokenizerConfig(kind=kind, vocab_size=300)
        tokenizer = tokenizer_training.train(sentences(random.Random(0), 50), config)
        sections = {'task': task, 'model': {'name': model, 'size': 'tiny', **_SHAPE}, 'data': {'length': 32}}
        experiment = experiment_lib.complete(experiment_lib.from_config(sections), tokenizer)
        head = experiment.make_task(tokenizer)
        _, shapes, _ = module.abstract(lambda rngs, h=head, e=experiment: h.build_model(e.model, rngs))
        rng = np.random.default_rng(0)
        params = {n: rng.normal(size=s.shape).astype(np.float32) for n, s in shapes.items()}
        metadata = {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
        checkpoint.write_params(folder / name, jax.tree.map(jax.numpy.asarray, params), metadata)
        convert.to_hf(folder / name, folder / f'{name}_exported')
        made[name] = params
    return made


def damage_file(rng: random.Random, file: pathlib.Path) -> None:
    """Damage a file: its bytes, or its values if it is JSON."""
    data = file.read_bytes()
    choice = rng.random()
    if choice < 0.5 and file.suffix == '.json':
        file.write_text(damage_json(rng, json.loads(data)))
    elif choice < 0.6:
        file.write_bytes(data[: rng.choice((0, len(data) // 2))])
    elif choice < 0.65:
        file.unlink()
    else:
        file.write_bytes(damage(rng, data))


def _try_exported(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> None:
    name = rng.choice([*_MODELS])
    shutil.copytree(shared['folder'] / f'{name}_exported', folder / 'model')
    files = [f for f in (folder / 'model').rglob('*') if f.suffix in ('.json', '.safetensors', '.txt')]
    damaged = rng.choice(sorted(files))
    damage_file(rng, damaged)
    try:
        convert.from_hf(str(folder / 'model'), folder / 'converted')
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)
        assert not (folder / 'converted').exists(), 'left a checkpoint behind'


def _try_tokenizer(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> None:
    source = shared['folder'] / f'{rng.choice([*_MODELS])}_exported'
    names = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'vocab.txt', 'config.json')
    files = [source / name for name in names if (source / name).is_file()]
    for file in files:
        shutil.copy(file, folder)
    settings = {'added_tokens.json': {'<new>': 300}, 'special_tokens_map.json': {'mask_token': '[MASK]'}}
    if rng.random() < 0.3:
        name = rng.choice([*settings])
        (folder / name).write_text(json.dumps(settings[name]))
        (folder / 'tokenizer_config.json').write_text(json.dumps({'tokenizer_class': 'BertTokenizer'}))
    damage_file(rng, rng.choice(sorted(folder.iterdir())))
    try:
        tokenizer = tokenizer_lib.load(folder)
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)
        return
    ids = tokenizer.encode(['the old sailor [MASK]'])[0]
    tokenizer.decode(ids)
    assert ids.max(initial=0) < len(tokenizer)


def _try_checkpoint(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> None:
    name = rng.choice([*_MODELS])
    shutil.copytree(shared['folder'] / name, folder / 'model')
    damaged = rng.choice(sorted(f for f in (folder / 'model').rglob('*') if f.is_file()))
    damage_file(rng, damaged)
    try:
        trained = load.read(folder / 'model')
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)
        return
    params = trained.params
    expected = shared[name]
    assert {*params} == {*expected}
    different = [n for n in expected if not np.array_equal(params[n], expected[n])]
    assert not different, f'damage of {damaged.relative_to(folder)} changed {different[:2]} without an error'


KINDS: dict[str, Callable[[random.Random, pathlib.Path, dict[str, Any]], None]] = {
    'exported folder': _try_exported,
    'tokenizer': functools.partial(_try_tokenizer),
    'checkpoint': _try_checkpoint,
}
