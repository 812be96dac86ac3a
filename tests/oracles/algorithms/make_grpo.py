"""Runs TRL's own GRPO loss, advantage and importance-sampling code and records what it gives.

Needs trl==1.16.0 (torch on the CPU):  python make_grpo.py ../data/algorithms/trl_grpo.json

GRPOTrainer._compute_loss is called with a stand-in for `self` that holds the settings and hands out fixed
log-probabilities. The advantages and the importance ratio are computed in the middle of a long method; the very lines
are taken from its source and executed.
"""

import collections
import inspect
import json
import sys
import textwrap
import types

import torch
import trl
import trl.trainer.grpo_trainer as grpo_trainer
from trl.trainer.grpo_trainer import GRPOTrainer

from batches import batches, exact, jsonable, rounded

# Our JSON keys -> TRL's. Keys that are not here are handled in stand_in() and importance_ratio().
ARGS = {
    "kl_times_ratio": "use_bias_correction_kl",
    "delta": "delta",
    "sapo_temperature_pos": "sapo_temperature_pos",
    "sapo_temperature_neg": "sapo_temperature_neg",
    "vespo_k_pos": "vespo_k_pos",
    "vespo_lambda_pos": "vespo_lambda_pos",
    "vespo_k_neg": "vespo_k_neg",
    "vespo_lambda_neg": "vespo_lambda_neg",
}
DEFAULT_ARGS = dict(use_bias_correction_kl=True, delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
                    vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0,
                    steps_per_generation=1)


class Alone:
    """accelerate.Accelerator of a world of one process."""

    num_processes = 1
    sync_gradients = True

    def gather(self, tensor):
        return tensor

    def reduce(self, tensor, reduction):
        return tensor

    def pad_across_processes(self, tensor, dim, pad_index):
        return tensor


def stand_in(config, logprobs, entropy):
    correction = config.get("correction", {"mode": "off"})
    cispo = config["loss_type"] == "cispo"
    trainer = types.SimpleNamespace(
        aux_loss_enabled=False, accelerator=Alone(), model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, use_adaptive_entropy=False,
        loss_type=config["loss_type"], importance_sampling_level=config.get("importance_level", "token"),
        epsilon_low=config.get("clip_low", 0.2),
        epsilon_high=config["cispo_max_ratio"] if cispo else config.get("clip_high", 0.2),
        beta=config.get("kl_beta", 0.0), max_completion_length=config.get("max_completion_length", 0),
        top_entropy_quantile=config.get("top_entropy_quantile", 1.0),
        off_policy_mask_threshold=config.get("off_policy_threshold"),
        entropy_coef=config.get("entropy_coef", 0.0), _entropy_bonus_enabled=config.get("entropy_coef", 0.0) != 0.0,
        use_vllm=correction["mode"] != "off", vllm_importance_sampling_correction=correction["mode"] != "off",
        vllm_importance_sampling_mode=f"{correction.get('level')}_{correction['mode']}",
        vllm_importance_sampling_clip_min=correction.get("low"),
        vllm_importance_sampling_clip_max=correction.get("high"),
        args=types.SimpleNamespace(**DEFAULT_ARGS), _metrics={"train": collections.defaultdict(list)},
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask, get_gamma_weights=GRPOTrainer.get_gamma_weights,
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprobs, entropy, None),
    )
    trainer.get_high_entropy_mask = lambda *args: inspect.unwrap(GRPOTrainer.get_high_entropy_mask)(trainer, *args)
    for ours, theirs in ARGS.items():
        if ours in config:
            setattr(trainer.args, theirs, config[ours])
    return trainer


def source_between(first, last):
    """The lines of _generate_and_score_completions from the one that begins with `first` up to the one with `last`."""
    lines = inspect.getsource(inspect.unwrap(GRPOTrainer._generate_and_score_completions)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i in range(start, len(lines)) if lines[i].strip().startswith(last))
    return textwrap.dedent("\n".join(lines[start:end]))


IMPORTANCE = source_between("# Compute the importance sampling ratio when using vLLM",
                            "# Compute the per-token log probabilities for the reference model")
ADVANTAGES = source_between("# A completion for which every reward function returned None",
                            "# Slice to keep only the local part of the data")


def importance_ratio(trainer, batch):
    names = dict(vars(grpo_trainer))
    names.update(self=trainer, completion_mask=batch["mask"], tool_mask=None, old_per_token_logps=batch["old"],
                 sampling_per_token_logps=batch["behaviour"])
    exec(IMPORTANCE, names)
    return names["vllm_importance_sampling_ratio"]


def run_loss(batch, config, with_old=True):
    logprobs = batch["logprobs"].clone().requires_grad_()
    entropy = batch["entropy"].clone().requires_grad_()
    trainer = stand_in(config, logprobs, entropy)
    nothing = torch.zeros(len(batch["lengths"]), 0, dtype=torch.int64)
    inputs = {"prompt_ids": nothing, "prompt_mask": nothing, "completion_ids": batch["mask"],
              "completion_mask": batch["mask"], "advantages": batch["advantages"],
              "ref_per_token_logps": batch["reference"], "num_items_in_batch": batch["mask"].sum()}
    if with_old:
        inputs["old_per_token_logps"] = batch["old"]
    if trainer.use_vllm:
        inputs["importance_sampling_ratio"] = importance_ratio(trainer, batch)
    if "off_policy_threshold" in config:
        inputs["sampling_per_token_logps"] = batch["behaviour"]
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    metrics = {key: values[-1] for key, values in trainer._metrics["train"].items()}
    entropy_grad = entropy.grad if entropy.grad is not None else torch.zeros_like(entropy)
    return {"loss": loss.item(), "grad": logprobs.grad.tolist(), "entropy_grad": entropy_grad.tolist(),
            "metrics": {key: value for key, value in metrics.items() if not key.endswith(("_min", "_max"))}}


def settings():
    """(our configuration, whether old log-probabilities are given)"""
    both = lambda **config: [(config, True)]
    out = []
    for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo"):
        length = {"max_completion_length": 12} if loss_type == "dr_grpo" else {}
        for level in ("token", "sequence"):
            for beta in ({}, {"kl_beta": 0.04, "kl_times_ratio": False}, {"kl_beta": 0.04, "kl_times_ratio": True}):
                out += both(loss_type=loss_type, importance_level=level, **length, **beta)
    for level in ("token", "sequence"):
        out += both(loss_type="sapo", importance_level=level)
        out += both(loss_type="sapo", importance_level=level, sapo_temperature_pos=2.0, sapo_temperature_neg=0.5,
                    kl_beta=0.1)
        out += both(loss_type="dapo", importance_level=level, clip_low=0.1, clip_high=0.28)
        out += both(loss_type="dapo", importance_level=level, clip_high=0.28, delta=1.5)
        out += both(loss_type="cispo", importance_level=level, cispo_max_ratio=1.3)
    out += both(loss_type="luspo", importance_level="sequence")
    out += both(loss_type="luspo", importance_level="sequence", kl_beta=0.04)
    out += both(loss_type="cispo", cispo_max_ratio=5.0, kl_beta=0.04)
    out += both(loss_type="vespo")
    out += both(loss_type="vespo", vespo_k_pos=1.5, vespo_lambda_pos=2.0, vespo_k_neg=2.5, vespo_lambda_neg=1.0)
    for level, mode, low, high in (("token", "truncate", 0.0, 3.0), ("token", "truncate", 0.9, 1.1),
                                   ("token", "mask", 0.5, 3.0), ("token", "mask", 0.8, 1.2),
                                   ("sequence", "truncate", 0.0, 1.0), ("sequence", "mask", 0.0, 3.0),
                                   ("sequence", "mask", 0.7, 1.3)):
        correction = {"mode": mode, "level": level, "low": low, "high": high}
        out += both(loss_type="dapo", correction=correction)
        out += both(loss_type="grpo", kl_beta=0.04, correction=correction)
        out += both(loss_type="vespo", correction=correction)
    for loss_type in ("dapo", "grpo"):
        out += both(loss_type=loss_type, off_policy_threshold=0.05)
        out += both(loss_type=loss_type, top_entropy_quantile=0.4)
        out += both(loss_type=loss_type, top_entropy_quantile=0.4, entropy_coef=0.01, kl_beta=0.04)
        out += both(loss_type=loss_type, entropy_coef=0.01)
        out.append(({"loss_type": loss_type, "kl_beta": 0.04}, False))
    out.append(({"loss_type": "dapo", "importance_level": "sequence"}, False))
    out.append(({"loss_type": "cispo", "cispo_max_ratio": 5.0}, False))
    return out


def run_advantages(rewards, group_size, weights, scale, aggregation):
    values = torch.tensor(rewards, dtype=torch.float64)
    trainer = types.SimpleNamespace(scale_rewards=scale, multi_objective_aggregation=aggregation,
                                    reward_weights=torch.tensor(weights, dtype=torch.float64),
                                    reward_funcs=[None] * len(weights))
    names = dict(vars(grpo_trainer))
    names.update(self=trainer, rewards_per_func=values, num_generations=group_size, device="cpu")
    exec(ADVANTAGES, names)
    to_json = lambda row: [None if value != value else value for value in row]
    return {"rewards": [to_json(row) for row in values.tolist()], "group_size": group_size, "weights": weights,
            "scale": scale, "combination": aggregation, "advantages": names["advantages"].tolist(),
            "frac_zero_std": names["is_std_zero"].double().mean().item()}


def advantage_cases():
    g = torch.Generator().manual_seed(5)
    nan = float("nan")
    one = [[1.0], [0.0], [0.0], [1.0], [0.0], [0.0], [0.0], [1.0], [1.0], [1.0], [1.0], [1.0]]
    unscored = [[1.0], [nan], [0.0], [0.5], [nan], [nan], [nan], [2.0], [1.0], [3.0], [nan], [-1.0]]
    three = exact(torch.rand(12, 3, generator=g)).tolist()
    three[2][1] = three[7][0] = nan
    three[5] = [nan, nan, nan]
    out = []
    for scale in ("group", "batch", "none"):
        out.append(run_advantages(one, 4, [1.0], scale, "sum_then_normalize"))
        out.append(run_advantages(unscored, 4, [1.0], scale, "sum_then_normalize"))
    for rewards in (exact(torch.rand(12, 3, generator=g)).tolist(), three):
        out.append(run_advantages(rewards, 4, [1.0, 0.5, -0.25], "group", "normalize_then_sum"))
    return out


def main():
    torch.set_default_dtype(torch.float64)  # literals in their code become tensors of it
    assert trl.__version__ == "1.16.0", trl.__version__
    made = batches()
    cases = []
    for config, with_old in settings():
        for name, batch in made.items():
            cases.append({"batch": name, "config": config, "with_old": with_old, **run_loss(batch, config, with_old)})
    record = {"source": f"TRL {trl.__version__}, torch {torch.__version__}, float64",
              "batches": {name: jsonable(batch) for name, batch in made.items()},
              "cases": [{key: rounded(value) for key, value in case.items()} for case in cases],
              "advantages": advantage_cases()}
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps(record, separators=(",", ":")).replace('{"batch":', '\n{"batch":') + "\n")
    print(len(cases), "losses,", len(record["advantages"]), "advantages")


if __name__ == "__main__":
    main()
