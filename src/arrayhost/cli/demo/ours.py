"""The arrayhost side: one manager class, registered as any user would."""

import numpy as np

from arrayhost import ArrayManager
from arrayhost.cli.demo.referents import Box, LockedBox


class Arrays(ArrayManager):
    """Hosts the story's arrays."""


Arrays.register("shared_array", np.ones)
Arrays.register("Box", Box)
Arrays.register("LockedBox", LockedBox)
