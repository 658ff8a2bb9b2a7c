"""Networks F(x, c, y). They know nothing of α and σ: what c means is the Denoiser's `noise_input`."""

from scorefield.nets.classifier import Classifier
from scorefield.nets.mlp import MLP
from scorefield.nets.refinenet import RefineNet
from scorefield.nets.transformer import Transformer
from scorefield.nets.unet_adm import UNet
from scorefield.nets.unet_ddpm import DDPMUNet

__all__ = ["MLP", "Classifier", "DDPMUNet", "RefineNet", "Transformer", "UNet"]
