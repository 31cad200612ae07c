"""Writes golden_bert.npz: a small random BERT of Hugging Face, its inputs and its outputs.

Run by hand, where PyTorch and transformers are installed; the test that reads it needs neither:

    python tests/modeling/make_golden.py
"""

import pathlib

import numpy as np
import torch
import transformers

FILE = pathlib.Path(__file__).with_name('golden_bert.npz')
LAYERS, WIDTH, HEADS, MLP, VOCAB, POSITIONS = 2, 32, 4, 64, 99, 40
LENGTHS = (17, 11)


def make_model() -> transformers.BertForPreTraining:
    """A BERT whose every parameter is drawn, wide enough that no output is near a constant."""
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        max_position_embeddings=POSITIONS,
        layer_norm_eps=1e-12,
    )
    config._attn_implementation = 'eager'
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0 if name.endswith('LayerNorm.weight') else 0.0, 0.2)
    return model


def our_parameters(model: transformers.BertForPreTraining) -> dict[str, np.ndarray]:
    """The weights under our names and in our shapes."""
    theirs = {name: value.numpy() for name, value in model.state_dict().items()}
    head = WIDTH // HEADS

    def dense(name: str, theirs_name: str) -> dict[str, np.ndarray]:
        return {
            f'{name}/kernel': theirs[f'{theirs_name}.weight'].T,
            f'{name}/bias': theirs[f'{theirs_name}.bias'],
        }

    def norm(name: str, theirs_name: str) -> dict[str, np.ndarray]:
        return {
            f'{name}/scale': theirs[f'{theirs_name}.weight'],
            f'{name}/bias': theirs[f'{theirs_name}.bias'],
        }

    embeddings = 'bert.embeddings'
    ours = {
        'bert/words': theirs[f'{embeddings}.word_embeddings.weight'],
        'bert/positions': theirs[f'{embeddings}.position_embeddings.weight'],
        'bert/segments': theirs[f'{embeddings}.token_type_embeddings.weight'],
        'masked_lm/bias': theirs['cls.predictions.bias'],
        **norm('bert/norm', f'{embeddings}.LayerNorm'),
        **dense('bert/pooler', 'bert.pooler.dense'),
        **dense('masked_lm/dense', 'cls.predictions.transform.dense'),
        **norm('masked_lm/norm', 'cls.predictions.transform.LayerNorm'),
        **dense('next_sentence', 'cls.seq_relationship'),
    }
    for i in range(LAYERS):
        block, layer = f'bert/layers/blocks/{i}', f'bert.encoder.layer.{i}'
        parts = [f'{layer}.attention.self.{part}' for part in ('query', 'key', 'value')]
        kernels = [theirs[f'{part}.weight'].T.reshape(WIDTH, HEADS, head) for part in parts]
        biases = [theirs[f'{part}.bias'].reshape(HEADS, head) for part in parts]
        out = dense(f'{block}/attention/out', f'{layer}.attention.output.dense')
        kernel = f'{block}/attention/out/kernel'
        ours |= {
            f'{block}/attention/qkv/kernel': np.stack(kernels, 1),
            f'{block}/attention/qkv/bias': np.stack(biases),
            **out,
            kernel: out[kernel].reshape(HEADS, head, WIDTH),
            **norm(f'{block}/attention_norm', f'{layer}.attention.output.LayerNorm'),
            **dense(f'{block}/mlp/up', f'{layer}.intermediate.dense'),
            **dense(f'{block}/mlp/down', f'{layer}.output.dense'),
            **norm(f'{block}/mlp_norm', f'{layer}.output.LayerNorm'),
        }
    return ours


def main() -> None:
    model = make_model()
    weights = our_parameters(model)
    rng = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    valid = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    tokens = np.where(valid, rng.integers(1, VOCAB, shape), 0)
    segments = np.where(valid & (np.arange(shape[1]) >= 6), 1, 0)
    with torch.no_grad():  # in double precision, so that all rounding is on our side
        out = model.double()(
            input_ids=torch.tensor(tokens),
            token_type_ids=torch.tensor(segments),
            attention_mask=torch.tensor(valid.astype(np.int64)),
            output_hidden_states=True,
        )
        pooled = model.bert.pooler(out.hidden_states[-1])
    results = {
        'hidden_states': np.stack([h.numpy() for h in out.hidden_states]),
        'pooled': pooled.numpy(),
        'logits': out.prediction_logits.numpy(),
        'next_sentence': out.seq_relationship_logits.numpy(),
    }
    np.savez_compressed(
        FILE,
        **{f'inputs:{k}': v for k, v in dict(tokens=tokens, segments=segments, valid=valid).items()},
        **{f'params:{k}': v.astype(np.float32) for k, v in weights.items()},
        **{f'outputs:{k}': v.astype(np.float32) for k, v in results.items()},
    )
    print(f'{FILE}: {FILE.stat().st_size:,} bytes, transformers {transformers.__version__}')


if __name__ == '__main__':
    main()
