"""See how a diffusion model works: a real DDPM, live (Ho, Jain & Abbeel 2020)."""
