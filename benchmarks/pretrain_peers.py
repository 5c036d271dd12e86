"""`transformers`' masked-LM on PyTorch, in an interpreter of its own: a side of `corpus.py` and of `gpu.py`.

python pretrain_peers.py JSON   (config: fields of `BertConfig`; rows, length, precision; compiled: by `torch.compile`;
mask: give attention one)

As `run_mlm.py` of `transformers` has it, text is cut into blocks that are full, so blocks of random tokens are as good,
and 15% of the tokens are masked at any place of the row. Attention is PyTorch's scaled-dot-product attention. It runs
on a GPU where there is one.
"""

import json
import os
import sys
import time
from typing import Any

from turns import answer


def main() -> None:
    """Builds the model and answers `step`, `forward` (seconds) and `memory` (bytes)."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    settings = json.loads(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = BertConfig(**settings["config"], attn_implementation="sdpa")
    model: Any = BertForMaskedLM(config).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=device == "cuda")
    parameters = list(model.parameters())
    encoder: Any = model.base_model
    if settings.get("compiled"):
        model, encoder = torch.compile(model), torch.compile(encoder)
    ids = torch.randint(0, config.vocab_size, (settings["rows"], settings["length"]), device=device)
    labels = torch.where(torch.rand(ids.shape, device=device) < 0.15, ids, -100)
    inputs = {"input_ids": ids, **({"attention_mask": torch.ones_like(ids)} if settings.get("mask") else {})}
    bfloat16 = torch.autocast(device, torch.bfloat16, enabled=settings["precision"] == "mixed_bfloat16")

    def step() -> float:
        began = time.perf_counter()
        with bfloat16:
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return time.perf_counter() - began

    def forward() -> float:
        began = time.perf_counter()
        model.eval()
        with torch.inference_mode(), bfloat16:
            encoder(**inputs).last_hidden_state.float().sum().item()
        model.train()
        return time.perf_counter() - began

    def memory() -> float:
        return float(torch.cuda.max_memory_allocated()) if device == "cuda" else 0.0

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    answer({"step": step, "forward": forward, "memory": memory}, f"torch {torch.__version__} on {name}")


if __name__ == "__main__":
    main()
