"""Networks of timm; the larger ones with fewer or narrower layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
from torch import nn

from zoo.public import Public, images

_SMALL = {"embed_dim": 96, "depth": 3, "num_heads": 4}


def _image(name: str, size: int = 64, other: int = 96, **kwargs: Any) -> Public:
    def build() -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=10, **kwargs)

    return Public(name, "timm", build, images(), (size, other))


def _fixed(name: str, size: int = 64, **kwargs: Any) -> Public:
    """A network that is made for one size of images."""
    return _image(name, size, size, img_size=size, **kwargs)


def _called(name: str, size: int = 64, **kwargs: Any) -> Public:
    """A network whose buffers have their shapes after the first call alone, called as isthmus asks for it."""
    network = _fixed(name, size, **kwargs)

    def build() -> nn.Module:
        model = network.build()
        args, _ = network.call(2, size)
        model(*args)
        return model

    return replace(network, build=build)


NETWORKS = (
    _image("resnet18"),
    _image("resnet26d"),
    _image("seresnext26d_32x4d"),
    _image("skresnet18"),
    _image("ecaresnet26t"),
    _image("resnest14d"),
    _image("res2net50_26w_4s"),
    _image("resnetv2_50"),
    _image("resnetv2_50x1_bit"),
    _image("nf_resnet26"),
    _image("eca_nfnet_l0"),
    _image("cspresnet50"),
    _image("dla46_c"),
    _image("dpn48b"),
    _image("vgg11_bn"),
    _image("selecsls42b"),
    _image("hrnet_w18_small"),
    _image("regnety_002"),
    _image("rexnetr_200"),
    _image("repvgg_a0"),
    _image("mobileone_s0"),
    _image("mobilenetv2_035"),
    _image("mobilenetv3_small_050"),
    _image("mobilenetv4_conv_small"),
    _image("mnasnet_small"),
    _image("efficientnet_lite0"),
    _image("tf_efficientnetv2_b0"),
    _image("mixnet_s"),
    _image("fbnetc_100"),
    _image("ghostnet_050"),
    _image("lcnet_050"),
    _image("tinynet_e"),
    _image("hgnetv2_b0"),
    _image("convnextv2_atto"),
    _image("convmixer_768_32"),
    _image("edgenext_xx_small"),
    _image("starnet_s1"),
    _image("inception_next_atto"),
    _image("fastvit_t8"),
    _image("repvit_m0_9"),
    _image("mambaout_femto"),
    _image("poolformer_s12"),
    _image("caformer_s18"),
    _image("efficientformerv2_s0", 224, 224),
    _image("efficientvit_b0"),
    _image("efficientvit_m0", 224, 224),
    _image("focalnet_tiny_srf"),
    _image("xception41"),
    _image("test_byobnet"),
    _image("test_efficientnet_evos"),
    _image("inception_v4", 96, 128),
    _fixed("vit_tiny_patch16_224"),
    _fixed("vit_small_patch16_224"),
    _fixed("vit_relpos_small_patch16_224", **_SMALL),
    _fixed("deit3_small_patch16_224", **_SMALL),
    _fixed("deit_tiny_distilled_patch16_224"),
    _fixed("deit_small_distilled_patch16_224"),
    _fixed("beit_base_patch16_224", **_SMALL),
    _fixed("eva02_tiny_patch14_224", 56, depth=3),
    _fixed("eva02_small_patch14_224", 56, depth=3),
    _fixed("cait_xxs24_224", depth=4),
    _fixed("xcit_nano_12_p16_224", depth=4),
    _image("pit_ti_224", 224, 224),
    _image("levit_128s", 224, 224),
    _fixed("twins_svt_small"),
    _fixed("swin_tiny_patch4_window7_224", 56, depths=(2, 2), num_heads=(3, 6)),
    _fixed("swinv2_tiny_window8_256", 64, depths=(2, 2), num_heads=(3, 6)),
    _image("maxvit_rmlp_pico_rw_256", 256, 256),
    _image("coatnet_0_rw_224", 224, 224),
    _fixed("coat_lite_tiny"),
    _fixed("coat_lite_small"),
    _called("convit_tiny", depth=12),
    _image("crossvit_tiny_240", 240, 240),
    _image("crossvit_small_240", 240, 240),
    _image("davit_tiny"),
    _image("gcvit_xxtiny", 224, 224),
    _fixed("hiera_tiny_224", 224),
    _fixed("mixer_s32_224"),
    _fixed("resmlp_12_224"),
    _fixed("gmlp_ti16_224"),
    _image("mobilevit_xxs"),
    _image("mobilevitv2_050"),
    _fixed("mvitv2_tiny", 224),
    _fixed("nest_tiny", 224),
    _image("nextvit_small"),
    _image("pvt_v2_b0"),
    _image("sequencer2d_s", 224, 224),
    _image("tiny_vit_5m_224", 224, 224),
    _fixed("volo_d1_224", 64),
)
