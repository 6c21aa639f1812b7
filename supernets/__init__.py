"""Wing: train one network that holds every candidate, and choose an architecture from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier.nas.lazy import lazy_names

if TYPE_CHECKING:
    from espalier.supernets.darts import DARTS
    from espalier.supernets.drnas import DrNAS
    from espalier.supernets.fairnas import FairNAS
    from espalier.supernets.gdas import GDAS
    from espalier.supernets.on_images import select_by_perturbation, train_on_images
    from espalier.supernets.pada import PADA
    from espalier.supernets.proxyless import ProxylessNAS
    from espalier.supernets.sandwich import Sandwich
    from espalier.supernets.spos import SinglePathOneShot
    from espalier.supernets.strategy import Strategy

if __name__ != "espalier.supernets":
    raise ImportError("import espalier.supernets, not supernets: the folder is a part of the package espalier")

__all__ = [
    "DARTS",
    "GDAS",
    "PADA",
    "DrNAS",
    "FairNAS",
    "ProxylessNAS",
    "Sandwich",
    "SinglePathOneShot",
    "Strategy",
    "select_by_perturbation",
    "train_on_images",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DARTS": "espalier.supernets.darts",
        "DrNAS": "espalier.supernets.drnas",
        "FairNAS": "espalier.supernets.fairnas",
        "GDAS": "espalier.supernets.gdas",
        "PADA": "espalier.supernets.pada",
        "ProxylessNAS": "espalier.supernets.proxyless",
        "Sandwich": "espalier.supernets.sandwich",
        "SinglePathOneShot": "espalier.supernets.spos",
        "Strategy": "espalier.supernets.strategy",
        "select_by_perturbation": "espalier.supernets.on_images",
        "train_on_images": "espalier.supernets.on_images",
    },
)
