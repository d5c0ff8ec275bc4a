"""Texts to vectors by others, the peer of `distilface bench encode`.

Reads one request a line on standard input, answers each with one line of JSON on standard output:

    {"mode": "torch-fp32", "texts": "FILE"}  ->  {"seconds": 1.2, "cosine_mean": 1.0, "cosine_min": 1.0}
    {"mode": "torch-fp32", "query": "how do owls hunt", "times": 100}  ->  {"p50_ms": 7.1}

FILE holds a JSON list of texts. Cosines are those to `torch-fp32` on the first 200 texts. Modes: what `--list` prints;
a mode that cannot be had here is not listed, and the reason goes to standard error.

    python encode.py MODEL --threads 2

MODEL is a folder as `distilface model export` writes it. Batches are 32 texts, sorted by length, as sentence-transformers
does it by itself; all modes get the same texts, cut at the model's limit.

Needs: torch, transformers, sentence-transformers, onnx, onnxruntime. fastembed and the backends of sentence-transformers
are taken along where they are installed; all of them: pip install "sentence-transformers[onnx,openvino]<6" fastembed onnx
"""

import argparse
import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print the modes that can be had, and end")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"

    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    noise = io.StringIO()
    with redirect_stdout(noise):
        modes = load(options.model, options.threads, np, torch)
    if options.list:
        print(json.dumps(list(modes)))
        return
    print(json.dumps(list(modes)), flush=True)
    exact = {}
    for line in sys.stdin:
        request = json.loads(line)
        encode = modes[request["mode"]]
        if "query" in request:
            encode([request["query"]])
            times = []
            for _ in range(request["times"]):
                start = time.perf_counter()
                encode([request["query"]])
                times.append(time.perf_counter() - start)
            print(json.dumps({"p50_ms": 1000 * sorted(times)[len(times) // 2]}), flush=True)
            continue
        texts = json.loads(Path(request["texts"]).read_text())
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        if request["texts"] not in exact:
            exact[request["texts"]] = modes["torch-fp32"](texts[:200])
        # Lengths that were computed in bfloat16 are not 1.
        some = vectors[:200] / np.linalg.norm(vectors[:200], axis=1, keepdims=True)
        cosines = (exact[request["texts"]] * some).sum(1)
        answer = {"seconds": seconds, "cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min())}
        print(json.dumps(answer), flush=True)


def load(folder, threads, np, torch):
    """Each mode as a function of texts that gives unit vectors, float32 `[texts, dimension]`."""
    from sentence_transformers import SentenceTransformer

    modes = {}

    def sentence_transformers(name, **arguments):
        try:
            model = SentenceTransformer(str(folder), device="cpu", **arguments)
            call = lambda texts: model.encode(
                texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_tensor=True
            ).float().numpy()
            call(["warm"])
            modes[name] = call
            return model
        except Exception as error:  # whatever a backend lacks: it is a peer that cannot be had
            print(f"{name}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)

    full = sentence_transformers("torch-fp32")
    sentence_transformers("torch-bf16", model_kwargs={"dtype": torch.bfloat16})
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    # Each backend exports the model itself. OpenVINO computes in bfloat16 where the processor has it.
    for backend, arguments in (
        ("onnx", {"provider": "CPUExecutionProvider", "session_options": settings}),
        ("openvino", {"ov_config": {"INFERENCE_NUM_THREADS": threads}}),
    ):
        sentence_transformers(f"st-{backend}", backend=backend, model_kwargs=arguments)

    # The graph that PyTorch's exporter writes, in the runtime that distilface uses.
    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = full[0].auto_model

        def forward(self, input_ids, attention_mask):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    file = folder / "peer" / "model.onnx"
    file.parent.mkdir(exist_ok=True)
    names = ["input_ids", "attention_mask"]
    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, "hidden"]}
    torch.onnx.export(
        Graph().eval(), (ids, ids), str(file), input_names=names, output_names=["hidden"], dynamic_axes=axes, dynamo=False
    )
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    tokenizer = full.tokenizer
    limit = full.max_seq_length
    width = modes["torch-fp32"](["warm"]).shape[1]

    def runtime(texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), width), np.float32)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = tokenizer([texts[i] for i in part], padding=True, truncation=True, max_length=limit, return_tensors="np")
            inputs = {name: batch[name].astype(np.int64) for name in names}
            hidden = session.run(None, inputs)[0]
            mask = inputs["attention_mask"][..., None].astype(np.float32)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            vectors[part] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    modes["onnxruntime-fp32"] = runtime
    try:
        modes["fastembed"] = fastembed(folder, threads, width, np)
    except Exception as error:
        print(f"fastembed: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
    return modes


def fastembed(folder, threads, width, np):
    """fastembed on the graph that was written above, which it would fetch from a hub otherwise."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="peer",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="file:unused"),
        dim=width,
        model_file="peer/model.onnx",
    )
    model = TextEmbedding("peer", specific_model_path=str(folder), threads=threads)

    def call(texts):
        # It takes batches in the order of the texts; sorted like the others' it pads as little as they do.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), width), np.float32)
        vectors[order] = np.stack(list(model.embed([texts[i] for i in order], batch_size=BATCH)))
        return vectors

    call(["warm"])
    return call


if __name__ == "__main__":
    main()
