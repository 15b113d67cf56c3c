"""A policy as named arrays, for programs that know neither JAX nor flax."""

import hashlib
from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.policies.model import Model, Policies


def plain_arrays(model: Model, policy: Policies) -> dict[str, np.ndarray]:
    """The actor of one policy, float32, in the order in which its arrays are used.

    x = clip((obs - observation_mean) / observation_std, -observation_clip, observation_clip), all three missing where
    observations are taken as they are; then x = tanh(x @ weight_i + bias_i) for i = 0, 1, ... but without tanh for the last i,
    after which x (a,) are logits of discrete actions or a continuous action before it is clipped to [-1, 1].

    Args:
        model: of the policies.
        policy: one of them, as `one_policy` gives it.

    Returns:
        observation_mean (o,), observation_std (o,), observation_clip (1,), weight_i (in, out) and bias_i (out,).
    """
    arrays: dict[str, ArrayLike] = {}
    moments = model.normalizer.moments(policy.statistics)
    if moments is not None:
        arrays["observation_mean"], arrays["observation_std"] = moments
        arrays["observation_clip"] = np.reshape(policy.observation_clip, 1)
    parts = {**policy.params.shared, **policy.params.own}  # a trunk of all, or one of its own
    body, head = parts["body"]["params"], parts["head"]["params"]
    layers = [*(body[f"Dense_{i}"] for i in range(len(body))), head["Dense_0"]]
    for i, layer in enumerate(layers):
        arrays[f"weight_{i}"], arrays[f"bias_{i}"] = layer["kernel"], layer["bias"]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256, as hexadecimal digits, of named arrays: of each in turn its name, its shape in decimals, its bytes.

    As `f"{name} {shape}\\n"`, shape as in "64 64", and then little-endian float32 in rows; of `plain_arrays` it is that of all
    that decides what a policy does, and the safetensors of an export have the same.
    """
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {' '.join(map(str, array.shape))}\n".encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()
