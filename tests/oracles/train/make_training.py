"""Writes tests/oracles/data/train/: optimizer, schedules and LoRA by the real torch, transformers and PEFT.

Run by hand: python tests/oracles/train/make_training.py  (torch 2.11, transformers 5.23, PEFT 0.21, float32, one thread).

adamw.safetensors, per case NAME (settings in adamw.json): two parameters w [5, 7] (decayed) and b [7] (not),
  NAME.w.0, NAME.b.0 the start; NAME.w.grad, NAME.b.grad [10, ...] the gradients of the steps before clipping;
  NAME.w, NAME.b [10, ...] the parameters after each step; NAME.norm [10] gradient norms before clipping.
schedules.json: learning-rate factors of steps 0..19 by name.
lora.safetensors: PEFT on ../models/llama: input_ids, labels, lora.NAME adapter weights, logits, loss, grad.NAME
  gradients of the adapters, merged.NAME changed base weights, merged_logits.
"""

import json
import pathlib

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data"
SCHEDULES = {
    "constant": lambda o: transformers.get_constant_schedule_with_warmup(o, 4),
    "linear": lambda o: transformers.get_linear_schedule_with_warmup(o, 4, 16),
    "cosine": lambda o: transformers.get_cosine_schedule_with_warmup(o, 4, 16),
}


def adamw_case(name, tensors, steps, lr, betas, eps, decay, clip, schedule):
    generator = torch.Generator().manual_seed(len(name))
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    w, b = torch.nn.Parameter(draw(5, 7)), torch.nn.Parameter(draw(7))
    optimizer = torch.optim.AdamW([{"params": [w], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}],
                                  lr=lr, betas=betas, eps=eps)
    scheduler = SCHEDULES[schedule](optimizer) if schedule else None
    tensors[f"{name}.w.0"], tensors[f"{name}.b.0"] = w.detach().clone(), b.detach().clone()
    kept = {"w.grad": [], "b.grad": [], "w": [], "b": [], "norm": []}
    for step in range(steps):
        w.grad, b.grad = draw(5, 7) * 3 ** (step % 3 - 1), draw(7) * 3 ** (step % 3 - 1)
        kept["w.grad"].append(w.grad.clone())
        kept["b.grad"].append(b.grad.clone())
        kept["norm"].append(torch.nn.utils.clip_grad_norm_([w, b], clip if clip else float("inf")))
        optimizer.step()
        if scheduler:
            scheduler.step()
        kept["w"].append(w.detach().clone())
        kept["b"].append(b.detach().clone())
    for key, values in kept.items():
        tensors[f"{name}.{key}"] = torch.stack(values)
    return {"name": name, "learning_rate": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps,
            "weight_decay": decay, "clip": clip, "schedule": schedule or ""}


def adamw(folder):
    tensors = {}
    cases = [adamw_case("plain", tensors, 10, 1e-2, (0.9, 0.999), 1e-8, 0.01, 0.0, None),
             adamw_case("clipped", tensors, 10, 1e-2, (0.9, 0.95), 1e-8, 0.1, 1.0, None),
             adamw_case("cosine_warmup", tensors, 10, 3e-3, (0.8, 0.99), 1e-6, 0.05, 0.5, "cosine")]
    save_file(tensors, folder / "adamw.safetensors")
    (folder / "adamw.json").write_text(json.dumps(cases, indent=1) + "\n")


def schedules(folder):
    factors = {}
    for name, make in SCHEDULES.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        factors[name] = []
        for _ in range(20):
            factors[name].append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
    (folder / "schedules.json").write_text(json.dumps(factors, indent=1) + "\n")


def lora(folder):
    base = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models" / "llama", dtype=torch.float32,
                                                             attn_implementation="eager")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj", "o_proj", "up_proj",
                                                                              "down_proj"], task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            with torch.no_grad():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
            tensors["lora." + name.replace(".default", "")] = p.detach().clone()
    ids = torch.randint(3, base.config.vocab_size, (2, 9), generator=generator)
    labels = ids.clone()
    labels[:, :3] = -100
    out = model(input_ids=ids, labels=labels)
    out.loss.backward()
    tensors |= {"input_ids": ids, "labels": labels, "logits": out.logits.detach().clone(), "loss": out.loss.detach()}
    for name, p in model.named_parameters():
        if p.requires_grad:
            tensors["grad." + name.replace(".default", "")] = p.grad.clone()
    before = {k: v.clone() for k, v in
              transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models" / "llama").state_dict().items()}
    merged = model.merge_and_unload()
    for name, value in merged.state_dict().items():
        if not torch.equal(value, before[name]):
            tensors["merged." + name] = value.detach().clone().contiguous()
    with torch.no_grad():
        tensors["merged_logits"] = merged(input_ids=ids).logits.clone()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "lora.safetensors")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    folder = ROOT / "train"
    folder.mkdir(parents=True, exist_ok=True)
    adamw(folder)
    schedules(folder)
    lora(folder)
    for file in sorted(folder.iterdir()):
        print(file.name, file.stat().st_size)


if __name__ == "__main__":
    main()
