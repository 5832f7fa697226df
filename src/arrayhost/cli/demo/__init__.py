"""``arrayhost demo``: what the library does, timed beside the standard library's managers in one run.

Everything that a host or a child runs lives in modules of this package and never in ``__main__``, so that the story is
the same under fork, spawn and forkserver.

=============  ======================================================================
module         its idea
=============  ======================================================================
``source``     the array that the story is about, ones or a file's, and whether memory has room
``referents``  what the hosts host besides plain arrays: two classes
``ours``       the arrayhost manager
``twin``       the standard library's manager, helped as far as it can be
``processes``  children that answer, and never outlive this process
``measuring``  calls timed and results compared
``steps``      the story, a row each
``adding``     many processes that add, exactly
``aftermath``  what a ``kill -9`` leaves
``story``      the steps run in order
``table``      the outcome for a reader
``command``    the options, the errors, the exit status
=============  ======================================================================
"""
