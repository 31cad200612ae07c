"""Create golden.npz: inputs and outputs of small random Hugging Face models.

Run it by hand where PyTorch and transformers are installed; the tests that read the file need neither:

    python -m tests.interop.make_golden
"""

import json
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.interop.golden import FILE, random_weights

LENGTHS = (17, 11)
BERT = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
    vocab_size=99, layer_norm_eps=1e-12,
)  # fmt: skip
ROBERTA = {**BERT, 'type_vocab_size': 1, 'pad_token_id': 1, 'layer_norm_eps': 1e-5}
DISTILBERT = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40, vocab_size=99)
GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=40, vocab_size=99, bos_token_id=37, eos_token_id=37)
BART = dict(
    d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
    decoder_ffn_dim=48, max_position_embeddings=40, vocab_size=99, bos_token_id=0, pad_token_id=1, eos_token_id=37,
    decoder_start_token_id=37, forced_eos_token_id=None,
)  # fmt: skip
# Layers 0 and 3 are global. In the others, tokens attend at most 6 tokens away, so that rows are longer than
# their windows, but no window is all padding, for which transformers computes NaN.
MODERNBERT = dict(
    hidden_size=32, num_hidden_layers=5, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
    vocab_size=99, local_attention=12, pad_token_id=1, cls_token_id=0, bos_token_id=0, sep_token_id=2, eos_token_id=2,
)  # fmt: skip
# Tokens attend to 6 tokens before them at most.
MODERNBERT_DECODER = MODERNBERT | {'local_attention': 14}
# Embeddings narrower than the model, which a dense layer projects; of the same width, without that layer.
ELECTRA = BERT | {'embedding_size': 20}
MPNET = BERT | {'pad_token_id': 1}
NOMIC = BERT | {'rope_parameters': {'rope_type': 'default', 'rope_theta': 50.0}}
# The first two of three layers share their parameters.
ALBERT = BERT | {'embedding_size': 20, 'num_hidden_layers': 3, 'num_hidden_groups': 2}
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
    'XLMRobertaModel': ROBERTA,
    'XLMRobertaForMaskedLM': ROBERTA,
    'XLMRobertaForSequenceClassification': ROBERTA,
    'DistilBertModel': DISTILBERT,
    'DistilBertForMaskedLM': DISTILBERT,
    'DistilBertForSequenceClassification': DISTILBERT,
    'DistilBertForQuestionAnswering': DISTILBERT,
    'ModernBertModel': MODERNBERT,
    'ModernBertForMaskedLM': MODERNBERT
    | {'attention_bias': True, 'mlp_bias': True, 'norm_bias': True, 'classifier_bias': True},
    'ModernBertForSequenceClassification': MODERNBERT | {'num_labels': 3, 'classifier_pooling': 'mean'},
    'ModernBertForTokenClassification': MODERNBERT | {'num_labels': 5},
    'ModernBertForQuestionAnswering': MODERNBERT,
    'ModernBertDecoderForCausalLM': MODERNBERT_DECODER,
    'ModernBertDecoderModel': MODERNBERT_DECODER,
    'ElectraModel': ELECTRA,
    'ElectraForPreTraining': BERT | {'embedding_size': 32},
    'ElectraForMaskedLM': ELECTRA,
    'ElectraForSequenceClassification': ELECTRA | {'num_labels': 3},
    'ElectraForMultipleChoice': ELECTRA,
    'ElectraForTokenClassification': ELECTRA | {'num_labels': 5},
    'ElectraForQuestionAnswering': ELECTRA,
    'MPNetModel': MPNET,
    'MPNetForMaskedLM': MPNET,
    'MPNetForSequenceClassification': MPNET | {'num_labels': 3},
    'MPNetForMultipleChoice': MPNET,
    'MPNetForTokenClassification': MPNET | {'num_labels': 5},
    'MPNetForQuestionAnswering': MPNET,
    'NomicBertModel': NOMIC,
    'NomicBertForMaskedLM': BERT,
    'NomicBertForSequenceClassification': NOMIC | {'num_labels': 3},
    'NomicBertForTokenClassification': NOMIC | {'num_labels': 5},
    'AlbertModel': ALBERT,
    'AlbertForPreTraining': ALBERT,
    'AlbertForMaskedLM': BERT | {'embedding_size': 32, 'num_hidden_layers': 3},
    'AlbertForSequenceClassification': ALBERT | {'num_labels': 3},
    'AlbertForMultipleChoice': BERT | {'embedding_size': 20},
    'AlbertForTokenClassification': ALBERT | {'num_labels': 5},
    'AlbertForQuestionAnswering': ALBERT,
    'GPT2LMHeadModel': GPT2 | {'n_inner': 48},
    'GPT2Model': GPT2,
    'BartForConditionalGeneration': BART,
    'BartModel': BART,
}
WITH_ATTENTIONS = ('BertModel', 'ModernBertModel', 'GPT2LMHeadModel', 'BartForConditionalGeneration')
GENERATION_OPTIONS = {
    'greedy': {'do_sample': False},
    'beams': {'do_sample': False, 'num_beams': 4, 'length_penalty': 0.6},
}


def run(name, settings, inputs):
    """Return the config of a model, the shapes of its tensors, and its outputs in double precision."""
    model_class = getattr(transformers, name)
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # as users load it; constructors accept what files do not hold, and files have other names for NomicBERT
        model_class(model_class.config_class(**settings)).save_pretrained(folder)
        file = f'{folder}/model.safetensors'
        shapes = {tensor: list(value.shape) for tensor, value in load_file(file).items()}
        tensors = {tensor: random_weights(tensor, shape) for tensor, shape in shapes.items()}
        save_file(tensors, file, metadata={'format': 'pt'})
        model = model_class.from_pretrained(folder, attn_implementation='eager').eval()
    config = model.config
    with torch.no_grad():
        model = model.double()
        model_inputs = {'input_ids': inputs['tokens'], 'attention_mask': inputs['valid']}
        if config.is_encoder_decoder:
            model_inputs['decoder_input_ids'] = inputs['tokens'][::-1, :7].copy()
        if hasattr(config, 'type_vocab_size'):
            model_inputs['token_type_ids'] = inputs['segments'] * (config.type_vocab_size > 1)
        if name.endswith('MultipleChoice'):  # one choice each
            model_inputs = {k: v[:, None] for k, v in model_inputs.items()}
        out = model(
            **{k: torch.tensor(v.astype(np.int64)) for k, v in model_inputs.items()},
            output_hidden_states=True,
            output_attentions=name in WITH_ATTENTIONS,
        )
    generated = {}
    if name.endswith(('LMHeadModel', 'ForCausalLM', 'ForConditionalGeneration')):
        model.generation_config.pad_token_id = 0
        for key, options in GENERATION_OPTIONS.items():
            prompts = torch.tensor(inputs['tokens'][:, :5])
            rows = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=30, **options
            )
            generated[key] = rows[:, 1 if config.is_encoder_decoder else 5 :].numpy()
    outputs = {
        ours: np.stack([h.numpy() for h in out[theirs]])
        for theirs, ours in (
            ('hidden_states', 'hidden_states'),
            ('encoder_hidden_states', 'encoder_hidden_states'),
            ('decoder_hidden_states', 'hidden_states'),
            ('attentions', 'attentions'),
            ('encoder_attentions', 'encoder_attentions'),
            ('decoder_attentions', 'attentions'),
            ('cross_attentions', 'cross_attentions'),
        )
        if out.get(theirs)
    }
    if 'start_logits' in out:
        outputs['logits'] = np.stack([out.start_logits.numpy(), out.end_logits.numpy()], -1)
    for theirs, ours in (
        ('logits', 'logits'),
        ('prediction_logits', 'logits'),
        ('seq_relationship_logits', 'next_sentence'),
        ('sop_logits', 'next_sentence'),
        ('pooler_output', 'pooled'),
    ):
        if theirs in out and name != 'ElectraForPreTraining':  # whose head is not converted
            outputs[ours] = out[theirs].numpy()
    config = json.loads(config.to_json_string(use_diff=False)) | {'_name_or_path': '', 'dtype': None}
    return config, shapes, outputs | generated


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
    models, arrays = {}, {}
    for name, settings in CASES.items():
        config, shapes, outputs = run(name, settings, inputs)
        models[name] = config, shapes
        arrays |= {
            f'{name}:{k}': v if k in GENERATION_OPTIONS else v.astype(np.float32) for k, v in outputs.items()
        }
    np.savez_compressed(
        FILE, models=json.dumps(models), **{f'inputs:{k}': v for k, v in inputs.items()}, **arrays
    )
    print(f'{FILE}: {FILE.stat().st_size:,} bytes, transformers {transformers.__version__}')


if __name__ == '__main__':
    main()
