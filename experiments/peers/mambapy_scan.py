"""Times mambapy's parallel scan, forward and backward, with all that its Mamba block computes around it."""

import argparse
import importlib.metadata
import json
import time

import torch
from mambapy.pscan import pscan

parser = argparse.ArgumentParser(description=__doc__)
for name in ("histories", "length", "channels", "states", "repeats", "threads"):
    parser.add_argument(f"--{name}", type=int, required=True)
options = parser.parse_args()
torch.set_num_threads(options.threads)
torch.manual_seed(0)
shape = options.histories, options.length
u, b, c = (torch.randn(*shape, width).requires_grad_() for width in (options.channels, options.states, options.states))
delta = torch.rand(*shape, options.channels).requires_grad_()
decay = (-torch.arange(1.0, options.states + 1).repeat(options.channels, 1)).requires_grad_()
seconds = []
for _ in range(options.repeats + 1):
    began = time.perf_counter()
    decays = torch.exp(delta.unsqueeze(-1) * decay)
    gains = delta.unsqueeze(-1) * b.unsqueeze(2) * u.unsqueeze(-1)
    y = (pscan(decays, gains) @ c.unsqueeze(-1)).squeeze(3)
    torch.autograd.grad(y.sum(), (u, delta, decay, b, c))
    seconds.append(time.perf_counter() - began)
versions = {name: importlib.metadata.version(name) for name in ("mambapy", "torch")}
print(json.dumps({"seconds": seconds[1:], "versions": versions}))
