"""A side of `corpus.py` that needs PyTorch: `transformers`' masked-LM alone, in an interpreter of its own.

python pretrain_peers.py JSON   (fields of `BertConfig`, rows, length, precision)

As `run_mlm.py` of `transformers` has it, text is cut into blocks that are full, so blocks of random tokens are as good,
and 15% of the tokens are masked at any place of the row. Every line on the standard input is answered by how many
seconds an update took.
"""

import json
import os
import sys
import time


def main() -> None:
    """Builds the model and answers."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    settings = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = BertConfig(**settings["config"])
    model = BertForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    ids = torch.randint(0, config.vocab_size, (settings["rows"], settings["length"]))
    labels = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "mixed_bfloat16")
    print(f"torch {torch.__version__}", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        with bfloat16:
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
