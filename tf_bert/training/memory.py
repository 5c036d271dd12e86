"""What a rank's device must hold, estimated from the shape of the model and of a microbatch.

Weights, gradient sums and the optimizer's two moments are float32 whatever the precision. The activations are what the
forward pass leaves for the backward pass, counted operation by operation as TensorFlow runs the graph without XLA
(compiled by XLA, pointwise operations are fused and leave less, so the estimate is an upper one there); compare
Korthikanti et al. 2022, section 4.1, for fused kernels. Not counted: the library itself, the batches, and what the
allocator wastes.
"""

from dataclasses import dataclass

from tf_bert.config import BertConfig, TrainingConfig
from tf_bert.models.flops import RowShape, count_parameters

OPTIMIZER_SLOTS = 2  # first and second moments
FLOAT32 = 4  # bytes
TOLERANCE = 1.25  # measured peaks of runs on a CPU lie within this factor of the estimate, see the tests


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    """With the copy in the compute dtype that mixed precision makes."""
    gradients: int
    """With the sums over microbatches, where there are several."""
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    config: BertConfig, training: TrainingConfig, row: RowShape, accumulation_steps: int
) -> MemoryEstimate:
    """Peak memory of an update.

    Args:
      config: shape of the model.
      training: microbatch, precision, whether activations are recomputed.
      row: what a row of the microbatch holds.
      accumulation_steps: microbatches of an update.
    """
    parameters = count_parameters(config)
    compute = FLOAT32 if training.precision == "float32" else 2
    copies = 0 if compute == FLOAT32 else compute * parameters
    sums = 2 if accumulation_steps > 1 else 1
    return MemoryEstimate(
        weights=FLOAT32 * parameters + copies,
        gradients=sums * FLOAT32 * parameters,
        optimizer=OPTIMIZER_SLOTS * FLOAT32 * parameters,
        activations=training.microbatch_size * _row_bytes(config, row, compute, training.activation_checkpointing),
    )


def _row_bytes(config: BertConfig, row: RowShape, compute: int, checkpointing: bool) -> int:
    """Activations of one row.

    The backward pass needs room for the gradients of what one block left, on top of what all blocks left. With
    activation checkpointing every block leaves its input alone, and one block at a time is computed again.
    """
    block = _block_bytes(config, row.length, compute)
    block_input = row.length * config.hidden_size * compute
    blocks = config.num_hidden_layers * (block_input if checkpointing else block)
    working = 2 * block if checkpointing else block
    # Embeddings before and after LayerNorm; logits, their softmax and the gradient.
    embeddings = row.length * config.hidden_size * (2 * compute + 2 * FLOAT32)
    logits = row.predictions * config.vocab_size * (compute + 3 * FLOAT32)
    return blocks + working + embeddings + logits


def _block_bytes(config: BertConfig, length: int, compute: int) -> int:
    """What one block leaves for one row."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    dropout = config.hidden_dropout_prob > 0.0
    # The block's input; query, key and value; their sum over the values; inputs of the two LayerNorms in float32, as
    # they come and less their mean, and their outputs; two dropout masks of a byte.
    per_hidden = 5 * compute + 2 * (2 * FLOAT32 + compute) + 2 * dropout
    # GELU, written out: its input, what the error function takes and gives, the halved input, the product.
    per_inner = 5 * compute
    # The softmax in float32, in the compute dtype if that is another, and after dropout with its mask.
    per_pair = FLOAT32 + (compute if compute != FLOAT32 else 0)
    if config.attention_probs_dropout_prob > 0.0:
        per_pair += compute + 1
    return length * (hidden * per_hidden + inner * per_inner) + heads * length**2 * per_pair
