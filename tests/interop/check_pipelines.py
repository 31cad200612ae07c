"""Compare what tiny models predict and generate here and, after export, in transformers.

Run it by hand. The first command needs bert_jax, the second PyTorch and transformers, in the same or another
environment:

    python -m tests.interop.check_pipelines train FOLDER
    python -m tests.interop.check_pipelines compare FOLDER
"""

import json
import pathlib
import random
import sys

TINY = pathlib.Path(__file__).parents[1] / 'tiny.py'
SUBJECTS = [
    'the old sailor',
    'a small bird',
    'Anna Smith',
    'the river',
    'every student in Paris',
    'a quiet teacher',
]
VERBS = ['watches', 'follows', 'remembers', 'carries', 'finds', 'never leaves']
OBJECTS = ['the yellow boat', 'a long letter', 'some bread', 'New York', 'an empty house', 'its own shadow']
NAMES = {'Anna': 'B-PER', 'Smith': 'I-PER', 'Paris': 'B-LOC', 'New': 'B-LOC', 'York': 'I-LOC'}
STEPS = ('train.steps=40', 'optim.learning_rate=0.01', 'train.eval_every=0')
TOLERANCE = 2e-5


# Train and predict, with bert_jax.


def sentence(rng):
    return f'{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}.'


def write_corpus(folder):
    rng = random.Random(0)
    documents = ['\n'.join(sentence(rng) for _ in range(6)) for _ in range(200)]
    (folder / 'corpus.txt').write_text('\n\n'.join(documents))


def make_examples(use, n, rng):
    """Records of a use; some texts are longer than the rows."""
    for _ in range(n):
        a, b = (' '.join(sentence(rng) for _ in range(rng.choice([1, 1, 2, 9]))) for _ in range(2))
        if use == 'classify':
            yield {'text': a, 'label': 'boat' if 'boat' in a else 'none'}
        elif use == 'pair':
            yield {'text': a, 'text_pair': b, 'label': ['no', 'yes'][a[:4] == b[:4]]}
        elif use == 'regress':
            yield {'text': a, 'text_pair': b, 'label': len(a) / (len(a) + len(b))}
        elif use == 'tag':
            words = sentence(rng)[:-1].split()
            yield {'tokens': words, 'tags': [NAMES.get(word, 'O') for word in words]}
        elif use == 'qa':
            context = f'{sentence(rng)} {sentence(rng)}'
            answer = context.split()[2]
            answers = {'text': [answer], 'answer_start': [context.index(answer)]}
            yield {
                'id': str(rng.random()),
                'question': 'What is third?',
                'context': context,
                'answers': answers,
            }
        else:
            yield {'text': a, 'target': a[:20]}


def write_examples(folder):
    for use in ('classify', 'pair', 'regress', 'tag', 'qa', 'seq2seq'):
        for split, n in (('train', 128), ('validation', 24)):
            examples = list(make_examples(use, n, random.Random(split)))
            (folder / f'{use}_{split}.jsonl').write_text('\n'.join(map(json.dumps, examples)))


def write_tokenizers(folder):
    """Byte-level BPE tokenizers: with BERT's special tokens, RoBERTa's and GPT-2's."""
    from bert_jax.data import tokenizer as tokenizer_lib
    from bert_jax.data import tokenizer_training

    text = (folder / 'corpus.txt').read_text()
    config = tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=400)
    serialized = tokenizer_training.train([text], config).to_json()
    for name in ('bpe', 'roberta', 'gpt2'):
        (folder / name).mkdir()
        special = tokenizer_lib._FAMILIES.get(name, tokenizer_lib.SPECIAL)
        contents = json.loads(serialized)
        if name == 'gpt2':
            vocab = [t for t in contents['model']['vocab'] if t not in tokenizer_lib.SPECIAL]
            contents['model']['vocab'] = {t: i for i, t in enumerate([*vocab, special[0]])}
            contents['added_tokens'] = [
                {**contents['added_tokens'][0], 'content': special[0], 'id': len(vocab)}
            ]
        text = json.dumps(contents, ensure_ascii=False)
        for ours, theirs in zip(tokenizer_lib.SPECIAL, special, strict=False):
            text = text.replace(json.dumps(ours), json.dumps(theirs))
        (folder / name / 'tokenizer.json').write_text(text)


BASES = {
    'bert': ('tokenizer.lowercase=true',),
    'bpe_bert': ('tokenizer.path={folder}/bpe', 'task.sentence_objective=none'),
    'roberta_tokenizer': ('tokenizer.path={folder}/roberta', 'task.sentence_objective=none'),
    'roberta': (
        'tokenizer.path={folder}/roberta',
        'task.sentence_objective=none',
        'model.segments=1',
        'model.position_offset=1',  # the padding token has the id 0
    ),
    'distilbert': (
        'tokenizer.lowercase=false',
        'task.sentence_objective=none',
        'model.segments=0',
        'model.pooler_activation=relu',
    ),
    'gpt': ('tokenizer.path={folder}/bpe', 'task.name=clm', 'model.name=gpt'),
    'gpt_wordpiece': ('task.name=clm', 'model.name=gpt'),
    'gpt2': ('tokenizer.path={folder}/gpt2', 'task.name=clm', 'model.name=gpt'),
    'bart': ('tokenizer.path={folder}/roberta', 'task.name=denoise', 'model.name=bart'),
    'bart_wordpiece': ('task.name=denoise', 'model.name=bart'),
}
# An even number of tokens for both texts: of an odd number, transformers gives one more to the longer text, and BERT's
# own rule, which is used here, to the first.
PAIR = ('data.text_pair=text_pair', 'data.length=33')
SEQ2SEQ = ('task.name=seq2seq', 'data.target_length=20')
FINE_TUNED = {
    'classify': ('bert', 'classify', ()),
    'classify_roberta': ('roberta', 'classify', ()),
    'pair': ('bert', 'pair', PAIR),
    'pair_bpe': ('bpe_bert', 'pair', PAIR),
    'pair_roberta_tokenizer': ('roberta_tokenizer', 'pair', (*PAIR, 'data.length=32')),
    'pair_roberta': ('roberta', 'pair', (*PAIR, 'data.length=32')),
    'pair_distilbert': ('distilbert', 'pair', PAIR),
    'regress': ('distilbert', 'regress', ('task.name=regress', *PAIR)),
    'tag': ('distilbert', 'tag', ()),
    'tag_bpe': ('roberta', 'tag', ()),
    'qa': ('bert', 'qa', ()),
    'qa_bpe': ('roberta', 'qa', ()),
    'summarize': ('bart', 'seq2seq', (*SEQ2SEQ, 'model.name=bart', 'task.length_penalty=2')),
    'summarize_wordpiece': ('bart_wordpiece', 'seq2seq', (*SEQ2SEQ, 'model.name=bart', 'task.num_beams=1')),
    'summarize_gpt': ('gpt', 'seq2seq', (*SEQ2SEQ, 'model.name=gpt', 'task.decoder_only=true')),
    'summarize_gpt2': ('gpt2', 'seq2seq', (*SEQ2SEQ, 'model.name=gpt', 'task.decoder_only=true')),
}
CONFIGS = {
    'tag': ('configs/finetune/ner.py', 'data.label=tags', 'data.length=32'),
    'qa': (
        'configs/finetune/squad.py',
        'data.length=48',
        'data.max_question_length=16',
        'data.stride=16',
    ),
}
SETTINGS = ('train.batch_size=16', 'train.log_every=20', 'mesh.strategy=dp', 'checkpoint.best_metric=')
PROMPTS = ['the old sailor', 'Anna Smith never leaves', 'a']
MASKED = ['the old [MASK] watches the yellow boat.', 'Anna [MASK] never [MASK] New York.']


def train(folder):
    from bert_jax.bin import train as train_command
    from bert_jax.data.records import Record
    from bert_jax.evals import fill_mask, generation, prediction
    from bert_jax.modeling.decoding import Sampling
    from bert_jax.train import convert, load

    folder.mkdir(parents=True)
    write_corpus(folder)
    write_examples(folder)
    write_tokenizers(folder)
    for name, settings in BASES.items():
        workdir = folder / 'runs' / name
        data = (f'data.sources=({str(folder / "corpus.txt")!r},)', f'data.rows_dir={workdir}/rows')
        overrides = [setting.format(folder=folder) for setting in (*data, *settings, *STEPS)]
        assert train_command.run(f'{TINY}:pretrain', workdir, overrides) == 0
        convert.to_hf(workdir, folder / 'exported' / name)
        if name.startswith('gpt'):
            trained = load.read_causal(workdir)
            inputs = PROMPTS
            ours = [''.join(generation.stream(trained, p, 20, Sampling())) for p in PROMPTS]
            use = 'generate'
        elif name.startswith('bart'):
            continue
        else:
            mask = load.read(workdir).tokenizer.special_tokens[-1]
            inputs = [text.replace('[MASK]', mask) for text in MASKED]
            ours, use = fill_mask.fill(str(workdir), inputs), 'fill_mask'
        write_result(folder / 'exported' / name, use, inputs, ours)
    for name, (base, use, settings) in FINE_TUNED.items():
        workdir = folder / 'runs' / name
        config, *data = CONFIGS.get(use, (f'{TINY}:classify',))
        data += [f'data.source={folder}/{use}_{{split}}.jsonl', f'init.checkpoint={folder / "runs" / base}']
        overrides = [*data, *settings, *STEPS, *SETTINGS]
        assert train_command.run(config, workdir, overrides) == 0
        convert.to_hf(workdir, folder / 'exported' / name)
        lines = (folder / f'{use}_validation.jsonl').read_text().splitlines()
        inputs = [json.loads(line) for line in lines]
        ours = prediction.Predictor(str(workdir))([Record(name, fields) for fields in inputs])
        write_result(folder / 'exported' / name, use, inputs, ours)


def write_result(folder, use, inputs, ours):
    (folder / 'ours.json').write_text(json.dumps({'use': use, 'inputs': inputs, 'ours': ours}))


# Compare, with transformers.


def compare_classes(folder, inputs, ours):
    from transformers import pipeline

    classify = pipeline('text-classification', str(folder), top_k=None, truncation=True)
    for record, prediction in zip(inputs, ours, strict=True):
        texts = {key: record[key] for key in ('text', 'text_pair') if key in record}
        scores = {result['label']: result['score'] for result in classify(texts)}
        expected = prediction.get('probabilities') or {'LABEL_0': prediction['prediction']}
        yield max(abs(expected[label] - scores[label]) for label in expected)
        yield 'probabilities' in prediction and max(scores, key=scores.get) != prediction['prediction']


def compare_tags(folder, inputs, ours):
    from transformers import pipeline

    tag = pipeline('token-classification', str(folder), ignore_labels=[])
    aggregate = pipeline('token-classification', str(folder), aggregation_strategy='first')
    for record, prediction in zip(inputs, ours, strict=True):
        words, labels = record['tokens'], prediction['prediction']
        starts = [len(' '.join([*words[:i], ''])) for i in range(len(words))]
        for found in (tag(' '.join(words)), *tag([words], is_split_into_words=True)):
            by_start = {token['start']: token for token in reversed(found)}
            tokens = [by_start[start] for start in starts]
            yield [token['entity'] for token in tokens] != labels
            yield max(
                abs(p - token['score']) for p, token in zip(prediction['probability'], tokens, strict=True)
            )
        if len(by_start) < len(found):  # the pipeline counts a token that is only a space as a word
            continue
        groups = aggregate(' '.join(words))
        found = [(group['entity_group'], group['start'], group['end']) for group in groups]
        yield found != entities(words, starts, labels)


def entities(words, starts, labels):
    """Group words as the pipeline does: B- and a change of type begin a group."""
    groups = []
    previous = 'O'
    for word, start, label in zip(words, starts, labels, strict=True):
        if label != 'O' and label[:2] == 'I-' and previous[2:] == label[2:]:
            groups[-1] = (*groups[-1][:2], start + len(word))
        elif label != 'O':
            groups.append((label[2:], start, start + len(word)))
        previous = label
    return groups


def compare_answers(folder, inputs, ours):
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder)
    for record, prediction in zip(inputs, ours, strict=True):
        context = record['context']
        encoded = tokenizer(record['question'], context, return_tensors='pt', return_offsets_mapping=True)
        offsets = encoded.pop('offset_mapping')[0].tolist()
        with torch.no_grad():
            output = model(**encoded)
        start, end = output.start_logits[0], output.end_logits[0]
        positions = [i for i, part in enumerate(encoded.sequence_ids()) if part == 1]
        spans = [(i, j) for i in positions for j in positions if i <= j < i + 30]
        best = max(spans, key=lambda span: start[span[0]] + end[span[1]])
        yield context[offsets[best[0]][0] : offsets[best[1]][1]] != prediction['prediction']


def compare_masks(folder, inputs, ours):
    from transformers import pipeline

    fill = pipeline('fill-mask', str(folder))
    for text, prediction in zip(inputs, ours, strict=True):
        found = fill(text)
        for masks, expected in zip(found if len(prediction) > 1 else [found], prediction, strict=True):
            tokens = fill.tokenizer.convert_ids_to_tokens([mask['token'] for mask in masks])
            yield tokens != [token for token, _ in expected]
            yield max(abs(mask['score'] - p) for mask, (_, p) in zip(masks, expected, strict=True))


def compare_continuations(folder, inputs, ours):
    from transformers import pipeline

    generate = pipeline('text-generation', str(folder), do_sample=False, max_new_tokens=20)
    decode = generate.tokenizer.decode
    for prompt, expected in zip(inputs, ours, strict=True):
        (found,) = generate(prompt, return_tensors=True)
        beginning = decode(generate.tokenizer(prompt)['input_ids'])
        text = decode(found['generated_token_ids'], skip_special_tokens=True)
        yield text != expected.replace(prompt, beginning, 1)
        if 'wordpiece' not in folder.name:  # there, the pipeline leaves out the space after the prompt
            yield generate(prompt)[0]['generated_text'] != expected


def compare_targets(folder, inputs, ours):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    is_causal = 'gpt' in folder.name
    model = (AutoModelForCausalLM if is_causal else AutoModelForSeq2SeqLM).from_pretrained(folder)
    texts = [record['text'] for record in inputs]
    encoded = tokenizer(texts, truncation=True, padding=True, return_tensors='pt')
    rows = model.generate(**encoded)
    rows = rows[:, encoded['input_ids'].shape[1] :] if is_causal else rows
    found = tokenizer.batch_decode(rows, skip_special_tokens=True)
    for text, expected in zip(found, ours, strict=True):
        yield text.strip() != expected['prediction']


COMPARISONS = {
    **dict.fromkeys(('classify', 'pair', 'regress'), compare_classes),
    'tag': compare_tags,
    'qa': compare_answers,
    'fill_mask': compare_masks,
    'generate': compare_continuations,
    'seq2seq': compare_targets,
}


def compare(folder):
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f'transformers {transformers.__version__}')
    is_equal = True
    for file in sorted(folder.glob('exported/*/ours.json')):
        result = json.loads(file.read_text())
        differences = [*COMPARISONS[result['use']](file.parent, result['inputs'], result['ours'])]
        wrong = sum(difference is True for difference in differences)
        largest = max(
            (difference for difference in differences if not isinstance(difference, bool)), default=0.0
        )
        is_equal &= not wrong and largest < TOLERANCE
        print(
            f'{file.parent.name:24}{result["use"]:11}{len(result["inputs"]):4} inputs'
            f'{wrong:4} other results, largest difference of scores {largest:.1e}'
        )
    return 0 if is_equal else 1


if __name__ == '__main__':
    command, path = sys.argv[1:]
    sys.exit({'train': train, 'compare': compare}[command](pathlib.Path(path).resolve()))
