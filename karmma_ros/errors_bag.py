"""What may be wrong with a bag as a whole."""

from __future__ import annotations

from karmma_ros.errors import PathError


class BagError(PathError):
    """A bag, or what is wanted of it, cannot be read."""

    what = 'bag'
