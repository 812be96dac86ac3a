"""The inputs of the loss oracles: padded [B, T] batches whose numbers are exact in float32."""

import torch


def exact(values):
    """float64 with float32's precision: the C++ tests read the same numbers in either type."""
    return values.float().double()


def small_batch():
    """Two sequences with plain numbers, one padded token."""
    rows = lambda *r: exact(torch.tensor(r))
    return {
        "logprobs": rows([-1, -0.5, -2, -0.1], [-0.7, -1.2, -0.3, 0]),
        "old": rows([-1.2, -0.6, -1.5, -0.1], [-2, -0.8, -0.5, 0]),
        "behaviour": rows([-1.3, -0.5, -1, -0.2], [-0.9, -1.9, -0.4, 0]),
        "reference": rows([-1.1, -0.9, -1.8, -0.3], [-0.6, -1, -0.4, 0]),
        "entropy": rows([1, 0.5, 2, 0.1], [0.7, 1.2, 0.3, 0]),
        "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "lengths": [4, 3],
        "advantages": rows([1, -1])[0],
    }


def random_batch(seed, num_sequences=7, longest=9):
    """Sequences of all lengths; one with a masked token inside (a tool's output), one masked as a whole."""
    g = torch.Generator().manual_seed(seed)
    shape = (num_sequences, longest)
    lengths = [longest, 1, 5, longest - 1, 3, 2, 6][:num_sequences]
    mask = torch.tensor([[int(t < n) for t in range(longest)] for n in lengths])
    mask[0, 3] = 0
    mask[2, 1] = 0
    mask[5, :] = 0
    noise = lambda scale: torch.randn(shape, generator=g) * scale
    logprobs = -torch.rand(shape, generator=g) * 3
    old = logprobs + noise(0.3)
    pad = lambda x: exact(x * torch.tensor([[float(t < n) for t in range(longest)] for n in lengths]))
    return {
        "logprobs": pad(logprobs),
        "old": pad(old),
        "behaviour": pad(old + noise(0.3)),
        "reference": pad(logprobs + noise(0.4)),
        "entropy": pad(torch.rand(shape, generator=g) * 2 + 0.05),
        "mask": mask,
        "lengths": lengths,
        "advantages": exact(torch.randn(num_sequences, generator=g)),
    }


def batches():
    return {"small": small_batch(), "random": random_batch(1)}


def jsonable(batch):
    return {key: value.tolist() if torch.is_tensor(value) else value for key, value in batch.items()}


def rounded(value):
    """Enough digits for 1e-9, few bytes."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value
