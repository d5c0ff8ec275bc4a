"""Pretrain a small BERT by masked-language modelling alone, for a given number of minutes.

The encoder that comes out has never seen a contrastive loss, so it is the place to see what `distilface finetune
--recipe simcse` adds. It writes a Hugging Face directory (config.json, model.safetensors, tokenizer.json) for
`distilface model import`.

    python pretrain.py SENTENCES.txt.gz OUT --minutes 60

Needs: torch, transformers, tokenizers, scipy, scikit-learn, safetensors. PyTorch does this part because it is set-up,
not product: distilface trains sentence encoders, it does not pretrain language models.

What makes an hour on two cores enough for a language model of use:
- a vocabulary of its own (10,000 word pieces), so that the softmax is small;
- word embeddings that start from the singular vectors of the corpus's positive pointwise mutual information
  (Levy and Goldberg 2014), which the model would otherwise spend its first half hour on;
- batches of sentences of about equal length, no padding to speak of;
- the softmax is computed only where a token was masked.

Dropout stays on, although so short a training underfits: SimCSE's two views of a sentence are two dropout masks, and an
encoder that has never met dropout is only hurt by them.
"""

import argparse
import gzip
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.utils.extmath import randomized_svd
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)


def train_tokenizer(texts, size):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def word_vectors(rows, vocabulary, hidden, window=5):
    """Left singular vectors of the positive PMI of tokens within `window`, scaled like BERT's own start (0.02)."""
    flat = np.concatenate([np.append(row, -1) for row in rows]).astype(np.int32)
    counts = csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        left, right = flat[:-distance], flat[distance:]
        # A pair may not reach across the end of a sentence.
        ends = np.cumsum(flat == -1)
        inside = (left >= 0) & (right >= 0) & (ends[:-distance] == ends[distance:])
        pairs = coo_matrix(
            (np.full(inside.sum(), 1.0 / distance), (left[inside], right[inside])), shape=counts.shape
        ).tocsr()
        counts = counts + pairs + pairs.T
    occurrences = np.asarray(counts.sum(axis=1)).ravel() + 1.0
    smoothed = occurrences**0.75
    counts = counts.tocoo()
    pmi = np.log(counts.data * smoothed.sum() / (occurrences[counts.row] * smoothed[counts.col]))
    keep = pmi > 0
    matrix = coo_matrix((pmi[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape).tocsr()
    left, values, _ = randomized_svd(matrix, n_components=hidden, n_iter=4, random_state=0)
    vectors = left * np.sqrt(values)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return torch.tensor(vectors * 0.02 * math.sqrt(hidden), dtype=torch.float32)


def batches(rows, tokens, generator):
    """Batches of about `tokens` tokens; lengths within a batch are near each other, batches come in any order."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), generator.random()))
    groups, start = [], 0
    while start < len(order):
        size = max(8, tokens // len(rows[order[start]]))
        groups.append(order[start : start + size])
        start += size
    generator.shuffle(groups)
    for group in groups:
        longest = max(len(rows[i]) for i in group)
        ids = np.full((len(group), longest), PAD, dtype=np.int64)
        for line, i in enumerate(group):
            ids[line, : len(rows[i])] = rows[i]
        yield torch.from_numpy(ids)


def mask_tokens(ids, vocabulary, share, generator):
    """BERT's corruption: of the chosen tokens 80 % become [MASK], 10 % another token, 10 % stay."""
    chosen = (torch.rand(ids.shape, generator=generator) < share) & (ids >= len(SPECIAL))
    kind = torch.rand(ids.shape, generator=generator)
    corrupt = ids.clone()
    corrupt[chosen & (kind < 0.8)] = MASK
    other = chosen & (kind >= 0.9)
    corrupt[other] = torch.randint(len(SPECIAL), vocabulary, (int(other.sum()),), generator=generator)
    return corrupt, chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", type=Path, help="one sentence a line, plain or .gz")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--minutes", type=float, default=60, help="length of the training itself")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a batch")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--plain", action="store_true", help="random word embeddings, not singular vectors")
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast, on processors that have it")
    options = parser.parse_args()

    random.seed(options.seed)
    torch.manual_seed(options.seed)
    opener = gzip.open if options.sentences.suffix == ".gz" else open
    with opener(options.sentences, "rt", encoding="utf-8") as file:
        texts = [line.strip() for line in file]
    print(f"{len(texts)} sentences", flush=True)
    tokenizer = train_tokenizer(texts[:300_000], options.vocabulary)
    vocabulary = tokenizer.get_vocab_size()
    tokenizer.enable_truncation(64)
    rows = []
    for start in range(0, len(texts), 20_000):
        rows += [np.array(e.ids, dtype=np.int32) for e in tokenizer.encode_batch(texts[start : start + 20_000])]
    tokenizer.no_truncation()
    print(f"tokenised: {sum(map(len, rows)) / len(rows):.1f} tokens a sentence", flush=True)

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.hidden,
        max_position_embeddings=256,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    model = BertForMaskedLM(config).train()
    with torch.no_grad():
        words = model.bert.embeddings.word_embeddings.weight
        if not options.plain:
            words.copy_(word_vectors(rows[:400_000], vocabulary, options.hidden))
        words[PAD].zero_()

    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=options.rate,
        betas=(0.9, 0.98),
    )
    shuffles, masks = random.Random(options.seed), torch.Generator().manual_seed(options.seed)
    began, limit, step, log = time.time(), options.minutes * 60, 0, []
    history = []
    while time.time() - began < limit:
        for ids in batches(rows, options.tokens, shuffles):
            done = (time.time() - began) / limit
            if done >= 1:
                break
            rate = options.rate * min(1.0, step / 300) * max(0.02, 1 - done)
            for group in optimizer.param_groups:
                group["lr"] = rate
            corrupt, chosen = mask_tokens(ids, vocabulary, 0.15, masks)
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                hidden = model.bert(input_ids=corrupt, attention_mask=(ids != PAD).long()).last_hidden_state
                logits = model.cls(hidden[chosen])
            loss = torch.nn.functional.cross_entropy(logits.float(), ids[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            history.append((loss.item(), (logits.argmax(-1) == ids[chosen]).float().mean().item()))
            if step % 200 == 0:
                losses, right = zip(*history)
                history.clear()
                line = {
                    "step": step,
                    "minutes": round((time.time() - began) / 60, 2),
                    "loss": round(sum(losses) / len(losses), 4),
                    "accuracy": round(sum(right) / len(right), 4),
                }
                log.append(line)
                print(json.dumps(line), flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model.bert.save_pretrained(options.out)
    tokenizer.save(str(options.out / "tokenizer.json"))
    (options.out / "pretrain.json").write_text(json.dumps(log, indent=1))
    print(f"wrote {options.out} after {step} steps", flush=True)


if __name__ == "__main__":
    main()
