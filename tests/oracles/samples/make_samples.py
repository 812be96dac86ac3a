"""Makes tests/oracles/data/samples: orders as torch draws them, and samples as MiniMind's data sets define them.

  make_samples.py    (torch, transformers)

The rules of the samples are written down here anew: ids by the `tokenizers` library from the whole rendered text, and
labels from the ids by searching for the assistant's header and for the end of its turn.
"""

import hashlib
import json
import os
import pathlib
import random

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoTokenizer

DATA = pathlib.Path(__file__).parent.parent / "data"


def digest(numbers):
    return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()


def permutation(n, seed):
    torch.manual_seed(seed)
    return torch.randperm(n).tolist()


def orders():
    cases = []
    for n in (0, 1, 2, 3, 7, 64, 1000, 30000, 200001):
        for seed in (0, 42, 43, 2**32 - 1, 2**32 + 5, 2**40 + 11):
            order = permutation(n, seed)
            cases.append({"n": n, "seed": seed, "first": order[:12], "sha256": digest(order)})
    shares = []
    for n, world in ((10, 2), (10, 3), (7, 4), (3, 8), (1, 4), (1000, 7)):
        for epoch in range(3):
            for rank in range(world):
                sampler = torch.utils.data.DistributedSampler(range(n), num_replicas=world, rank=rank, shuffle=True, seed=0)
                sampler.set_epoch(epoch)
                shares.append({"n": n, "world": world, "epoch": epoch, "rank": rank, "order": digest(list(sampler))})
    return {"permutations": cases, "shares": shares}


def find(ids, pattern, start):
    for i in range(start, len(ids) - len(pattern) + 1):
        if ids[i:i + len(pattern)] == pattern:
            return i
    return -1


def labelled(ids, header, ending, max_length):
    """Positions whose id is learnt."""
    scored, i = [0] * len(ids), 0
    while (i := find(ids, header, i)) >= 0:
        start = i + len(header)
        end = find(ids, ending, start)
        stop = min(end + len(ending), max_length) if end >= 0 else len(ids)
        scored[start:stop] = [1] * (stop - start)
        i = stop
    return scored


WORDS = ["hello", "你好", "再见！", "What is 3+4?", "  spaces", "tabs\tand\nlines", "assistant\n", "<think>\n七\n</think>", "日本語",
         "🙂👨‍👩‍👧", "a", "", "…", "don't", "x" * 40, "1234567890", "\n", "Ж", "e\u0301", "<|im_end", "im_start|>"]


def message(role, rng):
    # An answer begins with a word: white space there is the one difference that is meant (core/data/training_samples.hpp).
    words = [rng.choice(WORDS) for _ in range(rng.randrange(1, 7))]
    return {"role": role, "content": ("" if rng.random() < 0.5 else " ").join(words).lstrip() if role == "assistant"
            else "".join(words)}


def main():
    out = DATA / "samples"
    out.mkdir(parents=True, exist_ok=True)
    (out / "orders.json").write_text(json.dumps(orders()))
    tokenizer = AutoTokenizer.from_pretrained(DATA / "text/minimind")
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    header, ending, eos = encode("<|im_start|>assistant\n"), encode("<|im_end|>\n"), tokenizer.eos_token_id
    assert header == [1, 1078, 538, 501, 201] and ending == [2, 201]
    rng = random.Random(7)
    cases = []
    for _ in range(160):
        messages = [message("system", rng)] if rng.random() < 0.3 else []
        for _ in range(rng.randrange(1, 4)):
            messages += [message("user", rng), message("assistant", rng)]
        max_length = rng.choice([20, 46, 64, 200, 1000])
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = encode(text)[:max_length]
        fork = labelled(ids, header[1:], [eos], max_length)
        fork[0] = 0
        cases.append({"line": {"conversations": messages}, "max_length": max_length, "ids": ids,
                      "scored": labelled(ids, header, ending, max_length), "fork": fork})
    texts = []
    for _ in range(60):
        text = "".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 12)))
        max_length = rng.choice([2, 3, 8, 30, 100])
        ids = encode(text)
        texts.append({"line": {"text": text}, "max_length": max_length, "canonical": [1] + ids[:max_length - 2] + [2],
                      "december_2025": ids[:max_length], "fork": ([1] + ids + [2])[:max_length]})
    (out / "samples.json").write_text(json.dumps({"conversations": cases, "texts": texts}, ensure_ascii=False))


if __name__ == "__main__":
    main()
