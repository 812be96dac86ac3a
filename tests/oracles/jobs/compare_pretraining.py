"""One epoch of pretraining by torch and transformers beside `troupe pretrain`: same start, order, schedule, optimizer.

    troupe pretrain --hidden_size 256 --num_hidden_layers 4 --max_seq_len 256 --data_path examples/data/pretrain.jsonl \
        --save_weight start --learning_rate 1e-30 --max_steps 1
    troupe pretrain --from_weight out/start_256 --save_weight run --max_seq_len 256 --batch_size 16 \
        --accumulation_steps 1 --learning_rate 1e-3 --log_interval 1 --dtype float32 --run_folder runs/run \
        --data_path examples/data/pretrain.jsonl --eval_path examples/data/pretrain_heldout.jsonl
    python compare_pretraining.py out/start_256 runs/run/metrics.jsonl examples/data/pretrain.jsonl \
        examples/data/pretrain_heldout.jsonl

Prints both losses at every 50th batch, the largest difference, and torch's held-out loss before and after (troupe prints
its own).
"""
import json
import math
import sys

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

START, METRICS, DATA, HELD_OUT = sys.argv[1:5]
LENGTH, BATCH, RATE = 256, 16, 1e-3
torch.set_num_threads(1)
tok = AutoTokenizer.from_pretrained(START)
net = AutoModelForCausalLM.from_pretrained(START, dtype=torch.float32).train()


def samples(path):
    for line in open(path, encoding="utf-8"):
        ids = tok.encode(json.loads(line)["text"], add_special_tokens=False)[:LENGTH - 2]
        yield torch.tensor([tok.bos_token_id] + ids + [tok.eos_token_id])


def loss_of(batch, reduction="mean"):
    ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=0)
    labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
    logits = net(ids).logits[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction=reduction)


@torch.no_grad()
def held_out():
    all_lines = list(samples(HELD_OUT))
    total = sum(loss_of(all_lines[i:i + BATCH], "sum").item() for i in range(0, len(all_lines), BATCH))
    return total / sum(len(s) - 1 for s in all_lines)


lines = list(samples(DATA))
ours = {m["step"]: m["loss"] for m in map(json.loads, open(METRICS)) if "loss" in m}
print("held-out before", round(held_out(), 4), flush=True)
optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
torch.manual_seed(42)
order = torch.randperm(len(lines)).tolist()
steps = math.ceil(len(lines) / BATCH)
worst = 0.0
for s in range(1, steps + 1):
    loss = loss_of([lines[i] for i in order[(s - 1) * BATCH:s * BATCH]])
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * s / steps)))
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if s in ours:
        worst = max(worst, abs(loss.item() - ours[s]))
    if s % 50 == 0 or s == steps:
        print(f"step {s}: torch {loss.item():.4f}, troupe {ours.get(s, math.nan):.4f}", flush=True)
print("held-out after", round(held_out(), 4), "largest difference of a batch's loss", round(worst, 4))
