"""Makes tests/oracles/data/io/pth: files as torch.save writes them, and their tensors as safetensors (expected).

  make_pth.py        (torch, safetensors)
"""

import argparse
import collections
import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent.parent / "data/io/pth"


def write(name, value, expected, **options):
    torch.save(value, OUT / f"{name}.pth", **options)
    if expected is not None:
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in expected.items()},
                  OUT / f"{name}.safetensors")


def dtypes():
    number = torch.arange(-5, 7)
    return {"float": torch.randn(3, 4), "half": torch.randn(5).half(), "bfloat16": torch.randn(2, 3).bfloat16(),
            "double": torch.randn(2).double(), "long": number * 10**12, "int": (number * 10**5).int(),
            "byte": number.abs().byte(), "bool": number > 0, "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3)}


def main():
    torch.manual_seed(1)
    OUT.mkdir(parents=True, exist_ok=True)
    flat = dtypes()
    write("dtypes", flat, flat)
    write("protocol_4", flat, flat, pickle_protocol=4)
    write("protocol_5", collections.OrderedDict(flat), flat, pickle_protocol=5)
    small = {"short": torch.arange(-3, 4).short(), "char": torch.arange(-3, 4).char()}
    write("small_integers", small, None)

    base = torch.randn(6, 8)
    views = {"base": base, "transposed": base.t(), "column": base[:, 3], "inner": base[1:4, 2:6], "every_other": base[::2],
             "last": base[5, 7], "again": base}
    write("views", views, views)

    model = torch.nn.Sequential(collections.OrderedDict(a=torch.nn.Linear(3, 4), b=torch.nn.LayerNorm(4)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(2, 3)).pow(2).sum().backward()
    optimizer.step()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "step": -7, "loss": 0.25,
                  "run": None, "done": False, "sizes": [1, (2, 3)], "parameter": torch.nn.Parameter(torch.randn(2)),
                  "big": 1 << 40, "history": [torch.ones(2), torch.zeros(1)]}
    expected = {f"model/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        expected |= {f"optimizer/state/{index}/{key}": value for key, value in state.items()}
    expected |= {"parameter": checkpoint["parameter"], "history/0": torch.ones(2), "history/1": torch.zeros(1)}
    write("checkpoint", checkpoint, expected)

    write("old_format", {"a": torch.ones(1)}, None, _use_new_zipfile_serialization=False)
    write("foreign_object", {"a": torch.ones(1), "arguments": argparse.Namespace(lr=1)}, None)
    write("tensor_alone", torch.ones(2), None)
    write("complex", {"a": torch.ones(2, dtype=torch.complex64)}, None)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)), OUT / "scripted.pth")


if __name__ == "__main__":
    main()
