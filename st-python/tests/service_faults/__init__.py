"""The faults of the service that must not exist: each played on shared-tensor 0.2.16 and on ours.

Both packages are called ``shared_tensor``, so a side is a Python interpreter: the one that runs the
tests has ours, and ``ST_OTHER_SERVICE`` names one that has the other. A scenario is one text for
both; it runs here and talks over sockets to processes of the side that it is played on.
"""
