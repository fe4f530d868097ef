"""EPIC-KITCHENS-100 as it is published, and the paper's Epic-Kitchens* division of it."""

from karmma_ros.data.epic_kitchens.splits import EpicKitchensSettings, open_splits

__all__ = ['EpicKitchensSettings', 'open_splits']
