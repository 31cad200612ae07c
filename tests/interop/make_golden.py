"""Create golden.npz: inputs and outputs of small random Hugging Face models.

Run it by hand where PyTorch and transformers are installed; the tests that read the file need neither:

    python -m tests.interop.make_golden
"""

import json
import pathlib
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
# Heads are not a divisor of the width, and rows are longer than the last bucket begins.
T5 = dict(
    d_model=32, num_layers=3, num_decoder_layers=2, num_heads=3, d_kv=10, d_ff=48, vocab_size=99, pad_token_id=0, eos_token_id=37,
    decoder_start_token_id=0, relative_attention_num_buckets=8, relative_attention_max_distance=12,
)  # fmt: skip
EUROBERT = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=99,
    max_position_embeddings=40, rope_theta=50.0, bos_token_id=0, pad_token_id=1, eos_token_id=1, mask_token_id=2,
)  # fmt: skip
LLAMA = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=99,
    max_position_embeddings=40, rope_theta=50.0, bos_token_id=37, eos_token_id=37,
)  # fmt: skip
QWEN3 = LLAMA | {'head_dim': 10}
STARCODER2 = LLAMA | {'hidden_act': 'gelu'}
# The rows are longer than the last bucket begins.
DEBERTA = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, vocab_size=99, max_position_embeddings=40,
    relative_attention=True, position_biased_input=False, pos_att_type='p2c|c2p', position_buckets=6, share_att_key=True,
    norm_rel_ebd='layer_norm', max_relative_positions=12,
)  # fmt: skip
# What follows a dash in the name of a case is not part of the name of the class.
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
    'RobertaPreLayerNormModel': ROBERTA,
    'RobertaPreLayerNormForMaskedLM': ROBERTA | {'type_vocab_size': 2},
    'RobertaPreLayerNormForSequenceClassification': ROBERTA,
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
    'LlamaForCausalLM': LLAMA,
    'LlamaForCausalLM-tied': LLAMA
    | {'tie_word_embeddings': True, 'attention_bias': True, 'mlp_bias': True, 'num_key_value_heads': 4},
    'LlamaModel': LLAMA | {'head_dim': 10},
    'Qwen3ForCausalLM': QWEN3,
    'Qwen3ForCausalLM-tied': QWEN3
    | {'tie_word_embeddings': True, 'num_key_value_heads': 4, 'hidden_act': 'relu2'},
    'Qwen3Model': QWEN3,
    'Starcoder2ForCausalLM': STARCODER2,
    'Starcoder2ForCausalLM-untied': STARCODER2
    | {'tie_word_embeddings': False, 'use_bias': False, 'num_key_value_heads': 4},
    'Starcoder2Model': LLAMA,
    'GPT2LMHeadModel': GPT2 | {'n_inner': 48},
    'GPT2Model': GPT2,
    'BartForConditionalGeneration': BART,
    'BartModel': BART,
    'T5ForConditionalGeneration': T5,
    'T5ForConditionalGeneration-untied': T5
    | {'tie_word_embeddings': False, 'feed_forward_proj': 'gated-gelu'},
    'MT5ForConditionalGeneration': T5 | {'tie_word_embeddings': False},
    'T5Model': T5 | {'feed_forward_proj': 'gelu'},
    'T5EncoderModel': T5 | {'feed_forward_proj': 'gated-silu'},
    'T5ForTokenClassification': T5 | {'num_labels': 5},
    'EuroBertModel': EUROBERT | {'head_dim': 10},
    'EuroBertForMaskedLM': EUROBERT,
    'EuroBertForMaskedLM-tied': EUROBERT
    | {'tie_word_embeddings': True, 'attention_bias': True, 'mlp_bias': True, 'num_key_value_heads': 4},
    'EuroBertForSequenceClassification': EUROBERT | {'num_labels': 3},
    'EuroBertForSequenceClassification-mean': EUROBERT | {'num_labels': 3, 'classifier_pooling': 'mean'},
    'EuroBertForSequenceClassification-bos': EUROBERT | {'num_labels': 3, 'classifier_pooling': 'bos'},
    'EuroBertForTokenClassification': EUROBERT | {'num_labels': 5},
    'DebertaV2Model': DEBERTA | {'max_relative_positions': -1, 'max_position_embeddings': 12},
    'DebertaV2ForSequenceClassification': DEBERTA | {'num_labels': 3, 'type_vocab_size': 2},
    'DebertaV2ForTokenClassification': DEBERTA | {'num_labels': 5},
    'DebertaV2ForQuestionAnswering': DEBERTA,
}
# Tensors that files have although transformers ties them otherwise.
UNTIED = {
    'T5ForConditionalGeneration-untied': 'lm_head.weight',
    'MT5ForConditionalGeneration': 'lm_head.weight',
}
WITH_ATTENTIONS = (
    'BertModel', 'ModernBertModel', 'GPT2LMHeadModel', 'BartForConditionalGeneration', 'T5ForConditionalGeneration',
    'DebertaV2Model',
)  # fmt: skip
GENERATION_OPTIONS = {
    'greedy': {'do_sample': False},
    'beams': {'do_sample': False, 'num_beams': 4, 'length_penalty': 0.6},
}


def load(name, settings):
    """Return config, shapes of tensors and model, read from a folder as users read it; constructors hide what files lack."""
    class_name = name.partition('-')[0]
    model_class = getattr(transformers, class_name)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, 'config.json')
        about = {'model_type': model_class.config_class.model_type, 'architectures': [class_name]}
        file.write_text(json.dumps(about | settings))
        config = model_class.config_class.from_pretrained(folder)
        written = file.read_text()
        model_class(config).save_pretrained(folder)  # for the names of tensors in files
        tensors_file = f'{folder}/model.safetensors'
        shapes = {tensor: list(value.shape) for tensor, value in load_file(tensors_file).items()}
        if name in UNTIED:
            shapes[UNTIED[name]] = shapes['shared.weight']
        tensors = {tensor: random_weights(tensor, shape) for tensor, shape in shapes.items()}
        save_file(tensors, tensors_file, metadata={'format': 'pt'})
        file.write_text(written)
        model, about = model_class.from_pretrained(
            folder, attn_implementation='eager', output_loading_info=True
        )
    assert not any(about.values()), about
    return config, shapes, model.eval().double()


def run(name, settings, inputs):
    """Return the config of a model, the shapes of its tensors, and its outputs in double precision."""
    config, shapes, model = load(name, settings)
    with torch.no_grad():
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
    if name.partition('-')[0].endswith(('LMHeadModel', 'ForCausalLM', 'ForConditionalGeneration')):
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
