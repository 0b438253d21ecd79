"""Small networks train faster on one thread than they can be shared among several."""

import torch

torch.set_num_threads(1)
