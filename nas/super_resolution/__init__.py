"""Super-resolution: pairs of small and large images, networks that upscale, and their evaluation."""

from espalier.nas.super_resolution.batches import Patches, WholeImages
from espalier.nas.super_resolution.files import load_pairs
from espalier.nas.super_resolution.networks import on_luma, super_resolution_factory
from espalier.nas.super_resolution.pairs import Pair, Pairs
from espalier.nas.super_resolution.task import Quality, SuperResolution
from espalier.nas.super_resolution.validation import Validation, gain, mean_of_images, validate

__all__ = [
    "Pair",
    "Pairs",
    "Patches",
    "Quality",
    "SuperResolution",
    "Validation",
    "WholeImages",
    "gain",
    "load_pairs",
    "mean_of_images",
    "on_luma",
    "super_resolution_factory",
    "validate",
]
