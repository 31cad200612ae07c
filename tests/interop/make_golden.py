"""Writes golden.npz: inputs and outputs of small random models of Hugging Face.

Run by hand, where PyTorch and transformers are installed; the tests that read it need neither:

    python -m tests.interop.make_golden
"""

import json

import numpy as np
import torch
import transformers

from tests.interop.golden import FILE, draw

LENGTHS = (17, 11)
BERT = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
    vocab_size=99, layer_norm_eps=1e-12,
)  # fmt: skip
ROBERTA = {**BERT, 'type_vocab_size': 1, 'pad_token_id': 1, 'layer_norm_eps': 1e-5}
DISTILBERT = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40, vocab_size=99)
CASES = {
    'BertModel': BERT,
    'BertForPreTraining': BERT,
    'BertForMaskedLM': BERT | {'hidden_act': 'gelu_new'},
    'BertForSequenceClassification': BERT | {'num_labels': 3},
    'BertForTokenClassification': BERT | {'num_labels': 5},
    'BertForQuestionAnswering': BERT,
    'RobertaModel': ROBERTA,
    'RobertaForMaskedLM': ROBERTA,
    'RobertaForSequenceClassification': ROBERTA,
    'RobertaForTokenClassification': ROBERTA,
    'DistilBertModel': DISTILBERT,
    'DistilBertForMaskedLM': DISTILBERT,
    'DistilBertForSequenceClassification': DISTILBERT,
    'DistilBertForQuestionAnswering': DISTILBERT,
}


def run(name, settings, inputs):
    """The config and the shapes of a model, and its outputs in double precision."""
    kind = getattr(transformers, name)
    config = kind.config_class(**settings, architectures=[name])
    config._attn_implementation = 'eager'
    model = kind(config).eval()
    shapes = {}
    with torch.no_grad():
        for tensor, value in model.named_parameters():
            shapes[tensor] = list(value.shape)
            value.copy_(torch.tensor(draw(tensor, value.shape)))
        model = model.double()
        given = {'input_ids': inputs['tokens'], 'attention_mask': inputs['valid']}
        if 'Distil' not in name:
            given['token_type_ids'] = inputs['segments'] * (config.type_vocab_size > 1)
        out = model(
            **{k: torch.tensor(v.astype(np.int64)) for k, v in given.items()}, output_hidden_states=True
        )
    outputs = {'hidden_states': np.stack([h.numpy() for h in out.hidden_states])}
    if 'start_logits' in out:
        outputs['logits'] = np.stack([out.start_logits.numpy(), out.end_logits.numpy()], -1)
    for theirs, ours in (
        ('logits', 'logits'),
        ('prediction_logits', 'logits'),
        ('seq_relationship_logits', 'next_sentence'),
        ('pooler_output', 'pooled'),
    ):
        if theirs in out:
            outputs[ours] = out[theirs].numpy()
    return json.loads(config.to_json_string(use_diff=False)), shapes, outputs


def main():
    rng = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    valid = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    tokens = np.where(valid, rng.integers(2, 99, shape), 1)
    inputs = {
        'tokens': tokens,
        'segments': np.where(valid & (np.arange(shape[1]) >= 6), 1, 0),
        'valid': valid,
    }
    about, arrays = {}, {}
    for name, settings in CASES.items():
        config, shapes, outputs = run(name, settings, inputs)
        about[name] = config, shapes
        arrays |= {f'{name}:{k}': v.astype(np.float32) for k, v in outputs.items()}
    np.savez_compressed(
        FILE, about=json.dumps(about), **{f'inputs:{k}': v for k, v in inputs.items()}, **arrays
    )
    print(f'{FILE}: {FILE.stat().st_size:,} bytes, transformers {transformers.__version__}')


if __name__ == '__main__':
    main()
