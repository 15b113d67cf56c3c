"""How one policy, and k of them, learn from what they did: unroll, score, estimate advantages, PPO."""
