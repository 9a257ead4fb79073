"""Student and teacher split among the processes, for models that fit no single GPU: torch's `fully_shard` (FSDP2).

Each process keeps a part of every parameter, of its moments and of its average in the teacher. A block's weights are
put together just before it computes, and parted afterwards. Optimiser and teacher's average go over the parts, so
nothing of them travels.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from fastdino.distributed.world import World
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper

# By which a step calls modules besides calling them, where they have it.
FORWARD_METHODS = ("forward_packed", "of_first_tokens")


def shard(student: MultiCropWrapper, teacher: MultiCropWrapper, world: World) -> None:
    """Split both networks' parameters among all processes, in place, and move each part to its device.

    Equal weights on all processes are assumed. Optimisers are to be built afterwards.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for network in (student, teacher):
        for unit in _units(network):
            # The default leaves outermost parts together, for a backward pass that the teacher does not have.
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
            for name in FORWARD_METHODS:
                if hasattr(unit, name):
                    register_fsdp_forward_method(unit, name)
    # The student is called as one, the teacher part by part.
    fully_shard(student, mesh=mesh, reshard_after_forward=True)


def _units(network: MultiCropWrapper) -> list[nn.Module]:
    """What is put together at once, the inner ones first: blocks or stages, the rest of the backbone, the head."""
    head = cast(DINOHead, network.head)
    blocks: Any = getattr(network.backbone, "blocks", None) or network.backbone.children()
    # A list is not called, and what has no weights has nothing to split.
    inner = [unit for unit in blocks if any(True for _ in unit.parameters()) and not isinstance(unit, nn.ModuleList)]
    return [*inner, network.backbone, head.mlp, head.last_layer]
