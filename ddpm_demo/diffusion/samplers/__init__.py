"""Samplers, one file each. A sampler walks the reverse process and yields every step.

All have the same signature. To get only the pictures, take the last step; to show or stop a run,
iterate over its steps:

    *_, last = ddpm(denoiser, x_T, schedule.timesteps(50), noise=noise)
    pictures = last.x_t

A sampler takes

    denoiser: a `Denoise`.
    x_T: (B, C, H, W) noise, or the `State` of a step, to go on from there.
    timesteps: falling, from at most T to at least 1.
    noise: a `Noise`; samplers that add noise draw from it.
    its own options, and `interventions`, which it passes on to `walk`.

It defines a `move` and returns `walk` with it. Its row in `config.samplers` makes the program offer
it.
"""
