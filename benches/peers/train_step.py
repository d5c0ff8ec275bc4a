"""Seconds of one contrastive training step in PyTorch, the peer of `distilface bench step`.

A step is what `distilface finetune --recipe simcse` does: two dropout passes over the sentences in one batch, mean
pooling, the InfoNCE loss of their cosines (temperature 0.05), backward, clipping, AdamW. Weights are random, tokens
too. Prints one line of JSON: {"seconds": [...], "peak_memory_mib": ...}.

    python train_step.py --shape minilm --precision fp32 --threads 2

Needs: torch, transformers.
"""

import argparse
import json
import resource
import time

import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel


def encoder(shape):
    if shape == "minilm":
        return BertModel(
            BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
            add_pooling_layer=False,
        )
    return DistilBertModel(DistilBertConfig(dim=768, n_layers=6, n_heads=12, hidden_dim=3072))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["minilm", "distilbert"], default="minilm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--no-optimizer", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    model = encoder(options.shape).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=3e-5
    )
    ids = torch.randint(1000, 30_000, (2 * options.sentences, options.tokens))
    mask = torch.ones_like(ids)
    labels = torch.arange(options.sentences)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = torch.nn.functional.normalize(hidden.float().mean(1), dim=-1)
        first, second = pooled.chunk(2)
        loss = torch.nn.functional.cross_entropy(first @ second.T / 0.05, labels)
        model.zero_grad(set_to_none=True)
        loss.backward()
        if not options.no_optimizer:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    step()
    seconds = []
    for _ in range(options.steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_memory_mib": peak}))


if __name__ == "__main__":
    main()
