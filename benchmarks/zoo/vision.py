"""Networks of torchvision, for images and clips."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import segmentation, video

from zoo.public import Public, clips, images


def _image(name: str, size: int = 64, other: int = 96, **kwargs: Any) -> Public:
    def build() -> nn.Module:
        return getattr(models, name)(weights=None, num_classes=10, **kwargs)

    return Public(f"torchvision {name}", "torchvision", build, images(), (size, other))


def _masks(name: str, size: int = 64, other: int = 96) -> Public:
    def build() -> nn.Module:
        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5)

    return Public(f"torchvision {name}", "torchvision", build, images(), (size, other))


def _clip(name: str, size: int = 32, other: int = 48, frames: int = 8) -> Public:
    def build() -> nn.Module:
        return getattr(video, name)(weights=None, num_classes=10)

    return Public(f"torchvision {name}", "torchvision", build, clips(frames=frames), (size, other))


def _vit() -> nn.Module:
    return models.VisionTransformer(32, 8, 3, 4, 64, 128, num_classes=10)


NETWORKS = (
    _image("alexnet"),
    _image("vgg11"),
    _image("squeezenet1_1"),
    _image("googlenet", aux_logits=False, init_weights=False),
    _image("inception_v3", 96, 128, aux_logits=False, init_weights=False),
    _image("resnet50"),
    _image("mobilenet_v2"),
    _image("mobilenet_v3_small"),
    _image("mnasnet0_5"),
    _image("shufflenet_v2_x0_5"),
    _image("efficientnet_b0"),
    _image("efficientnet_v2_s"),
    _image("regnet_y_400mf"),
    _image("regnet_x_400mf"),
    _image("convnext_tiny"),
    _image("densenet121"),
    _image("swin_t"),
    _image("swin_v2_t"),
    _image("maxvit_t", 224, 224),
    Public("torchvision VisionTransformer", "torchvision", _vit, images(), (32, 32)),
    _masks("fcn_resnet50"),
    _masks("deeplabv3_mobilenet_v3_large"),
    _masks("lraspp_mobilenet_v3_large"),
    _clip("r3d_18"),
    _clip("mc3_18"),
    _clip("r2plus1d_18"),
)
