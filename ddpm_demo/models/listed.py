"""The Hub's repos that the app and the command line offer."""

LISTED = {
    "google/ddpm-cifar10-32": "CIFAR-10, ten classes of small photos, 32 × 32, 143 MB",
    "google/ddpm-celebahq-256": "CelebA-HQ, portraits, 256 × 256, 455 MB",
    "google/ddpm-ema-celebahq-256": "CelebA-HQ, portraits, averaged weights, 256 × 256, 455 MB",
    "google/ddpm-church-256": "LSUN, churches, 256 × 256, 455 MB",
    "google/ddpm-bedroom-256": "LSUN, bedrooms, 256 × 256, 455 MB",
    "google/ddpm-cat-256": "LSUN, cats, 256 × 256, 455 MB",
}
DATASETS = {"google/ddpm-cifar10-32": "cifar10"}  # listed repos whose data set has a classifier
