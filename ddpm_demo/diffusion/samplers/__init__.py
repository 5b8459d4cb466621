"""Samplers: generators that walk the reverse process and yield every step, one file each.

All have one signature, so a caller that wants the pictures drains one, and a caller that wants to
show or stop it iterates:

    *_, last = ddpm(denoiser, x_T, schedule.timesteps(50), noise=noise)
    pictures = last.x_t

A sampler takes

    denoiser: a `Denoise`.
    x_T: (B, C, H, W) noise, or the `State` of a step, to go on from there.
    timesteps: falling, from at most T to at least 1.
    noise: a `Noise`, of which samplers that add noise draw.
    its own options, and `walk`'s `interventions`, which it hands on,

and returns `walk` of its `move`. Its row in `ddpm_demo.catalog` makes it known to the program.
"""
