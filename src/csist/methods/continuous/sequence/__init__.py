"""The posterior of the paths of a group that moves: solver, start and kernels of `csist.unmix_sequence`."""
