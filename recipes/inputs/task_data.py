"""The images of a task, as the settings of a command name them."""

from __future__ import annotations

from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.classification_data import ClassifiedImages
from espalier.recipes.inputs.model_source import ModelSource
from espalier.recipes.inputs.super_resolution_data import EnlargedImages
from espalier.recipes.inputs.task_images import TaskImages
from espalier.recipes.inputs.without_data import WithoutData


def images_for(settings: PruneSettings, source: ModelSource) -> TaskImages:
    """The images that the settings name, as the given network takes them, or what stands in for them."""
    if settings.inputs is not None:
        return WithoutData(settings)
    if settings.super_resolution is not None:
        return EnlargedImages(settings, on_luma=source.on_luma)
    return ClassifiedImages(settings, settings.data.normalisation or source.normalisation, source.classes)
