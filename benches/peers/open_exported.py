"""Open a directory that `distilface model export` wrote in transformers and sentence-transformers, and compare.

    python open_exported.py DIR --model NAME --distilface target/release/distilface

DIR was exported of the model NAME. Texts go through `distilface embed` and through both libraries, one at a time, offline;
printed is the largest difference of any value of any vector, and the smallest cosine. Ends with 1 if a difference passes
--tolerance. What the texts become as tokens is compared too, through the number of tokens.

Needs: torch, transformers, sentence-transformers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "A cat sits on the mat.",
    "The stock market fell by three per cent on Tuesday, and nobody knew why.",
    "cafe\u0301 na\u00efve \u00dcbung, 東京 and Straße: accents, wide characters, and CAPITALS",
    "one",
    "[CLS] is a token, and [SEP] too; don't-split 3.14 e-mail@example.org",
    "A long text, which is cut at the most tokens of the model. " * 60,
    " ".join(f"w{i}" for i in range(200)),
]


def distilface(binary, model, texts):
    with tempfile.TemporaryDirectory() as data:
        command = [binary, "--data", data, "--model", model, "--device", "cpu", "--json", "embed", "-"]
        lines = "".join(f"{text}\n" for text in texts)
        done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    # The count is that of the whole text.
    return np.array([a["vector"] for a in answers]), [a["tokens"] for a in answers]


def pool(states, mask, pooling):
    """`states`: [batch, seq, hidden] after the embeddings and after each layer."""
    weights = mask.unsqueeze(-1).to(states[0].dtype)

    def mean(x):
        return (x * weights).sum(1) / weights.sum(1)

    match pooling:
        case "cls":
            return states[-1][:, 0]
        case "mean":
            return mean(states[-1])
        case "max":
            return states[-1].masked_fill(weights == 0, -torch.inf).max(1).values
        case "first_last_mean":
            return mean((states[1] + states[-1]) / 2)
        case "embedding_last_mean":
            return mean((states[0] + states[-1]) / 2)
        case "second_to_last_mean":
            return mean(states[-2])
        case "last4_mean":
            return mean(sum(states[-4:]) / 4)
        case "last4_concat_mean":
            return torch.cat([mean(x) for x in states[-4:]], -1)
    raise ValueError(pooling)


def with_transformers(folder, told, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    vectors, tokens = [], []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=told["max_tokens"])
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states
        vector = pool(states, batch["attention_mask"], told["pooling"])[0]
        vectors.append((torch.nn.functional.normalize(vector, dim=0) if told["normalise"] else vector).numpy())
        tokens.append(batch["input_ids"].shape[1])
    return np.array(vectors), tokens, type(model).__name__, type(tokenizer).__name__


def compare(name, ours, theirs, tolerance):
    largest = np.abs(ours - theirs).max()
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = ((ours * theirs).sum(1) / lengths).min()
    print(f"{name}: largest difference {largest:.3g}, smallest cosine {cosine:.8f}, {len(ours)} texts, dimension {ours.shape[1]}")
    return largest <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True, help="the model that was exported, by name or path")
    parser.add_argument("--distilface", default="target/release/distilface", help="the program")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()

    told = json.loads((args.folder / "distilface.json").read_text())
    ours, tokens = distilface(args.distilface, args.model, TEXTS)
    theirs, their_tokens, model, tokenizer = with_transformers(args.folder, told, TEXTS)
    good = compare(f"transformers ({model}, {tokenizer}, pooling {told['pooling']})", ours, theirs, args.tolerance)
    tokens = [min(n, told["max_tokens"]) for n in tokens]
    if tokens != their_tokens:
        print(f"numbers of tokens differ: {tokens} here, {their_tokens} in transformers")
        good = False
    if (args.folder / "modules.json").exists():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(args.folder), device="cpu")
        theirs = np.array([model.encode(text, show_progress_bar=False) for text in TEXTS])
        modules = ", ".join(type(module).__name__ for module in model)
        good &= compare(f"sentence-transformers ({modules})", ours, theirs, args.tolerance)
    else:
        print("sentence-transformers: has no module for this pooling, and no modules.json was written")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
