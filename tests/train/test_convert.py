"""Converting Hugging Face models to checkpoints and back."""

import json

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import models, pre_tokenizers

import bert_jax
from bert_jax.core import stacking
from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.modeling import module
from bert_jax.train import checkpoint, convert, inputs, load
from bert_jax.train import experiment as experiment_lib
from tests.interop import golden
from tests.runs import TINY, metric_lines, run_in_process

INPUTS, CASES = golden.read()
VOCAB = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(94))]


MPNET_VOCAB = ['<s>', '<pad>', '</s>', '[UNK]', '<mask>', *VOCAB[5:]]


def write_hf_folder(path, name='BertForPreTraining', **changes):
    config, tensors, _ = CASES[name]
    path.mkdir()
    (path / 'config.json').write_text(json.dumps(config | changes))
    (path / 'vocab.txt').write_text('\n'.join(MPNET_VOCAB if name.startswith('MPNet') else VOCAB))
    if name.startswith('MPNet'):
        (path / 'tokenizer_config.json').write_text('{"tokenizer_class": "MPNetTokenizer"}')
    save_file(tensors, path / 'model.safetensors')
    return path


ROUND_TRIPS = ['BertModel', 'BertForPreTraining', 'BertForMaskedLM', 'BertForSequenceClassification',
        'BertForTokenClassification', 'BertForQuestionAnswering', 'DistilBertForSequenceClassification',
        'ElectraModel', 'ElectraForMaskedLM', 'ElectraForSequenceClassification', 'MPNetModel',
        'NomicBertForMaskedLM', 'NomicBertForSequenceClassification', 'AlbertModel', 'AlbertForPreTraining']  # fmt: skip


@pytest.mark.parametrize('name', ROUND_TRIPS)
def test_round_trip_of_encoders(tmp_path, name):
    source = write_hf_folder(tmp_path / 'theirs', name)
    task = convert.from_hf(str(source), tmp_path / 'ours')
    assert task in ('encode', 'mlm', 'classify', 'tag', 'qa')
    model, tokenizer = bert_jax.load(tmp_path / 'ours')
    assert tokenizer.token(7) == 'w2'
    if task == 'qa':  # rows of the default length would be too long
        assert load.read(tmp_path / 'ours').experiment.data.length == model.config.max_positions < 384
    _, tensors, expected = CASES[name]
    out = model(**INPUTS)
    hidden = np.stack(out.hidden_states)[:, INPUTS['valid']]
    np.testing.assert_allclose(hidden, expected['hidden_states'][:, INPUTS['valid']], atol=2e-5)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'again')
    written = load_file(tmp_path / 'again' / 'model.safetensors')
    assert written.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value)
    vocab = MPNET_VOCAB if name.startswith('MPNet') else VOCAB
    assert (tmp_path / 'again' / 'vocab.txt').read_text().split() == vocab
    assert json.loads((tmp_path / 'again' / 'config.json').read_text())['architectures'] == [name]


def test_a_head_that_is_not_converted_is_reported(tmp_path, caplog):
    source = write_hf_folder(tmp_path / 'theirs', 'ElectraForPreTraining')
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'encode'
    assert (
        'The head that detects replaced tokens (discriminator_predictions.*) is not converted' in caplog.text
    )
    model, _ = bert_jax.load(tmp_path / 'ours')
    hidden = np.stack(model(**INPUTS).hidden_states)[:, INPUTS['valid']]
    expected = CASES['ElectraForPreTraining'][2]['hidden_states'][:, INPUTS['valid']]
    np.testing.assert_allclose(hidden, expected, atol=2e-5)


def test_an_encoder_saved_without_its_head_is_read_as_an_encoder(tmp_path, caplog):
    source = write_hf_folder(tmp_path / 'theirs', 'MPNetModel', architectures=['MPNetForMaskedLM'])
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'encode'
    assert 'an encoder without the head of MPNetForMaskedLM' in caplog.text
    pooled = bert_jax.load(tmp_path / 'ours')[0](**INPUTS).pooled
    np.testing.assert_allclose(pooled, CASES['MPNetModel'][2]['pooled'], atol=2e-5)


@pytest.mark.parametrize(
    ('name', 'task'),
    [
        ('GPT2LMHeadModel', 'clm'),
        ('LlamaForCausalLM', 'clm'),
        ('Starcoder2ForCausalLM', 'clm'),
        ('BartForConditionalGeneration', 'denoise'),
        ('T5ForConditionalGeneration', 'denoise'),
        ('T5ForConditionalGeneration-untied', 'denoise'),
    ],
)
def test_round_trip_of_generative_models(tmp_path, name, task):
    source = write_hf_folder(tmp_path / 'theirs', name)
    assert convert.from_hf(str(source), tmp_path / 'ours') == task
    model, _ = bert_jax.load(tmp_path / 'ours')
    _, tensors, expected = CASES[name]
    targets = {} if task == 'clm' else {'targets': INPUTS['tokens'][::-1, :7]}
    out = model(**INPUTS, **targets)
    logits, wanted = np.asarray(out.logits), expected['logits']
    if task == 'clm':
        logits, wanted = logits[INPUTS['valid']], wanted[INPUTS['valid']]
    np.testing.assert_allclose(logits, wanted, atol=2e-5)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'again')
    written = load_file(tmp_path / 'again' / 'model.safetensors')
    assert written.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value)
    assert json.loads((tmp_path / 'again' / 'config.json').read_text())['architectures'] == [
        name.partition('-')[0]
    ]


def test_a_t5_is_trained_to_restore_spans_with_its_own_sentinels(tmp_path, caplog):
    source = write_hf_folder(tmp_path / 'theirs', 'T5ForConditionalGeneration', eos_token_id=1)
    (source / 'vocab.txt').unlink()
    pieces = ['<pad>', '</s>', '<unk>', '▁', *(f'▁w{i}' for i in range(85)), '<extra_id_1>', '<extra_id_0>']
    backend = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.save(str(source / 'tokenizer.json'))
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'denoise'
    assert not [record for record in caplog.records if record.levelname != 'INFO']
    trained = load.read(tmp_path / 'ours')
    assert (trained.experiment.task.noise, trained.experiment.task.rate) == (('spans',), 0.15)
    assert (trained.tokenizer.sentinels, trained.tokenizer.decoder_start) == ((90, 89), 0)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'again')
    settings = json.loads((tmp_path / 'again' / 'generation_config.json').read_text())
    assert settings == {'pad_token_id': 0, 'eos_token_id': 1, 'decoder_start_token_id': 0}
    exported = tokenizers.Tokenizer.from_file(str(tmp_path / 'again' / 'tokenizer.json'))
    assert exported.encode('w0 w1').tokens == ['▁w0', '▁w1', '</s>']
    (source / 'config.json').write_text(
        json.dumps(CASES['T5ForConditionalGeneration'][0] | {'decoder_start_token_id': 5})
    )
    convert.from_hf(str(source), tmp_path / 'other')
    assert 'begins generated texts with the token 5, but generation here begins with 0' in caplog.text


def test_commands_accept_converted_model(tmp_path, labeled):
    source = write_hf_folder(tmp_path / 'theirs')
    done = run_in_process('bert_jax.bin.convert', f'--from_hf={source}', f'--to={tmp_path / "ours"}')
    assert done.returncode == 0, done.stderr
    assert 'the task mlm' in done.stdout
    done = run_in_process('bert_jax.bin.fill_mask', f'--checkpoint={tmp_path / "ours"}', 'w1 [MASK]')
    assert done.returncode == 0, done.stderr
    arguments = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path / "run"}',
        f'--config.data.source={labeled}',
        f'--config.init.checkpoint={tmp_path / "ours"}',
        '--config.train.steps=2',
        '--config.optim.warmup=0',
    )
    done = run_in_process('bert_jax.bin.train', *arguments)
    assert done.returncode == 0, done.stderr
    assert 'randomly initialized: classifier' in done.stderr
    assert metric_lines(tmp_path / 'run')
    done = run_in_process(
        'bert_jax.bin.convert', f'--from={tmp_path / "run"}', f'--to_hf={tmp_path / "back"}'
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / 'back' / 'config.json').read_text())
    assert config['id2label'] == {'0': 'bad', '1': 'good'}


@pytest.mark.parametrize(
    ('theirs', 'data', 'task_labels', 'labels', 'reads_head'),
    [
        (('c', 'a', 'b'), ('a', 'b', 'c'), (), ('c', 'a', 'b'), True),
        (('c', 'a', 'b'), ('a', 'b', 'c'), ('a', 'b', 'c'), ('a', 'b', 'c'), False),
        (('c', 'a', 'b'), (0, 1, 2), (), ('0', '1', '2'), False),
        (('LABEL_0', 'LABEL_1', 'LABEL_2'), (0, 1, 2), (), ('0', '1', '2'), True),
    ],
)
def test_head_is_used_only_for_its_classes(tmp_path, theirs, data, task_labels, labels, reads_head):
    names = {'id2label': {str(i): name for i, name in enumerate(theirs)}}
    source = write_hf_folder(tmp_path / 'theirs', 'BertForSequenceClassification', **names)
    convert.from_hf(str(source), tmp_path / 'ours')
    lines = [json.dumps({'text': 'w1', 'label': label}) for label in data]
    (tmp_path / 'train.jsonl').write_text('\n'.join(lines))
    settings = [f'data.source={tmp_path}/{{split}}.jsonl', f'init.checkpoint={tmp_path}/ours']
    settings += [f'task.labels={task_labels}']
    experiment = experiment_lib.read(f'{TINY}:classify', settings)
    experiment, _, read_params = inputs.resolve(experiment, tmp_path)
    assert experiment.task.labels == labels
    assert ('classifier/' not in read_params.args[2]) == reads_head


def write_checkpoint(workdir, model, task, data):
    """Write a checkpoint of a model with random parameters."""
    tokenizer = tokenizer_lib.from_vocab(VOCAB)
    shape = {'size': 'tiny', 'width': 32, 'heads': 4, 'mlp_width': 48, 'max_positions': 40}
    sections = {'task': task, 'model': {**shape, **model}, 'data': data}
    experiment = experiment_lib.complete(experiment_lib.from_config(sections), tokenizer)
    build = experiment.make_task(tokenizer).build_model
    params = module.init(lambda rngs: build(experiment.model, rngs), jax.random.key(0))
    about = {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    checkpoint.write_params(workdir, params, about)
    return params


def test_head_of_another_task_is_not_read(tmp_path):
    labels = ('a', 'b')
    write_checkpoint(tmp_path / 'ours', {'name': 'bert'}, {'name': 'tag', 'labels': labels}, {'length': 16})
    (tmp_path / 'train.jsonl').write_text('\n'.join(json.dumps({'text': 'w1', 'label': x}) for x in labels))
    settings = [f'data.source={tmp_path}/{{split}}.jsonl', f'init.checkpoint={tmp_path}/ours']
    experiment = experiment_lib.read(f'{TINY}:classify', settings)
    experiment, _, read_params = inputs.resolve(experiment, tmp_path)
    assert experiment.task.labels == labels
    assert 'classifier/' in read_params.args[2]


def read_json(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ('model', 'task', 'data', 'settings'),
    [
        (
            'bart',
            {'num_beams': 3, 'length_penalty': 0.5},
            {'length': 30, 'target_length': 20},
            {'max_new_tokens': 20, 'num_beams': 3, 'length_penalty': 0.5, 'early_stopping': False},
        ),
        ('bart', {'num_beams': 1}, {'length': 40}, {'max_new_tokens': 39, 'num_beams': 1}),
        (
            'bart scanned',
            {'num_beams': 1},
            {'length': 40},
            {'max_new_tokens': 39, 'num_beams': 1},
        ),
        (
            'gpt',
            {'num_beams': 1, 'decoder_only': True},
            {'length': 15, 'target_length': 20},
            {'max_new_tokens': 20, 'num_beams': 1},
        ),
    ],
)
def test_generation_stops_where_ours_stops(tmp_path, model, task, data, settings):
    model, _, scanned = model.partition(' ')
    changes = {'layers': 4, 'scan_layers': True} if scanned else {}
    params = write_checkpoint(
        tmp_path / 'ours', {'name': model, **changes}, {'name': 'seq2seq', **task}, data
    )
    assert any(map(stacking.is_stacked, params)) == bool(scanned)
    params = stacking.unstack(params)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'theirs')
    written = read_json(tmp_path / 'theirs' / 'generation_config.json')
    ids = {'pad_token_id': 0, 'bos_token_id': 2, 'eos_token_id': 3}
    if model == 'bart':
        ids['decoder_start_token_id'] = 3
    assert written == {**ids, 'do_sample': False, **settings}
    tokenizer = read_json(tmp_path / 'theirs' / 'tokenizer_config.json')
    assert tokenizer['model_max_length'] == data['length']
    assert (tokenizer['cls_token'], tokenizer['sep_token']) == ('[CLS]', '[SEP]')
    assert tokenizer['padding_side'] == ('left' if model == 'gpt' else 'right')
    task_name = convert.from_hf(str(tmp_path / 'theirs'), tmp_path / 'again')
    assert task_name == {'bart': 'denoise', 'gpt': 'clm'}[model]
    again, _ = bert_jax.load(tmp_path / 'again')
    assert again.params.keys() == params.keys()
    for name, value in again.params.items():
        rows = 99 if name.endswith(('token_embedding', 'logits_bias')) else None
        # BART in transformers always has two unused rows before its positions.
        first = 2 if name.endswith('position_embedding') and model == 'bart' else 0
        np.testing.assert_array_equal(value[first:rows], params[name][:rows])


def test_a_causal_model_is_exported_without_cls(tmp_path):
    write_checkpoint(tmp_path / 'ours', {'name': 'gpt'}, {'name': 'clm'}, {'sources': ()})
    convert.to_hf(tmp_path / 'ours', tmp_path / 'theirs')
    for name in ('config.json', 'generation_config.json'):
        written = read_json(tmp_path / 'theirs' / name)
        # A document begins after the end of the one before it.
        assert (written['bos_token_id'], written['eos_token_id']) == (3, 3)
    assert 'cls_token' not in read_json(tmp_path / 'theirs' / 'tokenizer_config.json')


def test_texts_are_truncated_where_transformers_truncates_them(tmp_path):
    task = {'name': 'classify', 'labels': ('no', 'yes')}
    write_checkpoint(tmp_path / 'ours', {'name': 'bert'}, task, {'length': 20})
    convert.to_hf(tmp_path / 'ours', tmp_path / 'theirs')
    settings = tmp_path / 'theirs' / 'tokenizer_config.json'
    assert read_json(settings)['model_max_length'] == 20
    for i, (length, expected) in enumerate(((20, 20), (int(1e30), 40), (None, 40))):
        settings.write_text(json.dumps(read_json(settings) | {'model_max_length': length}))
        assert convert.from_hf(str(tmp_path / 'theirs'), tmp_path / f'again{i}') == 'classify'
        _, about = checkpoint.read_metadata(tmp_path / f'again{i}')
        assert about['config']['data']['length'] == expected


def test_another_end_token_and_unread_dropout_are_reported(tmp_path, caplog):
    caplog.set_level('INFO')
    source = write_hf_folder(tmp_path / 'theirs', 'GPT2LMHeadModel', embd_pdrop=0.3)
    convert.from_hf(str(source), tmp_path / 'ours')
    assert 'config.json ends texts with the token 37, but the tokenizer with 3' in caplog.text
    assert "{'embd_pdrop': 0.3}" in caplog.text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--from_hf=', '--to=x'], '--from_hf is empty'),
        (['--from=', '--to_hf=x'], '--from is empty'),
        (['--from=x', '--to_hf='], '--to_hf is empty'),
        (['--from_hf=x', '--to='], '--to is empty'),
        (['--from_hf=x', '--to=y', '--tokenizer='], '--tokenizer is empty'),
        (['--from_hf=x', '--to=y', '--exclude=a', '--exclude='], '--exclude is empty'),
        (['--from=x', '--to_hf=y', '--exclude=a'], '--tokenizer and --exclude need --from_hf'),
        (['--from=x', '--to=y'], '--from needs --to_hf'),
        (['--from_hf=x', '--to_hf=y'], '--from_hf needs --to,'),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments, message):
    done = run_in_process('bert_jax.bin.convert', *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def split_weights(source):
    """Split the weights into two files and an index, as large models are stored."""
    tensors = load_file(source / 'model.safetensors')
    (source / 'model.safetensors').unlink()
    names = [f'model-0000{i + 1}-of-00002.safetensors' for i in range(2)]
    file_of = {key: names[j % 2] for j, key in enumerate(tensors)}
    for name in names:
        save_file({k: v for k, v in tensors.items() if file_of[k] == name}, source / name)
    (source / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': file_of}))
    return names


def test_weights_in_several_files(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs')
    names = split_weights(source)
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'mlm'
    (source / names[1]).unlink()
    with pytest.raises(UserError, match=rf'{names[1]}.* is missing'):
        convert.from_hf(str(source), tmp_path / 'again')


@pytest.mark.parametrize('text', ['{"a"', '[]', '{"weight_map": 3}'])
def test_damaged_index_is_rejected(tmp_path, text):
    source = write_hf_folder(tmp_path / 'theirs')
    (source / 'model.safetensors').unlink()
    (source / 'model.safetensors.index.json').write_text(text)
    with pytest.raises(UserError, match=r"index\.json' is damaged"):
        convert.from_hf(str(source), tmp_path / 'ours')


def test_other_weight_files_are_ignored(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs')
    wrong = {k: v + 1 for k, v in load_file(source / 'model.safetensors').items()}
    save_file(wrong, source / 'model_old.safetensors')
    convert.from_hf(str(source), tmp_path / 'ours')
    convert.to_hf(tmp_path / 'ours', tmp_path / 'again')
    written = load_file(tmp_path / 'again' / 'model.safetensors')
    for key, value in CASES['BertForPreTraining'][1].items():
        np.testing.assert_array_equal(written[key], value)


def test_model_type_may_be_missing(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs')
    change_config(source, model_type=None)
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'mlm'


def test_unexpected_tensors_can_be_excluded(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs', 'BertForTokenClassification')
    tensors = load_file(source / 'model.safetensors')
    extra = {
        f'bert.pooler.dense.{k}': np.zeros(s, np.float32) for k, s in (('weight', (32, 32)), ('bias', 32))
    }
    save_file(tensors | extra, source / 'model.safetensors')
    arguments = ('bert_jax.bin.convert', f'--from_hf={source}', f'--to={tmp_path / "ours"}')
    done = run_in_process(*arguments)
    assert done.returncode == 1
    assert '--exclude=bert.pooler.dense.bias' in done.stderr
    assert run_in_process(*arguments, '--exclude=bert.pooler').returncode == 0
    with pytest.raises(UserError, match=r"begins with 'bert.poler': did you mean.*Correct --exclude"):
        convert.from_hf(str(source), tmp_path / 'again', exclude=['bert.pooler', 'bert.poler'])


def test_sources_that_are_no_folder_are_errors(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs')
    with pytest.raises(UserError, match='is a file. Pass its folder'):
        convert.from_hf(str(source / 'config.json'), tmp_path / 'ours')
    for missing in (f'{tmp_path}/nothing', './nothing', 'models/of/mine'):
        with pytest.raises(UserError, match='The folder .* does not exist'):
            convert.from_hf(missing, tmp_path / 'ours')


def test_tokenizer_settings_added_tokens_and_row_length(tmp_path):
    """Tokenizer settings are kept, the row length is that of the model, and a partial checkpoint does not count."""
    source = write_hf_folder(tmp_path / 'theirs', 'BertForSequenceClassification', vocab_size=101)
    tensors = load_file(source / 'model.safetensors')
    key = 'bert.embeddings.word_embeddings.weight'
    save_file(tensors | {key: np.concatenate([tensors[key], tensors[key][:2]])}, source / 'model.safetensors')
    settings = {
        'do_lower_case': True,
        'strip_accents': False,
        'added_tokens_decoder': {'99': {'content': '<new>'}},
    }
    (source / 'tokenizer_config.json').write_text(json.dumps(settings))
    (tmp_path / 'ours' / 'checkpoints' / '0' / 'params').mkdir(parents=True)
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'classify'
    _, tokenizer = bert_jax.load(tmp_path / 'ours')
    assert tokenizer.encode(['w0<new>'])[0].tolist() == [5, 99]
    _, metadata = checkpoint.read_metadata(tmp_path / 'ours')
    assert metadata['config']['data']['length'] == CASES['BertModel'][0]['max_position_embeddings']
    convert.to_hf(tmp_path / 'ours', tmp_path / 'again')
    written = json.loads((tmp_path / 'again' / 'tokenizer_config.json').read_text())
    assert (written['do_lower_case'], written['strip_accents']) == (True, False)
    np.testing.assert_array_equal(load_file(tmp_path / 'again' / 'model.safetensors')[key][:99], tensors[key])


def change_config(path, **values):
    config = json.loads((path / 'config.json').read_text())
    (path / 'config.json').write_text(json.dumps(config | values))


def truncate_weights(path):
    data = (path / 'model.safetensors').read_bytes()
    (path / 'model.safetensors').write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ('break_folder', 'message'),
    [
        (lambda p: (p / 'config.json').unlink(), r'no config\.json'),
        (lambda p: (p / 'config.json').write_text('{'), r'config\.json.* is not a JSON object'),
        (lambda p: (p / 'model.safetensors').unlink(), 'no weights'),
        (truncate_weights, r'model\.safetensors.* cannot be read'),
        (lambda p: (p / 'config.json').write_text('[]'), 'is not a JSON object'),
        (lambda p: change_config(p, hidden_size='32'), 'is invalid'),
        (lambda p: change_config(p, architectures=[3]), 'is invalid'),
        (lambda p: change_config(p, model_type=['bert']), 'is invalid'),
        (lambda p: (p / 'vocab.txt').unlink(), 'vocab'),
        (lambda p: (p / 'vocab.txt').write_text('\n'.join([*VOCAB, 'more'])), '99.*100|100.*99'),
    ],
)
def test_invalid_folder_is_explained_and_nothing_is_written(tmp_path, break_folder, message):
    source = write_hf_folder(tmp_path / 'theirs')
    break_folder(source)
    with pytest.raises(UserError, match=message):
        convert.from_hf(str(source), tmp_path / 'ours')
    assert not (tmp_path / 'ours').exists()


def test_existing_folders_are_not_overwritten(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs')
    convert.from_hf(str(source), tmp_path / 'ours')
    with pytest.raises(UserError, match='already contains a checkpoint'):
        convert.from_hf(str(source), tmp_path / 'ours')
    with pytest.raises(UserError, match='exists and is not empty'):
        convert.to_hf(tmp_path / 'ours', source)


def test_loading_an_unconverted_model_explains_how_to_convert_it(tmp_path):
    with pytest.raises(UserError, match=r'another library\. Convert it with .*--from_hf='):
        bert_jax.load(write_hf_folder(tmp_path / 'theirs'))


def test_unknown_model_name(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(UserError, match=r"'nobody/nothing' is not a folder"):
        convert.from_hf('nobody/nothing', tmp_path / 'ours')
