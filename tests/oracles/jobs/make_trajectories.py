"""Losses of 50 steps of every single-role job, computed by torch, transformers and plain formulas, float32.

Writes trajectories.json: the data lines, and for each job its settings and its loss at every batch. The model is the one
that `troupe data tiny-model --steps 0 --hidden 64 --layers 2 --seed 5` makes, so that no weights need to be kept.

    python make_trajectories.py path/to/tiny-model trajectories.json
"""
import copy
import json
import math
import random
import sys

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER, OUT = sys.argv[1:3]
STEPS, BATCH, LENGTH, RATE = 50, 4, 96, 2e-3
torch.set_num_threads(2)
tok = AutoTokenizer.from_pretrained(FOLDER)
BOS, EOS, PAD = tok.bos_token_id, tok.eos_token_id, tok.pad_token_id


def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager").train()


# ---- data -----------------------------------------------------------------------------------------------------------
rng = random.Random(3)
WORDS = "one two three blue green \u4f60\u597d sky runs over under caf\u00e9 7 12".split()


def words(low, high):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def turns():
    chat = [{"role": "system", "content": words(1, 3)}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 2)):
        chat += [{"role": "user", "content": words(1, 4)}, {"role": "assistant", "content": words(1, 5)}]
    return chat


def pair():
    chat = turns()
    worse = copy.deepcopy(chat)
    worse[-1]["content"] = words(1, 5)
    return {"chosen": chat, "rejected": worse}


def thoughts():
    chat = turns()
    chat[-1]["content"] = f"<think>\n{words(1, 3)}\n</think>\n<answer>\n{words(1, 2)}\n</answer>"
    return {"conversations": chat}


N = 60
DATA = {"text": [{"text": words(4, 25)} for _ in range(N)],
        "chat": [{"conversations": turns()} for _ in range(N)],
        "pairs": [pair() for _ in range(N)],
        "thoughts": [thoughts() for _ in range(N)]}


# ---- samples --------------------------------------------------------------------------------------------------------
def text_sample(line):
    ids = [BOS] + tok.encode(line["text"], add_special_tokens=False)[:LENGTH - 2] + [EOS]
    return ids, [False] + [True] * (len(ids) - 1)


def bare_text_sample(line):
    """December 2025: no marks around the text."""
    ids = tok.encode(line["text"], add_special_tokens=False)[:LENGTH]
    return ids, [False] + [True] * (len(ids) - 1)


def fork_chat_sample(chat):
    """The fork: from "assistant", newline to the closing mark; the newline after it is not scored."""
    ids, scored = chat_sample(chat)
    opening = tok.encode("assistant\n", add_special_tokens=False)
    scored, i = [False] * len(ids), 0
    while i < len(ids):
        if ids[i:i + len(opening)] != opening:
            i += 1
            continue
        i += len(opening)
        while i < len(ids):
            scored[i] = True
            i += 1
            if ids[i - 1] == EOS:
                break
    return ids, scored


def chat_sample(chat):
    ids = tok.encode(tok.apply_chat_template(chat, tokenize=False), add_special_tokens=False)[:LENGTH]
    opening = tok.encode("<|im_start|>assistant\n", add_special_tokens=False)
    ending = tok.encode("<|im_end|>\n", add_special_tokens=False)
    scored, i = [False] * len(ids), 0
    while i < len(ids):
        if ids[i:i + len(opening)] != opening:
            i += 1
            continue
        begin = end = i + len(opening)
        while end < len(ids) and ids[end:end + len(ending)] != ending:
            end += 1
        for j in range(begin, min(end + len(ending), len(ids))):
            scored[j] = True
        i = end + len(ending)
    return ids, scored


def padded(samples):
    longest = max(len(ids) for ids, _ in samples)
    ids = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids, _ in samples])
    mask = torch.tensor([m + [False] * (longest - len(m)) for _, m in samples])
    return ids, mask


def token_logprobs(net, ids):
    return F.log_softmax(net(ids).logits[:, :-1].float(), -1).gather(2, ids[:, 1:, None])[..., 0]


# ---- losses ---------------------------------------------------------------------------------------------------------
def supervised(sample, weights=None):
    def loss(net, lines):
        ids, mask = padded([sample(line) for line in lines])
        lp, m = token_logprobs(net, ids), mask[:, 1:]
        w = m.float()
        if weights is not None:
            heavy = torch.isin(ids[:, 1:], torch.tensor(sorted(weights)))
            w = torch.where(heavy & m, torch.tensor(10.0), w)
        return -(lp * w).sum() / m.sum()
    return loss


def dpo(mean, beta=0.1):
    start = model()

    def scores(net, ids, mask):
        lp = token_logprobs(net, ids) * mask[:, 1:]
        return lp.sum(1) / mask[:, 1:].sum(1) if mean else lp.sum(1)

    def loss(net, lines):
        ids, mask = padded([chat_sample(l["chosen"]) for l in lines] + [chat_sample(l["rejected"]) for l in lines])
        with torch.no_grad():
            ref = scores(start, ids, mask)
        pi = scores(net, ids, mask)
        n = len(lines)
        delta = (pi[:n] - pi[n:]) - (ref[:n] - ref[n:])
        return -F.logsigmoid(beta * delta).mean()
    return loss


class WithScore(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = model().model
        self.score = torch.nn.Linear(self.net.config.hidden_size, 1, bias=False)
        torch.nn.init.zeros_(self.score.weight)


def reward(net, lines):
    def score(chat):
        ids, _ = chat_sample(chat)
        return net.score(net.net(torch.tensor([ids])).last_hidden_state[0, -1])[0]
    return torch.stack([-F.logsigmoid(score(l["chosen"]) - score(l["rejected"])) for l in lines]).mean()


def distill(alpha=0.5, t=1.5):
    teacher = model()
    with torch.no_grad():
        for name, p in teacher.named_parameters():
            if p.dim() == 2:
                p.mul_(1.5)  # another model than the student: the test scales it likewise

    def loss(net, lines):
        ids, mask = padded([chat_sample(l["conversations"]) for l in lines])
        m = mask[:, 1:]
        with torch.no_grad():
            zt = teacher(ids).logits[:, :-1].float()
        zs = net(ids).logits[:, :-1].float()
        ce = -F.log_softmax(zs, -1).gather(2, ids[:, 1:, None])[..., 0][m].mean()
        kl = (F.softmax(zt / t, -1) * (F.log_softmax(zt / t, -1) - F.log_softmax(zs / t, -1))).sum(-1)[m].mean()
        return alpha * ce + (1 - alpha) * t * t * kl
    return loss


class Lora(torch.nn.Module):
    """y = W x + B A x on the square layers, rank 8; A normal(0, 0.02) drawn in the order of the names."""

    def __init__(self):
        super().__init__()
        self.net = model().requires_grad_(False)
        g = torch.Generator().manual_seed(42)
        for name, module in sorted(self.net.named_modules()):
            if name.endswith(("q_proj", "o_proj")):
                w = module.weight
                module.A = torch.nn.Parameter(torch.normal(0.0, 0.02, (8, w.shape[1]), generator=g))
                module.B = torch.nn.Parameter(torch.zeros(w.shape[0], 8))
                module.register_forward_hook(lambda m, x, y: y + x[0] @ m.A.t() @ m.B.t())

    def forward(self, ids):
        return self.net(ids)


class ForkLora(torch.nn.Module):
    """y = W x + (16 / r) x A B on q, k and v, rank 8; A uniform(-1/sqrt(r), 1/sqrt(r)), drawn in the order of names."""

    def __init__(self):
        super().__init__()
        self.net = model().requires_grad_(False)
        g = torch.Generator().manual_seed(42)
        bound = 8 ** -0.5
        for name, module in sorted(self.net.named_modules()):
            if name.endswith(("q_proj", "k_proj", "v_proj")):
                w = module.weight
                module.lora_A = torch.nn.Parameter(torch.empty(w.shape[1], 8).uniform_(-bound, bound, generator=g))
                module.lora_B = torch.nn.Parameter(torch.zeros(8, w.shape[0]))
                module.register_forward_hook(lambda m, x, y: y + 2 * (x[0] @ m.lora_A @ m.lora_B))

    def forward(self, ids):
        return self.net(ids)


# ---- the loop -------------------------------------------------------------------------------------------------------
def train(net, lines, loss_of, acc=1, rate=RATE, early=False):
    """early: MiniMind before 2026. The rate starts at 1.1 times the rate; batch b = 1, 2, ... of an epoch ends a window
    when b + 1 is a multiple of acc; what is left at an epoch's end goes on in the next."""
    params = [p for p in net.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=rate)
    per_epoch = math.ceil(len(lines) / BATCH)
    epochs = math.ceil(STEPS / per_epoch)
    losses, s = [], 0
    for epoch in range(epochs):
        torch.manual_seed(42 + epoch)
        order = torch.randperm(len(lines)).tolist()
        for b in range(per_epoch):
            s += 1
            batch = [lines[i] for i in order[b * BATCH:(b + 1) * BATCH]]
            loss = loss_of(net, batch)
            (loss / acc).backward()
            losses.append(loss.item())
            ends = (b + 2) % acc == 0 if early else (b + 1) % acc == 0 or b + 1 == per_epoch
            if s == STEPS or ends:
                factor = 0.1 + (0.5 if early else 0.45) * (1 + math.cos(math.pi * s / (epochs * per_epoch)))
                for group in opt.param_groups:
                    group["lr"] = rate * factor
                torch.nn.utils.clip_grad_norm_(params, 1.0)
                opt.step()
                opt.zero_grad()
            if s == STEPS:
                return losses
    return losses


tags = {i for t in ("<think>", "</think>", "<answer>", "</answer>") for i in tok.encode(t, add_special_tokens=False)}
on_chat = supervised(lambda l: chat_sample(l["conversations"]))
JOBS = {
    "pretrain": ("text", lambda d: train(model(), d, supervised(text_sample), acc=2)),
    "pretrain_ref2512": ("text", lambda d: train(model(), d, supervised(bare_text_sample), acc=4, early=True)),
    "lora_fork2601": ("chat", lambda d: train(ForkLora(), d, supervised(
        lambda l: fork_chat_sample(l["conversations"])), acc=4, early=True)),
    "sft": ("chat", lambda d: train(model(), d, on_chat)),
    "lora": ("chat", lambda d: train(Lora(), d, on_chat)),
    "dpo": ("pairs", lambda d: train(model(), d, dpo(False))),
    "dpo_mean": ("pairs", lambda d: train(model(), d, dpo(True))),
    "reward": ("pairs", lambda d: train(WithScore(), d, reward)),
    "distill": ("chat", lambda d: train(model(), d, distill())),
    "distill-reason": ("thoughts", lambda d: train(model(), d, supervised(
        lambda l: chat_sample(l["conversations"]), tags))),
}
result = {"settings": {"steps": STEPS, "batch_size": BATCH, "max_seq_len": LENGTH, "learning_rate": RATE},
          "data": {k: [json.dumps(l, ensure_ascii=False) for l in v] for k, v in DATA.items()}, "jobs": {}}
for name, (data, run) in JOBS.items():
    losses = run(DATA[data])
    print(name, [round(x, 4) for x in losses[:3]], "...", round(losses[-1], 4))
    result["jobs"][name] = {"data": data, "losses": [float(f"{x:.7g}") for x in losses]}
json.dump(result, open(OUT, "w"), ensure_ascii=False, indent=0)
