"""The networks that can be backbones: where their weights are, and what they cost.

The sources of Keras 3.15 name the files without the top and their hashes; MobileNet's and MobileNetV2's have none there.
ImageNet's top-1 accuracy is what https://keras.io/api/applications/ states; for MobileNetV3, the module in Keras; for
MobileNetV2 at 0.35 of its width, research/slim/nets/mobilenet of https://github.com/tensorflow/models.
"""

# ruff: noqa: E501  # a network on each line

from typing import Any, NamedTuple

HOST = "https://storage.googleapis.com/"


class Network(NamedTuple):
    """A network of keras.applications without its top."""

    function: str  # name in keras.applications
    url: str  # address of its weights; a path if they are in Git
    hash: str  # the file's: algorithm, colon and digits; empty if its publisher names none
    megabytes: float  # size of the weights
    gflop: float  # floating-point operations for an image of 224 x 224 pixels: two for a multiplication and an addition
    top1: float  # percent of ImageNet's validation images, with its top
    options: dict[str, Any] = {}  # noqa: RUF012  # arguments of the function

    @property
    def file(self) -> str:
        """Name of the file with the weights."""
        return self.url.rpartition("/")[2]


def _keras(function: str, path: str, digest: str, megabytes: float, gflop: float, top1: float) -> Network:
    folder = "" if function.startswith("EfficientNetB") else "tensorflow/"
    return Network(function, f"{HOST}{folder}keras-applications/{path}", digest, megabytes, gflop, top1)


# fmt: off
PUBLISHED = (
    _keras("ConvNeXtBase", "convnext/convnext_base_notop.h5", "sha256:40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45", 350, 31, 85.3),
    _keras("ConvNeXtLarge", "convnext/convnext_large_notop.h5", "sha256:96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd", 785, 69, 86.3),
    _keras("ConvNeXtSmall", "convnext/convnext_small_notop.h5", "sha256:6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab", 198, 17, 82.3),
    _keras("ConvNeXtTiny", "convnext/convnext_tiny_notop.h5", "sha256:d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", 111, 8.9, 81.3),
    _keras("ConvNeXtXLarge", "convnext/convnext_xlarge_notop.h5", "sha256:de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05", 1390, 122, 86.7),
    _keras("DenseNet121", "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:30ee3e1110167f948a6b9946edeeb738", 28.2, 5.7, 75.0),
    _keras("DenseNet169", "densenet/densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:b8c4d4c20dd625c148057b9ff1c1176b", 50.6, 6.7, 76.2),
    _keras("DenseNet201", "densenet/densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:c13680b51ded0fb44dff2d8f86ac8bb1", 73.3, 8.6, 77.3),
    _keras("EfficientNetB0", "efficientnetb0_notop.h5", "md5:50bc09e76180e00e4465e1a485ddc09d", 16.2, 0.77, 77.1),
    _keras("EfficientNetB1", "efficientnetb1_notop.h5", "md5:74c4e6b3e1f6a1eea24c589628592432", 26.3, 1.1, 79.1),
    _keras("EfficientNetB2", "efficientnetb2_notop.h5", "md5:111f8e2ac8aa800a7a99e3239f7bfb39", 31.1, 1.3, 80.1),
    _keras("EfficientNetB3", "efficientnetb3_notop.h5", "md5:af6d107764bb5b1abb91932881670226", 43.1, 1.9, 81.6),
    _keras("EfficientNetB4", "efficientnetb4_notop.h5", "md5:ebc24e6d6c33eaebbd558eafbeedf1ba", 70.7, 3, 82.9),
    _keras("EfficientNetB5", "efficientnetb5_notop.h5", "md5:38879255a25d3c92d5e44e04ae6cec6f", 114, 4.7, 83.6),
    _keras("EfficientNetB6", "efficientnetb6_notop.h5", "md5:9ecce42647a20130c1f39a5d4cb75743", 164, 6.7, 84.0),
    _keras("EfficientNetB7", "efficientnetb7_notop.h5", "md5:cbcfe4450ddf6f3ad90b1b398090fe4a", 256, 10, 84.3),
    _keras("EfficientNetV2B0", "efficientnet_v2/efficientnetv2-b0_notop.h5", "md5:893217f2bb855e2983157299931e43ff", 23.7, 1.4, 78.7),
    _keras("EfficientNetV2B1", "efficientnet_v2/efficientnetv2-b1_notop.h5", "md5:0e80663031ca32d657f9caa404b6ec37", 27.7, 2, 79.8),
    _keras("EfficientNetV2B2", "efficientnet_v2/efficientnetv2-b2_notop.h5", "md5:1dfe2e7a5d45b6632553a8961ea609eb", 35.1, 2.3, 80.5),
    _keras("EfficientNetV2B3", "efficientnet_v2/efficientnetv2-b3_notop.h5", "md5:f6abf7b5849ac99a89b50dd3fd532856", 51.7, 3.2, 82.0),
    _keras("EfficientNetV2L", "efficientnet_v2/efficientnetv2-l_notop.h5", "md5:b0b66b5c863aef5b46e8608fe1711615", 471, 24, 85.7),
    _keras("EfficientNetV2M", "efficientnet_v2/efficientnetv2-m_notop.h5", "md5:1b8dc055df72dde80d614482840fe342", 213, 11, 85.3),
    _keras("EfficientNetV2S", "efficientnet_v2/efficientnetv2-s_notop.h5", "md5:af0682fb74e8c54910f2d4393339c070", 81.3, 5.7, 83.9),
    _keras("InceptionResNetV2", "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:d19885ff4a710c122648d3b5c3b684e4", 217, 13, 80.3),
    _keras("InceptionV3", "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:bcbd6486424b2319ff4ef7d526e38f63", 87.2, 5.7, 77.9),
    _keras("MobileNet", "mobilenet/mobilenet_1_0_224_tf_no_top.h5", "", 12.9, 1.1, 70.4),
    _keras("MobileNetV2", "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "", 9.03, 0.6, 71.3),
    _keras("MobileNetV3Large", "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "md5:07fb09a5933dd0c8eaafa16978110389", 12, 0.43, 75.6),
    _keras("MobileNetV3Small", "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "md5:d3e8ec802a04aa4fc771ee12a9a9b836", 3.76, 0.11, 68.1),
    _keras("NASNetLarge", "nasnet/NASNet-large-no-top.h5", "md5:d81d89dc07e6e56530c4e77faddd61b5", 340, 48, 82.5),
    _keras("NASNetMobile", "nasnet/NASNet-mobile-no-top.h5", "md5:1ed92395b5b598bdda52abe5c0dbfd63", 17.1, 1.1, 74.4),
    _keras("ResNet101", "resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:88cf7a10940856eca736dc7b7e228a21", 171, 15, 76.4),
    _keras("ResNet101V2", "resnet/resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:c0ed64b8031c3730f411d2eb4eea35b5", 171, 14, 77.2),
    _keras("ResNet152", "resnet/resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:ee4c566cf9a93f14d82f913c2dc6dd0c", 233, 23, 76.6),
    _keras("ResNet152V2", "resnet/resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:ed17cf2e0169df9d443503ef94b23b33", 233, 22, 78.0),
    _keras("ResNet50", "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:4d473c1dd8becc155b73f8504c6f6626", 94.4, 7.7, 74.9),
    _keras("ResNet50V2", "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:fac2f116257151a9d068a22e544a4917", 94.3, 7, 76.0),
    _keras("VGG16", "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:6d6bbae143d832006294945121d1f1fc", 58.9, 31, 71.3),
    _keras("VGG19", "vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:253f8cb515780f3b799900260a226db6", 80.1, 39, 71.3),
    _keras("Xception", "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5", "md5:b0042744bf5b25fce3cb969f33bebb97", 83.4, 9.1, 79.0),
)
# fmt: on
# The smallest of MobileNetV2's widths. data/raw/mobilenetv2_035/README.md says where the file comes from.
BUILT_IN = "mobilenetv2_035"
DIGEST = "sha256:d43c70f8ea04b1087170401b2f4739f41b94200e30892ea8d050ac65779146c6"
NETWORKS = {network.function.lower(): network for network in PUBLISHED}  # name in params.yaml → network
WEIGHTS = f"data/raw/{BUILT_IN}/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
NETWORKS[BUILT_IN] = Network("MobileNetV2", WEIGHTS, DIGEST, 2, 0.12, 60.3, {"alpha": 0.35})
