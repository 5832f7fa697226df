"""The ``arrayhost`` command; it needs the ``cli`` extra and nothing else in the package imports it."""
