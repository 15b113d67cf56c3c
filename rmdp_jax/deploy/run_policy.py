"""Policies of this folder by numpy alone: `load(0)(obs)`, or `python run_policy.py 0 < observations`, a JSON list a line."""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def load(policy, folder=Path(__file__).parent):
    """Policy 0..k-1 as a function of observations (..., o): actions (...) where discrete, else (..., a) in [-1, 1]."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    arrays = load_file(folder / manifest["policies"][policy]["files"]["safetensors"])
    layers = [(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range(sum(name.startswith("bias_") for name in arrays))]

    def act(obs):
        x = np.asarray(obs, np.float32)
        if "observation_mean" in arrays:
            size = arrays["observation_clip"]
            x = np.clip((x - arrays["observation_mean"]) / arrays["observation_std"], -size, size)
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight + bias)
        x = x @ layers[-1][0] + layers[-1][1]
        return x.argmax(-1) if manifest["action"]["kind"] == "discrete" else np.clip(x, -1, 1)

    return act


if __name__ == "__main__":
    act = load(int(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(act(json.loads(line)).tolist()), flush=True)
