"""Opens the .pth files of a folder with torch and compares them with the .safetensors file of the same name.

  open_in_torch.py FOLDER
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file

files = sorted(pathlib.Path(sys.argv[1]).glob("*.pth"))
assert len(files) >= 2, files
for file in files:
    for mmap in (False, True):
        found = torch.load(file, weights_only=True, mmap=mmap)
        expected = load_file(file.with_suffix(".safetensors"))
        assert found.keys() == expected.keys(), file
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, (file, name)
            assert torch.equal(found[name], tensor), (file, name)
    tied = found["lm_head.weight"].untyped_storage().data_ptr()
    assert tied == found["model.embed_tokens.weight"].untyped_storage().data_ptr(), file
    print(file.name, "opens with the same tensors")
