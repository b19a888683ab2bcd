"""What LPIPS stands on: ImageNet networks as torchvision publishes them."""

from geomem.metrics.registry import WeightFile

LPIPS = "lpips"
LPIPS_VGG = "lpips_vgg"
# By label, which net of the package `lpips` it is, and the file; its name begins its SHA-256.
NETS = {LPIPS: "alex", LPIPS_VGG: "vgg"}
FILES = {LPIPS: "alexnet-owt-7be5be79.pth", LPIPS_VGG: "vgg16-397923af.pth"}
BACKBONES = {
    label: WeightFile(
        path=f"data/weights/lpips/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        url=f"https://download.pytorch.org/models/{file}",
    )
    for label, file in FILES.items()
}
