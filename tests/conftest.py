"""Settings that hold for every test."""

import torch

# The tests' tensors are tiny: a second thread only waits for the first, for minutes where the cores are busy.
torch.set_num_threads(1)
