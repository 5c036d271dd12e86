"""How many parameters a model has and how many floating-point operations its training takes, from its shape alone.

Counted are matrix products, 2 x m x n x k each: nearly all the work there is, and what data sheets give peaks for. The
backward pass takes two products for each of the forward pass, so training takes three times the forward pass.
Recomputed activations do not count (they buy memory, not progress), as is usual for model FLOPs (Chowdhery et al. 2022,
appendix B). Attention counts whole rows, L x L, and padding counts as well: both are computed.
"""

from dataclasses import dataclass

from tf_bert.config import BertConfig

TRAINING_FACTOR = 3  # forward pass, gradients by inputs, gradients by weights


@dataclass(frozen=True)
class RowShape:
    """What the model computes on one row of a batch, whatever part of it is padding."""

    length: int
    """Tokens: max_seq_length."""
    predictions: int
    """Places for masked tokens, each of which is scored against the whole vocabulary."""
    examples: int
    """Places for examples, each of which is pooled and given a next-sentence score."""


def count_parameters(config: BertConfig) -> int:
    """Trainable parameters of `BertForPretraining`: encoder, pooler and both heads."""
    hidden, inner = config.hidden_size, config.intermediate_size
    layer_norm = 2 * hidden
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    rows += 0 if config.tie_word_embeddings else config.vocab_size
    attention = _dense(hidden, 3 * hidden) + _dense(hidden, hidden) + layer_norm
    feed_forward = _dense(hidden, inner) + _dense(inner, hidden) + layer_norm
    blocks = config.num_hidden_layers * (attention + feed_forward)
    pooler, transform = _dense(hidden, hidden), _dense(hidden, hidden) + layer_norm
    return rows * hidden + layer_norm + blocks + pooler + transform + config.vocab_size + _dense(hidden, 2)


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def forward_flops(config: BertConfig, row: RowShape) -> int:
    """Operations of one row's forward pass.

    With H hidden_size, I intermediate_size, N num_hidden_layers, V vocab_size, T type_vocab_size, L, P, K = `row`:

        L x (2 T H  +  N (8 H^2 + 4 L H + 4 H I))  +  P (2 H^2 + 2 H V)  +  K (2 H^2 + 4 H)

    segment embedding, projections, attention scores and sums, feed-forward; masked-LM head; pooler, next-sentence head.
    """
    hidden = config.hidden_size
    block = 8 * hidden**2 + 4 * row.length * hidden + 4 * hidden * config.intermediate_size
    encoder = row.length * (2 * config.type_vocab_size * hidden + config.num_hidden_layers * block)
    masked_lm = row.predictions * (2 * hidden**2 + 2 * hidden * config.vocab_size)
    next_sentence = row.examples * (2 * hidden**2 + 4 * hidden)
    return encoder + masked_lm + next_sentence


def training_flops(config: BertConfig, row: RowShape) -> int:
    """Operations that one row takes in an update: `TRAINING_FACTOR` times the forward pass."""
    return TRAINING_FACTOR * forward_flops(config, row)
