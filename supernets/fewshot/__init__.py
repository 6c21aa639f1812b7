"""Few-shot NAS: a tree of supernets, each for a part of the space whose options have similar gradients.

Zhao et al., "Few-Shot Neural Architecture Search", ICML 2021, with the splits of Hu et al., "Generalizing Few-Shot NAS
with Gradient Matching", ICLR 2022.
"""

from espalier.supernets.fewshot.plan import FewShotSettings
from espalier.supernets.fewshot.split import Split
from espalier.supernets.fewshot.tree import Leaf, MakeTraining, Tree, train_tree

__all__ = ["FewShotSettings", "Leaf", "MakeTraining", "Split", "Tree", "train_tree"]
