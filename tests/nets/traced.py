"""Every network of the registry, traced once for all tests of a process."""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import isthmus
from cases.networks import NETWORKS, Network
from cases.networks_transformers import TRANSFORMERS
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces.subnetwork import named_state

ALL = {network.name: network for network in [*NETWORKS, *TRANSFORMERS]}
CUTTABLE = [name for name, network in ALL.items() if network.kinds]


@cache
def traced(name: str) -> tuple[nn.Module, Coupling]:
    network = ALL[name]
    torch.manual_seed(3)
    model = network.build()
    for module in model.modules():  # statistics and scales that are not all alike
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if key == "running_var" or (key == "weight" and tensor.dim() == 1):
                tensor.data.uniform_(0.5, 1.5)
            elif key == "running_mean" or (key == "bias" and tensor.dim() == 1):
                tensor.data.normal_(0.0, 0.2)
    return model, isthmus.trace(model, network.inputs(3), network.kwargs)


def fresh(name: str) -> tuple[Network, nn.Module, Coupling]:
    model, coupling = traced(name)
    return ALL[name], copy.deepcopy(model), coupling


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_state(model)}


def outputs(module: nn.Module, network: Network, args: tuple[Tensor, ...]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(module(*args, **network.kwargs)) if isinstance(leaf, Tensor)]
